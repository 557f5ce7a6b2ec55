"""Tables of what `suite.py` trained, beside published returns and the original code's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import published
from ablations import BASELINE, FIGURE7, PUBLISHED_AS, SECTIONS
from published import CURVES, DMC, METHODS, PUBLISHED, RETURNS, SECONDS_STEPS
from record import RESULTS
from study import by_task, over_tasks
from suite_results import (
    KNOWN,
    Found,
    as_table,
    curves_of,
    last_quarter,
    machines,
    mean_and_error,
    plain_name,
    read,
    tasks_of,
)

from reppo_fx.run.scores import probability_of_improvement, reliability

HERE = RESULTS / "suite"
MOST = 1000.0
"""What the tasks of `KNOWN` pay at most, where nothing is published."""
# Of the best published mean.
REACHED, ZERO = 0.9, 0.05
# Folders of `--variants`.
SECTION_NAMES = tuple(name for name, _ in SECTIONS.values())
ORIGINAL = "original-"
# Share of runs at 90 % of the best published mean at the end, from the authors' result files.
PUBLISHED_RELIABLE = {"reppo": 0.80, "reppo_small": 0.74, "fasttd3": 0.71, "sac": 0.55}
PUBLISHED_MEAN = {**{method: shares[-1] for method, shares in CURVES.items()}, "sac": 0.72}
STEPS = (0.5, 1.0, *published.STEPS)
COLUMNS = ("task", "variant", "seeds", "M steps", "return", "success", *METHODS.values())


def lines(folder: Path) -> Iterator[str]:
    """A row a variant, a column a task."""
    found = read(folder)
    tasks = tasks_of(found)
    yield "| variant | seeds | steps (k) | score | lowest | " + " | ".join(tasks) + " |"
    yield "|---|---|---|---|---|" + "---|" * len(tasks)
    for label, by in found.items():
        shares, cells = [], []
        for task in tasks:
            if task not in by:
                cells.append("")
                continue
            last = last_quarter(by[task].returns)
            if task in KNOWN:
                shares.append(last.mean() / PUBLISHED.get(task, MOST))
            cells.append(by[task].cell())
        seeds = from_to([one.returns.shape[1] for one in by.values()])
        steps = from_to([round(one.steps[-1] / 1000) for one in by.values()])
        score = f"{np.mean(shares):.3f} | {min(shares):.2f}" if shares else " | "
        yield f"| {label} | {seeds} | {steps} | {score} | {' | '.join(cells)} |"


def from_to(numbers: list[int]) -> str:
    """`"3"`, or `"3 to 8"` where tasks differ."""
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def suite() -> str:
    """The presets on the cheap suite and other tasks."""
    return wide(HERE)


def explored() -> str:
    """Every setting that was tried, the worse ones too."""
    return wide(RESULTS / "explored", "What was tried", picture=False)


def scales() -> str:
    """The preset for unknown tasks with each scale of values, nothing else changed."""
    return wide(RESULTS / "scales", "Scales of values", picture=False)


def sigma() -> str:
    """The width of labels with few and many bins, and with values of a smaller and a larger range."""
    return wide(
        RESULTS / "sigma", "Width of labels, number of bins, range of values", picture=False
    )


def made_from(folder: Path) -> str:
    return (
        f"Made by `python benchmarks/table.py` from the JSON files in `{folder.name}/`, which have commit and "
        "machine."
    )


def wide(folder: Path, title: str = "The suite", picture: bool = True) -> str:
    return "\n".join(
        [
            f"# {title}",
            "",
            made_from(folder),
            "Returns in the last quarter of each run, mean over seeds ± standard error. Score: mean over tasks of",
            "return by the published one after 50 M steps (1000 where there is none); lowest: of these.",
            "",
            *lines(folder),
            "",
            *([f"![curves]({folder.name}_curves.png)", ""] if picture else []),
        ]
    )


def of_best(task: str, returns: np.ndarray) -> float:
    """Mean return at the end by the highest published mean."""
    return float(last_quarter(returns).mean() / RETURNS[task]["best"])


def reliable(task: str, returns: np.ndarray) -> tuple[float, float]:
    """Shares of runs with 90 % of the best in the mean of the last quarter; in every evaluation of it."""
    goal = REACHED * RETURNS[task]["best"]
    quarter = returns[-max(1, len(returns) // 4) :]
    return float((quarter.mean(0) >= goal).mean()), float(reliability(quarter, goal)[0])


def better(found: Found, label: str, tasks: list[str]) -> str:
    """Probability that a run ends above one of the original code, where that was run beside it."""
    ours, theirs = found[label], found.get(f"{ORIGINAL}{label.split(', ')[0]}", {})
    shared = [task for task in tasks if task in ours and task in theirs]
    if not shared:
        return ""
    own, other = ({t: last_quarter(by[t].returns) for t in shared} for by in (ours, theirs))
    return probability_of_improvement(own, other).text(2)


def task_row(found: Found, label: str, task: str) -> dict[str, str]:
    """Everything there is to say of a variant on a task, by the head of its column."""
    one, named = found[label][task], plain_name(task)
    last, millions = last_quarter(one.returns), one.steps[-1] / 1e6
    cells = {
        "task": task,
        "variant": label,
        "seeds": f"{one.returns.shape[1]}",
        "M steps": f"{millions:.3g}",
        "return": mean_and_error(last),
    }
    if one.success is not None:
        cells["success"] = f"{last_quarter(one.success).mean():.2f}"
    cells |= {
        name: mean_and_error(np.array([RETURNS[named][m]]))
        for m, name in METHODS.items()
        if m in RETURNS.get(named, ())
    }
    if named in DMC:
        share = of_best(named, one.returns)
        reached, stayed = reliable(named, one.returns)
        cells |= {
            "of the best": f"{share:.2f}",
            "reached": f"{reached:.0%}",
            "stayed": f"{stayed:.0%}",
        }
    if np.isfinite(one.seconds):
        cells["minutes (runs)"] = f"{one.seconds / 60:.1f} ({one.members})"
        cells["s per M steps"] = f"{one.seconds / (one.members * millions):.0f}"
    published_seconds = published.seconds_of(named)
    if published_seconds:
        cells["L40S: s per M"] = f"{published_seconds / (SECONDS_STEPS / 1e6):.1f}"
    cells["better than the original"] = better(found, label, [task])
    return cells


def overall(found: Found) -> list[dict[str, str]]:
    """Rows over the tasks of the control suite: ours, then what is published."""
    rows = []
    for label, by in found.items():
        tasks = [task for task in DMC if task in by]
        if not tasks:
            continue
        shares = {t: of_best(t, by[t].returns) for t in tasks}
        reached, stayed = np.mean([reliable(t, by[t].returns) for t in tasks], axis=0)
        rows.append(
            {
                "": label,
                "tasks": f"{len(tasks)} of {len(DMC)}",
                "M steps": f"{max(by[t].steps[-1] for t in tasks) / 1e6:.3g}",
                "mean": f"{np.mean(list(shares.values())):.2f}",
                "reached": f"{reached:.2f}",
                "stayed": f"{stayed:.2f}",
                "at zero": ", ".join(t for t in tasks if shares[t] < ZERO) or "none",
                "better than the original": better(found, label, tasks),
            }
        )
    for method, name in METHODS.items():
        known = [task for task in DMC if method in RETURNS[task]]
        zero = [t for t in known if RETURNS[t][method] < ZERO * RETURNS[t]["best"]]
        rows.append(
            {
                "": f"{name}, published",
                "tasks": f"{len(known)} of {len(DMC)}",
                "M steps": "its own" if method == "sac" else "50",
                "mean": f"{PUBLISHED_MEAN[method]:.2f}",
                "reached": f"{PUBLISHED_RELIABLE[method]:.2f}"
                if method in PUBLISHED_RELIABLE
                else "",
                "at zero": ", ".join(zero) or "none",
            }
        )
    return rows


def at_steps(found: Found) -> list[dict[str, str]]:
    """Mean over tasks of return by the best after so many million steps: ours, then what is published."""
    rows = []
    for label, by in found.items():
        tasks = [task for task in DMC if task in by]
        if not tasks:
            continue
        row = {"": f"{label}, {len(tasks)} of {len(DMC)} tasks"}
        for millions in STEPS:
            ends = [by[t].steps[-1] for t in tasks]
            if min(ends) < 0.98e6 * millions:
                continue
            at = [int((by[t].steps <= 1.02e6 * millions).sum()) - 1 for t in tasks]
            if min(at) >= 0:
                shares = [
                    by[t].returns[i].mean() / RETURNS[t]["best"]
                    for t, i in zip(tasks, at, strict=True)
                ]
                row[f"{millions:g}"] = f"{np.mean(shares):.2f}"
        rows.append(row)
    for method, means in CURVES.items():
        own = {f"{m:g}": f"{x:.2f}" for m, x in zip(published.STEPS, means, strict=True)}
        rows.append({"": f"{METHODS[method]}, published", **own})
    return rows


TITLES = {
    "dmc": "The DeepMind Control Suite beside published figures",
    "six": "Six tasks of the DeepMind Control Suite",
    "humanoid": "Humanoids on two cores",
    "maniskill": "ManiSkill on two cores",
    "brax": "Brax on two cores",
    "gymnax": "gymnax on two cores",
}
# Of folders with a page each.
NAMES = (*TITLES, *SECTION_NAMES)
DEFINITIONS = """\
Return: mean over seeds ± standard error of a run's mean over the last quarter of its evaluations, 8 episodes each.
Minutes: from the first step to the last evaluation of all runs of a program (in brackets, how many) together,
evaluations included, most of compilation not; s per M steps: these seconds by the million steps of all of them."""
PUBLISHED_DEFINITIONS = f"""\
The columns REPPO to SAC are published returns: means at the end, after {SECONDS_STEPS / 1e6:.0f} M steps
(SAC: after its own budget), from the result files that the authors of REPPO publish with their code, of 4 to 50
runs a task; L40S: their seconds per million steps on that GPU (380 to 1,137 s for all 50 M). Of the best: return by
the highest published mean of any method on the task. Reached: share of runs whose return is at {REACHED:.0%} of
that or above (published runs: at their end); stayed: share of runs that are there at every evaluation of the last
quarter. At zero: below {ZERO:.0%} of the best."""
ORIGINAL_DEFINITIONS = """\
`original-…` is the original code with its published hyperparameters at our steps, data per update, minibatches,
epochs and widths, on the same task in MuJoCo Playground. Better: probability that a run of ours ends above one of
it, tasks weighing alike [95 % bootstrap interval]."""


def suite_page(folder: Path) -> str:
    """A suite's table by task, and the figures over all tasks where there are published ones."""
    found = read(folder)
    tasks = tasks_of(found)
    rows = [
        task_row(found, label, task) for task in tasks for label in found if task in found[label]
    ]
    text = [
        f"# {TITLES[folder.name]}",
        "",
        made_from(folder),
        DEFINITIONS,
    ]
    text += [PUBLISHED_DEFINITIONS] if any(plain_name(task) in RETURNS for task in tasks) else []
    text += [ORIGINAL_DEFINITIONS] if any(label.startswith(ORIGINAL) for label in found) else []
    text += ["", *machines(folder), ""]
    if folder.name == "dmc":
        text += ["## All tasks", "", *as_table(overall(found)), ""]
        text += [
            "Mean of return by the best after so many million steps (FastTD3's files have few points):",
            "",
        ]
        steps = ["", *(f"{millions:g}" for millions in STEPS)]
        text += [*as_table(at_steps(found), steps), "", "## By task", ""]
    return "\n".join(
        [*text, *as_table(rows, COLUMNS), "", f"![curves]({folder.name}_curves.png)", ""]
    )


