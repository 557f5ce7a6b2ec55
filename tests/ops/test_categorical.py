"""The categorical policy against SciPy, distrax and sums by hand; actions that are ruled out."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.test_util import check_grads

from reppo_fx.ops import (
    categorical_entropy,
    categorical_kl,
    categorical_log_prob,
    categorical_mean,
    categorical_sample,
)

KEY = jax.random.key(0)
LOGITS = jax.random.normal(KEY, (6, 4)) * 2.0
OTHER = jax.random.normal(jax.random.key(1), (6, 4)) * 2.0
MASKED = jnp.array([[0.3, -jnp.inf, 1.0, -jnp.inf], [-jnp.inf, -jnp.inf, -jnp.inf, 2.0]])


def probabilities(logits):
    return np.asarray(scipy.special.softmax(np.asarray(logits, np.float64), axis=-1))


def test_log_probabilities_entropy_and_mean_are_those_of_scipy():
    p, q = probabilities(LOGITS), np.arange(24.0).reshape(6, 4)
    for action in range(4):
        actions = jnp.full(6, action)
        np.testing.assert_allclose(
            categorical_log_prob(LOGITS, actions), np.log(p[:, action]), rtol=1e-5
        )
    np.testing.assert_allclose(
        categorical_entropy(LOGITS), scipy.stats.entropy(p, axis=-1), rtol=1e-5
    )
    np.testing.assert_allclose(categorical_mean(LOGITS, jnp.asarray(q)), (p * q).sum(-1), rtol=1e-5)


def test_kl_is_that_of_scipy_and_distrax():
    kl = categorical_kl(LOGITS, OTHER)
    wanted = scipy.stats.entropy(probabilities(LOGITS), probabilities(OTHER), axis=-1)
    np.testing.assert_allclose(kl, wanted, rtol=1e-4)
    theirs = distrax.Categorical(LOGITS).kl_divergence(distrax.Categorical(OTHER))
    np.testing.assert_allclose(kl, theirs, rtol=1e-4)
    np.testing.assert_allclose(categorical_kl(LOGITS, LOGITS), 0.0, atol=1e-6)
    np.testing.assert_allclose(categorical_kl(LOGITS, LOGITS + 7.0), 0.0, atol=1e-5)


def test_actions_are_drawn_as_often_as_they_are_likely():
    draw = jax.vmap(lambda key: categorical_sample(key, LOGITS[0]))(jax.random.split(KEY, 20_000))
    assert draw.action.dtype == jnp.int32
    counts = np.bincount(np.asarray(draw.action), minlength=4)
    p = probabilities(LOGITS)[0]
    np.testing.assert_allclose(counts / 20_000, p, atol=4 * np.sqrt(0.25 / 20_000))
    np.testing.assert_allclose(draw.log_prob, np.log(p)[np.asarray(draw.action)], rtol=1e-5)


def test_what_is_ruled_out_is_never_drawn_and_reaches_no_sum():
    draw = jax.vmap(lambda key: categorical_sample(key, MASKED))(jax.random.split(KEY, 500))
    assert set(np.asarray(draw.action[:, 0]).tolist()) == {0, 2}
    assert set(np.asarray(draw.action[:, 1]).tolist()) == {3}
    q = jnp.where(jnp.isinf(MASKED), jnp.nan, 1.5)
    np.testing.assert_allclose(categorical_mean(MASKED, q), 1.5, rtol=1e-6)
    p = probabilities(jnp.array([0.3, 1.0]))
    np.testing.assert_allclose(
        categorical_entropy(MASKED), [scipy.stats.entropy(p), 0.0], rtol=1e-5
    )
    assert float(categorical_log_prob(MASKED, jnp.array([1, 3]))[0]) == -np.inf
    np.testing.assert_allclose(categorical_kl(MASKED, MASKED), 0.0, atol=1e-6)
    assert float(categorical_kl(jnp.zeros(4), MASKED[0])) == np.inf


@pytest.mark.parametrize(
    "function",
    [
        categorical_entropy,
        lambda logits: categorical_mean(logits, jnp.arange(8.0).reshape(2, 4).astype(logits.dtype)),
        lambda logits: categorical_kl(jax.lax.stop_gradient(logits), logits),
        lambda logits: categorical_log_prob(logits, jnp.array([2, 3])),
    ],
    ids=["entropy", "mean", "kl", "log_prob"],
)
def test_gradients_are_those_of_finite_differences_and_finite_where_ruled_out(function):
    with jax.enable_x64(True):
        logits = jnp.float64(LOGITS[:2])
        check_grads(lambda x: function(jnp.asarray(x)), (logits,), order=1, modes=("rev",))
        gradient = jax.grad(lambda x: jnp.sum(function(x)))(jnp.float64(MASKED))
    assert jnp.isfinite(gradient).all()
    np.testing.assert_array_equal(np.asarray(gradient)[np.isinf(np.asarray(MASKED))], 0.0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_holds_extremes(dtype):
    logits = jnp.array([[6e4, 0.0, -6e4], [0.0, 0.0, 0.0]], dtype)
    for function in (
        categorical_entropy,
        lambda x: categorical_kl(x, x),
        lambda x: categorical_mean(x, x),
    ):
        value = function(logits)
        assert value.dtype == dtype
        assert jnp.isfinite(value).all()
    np.testing.assert_allclose(
        np.asarray(categorical_entropy(logits), np.float32), [0.0, np.log(3)], rtol=1e-2
    )


def test_what_is_no_action_is_nan_and_other_shapes_are_named(unchecked_annotations):
    assert jnp.isnan(categorical_log_prob(LOGITS[:2], jnp.array([-1, 4]))).all()
    with pytest.raises(ValueError, match="must be the whole number of an action"):
        categorical_log_prob(LOGITS, jnp.zeros(6))
    with pytest.raises(ValueError, match="action"):
        categorical_log_prob(LOGITS, jnp.zeros(5, int))
    with pytest.raises(ValueError, match="logits"):
        categorical_mean(LOGITS, LOGITS[:, :3])
    with pytest.raises(ValueError, match="logits_old"):
        categorical_kl(LOGITS, LOGITS[:3])
