"""How observations are normalized: when their statistics change, and how they are applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, ScalarLike

from ..ops import (
    RunningStatistics,
    statistics_init,
    statistics_normalize,
    statistics_update,
)


class Seen(NamedTuple):
    """Statistics once a rollout has been collected.

    Attributes:
        following: to go on with.
        used: that `x_t` is normalized by; with a leading axis `[T]` where they change at every step.
        successors: that `x_{t+1}` is normalized by; likewise.
    """

    following: RunningStatistics
    used: RunningStatistics
    successors: RunningStatistics


class Normalizer(NamedTuple):
    """A bundle of functions over `RunningStatistics`.

    Attributes:
        init: `example observation -> statistics` that have seen nothing.
        start: `(statistics, first observations) -> statistics`, once, at the start of a run.
        observe: `(statistics, observations to act on next) -> statistics`, at every step of a rollout.
        rollout: `(statistics before, observations [T, ...], observations to act on next) -> Seen`.
        normalize: `(statistics, observations, variance floor) -> observations`.
    """

    init: Callable[[PyTree], RunningStatistics]
    start: Callable[[RunningStatistics, PyTree[Array]], RunningStatistics]
    observe: Callable[[RunningStatistics, PyTree[Array]], RunningStatistics]
    rollout: Callable[[RunningStatistics, PyTree[Array], PyTree[Array]], Seen]
    normalize: Callable[[RunningStatistics, PyTree[Array], ScalarLike], PyTree[Array]]


def unchanged(statistics: RunningStatistics, _: PyTree[Array]) -> RunningStatistics:
    """The statistics as they were."""
    return statistics


def after_rollout(before: RunningStatistics, observations: PyTree[Array], _: PyTree[Array]) -> Seen:
    """One set of statistics for the whole rollout: those before it, or its own if they had seen nothing."""
    after = statistics_update(before, observations)
    choose = lambda new, old: jnp.where(before.count == 0, new, old)
    used = jax.tree.map(choose, after, before)
    return Seen(after, used, used)


def never(before: RunningStatistics, _: PyTree[Array], __: PyTree[Array]) -> Seen:
    """Statistics that stay as they are."""
    return Seen(before, before, before)


def as_seen(
    statistics: RunningStatistics, observation: PyTree[Array], variance_floor: ScalarLike
) -> PyTree[Array]:
    """Observations as they are."""
    del statistics, variance_floor
    return observation


ONCE_PER_ITERATION = Normalizer(
    statistics_init, unchanged, unchanged, after_rollout, statistics_normalize
)
"""One set of statistics for a whole iteration, updated after collecting."""

NO_NORMALIZATION = Normalizer(statistics_init, unchanged, unchanged, never, as_seen)
"""Networks see observations as they are."""
