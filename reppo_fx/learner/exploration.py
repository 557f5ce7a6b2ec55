"""How a policy behaves while it collects: as it is, with a wider spread, or with noise that lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..settings import Hyperparameters
from .distributions import Distribution
from .rollout import Transition

# Share of a step in the moving average of rewards, at least: where nothing is discounted too it goes on.
SLOWEST = 1e-3
# What a fit may leave of the squares of what was paid.
UNEXPLAINED = 1e-3
# Steps that a fit needs for each of its numbers.
ROWS = 10

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

Observe = Callable[[PyTree[Array], Transition, Hyperparameters], PyTree[Array]]
"""`(noise, transitions, hyperparameters) -> noise`, once a rollout is collected."""

Share = Callable[[PyTree[Array], Hyperparameters, int], Float[Array, ""]]
"""`(noise, hyperparameters, num_envs) -> share`."""


def _unchanged(noise: PyTree[Array], transitions: Transition, hp: Hyperparameters) -> PyTree[Array]:
    del transitions, hp
    return noise


class Exploration(NamedTuple):
    """A bundle of functions; instances are the last axis of what they get.

    Attributes:
        start: `(key, distribution, num_envs) -> noise` that the first step begins with.
        act: `(key, distribution, policy, noise, hyperparameters) -> (action, noise)`, one step of every instance.
        weights: `(distribution, policy, actions, hyperparameters) -> c`, how far the return that follows an action
            is trusted as one of the policy, `[T, num_envs]`; none where the policy itself has acted.
        share: `(noise, hyperparameters, num_envs) -> share`, how many of the instances explore.
        observe: `(noise, transitions, hyperparameters) -> noise`, once a rollout is collected.
    """

    start: Start
    act: Act
    weights: Weights
    share: Share
    observe: Observe = _unchanged


class LastingNoise(NamedTuple):
    """What noise that lasts goes on from.

    Attributes:
        normals: `ε_t` of every instance.
        rewards: of each instance, `Σ_k (1 − γ) γ^k r_{t−k}`, across episodes: those of about `1 / (1 − γ)` steps.
        weight: `Σ_k (1 − γ) γ^k` of the steps so far, from 0 towards 1.
        lowest: the lowest reward so far.
        density: `reward_density` of these, kept since every step asks for it; 0 at the start.
    """

    normals: Float[Array, "num_envs k"]
    rewards: Float[Array, " num_envs"]
    weight: Float[Array, " num_envs"]
    lowest: Float[Array, ""]
    density: Float[Array, ""]


def reward_density(
    rewards: Float[Array, " num_envs"], lowest: Float[Array, ""]
) -> Float[Array, ""]:
    """`(E d)² / E d²`, `d = r − lowest`: 1 where all instances earn alike, and `p` where a share `p` of them does.

    It knows neither unit nor zero of the rewards. Where nothing has ever been above the lowest reward it is 0.

    Args:
        rewards: of each instance, a mean over some time.
        lowest: the lowest reward that has been seen.

    Returns:
        From 0 to 1.

    >>> print(reward_density(jnp.array([0.0, 0.0, 0.0, 2.0]), jnp.array(0.0)))
    0.25
    """
    above = rewards - lowest
    rounding = 64.0 * jnp.finfo(above.dtype).eps * jnp.abs(lowest)
    largest = jnp.max(above)
    some = largest > rounding
    # Of the largest: squares of a tiny unit would be 0.
    share = jnp.where(some, above, 0.0) / jnp.where(some, largest, 1.0)
    square = jnp.mean(jnp.square(share))
    return jnp.minimum(jnp.square(jnp.mean(share)) / jnp.where(square > 0.0, square, 1.0), 1.0)


def without_prices(
    rewards: Float[Array, "*batch"], actions: PyTree[Array], counts: Bool[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Rewards with 0 where nothing but the price of an action was paid.

    Where an action costs and a goal pays, as in MountainCarContinuous, every instance earns alike until the goal is
    found, and nothing of it says where to look. So if most steps pay nothing above 0, and what these pay is a
    function of their actions alone, `Σ_i b_i |a_i| + c_i a_i²` but for a thousandth, it counts as nothing.

    Args:
        rewards: of a rollout.
        actions: as the environment got them, `[*batch, ...]`. Integers are not looked at, nor are more than a
            twentieth as many numbers as there are steps.
        counts: where there is a reward.

    Returns:
        The rewards, or those without prices.

    >>> action = jnp.linspace(-1.0, 1.0, 64).reshape(8, 8, 1)
    >>> price = -0.1 * action[..., 0] ** 2
    >>> goal = jnp.zeros((8, 8)).at[3, 4].set(100.0)
    >>> everywhere = jnp.ones((8, 8), bool)
    >>> rewards = without_prices(jnp.where(goal > 0.0, goal, price), action, everywhere)
    >>> print(rewards.min(), rewards.max(), rewards.sum())
    0.0 100.0 100.0
    """
    numbers = [x for x in jax.tree.leaves(actions) if jnp.issubdtype(x.dtype, jnp.floating)]
    flat = [x.reshape(rewards.size, -1) for x in numbers]
    if not flat or rewards.size < 2 * ROWS * sum(x.shape[1] for x in flat):
        return rewards
    action = jnp.concatenate(flat, axis=1)
    terms = jnp.concatenate([jnp.abs(action), jnp.square(action)], axis=1)
    paid = counts & (rewards <= 0.0)
    prices = jnp.where(paid, rewards, 0.0)
    most = 2 * jnp.sum(paid) >= jnp.sum(counts)
    # Where all are alike, nothing is said of actions.
    differ = jnp.min(prices) < jnp.max(jnp.where(paid, rewards, -jnp.inf))
    explained = _is_sum(prices.ravel(), jnp.where(paid.ravel()[:, None], terms, 0.0))
    return jnp.where(paid & most & differ & explained, 0.0, rewards)


