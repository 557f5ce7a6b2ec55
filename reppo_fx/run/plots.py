"""Pictures of runs, with Matplotlib (no display needed)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEGEND_ENTRIES = 12
TICKS = 10


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


def _seeds(count: int) -> str:
    return f"mean of {count} seeds, ±1 standard deviation" if count > 1 else "1 seed"


def _matplotlib() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    return plt, EngFormatter(sep="")
