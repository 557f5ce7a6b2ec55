"""Random keys of both styles and every kind, in everything that takes one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx._keys import as_key, expose_keys, key_kinds, restore_keys
from reppo_fx.envs import probes

from .sizes import HP, TINY, first_quick, leaves_close

KINDS = ["threefry2x32", "rbg", "unsafe_rbg"]
SPACE = {"learning_rate": rx.log_uniform(1e-4, 1e-2)}


def data(key):
    return np.asarray(jax.random.key_data(key))


def test_a_raw_key_is_the_typed_one_of_the_default_kind():
    for raw in (jax.random.PRNGKey(3), np.asarray(jax.random.PRNGKey(3))):
        key = as_key(raw)
        assert jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
        np.testing.assert_array_equal(data(key), data(jax.random.key(3)))
    traced = jax.jit(lambda key: jax.random.key_data(as_key(key)))(jax.random.PRNGKey(3))
    np.testing.assert_array_equal(traced, data(jax.random.key(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_typed_keys_of_every_kind_are_left_alone(kind):
    key = jax.random.key(5, impl=kind)
    assert str(jax.random.key_impl(as_key(key))) == kind
    tree = {"key": key, "number": jnp.ones(2)}
    again = restore_keys(expose_keys(tree), key_kinds(tree))
    assert again["key"] == key


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_raw_keys_follow_the_default_kind(kind):
    raw = jax.random.PRNGKey(5, impl=kind)
    with pytest.raises(
        ValueError, match=r"raw array of shape \[4\], and one raw key of the default"
    ):
        as_key(raw)
    with DefaultKind(kind):
        assert str(jax.random.key_impl(as_key(raw))) == kind


class DefaultKind:
    def __init__(self, kind):
        self.kind = kind

    def __enter__(self):
        jax.config.update("jax_default_prng_impl", self.kind)

    def __exit__(self, *_):
        jax.config.update("jax_default_prng_impl", "threefry2x32")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (0, "key is 0; it must be a random key"),
        ("seed", "key is 'seed'"),
        (None, "key is None"),
        (jnp.zeros(2, jnp.int32), "key is an array of int32"),
        (jnp.zeros(2), "key is an array of float32"),
        (jnp.zeros((3, 2), jnp.uint32), r"raw array of shape \[3, 2\]"),
        (jnp.zeros(3, jnp.uint32), r"raw array of shape \[3\]"),
        (jax.random.split(jax.random.key(0), 2), r"holds keys of shape \[2\]; give one"),
    ],
)
def test_what_is_no_key_gets_a_sentence(unchecked_annotations, key, message):
    with pytest.raises(ValueError, match=message):
        as_key(key)


@pytest.fixture(scope="module")
def train():
    return rx.make_train(probes.match_observation(), TINY)


def methods(train):
    settings = rx.grid(HP, discount=[0.5, 0.9])
    population = rx.make_population(train, SPACE, num_members=2, base=HP)
    mesh = jax.make_mesh((1,), ("devices",))
    return {
        "sweep": lambda key: rx.sweep(train, settings, num_seeds=2, key=key),
        "halving": lambda key: rx.successive_halving(
            train, settings, num_seeds=2, key=key, rungs=1, freed="stop"
        ),
        "population": population,
        "spread": lambda key: rx.spread_environments(train, mesh).init(key, HP),
        "sample": lambda key: rx.sample(key, 3, **SPACE),
    }


@pytest.mark.parametrize(
    "method",
    [
        "sweep",
        pytest.param("halving", marks=pytest.mark.once),
        pytest.param("population", marks=pytest.mark.once),
        "spread",
        "sample",
    ],
)
@pytest.mark.once
def test_a_raw_key_gives_the_numbers_of_the_typed_one(train, method):
    call = methods(train)[method]
    leaves_close(call(jax.random.PRNGKey(1)), call(jax.random.key(1)), rtol=0)


@pytest.mark.parametrize("kind", first_quick(["rbg", "unsafe_rbg"]))
@pytest.mark.once
def test_other_kinds_work_and_their_numbers_change_under_vmap(train, kind):
    """As the docstrings of `sweep` and its neighbours say."""
    key = jax.random.key(1, impl=kind)
    runs = rx.sweep(train, rx.grid(HP, discount=[0.5, 0.9]), num_seeds=1, key=key)
    assert np.isfinite(runs.metrics.eval_return).all()
    assert str(jax.random.key_impl(runs.state.tree.key)) == kind
    draws = jax.vmap(jax.random.normal)(jax.random.split(key, 2))
    assert draws[1] != jax.random.normal(jax.random.split(key, 2)[1])
    # A single member is not mapped, so it is the run alone.
    alone = rx.sweep(train, rx.grid(HP), num_seeds=1, key=key)
    state, _ = jax.jit(train)(jax.random.split(key, 1)[0], HP)
    leaves_close(alone.state[0, 0], state, rtol=1e-6)
