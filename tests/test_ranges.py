"""Values are checked whatever number type they come in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx._ranges import RULES, as_bytes, as_count, as_number
from reppo_fx.envs import probes
from reppo_fx.settings import check_hyperparameters

from .sizes import TINY

TYPES = [
    float,
    np.float64,
    np.float32,
    np.float16,
    jnp.float32,
    jnp.bfloat16,
    np.array,
    lambda x: np.array([0.5, x]),
    lambda x: jnp.array([0.5, x, 0.5]),
    lambda x: jnp.array([[0.5, x]]),
]
WRONG = [
    ("discount", 1.5, "must be in"),
    ("discount", -0.5, "must be in"),
    ("trace_decay", 2, "must be in"),
    ("learning_rate", 0, "must be positive"),
    ("kl_target", -1, "must be positive"),
    ("initial_temperature", -1, "must be positive"),
    ("min_std", -0.25, "must not be negative"),
    ("min_temperature", -0.05, "must not be negative"),
    ("min_temperature_spread", -1, "must not be negative"),
    ("reward_scale", np.nan, "must be finite"),
    ("entropy_target", np.inf, "must be finite"),
]


@pytest.mark.parametrize("make", TYPES)
@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_value_out_of_range_is_named(name, value, message, make):
    with pytest.raises(ValueError, match=rf"^{name}(\[[\d, ]+\])? is .*{message}"):
        check_hyperparameters(rx.Hyperparameters(**{name: make(value)}))


def test_integers_of_every_type_are_numbers():
    for make in (int, np.int64, np.uint8, jnp.int32):
        check_hyperparameters(rx.Hyperparameters(v_max=make(7)))
        with pytest.raises(ValueError, match="discount is 7; it must be in"):
            check_hyperparameters(rx.Hyperparameters(discount=make(7)))


@pytest.mark.parametrize(
    "value", [True, np.True_, jnp.array([True]), "0.9", None, [0.9], 1j, jax.random.key(0)]
)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="discount is .*must be a number, or an array of numbers"):
        check_hyperparameters(rx.Hyperparameters(discount=value))


def test_values_count_as_what_jax_makes_of_them():
    with pytest.raises(ValueError, match="learning_rate is 1e-50, 0.0 in float32; it must be pos"):
        check_hyperparameters(rx.Hyperparameters(learning_rate=1e-50))
    with pytest.raises(ValueError, match="v_max is 1e.39, inf in float32; it must be finite"):
        check_hyperparameters(rx.Hyperparameters(v_max=1e39))
    with pytest.raises(ValueError, match="v_max is an integer too large"):
        check_hyperparameters(rx.Hyperparameters(v_max=10**400))
    with pytest.raises(ValueError, match="v_min must be below v_max"):
        check_hyperparameters(rx.Hyperparameters(v_min=1.0, v_max=1.0 + 1e-12))


def test_ends_are_compared_for_each_setting():
    low, high = np.array([0.0, 5.0, 1.0]), jnp.array([1.0, 5.0, 2.0])
    with pytest.raises(ValueError, match=r"v_min\[1\] is 5.0 and v_max\[1\] is 5.0; v_min must be"):
        check_hyperparameters(rx.Hyperparameters(v_min=low, v_max=high))
    with pytest.raises(ValueError, match=r"v_min is 4.0 and v_max\[0\] is 1.0"):
        check_hyperparameters(rx.Hyperparameters(v_min=np.float32(4), v_max=high))
    with pytest.raises(ValueError, match=r"v_min has shape \[2\] and v_max has shape \[3\]"):
        check_hyperparameters(rx.Hyperparameters(v_min=low[:2], v_max=high))


def test_tracers_are_left_alone():
    jax.jit(check_hyperparameters)(rx.Hyperparameters(discount=2.0))
    with pytest.raises(ValueError, match="discount is of dtype bool"):
        jax.jit(check_hyperparameters)(rx.Hyperparameters(discount=True))


def test_rules_are_about_hyperparameters():
    assert set(RULES) <= set(rx.Hyperparameters._fields)


def test_a_run_and_a_spread_run_check_their_values():
    train = rx.make_train(probes.match_observation(), TINY)
    wrong = rx.Hyperparameters(discount=np.float32(1.5))
    with pytest.raises(ValueError, match="discount is 1.5"):
        train.init(jax.random.key(0), wrong)
    run = rx.spread_environments(train, jax.make_mesh((1,), ("devices",)))
    with pytest.raises(ValueError, match="discount is 1.5"):
        run.init(jax.random.key(0), wrong)


def test_counts_and_bytes_of_any_type():
    assert as_count("n", np.int64(2)) == as_count("n", jnp.asarray(2)) == 2
    assert as_bytes("limit", 4e9) == as_bytes("limit", np.float64(4e9)) == 4_000_000_000
    assert as_bytes("limit", 2**40) == 2**40
    for wrong in (2.0, "2", None, False):
        with pytest.raises(ValueError, match="n is .*must be a whole number"):
            as_count("n", wrong)
    with pytest.raises(ValueError, match=r"x has shape \[2\]"):
        as_number("x", np.ones(2))
    for wrong in (0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="limit is .*must be positive and finite"):
            as_bytes("limit", wrong)
