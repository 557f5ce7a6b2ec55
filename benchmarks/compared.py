"""Table and pictures of this package's learning curves beside the original code's, at equal settings."""

from __future__ import annotations

import json

import numpy as np
from record import RESULTS

from reppo_fx.run.plots import plot_comparison, plot_curves
from reppo_fx.run.report import Curve, summarize
from reppo_fx.run.statistics import (
    Estimate,
    estimate,
    mean_score,
    probability_of_improvement,
    reliability,
)

# Of the best return on a task; as in the paper's figure on reliability.
THRESHOLD = 0.9


def compared_curves() -> dict[str, dict[str, Curve]]:
    """Curves in `results/compared/`, by task and label, the original code first."""
    curves: dict[str, dict[str, Curve]] = {}
    for path in sorted((RESULTS / "compared").glob("learning_*.json")):
        record = json.loads(path.read_text())
        steps = np.array([row["env_steps"] for row in record["evaluations"]])
        returns = np.array([row["eval_return"] for row in record["evaluations"]])
        labels = curves.setdefault(record["task"], {})
        if record["label"] in labels:
            returns = np.concatenate([labels[record["label"]].returns, returns], axis=1)
        labels[record["label"]] = Curve(steps, returns)
    first = lambda label: (label != "original", label)
    return {
        task: {label: labels[label] for label in sorted(labels, key=first)}
        for task, labels in curves.items()
    }


def compared() -> str:
    """Ours beside the original code at equal settings."""
    curves = compared_curves()
    summaries = summarize(curves, threshold=THRESHOLD)
    lines = [
        "# Beside the original code, at equal settings",
        "",
        "Same tasks, environment steps, data per update (128 x 64), widths (64), 8 epochs of 16 minibatches,",
        "hyperparameters of the published setting; 128 evaluation episodes. `authors`: this package with the",
        "original's choices; `cleaner`: with its own (`presets.CLEANER`); others change one choice of `authors`.",
        "Made from `compared/learning_*.json` (`python benchmarks/learning.py`, settings inside).",
        "",
        "| task | variant | seeds | steps (k) | IQM at the end | mean at the end | better | reliable |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, labels in curves.items():
        goal = THRESHOLD * max(float(curve.returns.max()) for curve in labels.values())
        for label, curve in labels.items():
            final = {task: curve.returns[-1]}
            better = ""
            if label != "original" and "original" in labels:
                baseline = {task: labels["original"].returns[-1]}
                better = _estimate(probability_of_improvement(final, baseline), 2)
            lines.append(
                f"| {task} | {label} | {curve.returns.shape[1]} | {curve.env_steps[-1] / 1000:.0f} "
                f"| {_estimate(estimate(final))} | {_estimate(estimate(final, mean_score))} "
                f"| {better} | {reliability(curve.returns, goal)[-1]:.0%} |"
            )
    lines += [
        "",
        "Better: probability that a run of the variant ends above a run of the original. Reliable: share of runs",
        f"at or above {THRESHOLD} of the best return seen on the task, at the last evaluation.",
        "Intervals: 95 % bootstrap.",
        "",
        "All tasks together, returns divided by 1000:",
        "",
        "| variant | tasks | IQM | mean | better |",
        "|---|---|---|---|---|",
    ]
    for label, summary in summaries.items():
        better = "" if summary.improvement is None else _estimate(summary.improvement, 2)
        lines.append(
            f"| {label} | {len(summary.runs)} | {_estimate(summary.iqm, 3)} "
            f"| {_estimate(summary.mean, 3)} | {better} |"
        )
    pictures = ["", "![curves](compared_curves.png)", "![summary](compared_summary.png)"]
    return "\n".join(lines + pictures) + "\n"


def draw_compared() -> None:
    """The pictures of `compared`."""
    curves = compared_curves()
    if not curves:
        return
    plot_curves(RESULTS / "compared_curves.png", curves)
    plot_comparison(
        RESULTS / "compared_summary.png", curves, summarize(curves, threshold=THRESHOLD), THRESHOLD
    )


def _estimate(x: Estimate, digits: int = 0) -> str:
    return f"{x.value:.{digits}f} [{x.low:.{digits}f}, {x.high:.{digits}f}]"
