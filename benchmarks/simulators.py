"""The table and the picture of what `hosts.py` and `lab.py` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import record
from record import RESULTS

FOLDER = RESULTS / "hosts"
POINTS = 4
SUCCESS = ("success_once (last)", "success (last)")


def read(pattern: str) -> list[dict[str, Any]]:
    return [record.read(path) for path in sorted(FOLDER.glob(pattern))]


def at_points(rows: list[dict[str, Any]], name: str) -> str:
    """Mean over seeds, with its standard error where there are several, at four points of a run."""
    picks = [rows[max(0, round(len(rows) * (i + 1) / POINTS) - 1)] for i in range(POINTS)]
    cells = []
    for row in picks:
        values = np.array(row[name], float)
        digits = 0 if abs(values.mean()) >= 20 else 3 if abs(values.mean()) < 1 else 1
        error = (
            f" ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
        )
        cells.append(f"{values.mean():.{digits}f}{error}")
    return " / ".join(cells)


def length(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Thousands of steps, and minutes."""
    return f"{rows[-1]['env_steps'] / 1000:.0f}", f"{rows[-1]['seconds'] / 60:.1f}"


def learned() -> list[str]:
    lines = [
        "## Learning",
        "",
        "At a quarter, half, three quarters and the end of each run; mean over seeds ± standard error. Success is",
        "the share of evaluation episodes that ever succeeded; reward is that of a training step.",
        "",
        "| task | variant | seeds | steps (k) | minutes | return | success | reward per step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in read("learn_*.json"):
        rows = result["evaluations"]
        steps, minutes = length(rows)
        success = next((at_points(rows, name) for name in SUCCESS if name in rows[0]), "")
        lines.append(
            f"| {result['task']} | {result['label']} | {result['seeds']} | {steps} | {minutes} | "
            f"{at_points(rows, 'eval_return')} | {success} | {at_points(rows, 'reward')} |"
        )
    for result in read("mjlab_*.json"):
        rows = [{**row, "eval_return": [row["eval_return"]]} for row in result["evaluations"]]
        steps, minutes = length(rows)
        returns = at_points(rows, "eval_return")
        lines.append(
            f"| {result['task']} (mjlab) | cpu | 1 | {steps} | {minutes} | {returns} | | |"
        )
    return [*lines, "", "![curves](hosts_curves.png)"]


def same_policies() -> list[str]:
    lines = ["", "## The same policies in both simulators", ""]
    lines += ["| task | trained in | MJX | EnvPool | what differs |", "|---|---|---|---|---|"]
    for result in read("policy_*.json"):
        cells = [
            f"{result[name]['mean']:.1f} ± {result[name]['std_over_episodes']:.1f}"
            if name in result
            else ""
            for name in ("mjx", "envpool")
        ]
        # Files from before it was looked at do not say.
        said = "; ".join(result["differs"]) or "nothing" if "differs" in result else ""
        lines.append(f"| {result['task']} | {result['folder']} | {' | '.join(cells)} | {said} |")
    return lines


def speeds() -> list[str]:
    lines = [
        "",
        "## Whole training on two cores, preset `cpu`, evaluations left out",
        "",
        "Steps per second are of all seeds together; seconds are for so many steps of each seed.",
        "",
        "| task | seeds | EnvPool: steps/s | steps | seconds | MJX: steps/s | steps | seconds | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in read("speed_*.json"):
        cells = [
            f"{run['steps_per_second']:,} | {run['env_steps_of_each_seed']:,} | {run['seconds']:.0f}"
            for run in (result["envpool"], result["mjx"])
        ]
        lines.append(
            f"| {result['task']} | {result['seeds']} | {' | '.join(cells)} | {result['ratio']:.1f} |"
        )
    lines += ["", "Where an iteration on EnvPool goes (medians):", ""]
    lines += [
        "| task | seeds | steps/s | acting | simulation | learning | hand-over and Python |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in read("shares_*.json"):
        found = result["medians"]
        names = ("acting", "simulation", "learning", "hand-over and Python")
        cells = " | ".join(f"{found[name]:.1%}" for name in names)
        lines.append(
            f"| {result['task']} | {result['seeds']} | {found['steps_per_second']:,.0f} | {cells} |"
        )
    lines += [
        "",
        "EnvPool's threads (0: its own choice), and collecting in two halves, steps/s:",
        "",
    ]
    for kind in ("threads", "overlap"):
        for result in read(f"{kind}_*.json"):
            found = ", ".join(f"{name}: {x:,}" for name, x in result["steps_per_second"].items())
            lines.append(f"- {result['task']}, {result['seeds']} seeds, {kind}: {found}")
    return lines


def hosts() -> str:
    lines = [
        "# Simulators that are programs of their own",
        "",
        "Made by `python benchmarks/table.py` from the JSON files in `hosts/`, which have commit and machine.",
        "",
    ]
    return "\n".join([*lines, *learned(), *same_policies(), *speeds()]) + "\n"


PANELS = {
    "CartpoleBalance": ("eval_return", "return"),
    "CheetahRun": ("eval_return", "return"),
    "G1JoystickFlatTerrain": ("reward", "reward per step"),
    "T1JoystickFlatTerrain": ("reward", "reward per step"),
    "PullCube": (SUCCESS[0], "share of episodes that succeeded"),
}


def draw_hosts(path: Path = RESULTS / "hosts_curves.png") -> None:
    """Every run of the tasks in `PANELS`, seeds as mean and range."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(4 * len(PANELS), 3), layout="constrained")
    results = read("learn_*.json")
    for axis, (task, (name, label)) in zip(axes, PANELS.items(), strict=True):
        for result in results:
            rows = [row for row in result["evaluations"] if name in row]
            if task not in result["task"] or not rows:
                continue
            steps = np.array([row["env_steps"] for row in rows])
            values = np.array([row[name] for row in rows], float)
            (line,) = axis.plot(
                steps, values.mean(1), label=f"{result['label']} ({result['seeds']})"
            )
            axis.fill_between(
                steps, values.min(1), values.max(1), alpha=0.2, color=line.get_color()
            )
        axis.set(title=task, xlabel="steps", ylabel=label)
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
