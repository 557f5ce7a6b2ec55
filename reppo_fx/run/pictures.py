"""Pictures of runs, with Matplotlib (no display needed)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scores import estimate

LEGEND_ENTRIES = 12
TICKS = 10
PROGRESS_POINTS = 101


def plot_learning_curve(
    path: Path,
    title: str,
    env_steps: NDArray[Any],
    returns: NDArray[Any],
    labels: list[str] | None = None,
) -> None:
    """Return against steps: for each setting the mean over seeds and a band of one standard deviation.

    Seeds are thin lines where there is a single setting.

    Args:
        path: PNG file to write.
        title: what was trained.
        env_steps: `[evals]`.
        returns: `[evals, settings, seeds]`, undiscounted.
        labels: one per setting.
    """
    plt, formatter = _matplotlib()
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    _, num_settings, num_seeds = returns.shape
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, num_settings))
    for setting in range(num_settings):
        runs = returns[:, setting]
        color = "tab:blue" if num_settings == 1 else colors[setting]
        if num_settings == 1 and num_seeds > 1:
            axes.plot(env_steps, runs, color=color, alpha=0.35, linewidth=0.8)
        mean, spread = runs.mean(1), runs.std(1)
        axes.fill_between(
            env_steps, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0
        )
        label = (labels or [""])[setting] if num_settings > 1 else _seeds(num_seeds)
        axes.plot(env_steps, mean, color=color, marker="o", markersize=3.5, label=label)
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel("environment steps per run")
    axes.set_ylabel("evaluation return (undiscounted)")
    axes.set_title(title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    if num_settings <= LEGEND_ENTRIES:
        heading = _seeds(num_seeds) if num_settings > 1 else None
        axes.legend(loc="best", frameon=False, fontsize="small", title=heading)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_sweep(
    path: Path, title: str, name: str, labels: list[dict[str, float]], returns: NDArray[Any]
) -> None:
    """Final return against one swept hyperparameter: seeds as dots, the mean over everything else as a line.

    Args:
        path: PNG file to write.
        title: what was trained.
        name: the hyperparameter.
        labels: the swept values of each setting.
        returns: of the last evaluation, `[settings, seeds]`.
    """
    plt, _ = _matplotlib()
    figure, axes = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    values = np.array([label[name] for label in labels])
    axes.scatter(
        np.repeat(values, returns.shape[1]), returns.ravel(), s=14, alpha=0.5, label="one run"
    )
    distinct = np.unique(values)
    means = [returns[values == value].mean() for value in distinct]
    axes.plot(distinct, means, color="tab:orange", marker="o", label="mean")
    if distinct.min() > 0 and distinct.max() / distinct.min() >= 2:
        axes.set_xscale("log")
    if len(distinct) <= TICKS:
        axes.set_xticks(distinct, [f"{value:g}" for value in distinct])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(name)
    axes.set_ylabel("final evaluation return (undiscounted)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_curves(path: Path, curves: Mapping[str, Mapping[str, Any]]) -> None:
    """A panel per task: the interquartile mean over runs of each label, and its 95 % bootstrap interval.

    Args:
        path: PNG file to write.
        curves: by task and label, each with `env_steps` `[evals]` and `returns` `[evals, runs]`.
    """
    plt, formatter = _matplotlib()
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(5 * columns, 3.8 * rows), layout="constrained", squeeze=False
    )
    colors = _colors(curves)
    for axes, (task, labels) in zip(panels.ravel(), curves.items(), strict=False):
        for label, curve in labels.items():
            points = [estimate({task: returns}) for returns in curve.returns]
            low, high = [point.low for point in points], [point.high for point in points]
            axes.fill_between(
                curve.env_steps, low, high, color=colors[label], alpha=0.2, linewidth=0
            )
            values = [point.value for point in points]
            name = f"{label} ({curve.returns.shape[1]} runs)"
            axes.plot(
                curve.env_steps, values, color=colors[label], marker="o", markersize=3, label=name
            )
        axes.xaxis.set_major_formatter(formatter)
        axes.set_title(task)
        axes.set_xlabel("environment steps per run")
        axes.set_ylabel("evaluation return, IQM")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    for axes in panels.ravel()[len(curves) :]:
        axes.remove()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_comparison(
    path: Path,
    curves: Mapping[str, Mapping[str, Any]],
    summaries: Mapping[str, Any],
    threshold: float,
) -> None:
    """Scores with their intervals, performance profiles, and reliability against steps.

    Args:
        path: PNG file to write.
        curves: by task and label.
        summaries: by label, from `report.summarize`.
        threshold: share of the best return that reliability asks for.
    """
    plt, _ = _matplotlib()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    colors = _colors(curves)
    for row, (label, summary) in enumerate(summaries.items()):
        value, low, high = summary.iqm
        left.barh(row, high - low, left=low, color=colors[label], alpha=0.4, height=0.6)
        left.plot([value, value], [row - 0.3, row + 0.3], color=colors[label])
        scores = np.linspace(0.0, 1.0, len(summary.profile.value))
        middle.fill_between(
            scores, summary.profile.low, summary.profile.high, color=colors[label], alpha=0.2
        )
        middle.plot(scores, summary.profile.value, color=colors[label], label=label)
        share = np.linspace(0.0, 1.0, PROGRESS_POINTS)
        reliable = [_held(one, share) for one in summary.reliable.values()]
        right.plot(share, np.mean(reliable, axis=0), color=colors[label], label=label)
    left.set_yticks(range(len(summaries)), list(summaries))
    left.invert_yaxis()
    left.set_xlim(0.0, max(1.0, *(summary.iqm.high for summary in summaries.values())) * 1.02)
    left.grid(alpha=0.3, axis="x")
    left.set_xlabel("normalized score, IQM and 95 % interval")
    middle.set_xlabel("normalized score")
    middle.set_ylabel("share of runs above")
    right.set_xlabel("share of each run's steps")
    right.set_ylabel(f"runs that stay above {threshold:g} of the best")
    for axes in (middle, right):
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    middle.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _held(values: NDArray[Any], share: NDArray[Any]) -> NDArray[Any]:
    """What the latest evaluation said, at each share of a run; nothing before the first one."""
    made = np.floor(share * len(values) + 1e-9).astype(int)
    return np.where(made > 0, values[np.maximum(made, 1) - 1], 0.0)


def _colors(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One per label, the same in every panel."""
    plt, _ = _matplotlib()
    labels = list(dict.fromkeys(label for one in curves.values() for label in one))
    few = plt.get_cmap("tab10").colors
    many = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(labels)))
    return dict(zip(labels, few if len(labels) <= len(few) else many, strict=False))


def _seeds(count: int) -> str:
    return f"mean of {count} seeds, ±1 standard deviation" if count > 1 else "1 seed"


def _matplotlib() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    return plt, EngFormatter(sep="")
