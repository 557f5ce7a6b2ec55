"""The tanh-squashed diagonal normal: `u ~ Normal(mean, std)`, `a = tanh(u)`, actions in (−1, 1)^d.

Densities are those of the action, summed over the last axis (`d`, the action's dimension).
Source: Haarnoja et al. (arXiv 1801.01290), appendix C, for the squashing correction.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, ScalarLike

from ._checks import match_dtype, require_same_shape

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class TanhNormalSample(NamedTuple):
    """One draw: the action, the `u` it came from, and its log-density in nats."""

    action: Float[Array, "*batch d"]
    pre_tanh: Float[Array, "*batch d"]
    log_prob: Float[Array, "*batch"]


def _log_prob_of_pre_tanh(u: Array, mean: Array, std: Array, axis: int = -1) -> Array:
    normal = -0.5 * jnp.square((u - mean) / std) - jnp.log(std) - _LOG_SQRT_2PI
    # log(1 − tanh²u) without cancellation for large |u|.
    log_slope = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
    return jnp.sum(normal - log_slope, axis=axis)


def _clipped_arctanh(action: Array, clip: ScalarLike) -> Array:
    limit = 1.0 - match_dtype(clip, action)
    return jnp.arctanh(jnp.clip(action, -limit, limit))


def tanh_normal_sample(
    key: Key[Array, ""] | jax.Array,
    mean: Float[Array, "*batch d"],
    std: Float[Array, "*batch d"],
) -> TanhNormalSample:
    """Reparameterized sample `a = tanh(mean + std · ε)` with its log-density.

    Args:
        key: a JAX random key.
        mean: mean of `u`.
        std: standard deviation of `u`, positive.

    Returns:
        Action, pre-tanh `u`, and `log π(a)`; gradients flow into `mean` and `std`.

    Raises:
        ValueError: if `mean` and `std` differ in shape.

    >>> draw = tanh_normal_sample(jax.random.key(0), jnp.zeros((4, 2)), jnp.ones((4, 2)))
    >>> draw.action.shape, draw.log_prob.shape
    ((4, 2), (4,))
    """
    require_same_shape(mean=mean, std=std)
    u = mean + std * jax.random.normal(key, mean.shape, mean.dtype)
    return TanhNormalSample(jnp.tanh(u), u, _log_prob_of_pre_tanh(u, mean, std))


def tanh_normal_log_prob(
    mean: Float[Array, "*batch d"],
    std: Float[Array, "*batch d"],
    action: Float[Array, "*batch d"] | None = None,
    *,
    pre_tanh: Float[Array, "*batch d"] | None = None,
    clip: ScalarLike = 1e-6,
) -> Float[Array, "*batch"]:
    """Log-density of an action.

    `log π(a) = Σ_i log Normal(u_i; mean_i, std_i) − log(1 − tanh² u_i)`, `u = atanh(a)`.

    Give `pre_tanh` where `u` is known: it is exact everywhere. From a bare action, `|a|` is limited to
    `1 − clip` before `atanh`, so that a saturated action has a finite density.

    Args:
        mean: mean of `u`.
        std: standard deviation of `u`.
        action: the action `a`, or
        pre_tanh: the `u` it came from; exactly one of the two.
        clip: distance kept from ±1 when only the action is known.

    Returns:
        `log π(a)` in nats.

    Raises:
        ValueError: if not exactly one of `action` and `pre_tanh` is given, or if shapes differ.

    >>> f"{tanh_normal_log_prob(jnp.zeros(1), jnp.ones(1), jnp.zeros(1)):.4f}"
    '-0.9189'
    """
    if pre_tanh is not None and action is None:
        require_same_shape(pre_tanh=pre_tanh, mean=mean, std=std)
        return _log_prob_of_pre_tanh(pre_tanh, mean, std)
    if action is not None and pre_tanh is None:
        require_same_shape(action=action, mean=mean, std=std)
        return _log_prob_of_pre_tanh(_clipped_arctanh(action, clip), mean, std)
    given = "both" if action is not None else "neither"
    raise ValueError(f"exactly one of action and pre_tanh must be given, not {given}.")


def tanh_normal_mode(mean: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """The action used for evaluation, `tanh(mean)`: the median of each component.

    >>> print(tanh_normal_mode(jnp.zeros(2)))
    [0. 0.]
    """
    return jnp.tanh(mean)


def tanh_normal_kl(
    mean_old: Float[Array, "*batch d"],
    std_old: Float[Array, "*batch d"],
    mean_new: Float[Array, "*batch d"],
    std_new: Float[Array, "*batch d"],
) -> Float[Array, "*batch"]:
    r"""Closed-form `KL(π_old ‖ π_new)` of two tanh-normals.

    tanh is a bijection, so it equals the KL of the normals themselves:
    `Σ_i log(σ_new/σ_old) + (σ_old² + (μ_old − μ_new)²) / (2 σ_new²) − ½`.

    Args:
        mean_old: mean of the policy that collected the data.
        std_old: its standard deviation.
        mean_new: mean of the policy being improved.
        std_new: its standard deviation.

    Returns:
        The divergence in nats, never negative beyond rounding.

    Raises:
        ValueError: if the four arrays differ in shape.

    >>> one = jnp.ones(1)
    >>> print(tanh_normal_kl(0 * one, one, one, one))
    0.5
    """
    require_same_shape(mean_old=mean_old, std_old=std_old, mean_new=mean_new, std_new=std_new)
    ratio = std_old / std_new
    shift = (mean_old - mean_new) / std_new
    return jnp.sum(0.5 * (jnp.square(ratio) + jnp.square(shift) - 1.0) - jnp.log(ratio), axis=-1)


def tanh_normal_kl_sampled(
    key: Key[Array, ""] | jax.Array,
    mean_old: Float[Array, "*batch d"],
    std_old: Float[Array, "*batch d"],
    mean_new: Float[Array, "*batch d"],
    std_new: Float[Array, "*batch d"],
    num_samples: int = 16,
    clip: ScalarLike | None = None,
) -> Float[Array, "*batch"]:
    r"""Monte Carlo `KL(π_old ‖ π_new) ≈ mean_k log π_old(a_k) − log π_new(a_k)`, `a_k ~ π_old`.

    Without `clip` the estimate is unbiased. With it, the *new* density alone is taken at the action
    limited to `1 − clip`, as in the code behind the published numbers (1e-4 there): states where the old
    policy saturates then read as a large divergence and are pulled back from the edge.

    Args:
        key: a JAX random key.
        mean_old: mean of the policy that collected the data.
        std_old: its standard deviation.
        mean_new: mean of the policy being improved.
        std_new: its standard deviation.
        num_samples: number of samples per state.
        clip: distance from ±1 that the new density's actions keep, or none.

    Returns:
        The estimate in nats; single estimates may be negative.

    Raises:
        ValueError: if the arrays differ in shape or `num_samples < 1`.

    >>> one = jnp.ones((1,))
    >>> kl = tanh_normal_kl_sampled(jax.random.key(0), one, one, one, one, num_samples=4)
    >>> print(abs(kl) < 1e-6)
    True
    """
    require_same_shape(mean_old=mean_old, std_old=std_old, mean_new=mean_new, std_new=std_new)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 is needed.")
    noise = jax.random.normal(key, (num_samples, *mean_old.shape), mean_old.dtype)
    # An action's few entries come first: processors work along the last axis, and want a long one.
    first = lambda x: jnp.moveaxis(x, -1, 0)
    old = first(mean_old)[:, None], first(std_old)[:, None]
    new = first(mean_new)[:, None], first(std_new)[:, None]
    u = old[0] + old[1] * first(noise)
    old_log_prob = _log_prob_of_pre_tanh(u, *old, axis=0)
    limited = u if clip is None else _clipped_arctanh(jnp.tanh(u), clip)
    new_log_prob = _log_prob_of_pre_tanh(limited, *new, axis=0)
    return jnp.mean(old_log_prob - new_log_prob, axis=0)


def tanh_normal_entropy(
    key: Key[Array, ""] | jax.Array,
    mean: Float[Array, "*batch d"],
    std: Float[Array, "*batch d"],
    num_samples: int = 16,
) -> Float[Array, "*batch"]:
    """Monte Carlo differential entropy `H ≈ −mean_k log π(a_k)`; there is no closed form.

    Args:
        key: a JAX random key.
        mean: mean of `u`.
        std: standard deviation of `u`.
        num_samples: number of samples per state.

    Returns:
        Entropy in nats; at most `d log 2`, that of the uniform distribution on (−1, 1)^d, and negative for
        a concentrated policy.

    Raises:
        ValueError: if `mean` and `std` differ in shape or `num_samples < 1`.

    >>> h = tanh_normal_entropy(jax.random.key(0), jnp.zeros(1), jnp.full(1, 0.01))
    >>> print(h < -2.0)
    True
    """
    require_same_shape(mean=mean, std=std)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 is needed.")
    u = mean + std * jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
    return -jnp.mean(_log_prob_of_pre_tanh(u, mean, std), axis=0)
