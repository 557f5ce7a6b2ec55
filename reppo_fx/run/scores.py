"""How to report results: interquartile means with bootstrap intervals, profiles, improvement, reliability.

Scores are `{task: [runs]}`, normalized so that tasks can be averaged (for the DeepMind Control Suite, divide
returns by 1000). Intervals come from a percentile bootstrap that draws runs anew within each task.

Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (arXiv 2108.13264),
whose package rliable is the reference these functions are tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Scores = Mapping[str, ArrayLike]
Statistic = Callable[[Sequence[NDArray[Any]]], Any]


class Estimate(NamedTuple):
    """A statistic and the ends of its confidence interval, each a number or an array."""

    value: Any
    low: Any
    high: Any

    def text(self, digits: int = 3) -> str:
        """`value [low, high]`."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


class Bootstrap(NamedTuple):
    """How to resample: how often, the coverage of the interval, and the seed."""

    num_resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0


DEFAULT_BOOTSTRAP = Bootstrap()


def interquartile_mean(scores: Sequence[NDArray[Any]]) -> Any:
    """Mean of the middle half of all runs of all tasks.

    Args:
        scores: one array per task, runs on the last axis.

    >>> float(interquartile_mean([np.array([0.0, 1.0]), np.array([3.0, 100.0])]))
    2.0
    """
    return stats.trim_mean(np.concatenate(scores, -1), 0.25, axis=-1)


def mean_score(scores: Sequence[NDArray[Any]]) -> Any:
    """Mean over tasks of each task's mean over runs.

    >>> float(mean_score([np.array([0.0, 1.0]), np.array([3.0])]))
    1.75
    """
    return np.mean([runs.mean(-1) for runs in scores], axis=0)


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
        ValueError: if there is no task or a task has no runs.

    >>> result = estimate({"a": [0.0, 0.5, 1.0], "b": [0.5, 0.5, 0.5]})
    >>> bool(result.low <= result.value <= result.high)
    True
    """
    return _resampled([scores], statistic, bootstrap)


def probability_of_improvement(
    scores: Scores,
    baseline: Scores,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """How likely a run beats a run of the baseline on the same task, ties counting half, averaged over tasks.

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

    def improvement(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> Any:
        per_task = []
        for x, y in zip(ours, theirs, strict=True):
            difference = x[..., :, None] - y[..., None, :]
            per_task.append(((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1)))
        return np.mean(per_task, axis=0)

    pair = [{task: group[task] for task in shared} for group in (scores, baseline)]
    return _resampled(pair, improvement, bootstrap)


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Estimate:
    """Share of runs, of all tasks alike, whose score is above each threshold: `[thresholds]`.

    Args:
        scores: `{task: [runs]}`.
        thresholds: in the units of the scores.
        bootstrap: how to resample.

    >>> performance_profile({"a": [0.2, 0.6]}, [0.0, 0.5, 1.0]).value.tolist()
    [1.0, 0.5, 0.0]
    """
    at = np.asarray(thresholds)

    def profile(group: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.mean([(runs[..., None] > at).mean(-2) for runs in group], axis=0)

    return estimate(scores, profile, bootstrap)


def reliability(returns: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Share of runs that have reached a return and never fall below it again, at each evaluation.

    Args:
        returns: `[evals, runs]`.
        threshold: the return to reach; REPPO's figure takes 0.9 of the best.

    Returns:
        `[evals]`, never falling.

    Source: REPPO (arXiv 2507.11019), its figure on reliable policy improvement.

    >>> reliability([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], 0.9).tolist()
    [0.0, 0.5, 1.0]
    """
    above = np.asarray(returns) >= threshold
    stays = np.logical_and.accumulate(above[::-1], axis=0)[::-1]
    return stays.mean(-1)


def steps_to_threshold(
    env_steps: ArrayLike, returns: ArrayLike, threshold: float
) -> NDArray[np.float64]:
    """Environment steps at the first evaluation at or above a return, per run; infinite if there is none.

    Args:
        env_steps: `[evals]`.
        returns: `[evals, runs]`.
        threshold: the return to reach.

    >>> steps_to_threshold([10, 20], [[0.0, 1.0], [0.5, 0.0]], 0.9).tolist()
    [inf, 10.0]
    """
    above = np.asarray(returns) >= threshold
    steps = np.asarray(env_steps, np.float64)
    return np.where(above.any(0), steps[above.argmax(0)], np.inf)


def _resampled(
    groups: Sequence[Scores],
    statistic: Callable[..., Any],
    bootstrap: Bootstrap,
) -> Estimate:
    arrays = [_arrays(group) for group in groups]
    random = np.random.default_rng(bootstrap.seed)

    def resample(runs: NDArray[Any]) -> NDArray[Any]:
        return runs[random.integers(len(runs), size=(bootstrap.num_resamples, len(runs)))]

    drawn = statistic(*([resample(runs) for runs in group] for group in arrays))
    tail = (1.0 - bootstrap.confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    return Estimate(statistic(*arrays), low, high)


def _arrays(scores: Scores) -> list[NDArray[Any]]:
    arrays = [np.asarray(runs, np.float64) for runs in scores.values()]
    if not arrays:
        raise ValueError("scores is empty; at least one task is needed.")
    for task, runs in zip(scores, arrays, strict=True):
        if runs.ndim != 1 or not len(runs):
            raise ValueError(f"the scores of {task} are {list(runs.shape)}; they must be [runs].")
    return arrays
