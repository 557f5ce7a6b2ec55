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


class Normalizer(NamedTuple):
    """A bundle of functions over `RunningStatistics`.

    Attributes:
        init: `example observation -> statistics` that have seen nothing.
        start: `(statistics, first observations) -> statistics`, once, at the start of a run.
        take_in: `(statistics, observations of a rollout) -> statistics`.
        used: `(before, after) -> statistics` that a rollout is learned from with.
        normalize: `(statistics, observations, variance floor) -> observations`.
    """

    init: Callable[[PyTree], RunningStatistics]
    start: Callable[[RunningStatistics, PyTree[Array]], RunningStatistics]
    take_in: Callable[[RunningStatistics, PyTree[Array]], RunningStatistics]
    used: Callable[[RunningStatistics, RunningStatistics], RunningStatistics]
    normalize: Callable[[RunningStatistics, PyTree[Array], ScalarLike], PyTree[Array]]


def unchanged(statistics: RunningStatistics, _: PyTree[Array]) -> RunningStatistics:
    """The statistics as they were."""
    return statistics


def latest_if_first(before: RunningStatistics, after: RunningStatistics) -> RunningStatistics:
    """Those before, unless they had seen nothing."""
    choose = lambda new, old: jnp.where(before.count == 0, new, old)
    chosen: RunningStatistics = jax.tree.map(choose, after, before)
    return chosen


def as_seen(
    statistics: RunningStatistics, observation: PyTree[Array], variance_floor: ScalarLike
) -> PyTree[Array]:
    """Observations as they are."""
    del statistics, variance_floor
    return observation


ONCE_PER_ITERATION = Normalizer(
    statistics_init, unchanged, statistics_update, latest_if_first, statistics_normalize
)
"""One set of statistics for a whole iteration, updated after collecting."""

NO_NORMALIZATION = Normalizer(statistics_init, unchanged, unchanged, unchanged, as_seen)
"""Networks see observations as they are."""
