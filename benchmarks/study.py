"""Variants of a preset on some tasks, with eight seeds each: training what is missing, and tables of it.

For `compared.py` and `ablations.py`. Every run is a `learning.py` in a process of its own; those whose file is
there already are left out, so that a study can be stopped at any time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from record import learning_file
from settings import write_changes

from reppo_fx.run.curves import Curves
from reppo_fx.run.pictures import plot_comparison
from reppo_fx.run.summaries import Summary, summarize

SEEDS = 8
# Of the best return on a task; as in the paper's figure on reliability.
THRESHOLD = 0.9
# The last quarter of a run's evaluations: one evaluation swings by more than variants differ.
QUARTER = 4
# What a preset that is compared takes of a study's settings: how long it learns, with what sizes.
EQUAL = ("total_steps", "num_evals", "num_eval_envs", "width")


class Study(NamedTuple):
    """What is varied.

    Attributes:
        folder: for the results.
        preset: that variants change.
        settings: of every variant.
        variants: changes by label, as on a command line.
        tasks: where.
        presets: those that are compared under their names; only lengths and widths are those of the study.
    """

    folder: Path
    preset: str
    settings: dict[str, Any]
    variants: dict[str, str]
    tasks: tuple[str, ...]
    presets: tuple[str, ...] = ()


def train_variant(study: Study, task: str, label: str) -> None:
    """One variant on one task, unless its results are there."""
    preset = label if label in study.presets else study.preset
    changes = variant_changes(study, label)
    train_once(study.folder, task, label, ["--preset", preset, "--set", *changes])


def variant_changes(study: Study, label: str) -> list[str]:
    """All changes of the preset, as on a command line; a variant's own before those of every variant."""
    if label in study.presets:
        return write_changes({name: study.settings[name] for name in EQUAL})
    own = dict(text.split("=", 1) for text in study.variants[label].split())
    return write_changes({**study.settings, **own})


def train_once(
    folder: Path, task: str, label: str, arguments: list[str], python: str = sys.executable
) -> None:
    """`learning.py` with some arguments, unless its results are there."""
    if learning_file(folder, label, task).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [python, str(Path(__file__).with_name("learning.py")), task, "--label", label]
    command += ["--seeds", str(SEEDS), "--out", str(folder), *arguments]
    subprocess.run(command, check=True)


def each_alone(changes: Mapping[str, Any]) -> dict[str, str]:
    """One variant for every change."""
    return {f"{name}-{value}": f"{name}={value}" for name, value in changes.items()}


def parser(description: str | None, study: Study, variants: list[str]) -> argparse.ArgumentParser:
    """The command line of a study; `variants` are those of a call without any."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    result.add_argument("--tasks", nargs="+", default=study.tasks)
    result.add_argument(
        "--variants", nargs="*", choices=[*study.variants, *study.presets], default=variants
    )
    return result


def summaries(
    curves: Curves, normalizer: float = 1000.0, last: int = QUARTER
) -> dict[str, Summary]:
    return summarize(curves, normalizer, THRESHOLD, last)


def by_task(curves: Curves, baseline: str) -> list[str]:
    """Rows of a table: every variant on every task, at the end and in the last quarter, baseline first."""
    lines = [
        "| task | variant | seeds | steps (k) | IQM at the end | mean | better "
        "| IQM, last quarter | mean | better | reliable |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, labels in curves.items():
        found = [summaries({task: labels}, 1.0, last) for last in (1, QUARTER)]
        for label, curve in labels.items():
            cells = [task, label, f"{curve.returns.shape[1]}", f"{curve.env_steps[-1] / 1000:.0f}"]
            for summary in (at[label] for at in found):
                known = baseline in labels and summary.improvement is not None
                better = summary.improvement.text(2) if known else ""
                cells += [summary.iqm.text(0), summary.mean.text(0), better]
            reliable = f"{found[0][label].reliable[task][-1]:.0%}"
            lines.append(f"| {' | '.join([*cells, reliable])} |")
    return [
        *lines,
        "",
        f"Last quarter: a run's mean over its last {QUARTER} evaluations, which swing less than one. Better:",
        f"probability that a run of the variant ends above a run of `{baseline}`. Reliable: share of runs",
        f"at or above {THRESHOLD} of the best return seen on the task, at the last evaluation. Intervals: 95 %",
        "bootstrap.",
    ]


def over_tasks(curves: Curves) -> list[str]:
    """Rows of a table: every variant that was run on all tasks, the baseline first; none for it alone."""
    common = on_every_task(curves)
    if all(len(labels) < 2 for labels in common.values()):
        return []
    lines = [
        "All tasks together, returns in the last quarter divided by 1000:",
        "",
        "| variant | tasks | IQM | mean | better |",
        "|---|---|---|---|---|",
    ]
    for label, summary in summaries(common).items():
        better = "" if summary.improvement is None else summary.improvement.text(2)
        lines.append(
            f"| {label} | {len(summary.runs)} | {summary.iqm.text()} | {summary.mean.text()} | {better} |"
        )
    return lines


def on_every_task(curves: Curves) -> Curves:
    """Variants on fewer tasks cannot be compared across tasks."""
    everywhere = set.intersection(*(set(labels) for labels in curves.values()))
    return {
        task: {label: curve for label, curve in labels.items() if label in everywhere}
        for task, labels in curves.items()
    }


def draw(path: Path, curves: Curves) -> None:
    """Scores with intervals, profiles and reliability of a study's variants."""
    common = on_every_task(curves)
    plot_comparison(path, common, summaries(common), THRESHOLD)
