"""The tanh-squashed diagonal normal: `u ~ Normal(mean, std)`, `a = tanh(u)`, actions in (−1, 1)^d.

Densities are those of the action, summed over the last axis (`d`, the action's dimension). Actions in another
range are `a = c · tanh(u)` with `scale = c`, a number or one per dimension: `log π(a)` is that of `tanh(u)` less
`Σ log c`. (For actions in `[low, high]`, `c` is half the range; the shift to its middle changes no density.)

Source: Haarnoja et al. (arXiv 1801.01290), appendix C, for the squashing correction.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, ScalarLike

from ._checks import match_dtype, require_same_shape, shape_text
from ._numerics import widened

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


Scale = ScalarLike | Float[Array, " d"]
"""The range of actions: one number, or one for each entry."""


class TanhNormalSample(NamedTuple):
    """One draw: the action, the `u` it came from, and its log-density in nats.

    Attributes:
        action: `a = c · tanh(u)`, `[*batch, d]`.
        pre_tanh: `u`, `[*batch, d]`; a log-density from it loses no digits near the ends.
        log_prob: `log π(a)`, `[*batch]`.
    """

    action: Float[Array, "*batch d"]
    pre_tanh: Float[Array, "*batch d"]
    log_prob: Float[Array, "*batch"]


def _log_prob_of_pre_tanh(u: Array, mean: Array, std: Array, axis: int = -1) -> Array:
    normal = -0.5 * jnp.square((u - mean) / std) - jnp.log(std) - _LOG_SQRT_2PI
    # log(1 − tanh²u) without cancellation for large |u|.
    log_slope = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
    return jnp.sum(normal - log_slope, axis=axis)


def _clipped_arctanh(action: Array, clip: ScalarLike) -> Array:
    """`atanh` of the action, kept `clip` away from ±1, and at least the least step that its dtype knows."""
    below_one = jnp.nextafter(jnp.ones((), action.dtype), jnp.zeros((), action.dtype))
    limit = jnp.minimum(1.0 - match_dtype(clip, action), below_one)
    return jnp.arctanh(jnp.clip(action, -limit, limit))


def _scale_like(scale: Scale, mean: Array) -> Array | None:
    """`c` in the shape of the mean; none where it is 1 and nothing needs doing."""
    if isinstance(scale, float | int):
        if not scale > 0:
            raise ValueError(f"scale is {scale}; it must be positive, its logarithm is taken.")
        if scale == 1:
            return None
    if jnp.ndim(scale) and jnp.shape(scale) != mean.shape[-1:]:
        raise ValueError(
            f"scale is {shape_text(jnp.shape(scale))} but must be one number or "
            f"{shape_text(mean.shape[-1:])}, one per dimension of the action."
        )
    return jnp.broadcast_to(match_dtype(scale, mean), mean.shape)


def tanh_normal_sample(
    key: Key[Array, ""] | jax.Array,
    mean: Float[Array, "*batch d"],
    std: Float[Array, "*batch d"],
    scale: Scale = 1.0,
) -> TanhNormalSample:
    """Reparameterized sample `a = c · tanh(mean + std · ε)` with its log-density.

    Keep `pre_tanh` if the density will be asked for again: `tanh_normal_log_prob` is exact with it alone.

    Args:
        key: a JAX random key.
        mean: mean of `u`.
        std: standard deviation of `u`, positive.
        scale: `c`, positive; one number or one per dimension.

    Returns:
        Action, pre-tanh `u`, and `log π(a)`; gradients flow into `mean` and `std`.

    Raises:
        ValueError: if `mean` and `std` differ in shape, or `scale` is not positive or of another shape.

    >>> draw = tanh_normal_sample(jax.random.key(0), jnp.zeros((4, 2)), jnp.ones((4, 2)))
    >>> draw.action.shape, draw.log_prob.shape
    ((4, 2), (4,))
    """
    require_same_shape(mean=mean, std=std)
    dtype, (mean, std) = widened(mean, std)
    u = mean + std * jax.random.normal(key, mean.shape, mean.dtype)
    action, log_prob = jnp.tanh(u), _log_prob_of_pre_tanh(u, mean, std)
    c = _scale_like(scale, mean)
    if c is not None:
        action, log_prob = c * action, log_prob - jnp.sum(jnp.log(c), axis=-1)
    return TanhNormalSample(action.astype(dtype), u.astype(dtype), log_prob.astype(dtype))


def tanh_normal_log_prob(
    mean: Float[Array, "*batch d"],
    std: Float[Array, "*batch d"],
    action: Float[Array, "*batch d"] | None = None,
    *,
    pre_tanh: Float[Array, "*batch d"] | None = None,
    clip: ScalarLike = 1e-6,
    scale: Scale = 1.0,
) -> Float[Array, "*batch"]:
    """Log-density of an action.

    `log π(a) = Σ_i log Normal(u_i; mean_i, std_i) − log(1 − tanh² u_i) − log c_i`, `u = atanh(a / c)`.

    Give `pre_tanh` where `u` is known: it is exact everywhere. From a bare action, `|a / c|` is limited to
    `1 − clip` before `atanh`, and to the largest number below 1, so that a saturated action has a finite density.

    Args:
        mean: mean of `u`.
        std: standard deviation of `u`.
        action: the action `a`, or
        pre_tanh: the `u` it came from; exactly one of the two.
        clip: distance kept from ±1 when only the action is known.
        scale: `c`, positive; one number or one per dimension.

    Returns:
        `log π(a)` in nats.

    Raises:
        ValueError: if not exactly one of `action` and `pre_tanh` is given, if shapes differ, or if `scale` is
            not positive.

    >>> f"{tanh_normal_log_prob(jnp.zeros(1), jnp.ones(1), jnp.zeros(1)):.4f}"
    '-0.9189'
    """
    if action is not None and pre_tanh is None:
        require_same_shape(action=action, mean=mean, std=std)
        dtype, (given, mean, std) = widened(action, mean, std)
    elif pre_tanh is not None and action is None:
        require_same_shape(pre_tanh=pre_tanh, mean=mean, std=std)
        dtype, (given, mean, std) = widened(pre_tanh, mean, std)
    else:
        which = "both" if action is not None else "neither"
        raise ValueError(f"exactly one of action and pre_tanh must be given, not {which}.")
    c = _scale_like(scale, mean)
    if pre_tanh is None:
        given = _clipped_arctanh(given if c is None else given / c, clip)
    log_prob = _log_prob_of_pre_tanh(given, mean, std)
    if c is not None:
        log_prob = log_prob - jnp.sum(jnp.log(c), axis=-1)
    return log_prob.astype(dtype)


def tanh_normal_mode(
    mean: Float[Array, "*batch d"], scale: Scale = 1.0
) -> Float[Array, "*batch d"]:
    """The action used for evaluation, `c · tanh(mean)`: the median of each component.

    It explores nothing: `tanh_normal_sample` collects data.

    Args:
        mean: mean of `u`.
        scale: `c`, positive; one number or one per dimension.

    Returns:
        The action, `[*batch, d]`.

    Raises:
        ValueError: if `scale` is not positive or of another shape.

    >>> print(tanh_normal_mode(jnp.zeros(2)))
    [0. 0.]
    """
    c = _scale_like(scale, mean)
    return jnp.tanh(mean) if c is None else c * jnp.tanh(mean)


def tanh_normal_kl(
    mean_old: Float[Array, "*batch d"],
    std_old: Float[Array, "*batch d"],
    mean_new: Float[Array, "*batch d"],
    std_new: Float[Array, "*batch d"],
) -> Float[Array, "*batch"]:
    r"""Closed-form `KL(π_old ‖ π_new)` of two tanh-normals.

    tanh is a bijection, so it equals the KL of the normals themselves:
    `Σ_i log(σ_new/σ_old) + (σ_old² + (μ_old − μ_new)²) / (2 σ_new²) − ½`.
    For the same reason no `scale` of the action appears: both densities lose the same `Σ log c`.

    Exact, and cheaper than sampling: the choice unless the published numbers are to be met as they came about,
    which is what `tanh_normal_kl_sampled` is for.

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
    dtype, (mean_old, std_old, mean_new, std_new) = widened(mean_old, std_old, mean_new, std_new)
    ratio = std_old / std_new
    shift = (mean_old - mean_new) / std_new
    terms = 0.5 * (jnp.square(ratio) + jnp.square(shift) - 1.0) - jnp.log(ratio)
    return jnp.sum(terms, axis=-1).astype(dtype)


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
    policy saturates then read as a large divergence and are pulled back from the edge. `tanh_normal_kl` has
    neither noise nor such an edge; sample where the edge is wanted, or a KL of policies without a closed form.

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
    dtype, (mean_old, std_old, mean_new, std_new) = widened(mean_old, std_old, mean_new, std_new)
    noise = jax.random.normal(key, (num_samples, *mean_old.shape), mean_old.dtype)
    old = _entries_first(mean_old)[:, None], _entries_first(std_old)[:, None]
    new = _entries_first(mean_new)[:, None], _entries_first(std_new)[:, None]
    u = old[0] + old[1] * _entries_first(noise)
    old_log_prob = _log_prob_of_pre_tanh(u, *old, axis=0)
    limited = u if clip is None else _clipped_arctanh(jnp.tanh(u), clip)
    new_log_prob = _log_prob_of_pre_tanh(limited, *new, axis=0)
    return jnp.mean(old_log_prob - new_log_prob, axis=0).astype(dtype)


