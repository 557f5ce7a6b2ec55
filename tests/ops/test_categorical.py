"""The categorical policy against distrax, rlax and scipy, and where actions are ruled out."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from jax.test_util import check_grads
from scipy import special, stats

from reppo_fx import ops

KEY = jax.random.key(0)
ROWS, ACTIONS = 6, 4
NEVER = -np.inf


# Compiled, they take NumPy's arrays; the conformance table checks that eager calls agree.
categorical_entropy, categorical_kl, categorical_log_prob, categorical_mean, categorical_sample = (
    map(
        jax.jit,
        (
            ops.categorical_entropy,
            ops.categorical_kl,
            ops.categorical_log_prob,
            ops.categorical_mean,
            ops.categorical_sample,
        ),
    )
)


def logits(seed=0, masked=False):
    drawn = np.random.default_rng(seed).normal(size=(ROWS, ACTIONS)).astype(np.float32)
    if masked:  # in every row others, and at least one is left
        drawn[np.arange(ROWS), np.arange(ROWS) % ACTIONS] = NEVER
        drawn[0, 1:] = NEVER, NEVER, 0.5
    return drawn


@pytest.mark.parametrize("masked", [False, True])
def test_entropy_kl_and_mean_equal_scipy(masked):
    old, new = logits(0, masked), logits(1, masked)
    p, q = special.softmax(np.float64(old), -1), special.softmax(np.float64(new), -1)
    np.testing.assert_allclose(categorical_entropy(old), stats.entropy(p, axis=-1), atol=1e-6)
    np.testing.assert_allclose(categorical_kl(old, new), stats.entropy(p, q, axis=-1), atol=1e-6)
    values = np.random.default_rng(2).normal(size=old.shape).astype(np.float32)
    np.testing.assert_allclose(categorical_mean(old, values), (p * values).sum(-1), atol=1e-6)


def test_densities_entropy_and_kl_equal_distrax_and_rlax():
    old, new = jnp.asarray(logits(0)), jnp.asarray(logits(1))
    theirs, other = distrax.Categorical(old), distrax.Categorical(new)
    action = jnp.arange(ROWS) % ACTIONS
    ours = categorical_log_prob(old, action)
    np.testing.assert_allclose(ours, theirs.log_prob(action), rtol=1e-5)
    np.testing.assert_allclose(ours, rlax.softmax().logprob(action, old), rtol=1e-5)
    np.testing.assert_allclose(categorical_entropy(old), theirs.entropy(), rtol=1e-5)
    np.testing.assert_allclose(categorical_entropy(old), rlax.softmax().entropy(old), rtol=1e-5)
    np.testing.assert_allclose(categorical_kl(old, new), theirs.kl_divergence(other), rtol=1e-4)


def test_by_hand():
    row = np.log(np.float32([0.5, 0.25, 0.25])) + 7.0
    np.testing.assert_allclose(categorical_entropy(row), 1.5 * np.log(2.0), rtol=1e-6)
    np.testing.assert_allclose(categorical_mean(row, np.float32([4.0, 8.0, 0.0])), 4.0, rtol=1e-6)
    uniform = np.zeros(3, np.float32)
    expected = np.log(3.0) - 1.5 * np.log(2.0)
    np.testing.assert_allclose(categorical_kl(row, uniform), expected, rtol=1e-5)


def test_samples_have_the_policys_shares_and_their_own_log_probability():
    row = logits(3)[0]
    row[1] = NEVER
    many = np.broadcast_to(row, (40_000, ACTIONS))
    draw = categorical_sample(KEY, many)
    assert draw.action.dtype == jnp.int32
    shares = np.bincount(draw.action, minlength=ACTIONS) / len(many)
    p = special.softmax(np.float64(row))
    assert shares[1] == 0.0
    # Four standard errors of a share.
    assert np.all(np.abs(shares - p) <= 4 * np.sqrt(p * (1 - p) / len(many)))
    np.testing.assert_array_equal(draw.log_prob, categorical_log_prob(many, draw.action))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_what_is_ruled_out_is_never_drawn_and_is_as_if_it_were_not_there(dtype):
    full = jnp.asarray(logits(4), dtype)
    with_more = jnp.concatenate([full, jnp.full((ROWS, 2), NEVER, dtype)], axis=-1)
    values = jnp.asarray(logits(5), dtype)
    spoiled = jnp.concatenate([values, jnp.full((ROWS, 2), jnp.nan, dtype)], axis=-1)
    new = jnp.asarray(logits(6), dtype)
    new_more = jnp.concatenate([new, jnp.full((ROWS, 2), NEVER, dtype)], axis=-1)
    for some, all_of_them in (
        (ops.categorical_entropy(full), ops.categorical_entropy(with_more)),
        (ops.categorical_mean(full, values), ops.categorical_mean(with_more, spoiled)),
        (ops.categorical_kl(full, new), ops.categorical_kl(with_more, new_more)),
    ):
        assert some.dtype == dtype
        np.testing.assert_array_equal(some, all_of_them)
    draws = jax.vmap(lambda key: ops.categorical_sample(key, with_more).action)(
        jax.random.split(KEY, 200)
    )
    assert int(draws.max()) < ACTIONS


def test_no_gradient_is_nan_or_reaches_what_is_ruled_out():
    masked = jnp.asarray(logits(0, masked=True))
    spoiled = jnp.where(jnp.isneginf(masked), jnp.nan, 1.0 + jnp.zeros_like(masked))
    action = jnp.argmax(masked, axis=-1)
    new = jnp.where(jnp.isneginf(masked), NEVER, jnp.asarray(logits(1)))
    for function in (
        ops.categorical_entropy,
        lambda x: ops.categorical_mean(x, spoiled),
        lambda x: ops.categorical_kl(x, new),
        lambda x: ops.categorical_kl(new, x),
        lambda x: ops.categorical_log_prob(x, action),
        lambda x: ops.categorical_sample(KEY, x).log_prob,
    ):
        gradient = jax.grad(lambda x, function=function: function(x).sum())(masked)
        assert np.isfinite(gradient).all()
        assert (np.asarray(gradient)[np.isneginf(masked)] == 0).all()


def test_gradients():
    with jax.enable_x64(True):
        old, new, values = (jnp.float64(logits(seed)) for seed in range(3))
        action = jnp.arange(ROWS) % ACTIONS

        def everything(old, new, values):
            return [
                ops.categorical_entropy(old),
                ops.categorical_kl(old, new),
                ops.categorical_mean(old, values),
                ops.categorical_log_prob(old, action),
                ops.categorical_sample(KEY, old).log_prob,
            ]

        check_grads(jax.jit(everything), (old, new, values), 2, modes=["rev"], rtol=1e-4)


def test_an_action_that_there_is_not_has_no_probability():
    row = np.zeros((1, 3), np.float32)
    for action in (-1, 3):
        assert np.isnan(categorical_log_prob(row, np.array([action]))[0])
    assert np.isneginf(categorical_log_prob(np.float32([[0.0, NEVER]]), np.array([1])))[0]
    assert np.isposinf(categorical_kl(np.zeros(2, np.float32), np.float32([0.0, NEVER])))


def test_what_does_not_fit_is_named(unchecked_annotations):
    two, three = np.zeros((4, 2), np.float32), np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"logits is \[4, 2\] but values is \[4, 3\]"):
        ops.categorical_mean(two, three)
    with pytest.raises(ValueError, match=r"logits_old is \[4, 2\] but logits_new is \[4, 3\]"):
        ops.categorical_kl(two, three)
    with pytest.raises(ValueError, match=r"action is \[3\] but"):
        ops.categorical_log_prob(two, np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="action is of float32; it must be the whole number"):
        ops.categorical_log_prob(two, np.zeros(4, np.float32))