def _is_sum(numbers: Float[Array, " n"], terms: Float[Array, "n k"]) -> Bool[Array, ""]:
    """Whether numbers are a weighted sum of their terms, but for `UNEXPLAINED`; in units of the largest of each."""
    largest = jnp.max(jnp.abs(numbers))
    y = numbers / jnp.where(largest > 0.0, largest, 1.0)
    most = jnp.max(terms, axis=0)
    x = terms / jnp.where(most > 0.0, most, 1.0)
    # A little is added to what may be singular: actions that all cost the same.
    gram = x.T @ x + 1e-6 * len(y) * jnp.eye(x.shape[1], dtype=x.dtype)
    left = y - x @ jnp.linalg.solve(gram, x.T @ y)
    return jnp.sum(jnp.square(left)) <= UNEXPLAINED * jnp.sum(jnp.square(y))


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


def _no_noise(key: Array, distribution: Distribution, num_envs: int) -> tuple[()]:
    del key, distribution, num_envs
    return ()


def _as_it_is(
    distribution: Distribution, policy: PyTree[Array], hp: Hyperparameters
) -> PyTree[Array]:
    del distribution, hp
    return policy


def _none_explore(noise: PyTree[Array], hp: Hyperparameters, num_envs: int) -> Float[Array, ""]:
    del noise, hp, num_envs
    return jnp.zeros(())


def _those_beyond_base(
    noise: PyTree[Array], hp: Hyperparameters, num_envs: int
) -> Float[Array, ""]:
    del noise
    return jnp.mean(_beyond_base(hp, num_envs) > 0.0)


def _those_with_lasting_noise(
    noise: LastingNoise, hp: Hyperparameters, num_envs: int
) -> Float[Array, ""]:
    return _lasts(noise, hp) * _those_beyond_base(noise, hp, num_envs)


def _lasts(noise: LastingNoise, hp: Hyperparameters) -> Bool[Array, ""]:
    return noise.density <= hp.exploration_density


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


