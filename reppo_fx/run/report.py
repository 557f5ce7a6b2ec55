"""Several runs together: grouped by task and label, summarized as the field does, drawn."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._errors import ReppoWarning
from .plan import Plan, label_text
from .records import read_config
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
from .table import read_returns

PROFILE_POINTS = 101


class Curve(NamedTuple):
    """Runs that share task and label: steps `[evals]`, returns `[evals, runs]`."""

    env_steps: NDArray[np.number[Any]]
    returns: NDArray[np.floating[Any]]


Curves = dict[str, dict[str, Curve]]
"""By task, then by label."""


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


def load_curves(runs: Iterable[str]) -> Curves:
    """Curves of run folders, each given as `FOLDER` or `LABEL=FOLDER`.

    Without a label a run goes by its preset, and each setting of a sweep by its values. Runs of the same task
    and label are taken together. Runs with returns that are not finite are named in a `ReppoWarning`.

    Raises:
        ValueError: if a folder holds no run or no evaluation or is given twice, or runs to be taken together
            were evaluated at different steps.
    """
    curves: Curves = {}
    seen: set[tuple[str, Path]] = set()
    for text in runs:
        label, folder = split_label(text)
        if (label, folder.resolve()) in seen:
            raise ValueError(f"{folder} is given twice; its runs would count twice.")
        seen.add((label, folder.resolve()))
        plan = Plan.from_json(read_config(folder))
        steps, returns = read_returns(folder / "metrics.csv", plan)
        if not len(steps):
            raise ValueError(f"{folder} has no evaluation in metrics.csv yet.")
        _warn_of_nonfinite(folder, plan, returns)
        for setting, values in enumerate(plan.labels):
            own = label_text(values) if values else "" if label else plan.preset
            parts = [part for part in (label, own) if part]
            curve = Curve(steps, returns[:, setting])
            add_curve(curves, plan.task, ": ".join(parts), curve, folder)
    return curves


def split_label(text: str) -> tuple[str, Path]:
    """`FOLDER` or `LABEL=FOLDER` as label (empty for none) and folder, either of which may hold more `=`.

    A text that is a folder is one; otherwise the shortest label that leaves a folder is taken.

    Raises:
        ValueError: if there is an `=`, and neither the text nor what follows one is a folder.
    """
    if os.path.isdir(text) or "=" not in text:
        return "", Path(text)
    label, _, rest = text.partition("=")
    while rest:
        if os.path.isdir(rest):
            return label, Path(rest)
        more, equals, rest = rest.partition("=")
        label = f"{label}={more}" if equals else label
    raise ValueError(f"runs has {text!r}; neither that nor what follows a '=' in it is a folder.")


def _warn_of_nonfinite(folder: Path, plan: Plan, returns: NDArray[np.floating[Any]]) -> None:
    for setting, seed in zip(*np.nonzero(~np.isfinite(returns).all(0)), strict=True):
        number = np.count_nonzero(~np.isfinite(returns[:, setting, seed]))
        which = f"{label_text(plan.labels[setting])}, seed {seed}" if plan.grid else f"seed {seed}"
        warnings.warn(
            f"{folder}, {which}: {number} of {len(returns)} returns are not finite; they count as the "
            f"lowest of {plan.task}.",
            ReppoWarning,
            stacklevel=3,
        )


def add_curve(curves: Curves, task: str, label: str, new: Curve, source: Path) -> None:
    """Add runs to those of the same task and label.

    Raises:
        ValueError: if those were evaluated at different steps; names the source.
    """
    labels = curves.setdefault(task, {})
    if label in labels:
        old = labels[label]
        if not np.array_equal(old.env_steps, new.env_steps):
            raise ValueError(
                f"{source} was evaluated at other steps than the other runs of {task} called {label!r}; "
                "give it another label: LABEL=FOLDER."
            )
        new = Curve(old.env_steps, np.concatenate([old.returns, new.returns], axis=1))
    labels[label] = new


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


def write_report(
    runs: Iterable[str],
    out: Path,
    normalizer: float = 1000.0,
    threshold: float = 0.9,
    last: int = 1,
    floor: float | None = None,
) -> dict[str, Summary]:
    """Write `curves.png`, `summary.png` and `summary.json` for some runs, and return the summaries.

    Raises:
        ValueError: as `load_curves` and `summarize`, or if the folder cannot be made.
    """
    from .pictures import plot_comparison, plot_curves

    curves = load_curves(runs)
    summaries = summarize(curves, normalizer, threshold, last, floor)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out is {str(out)!r}, which is not a folder: {error.strerror}."
        ) from error
    plot_curves(out / "curves.png", curves)
    plot_comparison(out / "summary.png", curves, summaries, threshold)
    plain = {label: _plain(summary._asdict()) for label, summary in summaries.items()}
    (out / "summary.json").write_text(json.dumps(plain, indent=1) + "\n")
    return summaries


def notes(summaries: dict[str, Summary]) -> Iterator[str]:
    """What has to be known to read the figures, a sentence each."""
    scales = {
        task: scale for summary in summaries.values() for task, scale in summary.scales.items()
    }
    for task, scale in scales.items():
        if math.isfinite(scale.goal):
            way = f"from {scale.floor:g} to the best, {scale.best:g}"
            yield f"{task}: reached is a return of {scale.goal:g}, on the way {way}"
        else:
            yield f"{task}: no return is above {scale.floor:g}, so nothing counts as reached"
    for label, summary in summaries.items():
        if len(summary.runs) < len(scales):
            yield f"{label}: of {len(summary.runs)} of {len(scales)} tasks only, {', '.join(summary.runs)}"
    for label, summary in summaries.items():
        for task, number in summary.not_finite.items():
            if number:
                runs = f"{number} of {summary.runs[task]} runs"
                yield f"{label}: {runs} of {task} end with a return that is not finite; it counts as the lowest"


def _plain(value: Any) -> Any:
    """As JSON can hold it; what is infinite becomes null."""
    if isinstance(value, Estimate | Scale):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
