"""How a policy behaves while it collects: as it is, with a wider spread, or with noise that lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..settings import Hyperparameters
from .distributions import Distribution

Behave = Callable[[Distribution, PyTree[Array], Hyperparameters], PyTree[Array]]
Start = Callable[[Array, Distribution, int], PyTree[Array]]
"""`(key, distribution, num_envs) -> noise`."""

Act = Callable[
    [Array, Distribution, PyTree[Array], PyTree[Array], Hyperparameters],
    tuple[PyTree[Array], PyTree[Array]],
]
"""`(key, distribution, policy, noise, hyperparameters) -> (action, noise)`."""

Weights = Callable[
    [Distribution, PyTree[Array], PyTree[Array], Hyperparameters], Float[Array, "*batch"] | None
]
"""`(distribution, policy, actions, hyperparameters) -> c`, or none."""


class Exploration(NamedTuple):
    """A bundle of functions; instances are the last axis of what they get.

    Attributes:
        start: `(key, distribution, num_envs) -> noise` that the first step begins with.
        act: `(key, distribution, policy, noise, hyperparameters) -> (action, noise)`, one step of every instance.
        weights: `(distribution, policy, actions, hyperparameters) -> c`, how far the return that follows an action
            is trusted as one of the policy, `[T, num_envs]`; none where the policy itself has acted.
    """

    start: Start
    act: Act
    weights: Weights


def noise_scales(hp: Hyperparameters, num_envs: int) -> Float[Array, " num_envs"]:
    """`o_i`: `exploration_noise_min` for the first `exploration_base` of the instances, then linear up to
    `exploration_noise_max`.

    >>> hp = Hyperparameters(exploration_noise_min=1.0, exploration_noise_max=2.0, exploration_base=0.5)
    >>> print(noise_scales(hp, 4))
    [1.  1.  1.5 2. ]
    """
    low, high = map(jnp.asarray, (hp.exploration_noise_min, hp.exploration_noise_max))
    return low + (high - low) * _beyond_base(hp, num_envs)


def noise_correlations(hp: Hyperparameters, num_envs: int) -> Float[Array, " num_envs"]:
    """`ρ_i`: 0 for the first `exploration_base` of the instances, `noise_correlation` for the others.

    >>> hp = Hyperparameters(noise_correlation=0.9, exploration_base=0.5)
    >>> print(noise_correlations(hp, 4))
    [0.  0.  0.9 0.9]
    """
    return jnp.where(_beyond_base(hp, num_envs) > 0.0, hp.noise_correlation, 0.0)


def _beyond_base(hp: Hyperparameters, num_envs: int) -> Float[Array, " num_envs"]:
    """0 for the first `exploration_base` of the instances, then linear up to 1 for the last."""
    place = (jnp.arange(num_envs, dtype=jnp.result_type(float)) + 1.0) / num_envs
    base = jnp.asarray(hp.exploration_base)
    return jnp.clip((place - base) / jnp.maximum(1.0 - base, 1e-6), 0.0, 1.0)


def exploring_now(hp: Hyperparameters, done: Float[Array, ""]) -> Hyperparameters:
    """Hyperparameters as they explore now: no instance does after `exploration_fraction` of the run.

    >>> hp = exploring_now(Hyperparameters(exploration_fraction=0.5), jnp.array(0.6))
    >>> print(noise_correlations(hp, 4))
    [0. 0. 0. 0.]
    """
    base = jnp.where(done < hp.exploration_fraction, hp.exploration_base, 1.0)
    return hp._replace(exploration_base=base)


def _no_noise(key: Array, distribution: Distribution, num_envs: int) -> tuple[()]:
    del key, distribution, num_envs
    return ()


def _as_it_is(
    distribution: Distribution, policy: PyTree[Array], hp: Hyperparameters
) -> PyTree[Array]:
    del distribution, hp
    return policy


def _sampling(behave: Behave) -> Act:
    """Noise of its own at every step, from what the policy becomes."""

    def act(
        key: Array,
        distribution: Distribution,
        policy: PyTree[Array],
        noise: PyTree[Array],
        hp: Hyperparameters,
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        return distribution.sample(key, behave(distribution, policy, hp)).action, noise

    return act


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


def _normals(key: Array, distribution: Distribution, num_envs: int) -> Float[Array, "num_envs k"]:
    return jax.random.normal(key, (num_envs, distribution.num_normals))


def _act_correlated(
    key: Array,
    distribution: Distribution,
    policy: PyTree[Array],
    noise: PyTree[Array],
    hp: Hyperparameters,
) -> tuple[PyTree[Array], PyTree[Array]]:
    assert distribution.from_normals is not None  # checked where the method is put together
    rho = noise_correlations(hp, len(noise))[:, None]
    fresh = jax.random.normal(key, noise.shape, noise.dtype)
    noise = rho * noise + jnp.sqrt(1.0 - rho**2) * fresh
    return distribution.from_normals(policy, noise), noise


AS_IT_IS = Exploration(_no_noise, _sampling(_as_it_is), _trust)
"""The policy acts: every published setting."""

NOISE = Exploration(_no_noise, _sampling(_widened), _clipped_ratio)
"""Instance `i` acts with `std · o_i`, and `c = clip(π(a|x) / μ(a|x), min_trace_weight, 1)`.

Source: REPPO (arXiv 2507.11019), Algorithm 1, "exploration noise scaling"; all published scales are 1.
"""

CORRELATED_NOISE = Exploration(_normals, _act_correlated, _trust)
"""The policy acts, but its noise lasts: `ε_t = ρ ε_{t−1} + sqrt(1 − ρ²) ξ_t` is what an action is made of.

Every single action is distributed as the policy's, so returns are trusted as they are; successive ones are not
independent, so an instance moves in one direction for about `1 / (1 − ρ)` steps. Choose it where a reward is found
only by pushing on (a swing-up with sparse rewards), `NOISE` where actions beyond the policy's spread are wanted.
"""