def _first_normals(key: Array, distribution: Distribution, num_envs: int) -> LastingNoise:
    normals = jax.random.normal(key, (num_envs, distribution.num_normals))
    none = jnp.zeros(num_envs, normals.dtype)
    return LastingNoise(
        normals, none, none, jnp.array(jnp.inf, none.dtype), jnp.zeros((), none.dtype)
    )


def _act_correlated(
    key: Array,
    distribution: Distribution,
    policy: PyTree[Array],
    noise: LastingNoise,
    hp: Hyperparameters,
) -> tuple[PyTree[Array], LastingNoise]:
    assert distribution.from_normals is not None  # checked where the method is put together
    normals = noise.normals
    rho = jnp.where(_lasts(noise, hp), noise_correlations(hp, len(normals)), 0.0)[:, None]
    fresh = jax.random.normal(key, normals.shape, normals.dtype)
    normals = rho * normals + jnp.sqrt(1.0 - rho**2) * fresh
    return distribution.from_normals(policy, normals), noise._replace(normals=normals)


def _take_in_rewards(
    noise: LastingNoise, transitions: Transition, hp: Hyperparameters
) -> LastingNoise:
    """A step of a moving average for each row of a rollout, but for those where the simulator failed.

    After an end for good nothing is paid: that counts like a horizon of zeros, so that a goal which ends costs, and
    a fall which ends gains, are seen. What actions cost is left out where it is all that is paid.
    """
    rate = jnp.maximum(1.0 - jnp.asarray(hp.discount), SLOWEST)

    def take_in(
        before: tuple[Array, Array], row: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        (rewards, weight), (reward, counts, ended) = before, row
        rewards = (1.0 - rate) * rewards + rate * reward
        weight = (1.0 - rate) * weight + rate * counts
        kept = jnp.where(ended, jnp.exp(-1.0), 1.0)
        return (kept * rewards, kept * weight + 1.0 - kept), None

    counts = ~transitions.nonfinite
    ended = transitions.terminated & counts
    reward = without_prices(transitions.reward, transitions.action, counts)
    rows = jnp.where(counts, reward, 0.0), counts, ended
    (rewards, weight), _ = jax.lax.scan(take_in, (noise.rewards, noise.weight), rows)
    paid = jnp.min(jnp.where(counts, reward, jnp.inf))
    lowest = jnp.minimum(noise.lowest, jnp.minimum(paid, jnp.where(ended.any(), 0.0, jnp.inf)))
    earned = jnp.where(weight > 0.0, rewards / jnp.where(weight > 0.0, weight, 1.0), lowest)
    return LastingNoise(noise.normals, rewards, weight, lowest, reward_density(earned, lowest))


AS_IT_IS = Exploration(_no_noise, _sampling(_as_it_is), _trust, _none_explore)
"""The policy acts: every published setting."""

NOISE = Exploration(_no_noise, _sampling(_widened), _clipped_ratio, _those_beyond_base)
"""Instance `i` acts with `std · o_i`, and `c = clip(π(a|x) / μ(a|x), min_trace_weight, 1)`.

Source: REPPO (arXiv 2507.11019), Algorithm 1, "exploration noise scaling"; all published scales are 1.
"""

CORRELATED_NOISE = Exploration(
    _first_normals, _act_correlated, _trust, _those_with_lasting_noise, _take_in_rewards
)
"""The policy acts, but its noise lasts: `ε_t = ρ ε_{t−1} + sqrt(1 − ρ²) ξ_t` is what an action is made of.

Every single action is distributed as the policy's, so returns are trusted as they are; successive ones are not
independent, so an instance moves in one direction for about `1 / (1 − ρ)` steps. It does as long as rewards are
sparse, `reward_density ≤ exploration_density`, the mere price of actions (`without_prices`) not counted: of
instances that earn alike there is nothing to be found, and the policy learns better from actions that are
independent. Choose it where a reward is found only by pushing on (a swing-up with sparse rewards), `NOISE` where
actions beyond the policy's spread are wanted.
"""
