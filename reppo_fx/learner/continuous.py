"""Actions in a box: the tanh-normal as a bundle of functions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..ops import (
    tanh_normal_entropy,
    tanh_normal_kl,
    tanh_normal_kl_sampled,
    tanh_normal_log_prob,
    tanh_normal_mode,
    tanh_normal_sample,
)
from ..settings import Hyperparameters
from .distributions import Distribution, PolicySample


class TanhNormal(NamedTuple):
    """Parameters of `u ~ Normal(mean, std)`; the action is `c·tanh(u)`."""

    mean: Float[Array, "*batch d"]
    std: Float[Array, "*batch d"]


@functools.cache
def tanh_normal(
    action_size: int, scale: float | tuple[float, ...] = 1.0, limit: float = 0.999
) -> Distribution:
    """Squashed diagonal normal on `[-c, c]^d`: `a = c·tanh(u)`, `log π(a) = log π(tanh u) − Σ log c`.

    The actor gives mean and log standard deviation, `std = exp(log_std) + min_std`. The target entropy is
    `−entropy_target·d + Σ log c`, so that a policy in other units of action has the same constraint. tanh and the
    factor are bijections, so the KL is that of the normals. The same arguments give the same bundle.

    Args:
        action_size: `d`.
        scale: `c`, for all entries or one each.
        limit: the environment gets actions clipped to this share of `c`.

    Returns:
        The bundle.

    Raises:
        ValueError: if `action_size < 1`, a scale is not positive, there are not `d` of them, or the limit is not in
            (0, 1].

    >>> import jax
    >>> from reppo_fx import Hyperparameters
    >>> d = tanh_normal(2, scale=(1.0, 3.0))
    >>> policy = d.policy(jnp.zeros((5, d.num_outputs)), Hyperparameters(min_std=0.0))
    >>> draw = d.sample(jax.random.key(0), policy)
    >>> draw.action.shape, draw.log_prob.shape, bool((abs(draw.action) < jnp.array([1.0, 3.0])).all())
    ((5, 2), (5,), True)
    """
    factors = (float(scale),) * action_size if isinstance(scale, int | float) else tuple(scale)
    _check_range(action_size, factors, limit)
    log_volume = math.fsum(map(math.log, factors))
    box = _Box(factors, limit)
    return Distribution(
        num_outputs=2 * action_size,
        policy=_policy,
        sample=box.sample,
        log_prob=box.log_prob,
        kl=lambda old, new: tanh_normal_kl(*old, *new),
        kl_sampled=_kl_sampled,
        entropy=box.entropy,
        mode=box.mode,
        to_environment=box.to_environment,
        target_entropy=lambda hp, policy: log_volume - hp.entropy_target * action_size,
        widen=_widen,
        num_normals=action_size,
        from_normals=box.from_normals,
    )


def _policy(outputs: Array, hp: Hyperparameters) -> TanhNormal:
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return TanhNormal(mean, jnp.exp(log_std) + hp.min_std)


def _kl_sampled(
    key: Array, old: TanhNormal, new: TanhNormal, *, num_samples: int, clip: float | None = None
) -> Array:
    return tanh_normal_kl_sampled(key, *old, *new, num_samples=num_samples, clip=clip)


def _widen(policy: TanhNormal, scales: Callable[[int], Array]) -> TanhNormal:
    return policy._replace(std=policy.std * scales(policy.std.shape[-2])[:, None])


class _Box(NamedTuple):
    """What depends on the range of actions.

    Attributes:
        factors: `c`, of each entry.
        limit: the environment gets actions clipped to this share of it.
    """

    factors: tuple[float, ...]
    limit: float

    def scale(self, like: Array) -> Array | float:
        """`c` for the ops, which leave it out where it is 1."""
        return 1.0 if set(self.factors) == {1.0} else jnp.asarray(self.factors, like.dtype)

    def sample(self, key: Array, policy: TanhNormal) -> PolicySample:
        draw = tanh_normal_sample(key, *policy, scale=self.scale(policy.mean))
        return PolicySample(draw.action, draw.log_prob, draw.pre_tanh)

    def log_prob(self, policy: TanhNormal, action: Array, latent: Array | None = None) -> Array:
        known = {"action": action} if latent is None else {"pre_tanh": latent}
        return tanh_normal_log_prob(*policy, **known, scale=self.scale(policy.mean))

    def entropy(self, key: Array, policy: TanhNormal, num_samples: int) -> Array:
        scale = self.scale(policy.mean)
        return tanh_normal_entropy(key, *policy, num_samples=num_samples, scale=scale)

    def mode(self, policy: TanhNormal) -> Array:
        return tanh_normal_mode(policy.mean, self.scale(policy.mean))

    def to_environment(self, action: Array) -> Array:
        largest = self.limit * jnp.asarray(self.factors, action.dtype)
        return jnp.clip(action, -largest, largest)

    def from_normals(self, policy: TanhNormal, normals: Array) -> Array:
        return self.scale(policy.mean) * jnp.tanh(policy.mean + policy.std * normals)


def _check_range(action_size: int, factors: tuple[float, ...], limit: float) -> None:
    if action_size < 1:
        raise ValueError(f"action_size is {action_size}; at least 1 is needed.")
    if len(factors) != action_size:
        raise ValueError(f"scale has {len(factors)} entries; an action has {action_size}.")
    if not all(factor > 0 and math.isfinite(factor) for factor in factors):
        raise ValueError(f"scale is {factors}; every entry must be positive and finite.")
    if not 0.0 < limit <= 1.0:
        raise ValueError(f"action_limit is {limit}; it must be in (0, 1].")
