"""Pictures of what `suite.py` trained."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from published import PUBLISHED
from record import RESULTS
from study import draw as draw_comparison
from suite_results import KNOWN, Found, curves_of, plain_name, read, tasks_of
from suite_tables import MOST, NAMES, SECTION_NAMES, results_of


def draw(folder: Path, path: Path) -> None:
    """The picture of a folder's results: scores of variants, or a panel a task, a line a variant."""
    if folder.name in SECTION_NAMES:
        draw_comparison(path, curves_of(read(folder)))
    else:
        draw_tasks(read(folder), path)


def draw_tasks(found: Found, path: Path) -> None:
    """Means over seeds ± standard error; the published return dashed."""
    tasks = tasks_of(found)
    columns = min(5, len(tasks))
    shape = (-(-len(tasks) // columns), columns)
    size = (3.2 * columns, 2.6 * shape[0] + 0.6)
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.ravel()[len(tasks) :]:
        panel.set_axis_off()
    for panel, task in zip(axes.ravel(), tasks, strict=False):
        for number, (label, by) in enumerate(found.items()):
            if task not in by:
                continue
            steps, returns = by[task].steps, by[task].returns
            mean, seeds = returns.mean(1), returns.shape[1]
            error = returns.std(1, ddof=min(1, seeds - 1)) / seeds**0.5
            color = f"C{number % 10}"
            panel.plot(steps / 1e6, mean, color=color, label=label)
            panel.fill_between(
                steps / 1e6, mean - error, mean + error, color=color, alpha=0.2, lw=0
            )
        named = plain_name(task)
        if named in KNOWN or named in PUBLISHED:
            panel.axhline(PUBLISHED.get(named, MOST), color="gray", ls="--", lw=0.8)
        panel.set_title(task, fontsize=9)
        panel.set_xlabel("million steps of each seed", fontsize=7)
        panel.tick_params(labelsize=7)
    # More would share colours.
    if len(found) <= 10:
        lines = [panel.get_legend_handles_labels() for panel in axes.ravel()]
        by_label = {label: line for pair in lines for line, label in zip(*pair, strict=True)}
        figure.legend(
            by_label.values(), by_label, loc="outside lower center", ncol=4, fontsize="small"
        )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_suites() -> None:
    """The pictures of the results that are kept."""
    for name in ("suite", *NAMES):
        if results_of(name):
            draw(RESULTS / name, RESULTS / f"{name}_curves.png")
