"""`reppo-fx list`: the runs in a folder, as a table."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from .display import count, print_line, print_table
from .facts import DONE, Facts, number, read_facts
from .records import CONFIG, is_run

Sort = Literal["date", "return", "steps", "task"]


@dataclasses.dataclass(frozen=True)
class List:
    """List the runs in a folder and in those below it, one line each.

    Return is that of the best setting, mean ± spread over seeds.
    """

    folder: tyro.conf.Positional[Path] = Path("runs")
    """Where to look."""
    sort: Sort = "date"
    """What comes first: the newest, the highest return, the most steps, or tasks by their names."""


def run_list(arguments: List, console: Console) -> int:
    """Print it; the exit code.

    Raises:
        ValueError: if there is no such folder.
    """
    if not arguments.folder.is_dir():
        what = "is not a folder" if arguments.folder.exists() else "is not there"
        raise ValueError(f"folder is {str(arguments.folder)!r}, which {what}.")
    runs, sentences = find_runs(arguments.folder)
    runs.sort(key=_ORDERS[arguments.sort])
    if runs:
        headings = [
            "run",
            "task",
            "preset",
            "members",
            "steps",
            "return",
            "best",
            "seconds",
            "state",
        ]
        rows = [_row(facts, arguments.folder) for facts in runs]
        print_table(console, [*headings, "warnings", "date"], rows)
    else:
        print_line(console, f"There are no runs in {arguments.folder}.")
    for sentence in sentences:
        print_line(console, sentence, style="yellow")
    return 0


def find_runs(folder: Path) -> tuple[list[Facts], list[str]]:
    """The runs in a folder and below it, and sentences about what is none or cannot be read."""
    runs: list[Facts] = []
    sentences: list[str] = []
    foreign: list[str] = []
    for one in _candidates(folder):
        try:
            if is_run(one):
                runs.append(read_facts(one))
            else:
                foreign.append(one.name)
        except ValueError as error:
            sentences.append(str(error))
        except OSError as error:
            sentences.append(f"{one} cannot be read: {error.strerror or error}.")
    if foreign:
        sentences.append(f"Without a config.json, and so no runs: {', '.join(foreign)}.")
    return runs, sentences


def _candidates(folder: Path) -> Iterator[Path]:
    """Folders with a `config.json`, not looked into further; and right in `folder`, those that lead to none."""
    if is_run(folder):
        yield folder
        return
    for name in sorted(path.name for path in folder.iterdir()):
        path = folder / name
        if name.startswith(".") or not path.is_dir():
            continue
        found = [path] if is_run(path) else [*_below(path)]
        yield from found or [path]


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if CONFIG in files:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _row(facts: Facts, start: Path) -> list[str]:
    plan, last, best = facts.plan, facts.last, facts.best
    settings = f"{len(plan.labels)} × " if plan.grid else ""
    total = "" if facts.state == DONE else f"/{count(facts.total_steps)}"
    return [
        str(facts.folder if facts.folder == start else facts.folder.relative_to(start)),
        plan.task,
        plan.preset,
        f"{settings}{plan.num_seeds}",
        f"{count(facts.done_steps)}{total}",
        last.text if last else "",
        number(best.mean) if best else "",
        f"{facts.seconds:.0f}",
        facts.state,
        str(len(facts.warned) or ""),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.written)),
    ]


def _worst_return_last(facts: Facts) -> float:
    last = facts.last
    return -last.mean if last is not None and math.isfinite(last.mean) else math.inf


_ORDERS: dict[str, Callable[[Facts], tuple[float | str, ...]]] = {
    "date": lambda facts: (-facts.written, str(facts.folder)),
    "return": lambda facts: (_worst_return_last(facts), str(facts.folder)),
    "steps": lambda facts: (-facts.done_steps, str(facts.folder)),
    "task": lambda facts: (facts.plan.task, _worst_return_last(facts), str(facts.folder)),
}
