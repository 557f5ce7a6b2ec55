"""How to report results: interquartile means with bootstrap intervals, profiles, improvement, reliability.

Scores are `{task: [runs]}`, normalized so that tasks can be averaged (for the DeepMind Control Suite, divide
returns by 1000). Tasks weigh equally in every figure, whatever their numbers of runs. Intervals come from a
percentile bootstrap that draws runs anew within each task.

Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (arXiv 2108.13264),
whose package rliable is the reference these functions are tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Scores = Mapping[str, ArrayLike]
Statistic = Callable[[Sequence[Floats]], Floats]


class Estimate(NamedTuple):
    """A statistic and the ends of its confidence interval, each an array; of no axis for a single number."""

    value: Floats
    low: Floats
    high: Floats

    def text(self, digits: int = 3) -> str:
        """`value [low, high]`."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


class Bootstrap(NamedTuple):
    """How to resample: how often, the coverage of the interval, and the seed."""

    num_resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0


DEFAULT_BOOTSTRAP = Bootstrap()


def interquartile_mean(scores: Sequence[Floats]) -> Floats:
    """Mean of the middle half of all runs of all tasks, every task weighing the same.

    Where all tasks have the same number of runs this is the trimmed mean of rliable: of N runs the ⌊N/4⌋ lowest
    and as many highest are left out. Otherwise it is that of the runs repeated until every task has as many.

    Args:
        scores: one array per task, runs on the last axis.

    >>> float(interquartile_mean([np.array([0.0, 1.0]), np.array([3.0, 100.0])]))
    2.0
    >>> float(interquartile_mean([np.zeros(6), np.ones(2)]))
    0.5
    """
    values, repeats = _sorted_with_repeats(scores)
    upper = np.cumsum(repeats, axis=-1)
    total = upper[..., -1:]
    cut = total // 4
    kept = np.clip(np.minimum(upper, total - cut) - np.maximum(upper - repeats, cut), 0, None)
    return np.asarray((kept * values).sum(-1) / kept.sum(-1))


def mean_score(scores: Sequence[Floats]) -> Floats:
    """Mean over tasks of each task's mean over runs.

    >>> float(mean_score([np.array([0.0, 1.0]), np.array([3.0])]))
    1.75
    """
    return np.asarray(np.mean([runs.mean(-1) for runs in scores], axis=0))