def variants_page(folder: Path) -> str:
    """One change at a time on the suite's tasks, beside the paper's order."""
    curves = curves_of(read(folder))
    text = [
        f"# One change at a time on the suite's tasks: {folder.name}",
        "",
        made_from(folder),
        f"`python benchmarks/suite.py --suite six --variants {folder.name}`; 8 episodes per evaluation.",
        "",
        *machines(folder),
        "",
        *over_tasks(curves),
        "",
    ]
    tasks = [task for task in curves if task in RETURNS]
    columns = {label: PUBLISHED_AS.get(label, label) for label in (BASELINE, *FIGURE7)}
    if folder.name == "figure7" and tasks:
        text += ["Published, after 50 M steps at 128 x 1024 per update and width 512:", ""]
        text += as_table(
            [
                {
                    "variant": label,
                    **{t: f"{RETURNS[t][own]:.0f}" if own in RETURNS[t] else "" for t in tasks},
                }
                for label, own in columns.items()
                if any(own in RETURNS[t] for t in tasks)
            ]
        )
    return "\n".join(
        [*text, "", *by_task(curves, BASELINE), "", f"![summary]({folder.name}_curves.png)", ""]
    )


def suite_table(folder: Path) -> str:
    """The page of a folder's results, by its name; a row a variant where that is not a suite's."""
    if folder.name in SECTION_NAMES:
        return variants_page(folder)
    return suite_page(folder) if folder.name in TITLES else wide(folder)


def results_of(name: str) -> bool:
    """Whether there are any."""
    return any((RESULTS / name).glob("*.json"))


def pages() -> dict[str, str]:
    """The page of every suite and section of variants that there are results of, by file name."""
    return {f"{name}.md": suite_table(RESULTS / name) for name in NAMES if results_of(name)}