def _entries_first(x: Array) -> Array:
    """An action's few entries come first: processors work along the last axis, and want a long one."""
    return jnp.moveaxis(x, -1, 0)


def tanh_normal_entropy(
    key: Key[Array, ""] | jax.Array,
    mean: Float[Array, "*batch d"],
    std: Float[Array, "*batch d"],
    num_samples: int = 16,
    scale: Scale = 1.0,
) -> Float[Array, "*batch"]:
    """Monte Carlo differential entropy `H ≈ −mean_k log π(a_k)`; there is no closed form.

    For looking at single states. A loss averages over many and has their samples' log-densities already:
    `−log_prob` of `tanh_normal_sample` is the same estimate with `num_samples = 1`, for nothing.

    Args:
        key: a JAX random key.
        mean: mean of `u`.
        std: standard deviation of `u`.
        num_samples: number of samples per state.
        scale: `c`, positive; one number or one per dimension.

    Returns:
        Entropy in nats; at most `Σ log 2c`, that of the uniform distribution on (−c, c)^d, and negative for
        a concentrated policy.

    Raises:
        ValueError: if `mean` and `std` differ in shape, `num_samples < 1`, or `scale` is not positive.

    >>> h = tanh_normal_entropy(jax.random.key(0), jnp.zeros(1), jnp.full(1, 0.01))
    >>> print(h < -2.0)
    True
    """
    require_same_shape(mean=mean, std=std)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 is needed.")
    dtype, (mean, std) = widened(mean, std)
    noise = jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
    u = mean[None] + std[None] * noise
    entropy = -jnp.mean(_log_prob_of_pre_tanh(u, mean[None], std[None]), axis=0)
    c = _scale_like(scale, mean)
    if c is not None:
        entropy = entropy + jnp.sum(jnp.log(c), axis=-1)
    return entropy.astype(dtype)
