"""Pictures of runs, with Matplotlib (no display needed)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray


def plot_learning_curve(
    path: Path, title: str, env_steps: NDArray[Any], returns: NDArray[Any]
) -> None:
    """Return against steps: one thin line per seed, their mean, and a band of one standard deviation.

    Args:
        path: PNG file to write.
        title: what was trained.
        env_steps: `[evals]`.
        returns: `[evals, seeds]`, undiscounted.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    mean, spread = returns.mean(1), returns.std(1)
    num_seeds = returns.shape[1]
    for seed in range(num_seeds if num_seeds > 1 else 0):
        axes.plot(env_steps, returns[:, seed], color="tab:blue", alpha=0.35, linewidth=0.8)
    axes.fill_between(
        env_steps, mean - spread, mean + spread, color="tab:blue", alpha=0.15, linewidth=0
    )
    label = f"mean of {num_seeds} seeds, ±1 standard deviation" if num_seeds > 1 else "1 seed"
    axes.plot(env_steps, mean, color="tab:blue", marker="o", markersize=3.5, label=label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps per seed")
    axes.set_ylabel("evaluation return (undiscounted)")
    axes.set_title(title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
