"""Several runs together: grouped by task and label, summarized as the field does, drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .pictures import plot_comparison, plot_curves
from .plan import Plan, label_text
from .records import read_config
from .scores import (
    Estimate,
    estimate,
    mean_score,
    performance_profile,
    probability_of_improvement,
    reliability,
    steps_to_threshold,
)
from .table import read_returns

PROFILE_POINTS = 101


class Curve(NamedTuple):
    """Runs that share task and label: steps `[evals]`, returns `[evals, runs]`."""

    env_steps: NDArray[Any]
    returns: NDArray[Any]


Curves = dict[str, dict[str, Curve]]
"""By task, then by label."""


class Summary(NamedTuple):
    """Of one label over all tasks; scores are returns at the end divided by the normalizer.

    Attributes:
        iqm: interquartile mean of the scores.
        mean: mean over tasks of the mean score.
        improvement: probability of improvement over the first label; none for the first itself.
        profile: share of runs above each of the thresholds 0, 0.01, …, 1.
        reliable: at each evaluation, the share of runs that stay above the threshold from there on.
        steps: median over all runs of the steps to the threshold; infinite if half of them never get there.
        runs: number of runs of each task.
    """

    iqm: Estimate
    mean: Estimate
    improvement: Estimate | None
    profile: Estimate
    reliable: dict[str, NDArray[Any]]
    steps: float
    runs: dict[str, int]


def load_curves(runs: Iterable[str]) -> Curves:
    """Curves of run folders, each given as `FOLDER` or `LABEL=FOLDER`.

    Without a label a run goes by its preset, and each setting of a sweep by its values. Runs of the same task
    and label are taken together.

    Raises:
        ValueError: if a folder holds no run or no evaluation, or runs to be taken together were evaluated at
            different steps.
    """
    curves: Curves = {}
    for text in runs:
        label, equals, name = text.rpartition("=")
        folder = Path(name)
        plan = Plan.from_json(read_config(folder))
        steps, returns = read_returns(folder / "metrics.csv", plan)
        if not len(steps):
            raise ValueError(f"{folder} has no evaluation in metrics.csv yet.")
        for setting, values in enumerate(plan.labels):
            own = label_text(values) if values else "" if equals else plan.preset
            parts = [part for part in (label, own) if part]
            curve = Curve(steps, returns[:, setting])
            add_curve(curves, plan.task, ": ".join(parts), curve, folder)
    return curves


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
    curves: Curves, normalizer: float = 1000.0, threshold: float = 0.9, last: int = 1
) -> dict[str, Summary]:
    """A summary per label, the first one being the baseline of the others.

    Args:
        curves: from `load_curves`.
        normalizer: what returns are divided by; 1000 is the most that DeepMind Control Suite tasks pay.
        threshold: share of the best return of the task (by any run at any evaluation) that counts as reached.
        last: number of evaluations at the end that a run's score is the mean of. Returns of one run swing from
            one evaluation to the next; a few of them tell methods apart with fewer runs.

    Raises:
        ValueError: if the normalizer or the threshold is not positive, or a curve has fewer than `last`
            evaluations.
    """
    for name, value in (("normalizer", normalizer), ("threshold", threshold)):
        if value <= 0:
            raise ValueError(f"{name} is {value}; it must be positive.")
    goals = {
        task: threshold * max(float(np.nanmax(curve.returns)) for curve in labels.values())
        for task, labels in curves.items()
    }
    by_label: dict[str, dict[str, Curve]] = {}
    for task, labels in curves.items():
        for label, curve in labels.items():
            by_label.setdefault(label, {})[task] = curve
    scores = {
        label: {task: final_returns(curve, last) / normalizer for task, curve in tasks.items()}
        for label, tasks in by_label.items()
    }
    first = next(iter(scores))
    return {
        label: Summary(
            iqm=estimate(scores[label]),
            mean=estimate(scores[label], mean_score),
            improvement=_improvement(scores[label], scores[first]) if label != first else None,
            profile=performance_profile(scores[label], np.linspace(0.0, 1.0, PROFILE_POINTS)),
            reliable={
                task: reliability(curve.returns, goals[task]) for task, curve in tasks.items()
            },
            steps=_median_steps(tasks, goals),
            runs={task: curve.returns.shape[1] for task, curve in tasks.items()},
        )
        for label, tasks in by_label.items()
    }


def final_returns(curve: Curve, last: int = 1) -> NDArray[Any]:
    """Per run, the mean over the last evaluations.

    Raises:
        ValueError: if there are fewer.
    """
    if not 1 <= last <= len(curve.returns):
        raise ValueError(
            f"last is {last}; it must be from 1 to the number of evaluations, {len(curve.returns)}."
        )
    return curve.returns[-last:].mean(axis=0)


def _improvement(scores: dict[str, Any], baseline: dict[str, Any]) -> Estimate | None:
    shared = set(scores) & set(baseline)
    return probability_of_improvement(scores, baseline) if shared else None


def _median_steps(tasks: dict[str, Curve], goals: dict[str, float]) -> float:
    steps = [steps_to_threshold(*curve, goals[task]) for task, curve in tasks.items()]
    # The middle one itself: infinities have no average.
    return float(np.quantile(np.concatenate(steps), 0.5, method="higher"))


def write_report(
    runs: Iterable[str],
    out: Path,
    normalizer: float = 1000.0,
    threshold: float = 0.9,
    last: int = 1,
) -> dict[str, Summary]:
    """Write `curves.png`, `summary.png` and `summary.json` for some runs, and return the summaries.

    Raises:
        ValueError: as `load_curves` and `summarize`.
    """
    curves = load_curves(runs)
    summaries = summarize(curves, normalizer, threshold, last)
    out.mkdir(parents=True, exist_ok=True)
    plot_curves(out / "curves.png", curves)
    plot_comparison(out / "summary.png", curves, summaries, threshold)
    plain = {label: _plain(summary._asdict()) for label, summary in summaries.items()}
    (out / "summary.json").write_text(json.dumps(plain, indent=1) + "\n")
    return summaries


def _plain(value: Any) -> Any:
    """As JSON can hold it; what is infinite becomes null."""
    if isinstance(value, Estimate):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value.tolist()]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
