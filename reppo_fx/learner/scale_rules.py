"""What rewards may be divided by: what has been seen of returns and targets, and rules from it to one number.

In the rules `end = max(|v_min|, |v_max|) − 3 σ (v_max − v_min)`, and at least half of the first term: a label
nearer than that to the end of the support is cut by it, and its mean is no longer the target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..ops import RunningStatistics, statistics_update
from ..settings import Hyperparameters
from .rollout import Transition

Scalar = Float[Array, ""]
"""One number."""


class ReturnStatistics(NamedTuple):
    """What has been seen of rewards and of the discounted returns that led up to each step, of every instance.

    Attributes:
        returns: `R_t = r_t + γ (1 − ended_{t−1}) R_{t−1}` at the last step, `[num_envs]`; they go on from one
            rollout to the next.
        ended: whether an episode ended there.
        seen: mean and variance of all `R_t`.
        largest_return: `max |R_t|`.
        largest_reward: `max |r_t|`.
        lowest_return: `min R_t`; 0 before the first.
    """

    returns: Float[Array, " num_envs"]
    ended: Bool[Array, " num_envs"]
    seen: RunningStatistics
    largest_return: Scalar
    largest_reward: Scalar
    lowest_return: Scalar


class TargetStatistics(NamedTuple):
    """Moving averages over iterations of the targets, in the environment's unit.

    Attributes:
        mean: of the targets.
        square: of their squares.
        weight: how much has been taken in; 0 at the start, then towards 1.
    """

    mean: Scalar
    square: Scalar
    weight: Scalar


# Of a label, kept free at an end of the support; and never more than half of it.
WIDTHS = 3.0
# Share of the targets of one iteration in the moving averages.
TARGET_RATE = 0.05

Center = Callable[[ReturnStatistics, TargetStatistics], Scalar]
"""`(statistics of returns, of targets) -> c`, the value that is read as 0."""

ScaleRule = Callable[[ReturnStatistics, TargetStatistics, Hyperparameters], Scalar]
"""`(statistics of returns, of targets about the center, hyperparameters) -> s`."""


def by_return(
    statistics: ReturnStatistics, targets: TargetStatistics, hyperparameters: Hyperparameters
) -> Scalar:
    """`s = max |R| / end`: the largest return so far is the end of the support.

    Args:
        statistics: what has been seen of rewards and returns.
        targets: moving averages of the targets; not used.
        hyperparameters: the support.

    Returns:
        `s`; 0 as long as all returns were 0.

    >>> zero = jnp.zeros(())
    >>> seen = RunningStatistics(mean=zero, var=zero + 225.0, count=zero + 2.0)
    >>> statistics = ReturnStatistics(jnp.zeros(1), jnp.zeros(1, bool), seen, zero + 27.0, zero + 0.9, zero)
    >>> hp = Hyperparameters(v_min=-10.0, v_max=10.0, discount=0.9, sigma=1 / 60)  # end = 9
    >>> print(by_return(statistics, TargetStatistics(zero, zero, zero), hp))
    3.0
    """
    del targets
    return statistics.largest_return / _end(hyperparameters)


def by_spread(
    statistics: ReturnStatistics, targets: TargetStatistics, hyperparameters: Hyperparameters
) -> Scalar:
    """`s = max( sqrt(Var R), max |R| / end )`: returns of spread 1, unless the support is too small for them.

    Args:
        statistics: what has been seen of rewards and returns.
        targets: moving averages of the targets; not used.
        hyperparameters: the support.

    Returns:
        `s`; 0 as long as all returns were 0.

    Source: SimbaV2 (arXiv 2502.15280), section 4.2; its support is [−5, 5].

    >>> zero = jnp.zeros(())
    >>> seen = RunningStatistics(mean=zero, var=zero + 225.0, count=zero + 2.0)
    >>> statistics = ReturnStatistics(jnp.zeros(1), jnp.zeros(1, bool), seen, zero + 27.0, zero + 0.9, zero)
    >>> hp = Hyperparameters(v_min=-10.0, v_max=10.0, discount=0.9, sigma=1 / 60)  # end = 9
    >>> print(by_spread(statistics, TargetStatistics(zero, zero, zero), hp))
    15.0
    """
    largest = by_return(statistics, targets, hyperparameters)
    return jnp.maximum(jnp.sqrt(statistics.seen.var), largest)


def by_reward(
    statistics: ReturnStatistics, targets: TargetStatistics, hyperparameters: Hyperparameters
) -> Scalar:
    """`s = max |r| / ((1 − γ) end)`: what the largest reward for ever would be worth is the end of the support.

    Settles with the first large reward, long before returns are large; returns then use a part of the support that
    depends on the task.

    Args:
        statistics: what has been seen of rewards and returns.
        targets: moving averages of the targets; not used.
        hyperparameters: the support and the discount.

    Returns:
        `s`; 0 as long as all rewards were 0.

    Source: REPPO (arXiv 2507.11019), its rule for `v_max`.

    >>> zero = jnp.zeros(())
    >>> seen = RunningStatistics(mean=zero, var=zero + 225.0, count=zero + 2.0)
    >>> statistics = ReturnStatistics(jnp.zeros(1), jnp.zeros(1, bool), seen, zero + 27.0, zero + 0.9, zero)
    >>> hp = Hyperparameters(v_min=-10.0, v_max=10.0, discount=0.9, sigma=1 / 60)  # end = 9
    >>> print(by_reward(statistics, TargetStatistics(zero, zero, zero), hp).round(3))
    1.0
    """
    del targets
    horizon = 1.0 / jnp.maximum(1.0 - hyperparameters.discount, 1e-6)
    return statistics.largest_reward * horizon / _end(hyperparameters)


def by_target(
    statistics: ReturnStatistics, targets: TargetStatistics, hyperparameters: Hyperparameters
) -> Scalar:
    """`s = (|mean G| + 3 std G) / end`, moving averages of the targets: the support holds the values of now.

    The only rule that holds the entropy's part of the values, and that shrinks again; the first iteration goes by
    returns. The mean is that above the center: with `at_mean` it is 0, and `s` the targets' spread alone.

    Args:
        statistics: what has been seen of rewards and returns.
        targets: moving averages of the targets.
        hyperparameters: the support.

    Returns:
        `s`, in the environment's unit.

    >>> zero = jnp.zeros(())
    >>> seen = RunningStatistics(mean=zero, var=zero + 225.0, count=zero + 2.0)
    >>> statistics = ReturnStatistics(jnp.zeros(1), jnp.zeros(1, bool), seen, zero + 27.0, zero + 0.9, zero)
    >>> hp = Hyperparameters(v_min=-10.0, v_max=10.0, discount=0.9, sigma=1 / 60)  # end = 9
    >>> print(by_target(statistics, TargetStatistics(zero + 15.0, zero + 325.0, zero + 0.05), hp))
    5.0
    """
    spread = jnp.sqrt(jnp.maximum(targets.square - jnp.square(targets.mean), 0.0))
    s = (jnp.abs(targets.mean) + 3.0 * spread) / _end(hyperparameters)
    return jnp.where(targets.weight > 0, s, by_return(statistics, targets, hyperparameters))


def at_zero(statistics: ReturnStatistics, targets: TargetStatistics) -> Scalar:
    """`c = 0`: values are read as they are.

    Args:
        statistics: what has been seen of rewards and returns; not used.
        targets: moving averages of the targets; not used.

    Returns:
        `c`, in the environment's unit.

    >>> zero = jnp.zeros(())
    >>> seen = RunningStatistics(mean=zero, var=zero + 225.0, count=zero + 2.0)
    >>> statistics = ReturnStatistics(jnp.zeros(1), jnp.zeros(1, bool), seen, zero + 27.0, zero + 0.9, zero + 4.0)
    >>> print(at_zero(statistics, TargetStatistics(zero + 5.0, zero + 26.0, zero + 1.0)))
    0.0
    """
    del statistics
    return jnp.zeros_like(targets.mean)


def at_mean(statistics: ReturnStatistics, targets: TargetStatistics) -> Scalar:
    """`c = mean G`, a moving average: what is common to all values takes no room on the support.

    Adding a number to all rewards then changes nothing, but where episodes end for good. What is not common is
    resolved as finely as it can be, noise too.

    Args:
        statistics: what has been seen of rewards and returns; not used.
        targets: moving averages of the targets.

    Returns:
        `c`, in the environment's unit.

    >>> zero = jnp.zeros(())
    >>> seen = RunningStatistics(mean=zero, var=zero + 225.0, count=zero + 2.0)
    >>> statistics = ReturnStatistics(jnp.zeros(1), jnp.zeros(1, bool), seen, zero + 27.0, zero + 0.9, zero + 4.0)
    >>> print(at_mean(statistics, TargetStatistics(zero + 5.0, zero + 26.0, zero + 1.0)))
    5.0
    """
    del statistics
    return targets.mean


def at_lowest(statistics: ReturnStatistics, targets: TargetStatistics) -> Scalar:
    """`c = min R`, of all so far: nothing that was ever paid is below 0.

    A critic that knows nothing yet reads `c` everywhere. Where rewards are not negative, 0 is the worst there is,
    and what was never tried does not tempt the policy; where they are, 0 is the best, and it does. The lowest
    return is the worst there: taking a number from all rewards changes little, but where episodes end for good.
    It goes by what was paid and not by targets: those hold what a critic says of states that it has not seen yet,
    as far down as its support reaches, and a lowest one is never forgotten.

    Args:
        statistics: what has been seen of rewards and returns.
        targets: moving averages of the targets; not used.

    Returns:
        `c`, in the environment's unit.

    >>> zero = jnp.zeros(())
    >>> seen = RunningStatistics(mean=zero, var=zero + 225.0, count=zero + 2.0)
    >>> statistics = ReturnStatistics(jnp.zeros(1), jnp.zeros(1, bool), seen, zero + 27.0, zero + 0.9, zero + 4.0)
    >>> print(at_lowest(statistics, TargetStatistics(zero + 5.0, zero + 26.0, zero + 1.0)))
    4.0
    """
    del targets
    return statistics.lowest_return


def _end(hp: Hyperparameters) -> Array:
    """`end`: what the largest return may be on either side of 0."""
    low, high = jnp.asarray(hp.v_min), jnp.asarray(hp.v_max)
    end = jnp.maximum(jnp.abs(low), jnp.abs(high))
    return jnp.maximum(end - WIDTHS * hp.sigma * (high - low), 0.5 * end)


def return_statistics(
    before: ReturnStatistics, transitions: Transition, hyperparameters: Hyperparameters
) -> ReturnStatistics:
    """Statistics with a rollout `[T, num_envs]` taken in; steps at which the simulator failed say nothing."""
    reward = transitions.reward * hyperparameters.reward_scale
    ended = transitions.terminated | transitions.truncated

    def step(
        carry: tuple[Array, Array], row: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], Array]:
        returns, over = carry
        reward, ended = row
        returns = reward + hyperparameters.discount * jnp.where(over, 0.0, returns)
        return (returns, ended), returns

    start = (before.returns, before.ended)
    (returns, over), all_returns = jax.lax.scan(step, start, (reward, ended))
    lowest = jnp.min(all_returns)
    return ReturnStatistics(
        returns,
        over,
        statistics_update(before.seen, all_returns),
        jnp.maximum(before.largest_return, jnp.max(jnp.abs(all_returns))),
        jnp.maximum(before.largest_reward, jnp.max(jnp.abs(reward))),
        jnp.where(before.seen.count > 0, jnp.minimum(before.lowest_return, lowest), lowest),
    )


def about(targets: TargetStatistics, center: Scalar) -> TargetStatistics:
    """Those of the targets less `center`."""
    return targets._replace(
        mean=targets.mean - center,
        square=targets.square - center * (2.0 * targets.mean - center),
    )


def target_statistics(before: TargetStatistics, targets: Array) -> TargetStatistics:
    """Moving averages with the targets of one more iteration; those of the first one count in full."""
    weight = before.weight + TARGET_RATE * (1.0 - before.weight)
    rate = TARGET_RATE / weight
    mean, square = jnp.mean(targets), jnp.mean(jnp.square(targets))
    return TargetStatistics(
        before.mean + rate * (mean - before.mean),
        before.square + rate * (square - before.square),
        weight,
    )
