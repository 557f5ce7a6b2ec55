"""What several runs say together: scores, profiles, reliability, on each task's way from a floor to the best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .curves import Curve, Curves
from .scores import (
    Estimate,
    Floats,
    estimate,
    mean_score,
    median_over_tasks,
    performance_profile,
    probability_of_improvement,
    reliability,
    steps_to_threshold,
)

PROFILE_POINTS = 101


class Scale(NamedTuple):
    """What returns on a task are measured by; the same for all labels.

    Attributes:
        lowest: the lowest finite return of any run at any evaluation, or the floor where that is lower. Returns
            that are not finite count as this.
        floor: where the way to the best starts.
        best: the highest finite return of any run at any evaluation.
        goal: the return to reach, a share of the way from the floor to the best; infinite if nothing is above
            the floor.
    """

    lowest: float
    floor: float
    best: float
    goal: float


class Summary(NamedTuple):
    """Of one label over all its tasks, each weighing the same; scores are returns at the end over the normalizer.

    Attributes:
        iqm: interquartile mean of the scores.
        mean: mean over tasks of the mean score.
        improvement: probability of improvement over the first label; none for the first itself.
        profile: share of runs above each score in `profile_at`.
        reliable: at each evaluation, the share of runs that stay at or above the goal from there on, by task.
        steps: median over runs of the steps to the goal; infinite if half of them never get there.
        runs: number of runs of each task.
        profile_at: 101 scores, the same for all labels: from 0 to 1, or as far as there are scores.
        scales: floor, best and goal of each task.
        not_finite: number of runs of each task whose score is not finite; it counts as the lowest.
    """

    iqm: Estimate
    mean: Estimate
    improvement: Estimate | None
    profile: Estimate
    reliable: dict[str, Floats]
    steps: float
    runs: dict[str, int]
    profile_at: Floats
    scales: dict[str, Scale]
    not_finite: dict[str, int]


def summarize(
    curves: Curves,
    normalizer: float = 1000.0,
    threshold: float = 0.9,
    last: int = 1,
    floor: float | None = None,
) -> dict[str, Summary]:
    """A summary per label, the first one being the baseline of the others.

    Args:
        curves: from `load_curves`.
        normalizer: what returns are divided by, so that scores do not depend on which runs are compared; 1000 is
            the most that DeepMind Control Suite tasks pay. Scores are negative where returns are.
        threshold: share of the way from the floor to the best return of the task (by any run at any evaluation)
            that counts as reached.
        last: number of evaluations at the end that a run's score is the mean of. Returns of one run swing from
            one evaluation to the next; a few of them tell methods apart with fewer runs.
        floor: the return from which that way is measured, on every task. If not given: 0 on a task without
            negative returns, else the lowest mean over runs that a label has there at its first evaluation.

    Raises:
        ValueError: if the normalizer is not positive, the threshold not in (0, 1], the floor not finite, or a
            curve has fewer than `last` evaluations.
    """
    if not (normalizer > 0 and math.isfinite(normalizer)):
        raise ValueError(f"normalizer is {normalizer}; it must be positive.")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must be above 0 and at most 1.")
    if floor is not None and not math.isfinite(floor):
        raise ValueError(f"floor is {floor}; it must be a finite return.")
    scales = {task: _scale(labels, threshold, floor) for task, labels in curves.items()}
    by_label: dict[str, dict[str, Curve]] = {}
    for task, labels in curves.items():
        for label, curve in labels.items():
            by_label.setdefault(label, {})[task] = curve
    scores = {
        label: {task: final_returns(curve, last) / normalizer for task, curve in tasks.items()}
        for label, tasks in by_label.items()
    }
    lowest = {task: scale.lowest / normalizer for task, scale in scales.items()}
    thresholds = _profile_thresholds(scores.values())
    first = next(iter(scores))
    return {
        label: _summary(
            tasks,
            scores[label],
            scores[first] if label != first else None,
            scales,
            lowest,
            thresholds,
        )
        for label, tasks in by_label.items()
    }


def _summary(
    tasks: dict[str, Curve],
    scores: dict[str, Floats],
    baseline: dict[str, Floats] | None,
    scales: dict[str, Scale],
    lowest: dict[str, float],
    thresholds: Floats,
) -> Summary:
    finite = {task: np.where(np.isfinite(x), x, lowest[task]) for task, x in scores.items()}
    compared = baseline is not None and set(scores) & set(baseline)
    steps = [steps_to_threshold(*curve, scales[task].goal) for task, curve in tasks.items()]
    return Summary(
        iqm=estimate(finite),
        mean=estimate(finite, mean_score),
        improvement=probability_of_improvement(scores, baseline) if baseline and compared else None,
        profile=performance_profile(scores, thresholds),
        reliable={
            task: reliability(curve.returns, scales[task].goal) for task, curve in tasks.items()
        },
        steps=float(median_over_tasks(steps)),
        runs={task: curve.returns.shape[1] for task, curve in tasks.items()},
        profile_at=thresholds,
        scales={task: scales[task] for task in tasks},
        not_finite={task: int((~np.isfinite(x)).sum()) for task, x in scores.items()},
    )


def _scale(labels: dict[str, Curve], threshold: float, floor: float | None) -> Scale:
    """Of one task, from all its runs."""
    returns = np.concatenate([curve.returns.ravel() for curve in labels.values()])
    returns = returns[np.isfinite(returns)]
    if not len(returns):
        returns = np.array([0.0 if floor is None else floor])
    if floor is None:
        floor = 0.0 if returns.min() >= 0 else _lowest_start(labels, float(returns.min()))
    best = float(returns.max())
    goal = floor + threshold * (best - floor) if best > floor else math.inf
    return Scale(min(floor, float(returns.min())), floor, best, goal)


def _lowest_start(labels: dict[str, Curve], otherwise: float) -> float:
    """The lowest mean over runs that a label has at its first evaluation, of those that are finite."""
    starts = [curve.returns[0][np.isfinite(curve.returns[0])] for curve in labels.values()]
    return min((float(start.mean()) for start in starts if len(start)), default=otherwise)


def _profile_thresholds(scores: Iterable[dict[str, Floats]]) -> Floats:
    """From 0 to 1, or as far as there are scores."""
    found = np.concatenate([[0.0, 1.0], *(runs for tasks in scores for runs in tasks.values())])
    found = found[np.isfinite(found)]
    return np.linspace(found.min(), found.max(), PROFILE_POINTS)


def final_returns(curve: Curve, last: int = 1) -> Floats:
    """Per run, the mean over the last evaluations.

    Raises:
        ValueError: if there are fewer.
    """
    if not 1 <= last <= len(curve.returns):
        raise ValueError(
            f"last is {last}; it must be from 1 to the number of evaluations, {len(curve.returns)}."
        )
    return np.asarray(np.mean(curve.returns[-last:], axis=0, dtype=np.float64))