def median_over_tasks(scores: Sequence[Floats]) -> Floats:
    """The middle of all runs of all tasks, every task weighing the same; of two middle ones the higher.

    It is always the value of a run, so that infinite ones need no average.

    Args:
        scores: one array per task, runs on the last axis.

    >>> float(median_over_tasks([np.array([1.0, 2.0, 3.0])]))
    2.0
    >>> float(median_over_tasks([np.zeros(6), np.full(2, np.inf)]))
    inf
    """
    values, repeats = _sorted_with_repeats(scores)
    upper = np.cumsum(repeats, axis=-1)
    first = (upper > upper[..., -1:] // 2).argmax(-1)
    return np.asarray(np.take_along_axis(values, first[..., None], -1)[..., 0])


def _sorted_with_repeats(scores: Sequence[Floats]) -> tuple[Floats, NDArray[np.int64]]:
    """All runs in ascending order, and how often each counts so that every task has the same number."""
    numbers = [runs.shape[-1] for runs in scores]
    most = math.lcm(*numbers)
    values = np.concatenate(scores, axis=-1)
    repeats = np.concatenate([np.full(number, most // number, np.int64) for number in numbers])
    order = np.argsort(values, axis=-1)
    return np.take_along_axis(values, order, -1), repeats[order]


def estimate(
    scores: Scores,
    statistic: Statistic = interquartile_mean,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """A statistic over all tasks, with its bootstrap interval.

    Args:
        scores: `{task: [runs]}`; tasks may have different numbers of runs.
        statistic: takes one array per task with runs last, gives one number per leading index.
        bootstrap: how to resample.

    Raises:
        ValueError: if there is no task, a task has no runs, or a score is not finite.

    >>> result = estimate({"a": [0.0, 0.5, 1.0], "b": [0.5, 0.5, 0.5]})
    >>> bool(result.low <= result.value <= result.high)
    True
    """
    arrays = _arrays(scores)
    for task, runs in zip(scores, arrays, strict=True):
        wrong = np.flatnonzero(~np.isfinite(runs))
        if len(wrong):
            raise ValueError(
                f"the score of run {wrong[0]} of {task} is {runs[wrong[0]]}; it must be finite to be averaged."
            )
    return _resampled([arrays], statistic, bootstrap)


def probability_of_improvement(
    scores: Scores,
    baseline: Scores,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """How likely a run beats a run of the baseline on the same task, ties counting half, averaged over tasks.

    A score that is not finite counts as the lowest.

    Args:
        scores: `{task: [runs]}`.
        baseline: the same for what it is compared with; only tasks in both count.
        bootstrap: how to resample.

    Raises:
        ValueError: if they share no task.

    >>> float(probability_of_improvement({"a": [1.0, 2.0]}, {"a": [0.0, 1.0]}).value)
    0.875
    """
    shared = [task for task in scores if task in baseline]
    if not shared:
        raise ValueError(
            f"scores has {sorted(scores)}, baseline {sorted(baseline)}: no shared task."
        )

    def improvement(ours: Sequence[Floats], theirs: Sequence[Floats]) -> Floats:
        per_task = []
        for one, other in zip(ours, theirs, strict=True):
            x, y = one[..., :, None], other[..., None, :]
            per_task.append(((x > y) + 0.5 * (x == y)).mean((-2, -1)))
        return np.asarray(np.mean(per_task, axis=0))

    pair = [
        _lowest_unless_finite(_arrays({task: group[task] for task in shared}))
        for group in (scores, baseline)
    ]
    return _resampled(pair, improvement, bootstrap)


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """Share of runs, of all tasks alike, whose score is above each threshold: `[thresholds]`.

    A score that is not finite is above none.

    Args:
        scores: `{task: [runs]}`.
        thresholds: in the units of the scores.
        bootstrap: how to resample.

    >>> performance_profile({"a": [0.2, 0.6]}, [0.0, 0.5, 1.0]).value.tolist()
    [1.0, 0.5, 0.0]
    """
    at = np.asarray(thresholds)

    def profile(group: Sequence[Floats]) -> Floats:
        return np.asarray(np.mean([(runs[..., None] > at).mean(-2) for runs in group], axis=0))

    return _resampled([_lowest_unless_finite(_arrays(scores))], profile, bootstrap)


def reliability(returns: ArrayLike, threshold: float) -> Floats:
    """Share of runs that have reached a return and never fall below it again, at each evaluation.

    A return that is not finite is below every threshold.

    Args:
        returns: `[evals, runs]`.
        threshold: the return to reach; REPPO's figure takes 0.9 of the best, on tasks that start from 0.

    Returns:
        `[evals]`, never falling.

    Source: REPPO (arXiv 2507.11019), its figure on reliable policy improvement.

    >>> reliability([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], 0.9).tolist()
    [0.0, 0.5, 1.0]
    """
    stays = np.logical_and.accumulate(_reached(returns, threshold)[::-1], axis=0)[::-1]
    return np.asarray(stays.mean(-1))


def steps_to_threshold(env_steps: ArrayLike, returns: ArrayLike, threshold: float) -> Floats:
    """Environment steps at the first evaluation at or above a return, per run; infinite if there is none.

    Args:
        env_steps: `[evals]`.
        returns: `[evals, runs]`.
        threshold: the return to reach.

    >>> steps_to_threshold([10, 20], [[0.0, 1.0], [0.5, 0.0]], 0.9).tolist()
    [inf, 10.0]
    """
    above = _reached(returns, threshold)
    steps = np.asarray(env_steps, np.float64)
    return np.where(above.any(0), steps[above.argmax(0)], np.inf)


def _reached(returns: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    values = np.asarray(returns, np.float64)
    return np.isfinite(values) & (values >= threshold)


def _resampled(
    groups: Sequence[list[Floats]],
    statistic: Callable[..., Floats],
    bootstrap: Bootstrap,
) -> Estimate:
    random = np.random.default_rng(bootstrap.seed)

    def resample(runs: Floats) -> Floats:
        return runs[random.integers(len(runs), size=(bootstrap.num_resamples, len(runs)))]

    drawn = statistic(*([resample(runs) for runs in group] for group in groups))
    tail = (1.0 - bootstrap.confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    return Estimate(*(np.asarray(part) for part in (statistic(*groups), low, high)))


def _arrays(scores: Scores) -> list[Floats]:
    arrays = [np.asarray(runs, np.float64) for runs in scores.values()]
    if not arrays:
        raise ValueError("scores is empty; at least one task is needed.")
    for task, runs in zip(scores, arrays, strict=True):
        if runs.ndim != 1 or not len(runs):
            raise ValueError(f"the scores of {task} are {list(runs.shape)}; they must be [runs].")
    return arrays


def _lowest_unless_finite(arrays: Sequence[Floats]) -> list[Floats]:
    return [np.where(np.isfinite(runs), runs, -np.inf) for runs in arrays]
