"""Pictures of runs, with Matplotlib: figures of their own, so no display and no setting of the caller's matters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from .._errors import counted
from .curves import Curve
from .durable import naming
from .scores import Estimate, Floats, estimate
from .summaries import Summary

Color = str | tuple[float, float, float] | Floats
Numbers = NDArray[np.number[Any]]
Returns = NDArray[np.floating[Any]]

LEGEND_ENTRIES = 12
TICKS = 10
LONGEST_TEXT = 60
PROGRESS_POINTS = 101
EXPLAINING = {
    "entropy": "entropy",
    "kl": "KL",
    "temperature": "temperature",
    "multiplier": "multiplier",
    "outside": "targets outside",
}
"""Columns of `metrics.csv` that explain a curve, and what they are called under it."""
LOGARITHMIC = ("temperature", "multiplier")


def plot_learning_curve(
    path: Path,
    title: str,
    env_steps: Numbers,
    returns: Returns,
    labels: list[str] | None = None,
    explaining: Mapping[str, Returns] | None = None,
    bounds: Mapping[str, float] | None = None,
) -> None:
    """Return against steps: for each setting the mean over seeds and a band of one standard deviation.

    Seeds are thin lines where there is a single setting. Below, small, what explains it.

    Args:
        path: PNG file to write.
        title: what was trained.
        env_steps: `[evals]`.
        returns: `[evals, settings, seeds]`, undiscounted.
        labels: one per setting.
        explaining: other metrics by the names in `EXPLAINING`, as the returns.
        bounds: of some of those, to be drawn as dashed lines.
    """
    _, num_settings, num_seeds = returns.shape
    colors: list[Color] = ["tab:blue"] if num_settings == 1 else _shades(num_settings)
    shown = {name: values for name, values in (explaining or {}).items() if name in EXPLAINING}
    heights = (4.2, 1.7) if shown else (4.2,)
    with _picture(path, (8.5 if shown else 7.0, sum(heights))) as figure:
        grid = figure.add_gridspec(len(heights), max(1, len(shown)), height_ratios=heights)
        axes = figure.add_subplot(grid[0, :])
        _draw_members(axes, env_steps, returns, colors, labels)
        axes.set_xlabel("environment steps per run")
        axes.set_ylabel("evaluation return (undiscounted)")
        axes.set_title(_literal(title))
        if num_settings <= LEGEND_ENTRIES:
            heading = _seeds(num_seeds) if num_settings > 1 else None
            axes.legend(loc="best", frameon=False, fontsize="small", title=heading)
        for column, (name, values) in enumerate(shown.items()):
            below = figure.add_subplot(grid[1, column])
            _draw_members(below, env_steps, np.where(np.isfinite(values), values, np.nan), colors)
            _finish_small(below, name, values, (bounds or {}).get(name))


def _draw_members(
    axes: Axes,
    env_steps: Numbers,
    values: Returns,
    colors: Sequence[Color],
    labels: list[str] | None = None,
) -> None:
    """Means over seeds `[evals, settings, seeds]` and their bands."""
    _, num_settings, num_seeds = values.shape
    for setting, color in enumerate(colors):
        runs = values[:, setting]
        if num_settings == 1 and num_seeds > 1:
            axes.plot(env_steps, runs, color=color, alpha=0.35, linewidth=0.8)
        mean, spread = runs.mean(1), runs.std(1)
        axes.fill_between(
            env_steps, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0
        )
        label = (labels or [""] * num_settings)[setting] if num_settings > 1 else _seeds(num_seeds)
        axes.plot(env_steps, mean, color=color, marker="o", markersize=3.5, label=_literal(label))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def _finish_small(axes: Axes, name: str, values: Returns, bound: float | None) -> None:
    """One of the small pictures: its name, a scale that fits, and the bound that it is held against."""
    axes.set_title(EXPLAINING[name], fontsize="small")
    axes.tick_params(which="both", labelsize="x-small")
    for line in axes.lines:
        line.set(markersize=0, linewidth=min(line.get_linewidth(), 1.2))
    axes.xaxis.set_major_locator(MaxNLocator(2))
    if bound is not None:
        axes.axhline(bound, color="tab:red", linestyle="--", linewidth=0.8)
    known = values[np.isfinite(values)]
    if name == "outside":
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif name in LOGARITHMIC and len(known) and 0.0 < 10.0 * known.min() < known.max():
        axes.set_yscale("log")


def plot_sweep(
    path: Path, title: str, name: str, labels: list[dict[str, float]], returns: Returns
) -> None:
    """Final return against one swept hyperparameter: seeds as dots, the mean over everything else as a line.

    Args:
        path: PNG file to write.
        title: what was trained.
        name: the hyperparameter.
        labels: the swept values of each setting.
        returns: of the last evaluation, `[settings, seeds]`.
    """
    values = np.array([label[name] for label in labels])
    distinct = np.unique(values)
    means = [returns[values == value].mean() for value in distinct]
    with _picture(path, (5.6, 4.2)) as figure:
        axes = figure.subplots()
        axes.scatter(
            np.repeat(values, returns.shape[1]), returns.ravel(), s=14, alpha=0.5, label="one run"
        )
        axes.plot(distinct, means, color="tab:orange", marker="o", label="mean")
        if distinct.min() > 0 and distinct.max() / distinct.min() >= 2:
            axes.set_xscale("log")
        if len(distinct) <= TICKS:
            axes.set_xticks(distinct, [f"{value:g}" for value in distinct])
            axes.set_xticks([], minor=True)
        axes.set_xlabel(_literal(name))
        axes.set_ylabel("final evaluation return (undiscounted)")
        axes.set_title(_literal(title))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)


def plot_curves(path: Path, curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """A panel per task: the interquartile mean over runs of each label, and its 95 % bootstrap interval.

    Returns that are not finite count as the lowest of the task.

    Args:
        path: PNG file to write.
        curves: by task and label.
    """
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    colors = _colors(list(dict.fromkeys(label for one in curves.values() for label in one)))
    with _picture(path, (5.0 * columns, 3.8 * rows)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (task, labels) in zip(panels, curves.items(), strict=False):
            lowest = _lowest(labels)
            for label, curve in labels.items():
                _draw_curve(axes, label, curve, lowest, colors[label])
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.set_title(_literal(task))
            axes.set_xlabel("environment steps per run")
            axes.set_ylabel("evaluation return, IQM")
            axes.set_xlim(left=0)
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize="small")
        for axes in panels[len(curves) :]:
            axes.remove()


def _draw_curve(axes: Axes, label: str, curve: Curve, lowest: float, color: Color) -> None:
    known = np.where(np.isfinite(curve.returns), curve.returns, lowest)
    points = [estimate({label: returns}) for returns in known]
    low, high = [point.low for point in points], [point.high for point in points]
    axes.fill_between(curve.env_steps, low, high, color=color, alpha=0.2, linewidth=0)
    number = curve.returns.shape[1]
    name = _literal(f"{label} ({counted(number, 'run')})")
    values = [point.value for point in points]
    axes.plot(curve.env_steps, values, color=color, marker="o", markersize=3, label=name)


def _lowest(labels: Mapping[str, Curve]) -> float:
    """The lowest finite return of a task; 0 if there is none."""
    found = np.concatenate([curve.returns.ravel() for curve in labels.values()])
    found = found[np.isfinite(found)]
    return float(found.min()) if len(found) else 0.0


def plot_comparison(
    path: Path,
    curves: Mapping[str, Mapping[str, Curve]],
    summaries: Mapping[str, Summary],
    threshold: float,
) -> None:
    """Scores with their intervals, performance profiles, and reliability against steps.

    Args:
        path: PNG file to write.
        curves: by task and label.
        summaries: by label, from `report.summarize`.
        threshold: share of the way from a task's floor to its best return that reliability asks for.
    """
    colors = _colors(list(dict.fromkeys(label for one in curves.values() for label in one)))
    share = np.linspace(0.0, 1.0, PROGRESS_POINTS)
    with _picture(path, (15.0, 4.0)) as figure:
        left, middle, right = figure.subplots(1, 3)
        for row, (label, summary) in enumerate(summaries.items()):
            color, name = colors[label], _literal(label)
            value, low, high = (float(part) for part in summary.iqm)
            left.barh(row, high - low, left=low, color=color, alpha=0.4, height=0.6)
            left.plot([value, value], [row - 0.3, row + 0.3], color=color)
            at, profile = summary.profile_at, summary.profile
            middle.fill_between(at, profile.low, profile.high, color=color, alpha=0.2)
            middle.plot(at, profile.value, color=color, label=name)
            reliable = [_held(one, share) for one in summary.reliable.values()]
            right.plot(share, np.mean(reliable, axis=0), color=color, label=name)
        left.set_yticks(range(len(summaries)), [_literal(label) for label in summaries])
        left.invert_yaxis()
        left.set_xlim(*_limits([summary.iqm for summary in summaries.values()]))
        left.grid(alpha=0.3, axis="x")
        left.set_xlabel("normalized score, IQM and 95 % interval")
        middle.set_xlabel("normalized score")
        middle.set_ylabel("share of runs above")
        right.set_xlabel("share of each run's steps")
        right.set_ylabel(f"runs that stay above {threshold:g} of the way to the best")
        for axes in (middle, right):
            axes.set_ylim(-0.02, 1.02)
            axes.grid(alpha=0.3)
        middle.legend(frameon=False, fontsize="small")


def _limits(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """From 0 to 1, or as far as there are intervals, with some room."""
    low = min(0.0, *(float(one.low) for one in estimates))
    high = max(0.0, *(float(one.high) for one in estimates))
    high = max(high, 1.0) if low == 0.0 else high
    room = 0.02 * (high - low)
    return low - room if low < 0.0 else 0.0, high + room


def _held(values: Floats, share: Floats) -> Floats:
    """What the latest evaluation said, at each share of a run; nothing before the first one."""
    made = np.floor(share * len(values) + 1e-9).astype(int)
    return np.where(made > 0, values[np.maximum(made, 1) - 1], 0.0)


def _colors(labels: list[str]) -> dict[str, Color]:
    """One per label, the same in every panel."""
    few = [f"C{index}" for index in range(10)]
    chosen: list[Color] = list(few) if len(labels) <= len(few) else _shades(len(labels))
    return dict(zip(labels, chosen, strict=False))


def _shades(number: int) -> list[Color]:
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, number)))


def _seeds(count: int) -> str:
    return f"mean of {count} seeds, ±1 standard deviation" if count > 1 else counted(1, "seed")


def _literal(text: str) -> str:
    """A user's text as it is: no formula between dollars, nothing hidden for its first letter.

    In one line, and what leaves no room for a picture is cut out of its middle.
    """
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    if len(text) > LONGEST_TEXT:
        text = f"{text[: LONGEST_TEXT // 2]}…{text[-(LONGEST_TEXT // 2) :]}"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


@contextmanager
def _picture(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure that becomes a file."""
    as_written = matplotlib.rc_context({"text.usetex": False, "text.parse_math": True})
    with as_written, warnings.catch_warnings():
        # A letter that the font does not have becomes a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        with naming(path):
            figure.savefig(path, format="png", dpi=150)
