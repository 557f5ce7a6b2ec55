"""What `suite.py` left in a folder: scores by variant and task, curves, machines; and rows as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import record
from ablations import BASELINE
from published import DMC
from suites import CHEAP, PLAYGROUND_NAMES, full_name

from reppo_fx.run.curves import Curve, Curves
from reppo_fx.run.display import SUCCESS
from reppo_fx.run.plan import label_text

KNOWN = tuple(dict.fromkeys([*CHEAP, *DMC]))
"""Tasks that pay between 0 and 1 in each of 1000 steps."""
OURS_NAMES = {theirs: ours for ours, theirs in PLAYGROUND_NAMES.items()}


def plain_name(task: str) -> str:
    """Under which a task's returns are published.

    >>> plain_name("playground:BallInCup"), plain_name("envpool:CheetahRun-v1"), plain_name("brax:ant")
    ('BallInCupCatch', 'CheetahRun', 'brax:ant')
    """
    prefix, _, name = full_name(task).partition(":")
    if prefix not in ("envpool", "playground"):
        return task
    name = name.removesuffix("-v1")
    return OURS_NAMES.get(name, name)


class Scores(NamedTuple):
    """Of one setting on one task.

    Attributes:
        steps: of each evaluation.
        returns: `[evals, seeds]`.
        success: as the returns; none where the simulator does not say.
        seconds: of training all settings of its program to the last evaluation, without compilation.
        members: how many that were.
    """

    steps: np.ndarray
    returns: np.ndarray
    success: np.ndarray | None
    seconds: float = float("nan")
    members: int = 1

    def cell(self) -> str:
        """Mean over seeds in the last quarter of the evaluations ± standard error, and success there."""
        text = mean_and_error(last_quarter(self.returns), 0)
        if self.success is None:
            return text
        return f"{text}, success {last_quarter(self.success).mean():.2f}"


def mean_and_error(values: np.ndarray, digits: int | None = None) -> str:
    """Over seeds; with more digits where numbers are small, if it is not said how many.

    >>> mean_and_error(np.array([500.0, 520.0])), mean_and_error(np.array([-4.0]))
    ('510 ± 10', '-4.00')
    """
    if digits is None:
        digits = 0 if abs(values.mean()) >= 100 else 1 if abs(values.mean()) >= 10 else 2
    error = f" ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"


def last_quarter(values: np.ndarray) -> np.ndarray:
    """Per seed, the mean of the last quarter of the evaluations."""
    return np.asarray(values[-max(1, len(values) // 4) :].mean(0))


Found = dict[str, dict[str, Scores]]
"""By variant and task."""


def read(folder: Path) -> Found:
    """What `suite.py` left in a folder; the original code last, with tasks by our names."""
    found: Found = {}
    files = sorted(
        folder.glob("*.json"), key=lambda path: (path.name.startswith("learning_"), path)
    )
    for path in files:
        result = record.read(path)
        rows = result["evaluations"]
        steps = np.array([r["env_steps"] for r in rows])
        returns = np.array([r["eval_return"] for r in rows])
        # Of two machines together they say nothing.
        nothing = float("nan")
        seconds = nothing if "made_on" in result else rows[-1].get("seconds", nothing)
        if "settings" not in result or isinstance(result["settings"], dict):
            task = OURS_NAMES.get(result["task"], result["task"])
            one = Scores(steps, returns, None, seconds, returns.shape[1])
            found.setdefault(result["label"], {})[task] = one
            continue
        said = next((name for name in SUCCESS if name in rows[0]), None)
        members = int(np.prod(returns.shape[1:]))
        for i, setting in enumerate(result["settings"]):
            label = f"{result['label']}, {label_text(setting)}" if setting else result["label"]
            success = None if said is None else np.array([r[said] for r in rows])[:, i]
            scores = Scores(steps, returns[:, i], success, seconds, members)
            found.setdefault(label, {})[result["task"]] = scores
    return found


def tasks_of(found: Found) -> list[str]:
    every = {task for tasks in found.values() for task in tasks}
    return [task for task in dict.fromkeys([*KNOWN, *sorted(every)]) if task in every]


def curves_of(found: Found) -> Curves:
    """By task and variant, the baseline first."""
    labels = sorted(found, key=lambda label: label != BASELINE)
    return {
        task: {
            label: Curve(found[label][task].steps, found[label][task].returns)
            for label in labels
            if task in found[label]
        }
        for task in tasks_of(found)
    }


def machines(folder: Path) -> list[str]:
    """What the results in a folder were made on."""
    kinds: dict[str, int] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        said = ", then ".join(result.get("made_on", [record.made_on(result)]))
        kinds[said] = kinds.get(said, 0) + 1
    return [
        f"- {said}: {count} {'file' if count == 1 else 'files'}" for said, count in kinds.items()
    ]


def as_table(rows: list[dict[str, str]], order: Iterable[str] = ()) -> list[str]:
    """Columns in an order, else in that in which rows bring them; without those that are empty.

    >>> as_table([{"a": "1", "b": ""}, {"a": "2", "b": "", "c": "3"}])
    ['| a | c |', '|---|---|', '| 1 |  |', '| 2 | 3 |']
    """
    names = dict.fromkeys([*order, *(name for row in rows for name in row)])
    heads = [name for name in names if any(row.get(name) for row in rows)]
    body = (f"| {' | '.join(row.get(name, '') for name in heads)} |" for row in rows)
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *body]
