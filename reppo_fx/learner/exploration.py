"""How a policy behaves while it collects: as it is, or with a wider spread in some of the instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..settings import Hyperparameters
from .distributions import Distribution

Behave = Callable[[Distribution, PyTree[Array], Hyperparameters], PyTree[Array]]
Weights = Callable[
    [Distribution, PyTree[Array], PyTree[Array], Hyperparameters], Float[Array, "*batch"] | None
]


class Exploration(NamedTuple):
    """A bundle of functions; instances are the last axis of what they get.

    Attributes:
        behave: `(distribution, policy, hyperparameters) -> policy` that acts.
        weights: `(distribution, policy, actions, hyperparameters) -> c`, how far the return that follows an action
            is trusted as one of the policy, `[T, num_envs]`; none where the policy itself has acted.
    """

    behave: Behave
    weights: Weights


def noise_scales(hp: Hyperparameters, num_envs: int) -> Float[Array, " num_envs"]:
    """`o_i`: `exploration_noise_min` for the first `exploration_base` of the instances, then linear up to
    `exploration_noise_max`.

    >>> hp = Hyperparameters(exploration_noise_min=1.0, exploration_noise_max=2.0, exploration_base=0.5)
    >>> print(noise_scales(hp, 4))
    [1.  1.  1.5 2. ]
    """
    place = (jnp.arange(num_envs, dtype=jnp.result_type(float)) + 1.0) / num_envs
    low, high, base = map(
        jnp.asarray, (hp.exploration_noise_min, hp.exploration_noise_max, hp.exploration_base)
    )
    share = (place - base) / jnp.maximum(1.0 - base, 1e-6)
    return low + (high - low) * jnp.clip(share, 0.0, 1.0)


def _act_as_it_is(
    distribution: Distribution, policy: PyTree[Array], hp: Hyperparameters
) -> PyTree[Array]:
    del distribution, hp
    return policy


def _trust(
    distribution: Distribution, policy: PyTree[Array], action: PyTree[Array], hp: Hyperparameters
) -> None:
    del distribution, policy, action, hp


def _widened(
    distribution: Distribution, policy: PyTree[Array], hp: Hyperparameters
) -> PyTree[Array]:
    assert distribution.widen is not None  # checked where the method is put together
    return distribution.widen(policy, lambda instances: noise_scales(hp, instances))


def _clipped_ratio(
    distribution: Distribution, policy: PyTree[Array], action: PyTree[Array], hp: Hyperparameters
) -> Float[Array, "*batch"]:
    behaviour = _widened(distribution, policy, hp)
    log_ratio = distribution.log_prob(policy, action) - distribution.log_prob(behaviour, action)
    return jnp.clip(jnp.exp(log_ratio), hp.min_trace_weight, 1.0)


AS_IT_IS = Exploration(_act_as_it_is, _trust)
"""The policy acts: every published setting."""

NOISE = Exploration(_widened, _clipped_ratio)
"""Instance `i` acts with `std · o_i`, and `c = clip(π(a|x) / μ(a|x), min_trace_weight, 1)`.

Source: REPPO (arXiv 2507.11019), Algorithm 1, "exploration noise scaling"; all published scales are 1.
"""
