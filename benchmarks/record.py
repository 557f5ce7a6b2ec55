"""What every result holds beside its numbers, where it is kept, and how curves are read again."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from reppo_fx.run.curves import Curve, Curves, add_curve
from reppo_fx.run.records import describe_machine

RESULTS = Path(__file__).parent / "results"


def stamp() -> dict[str, Any]:
    """Date, commit, versions, device. Opens the device."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        **describe_machine(),
        "cpu_count": os.cpu_count(),
        "processor": _processor(),
    }


# A list or an object that holds no other, and no text in which a bracket could stand.
INNERMOST = re.compile(r"([\[{])\n([^\[\]{}]*?)\n *([\]}])")


def _on_one_line(found: re.Match[str]) -> str:
    opened, inside, closed = found.groups()
    return opened + " ".join(line.strip() for line in inside.splitlines()) + closed


def write(record: dict[str, Any], path: Path) -> None:
    """Write a result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(INNERMOST.sub(_on_one_line, json.dumps(record, indent=1)) + "\n")
    new.replace(path)


def learning_file(folder: Path, label: str, task: str, seed: int = 0) -> Path:
    """Where the learning curves of a variant on a task are kept."""
    return folder / f"learning_{label}_{task}_{seed}.json"


def read_curves(folder: Path) -> Curves:
    """The learning curves in a folder; seeds of several files together, the original code first."""
    curves: Curves = {}
    paths = sorted(
        folder.glob("learning_*.json"), key=lambda path: ("_original_" not in path.name, path.name)
    )
    for path in paths:
        record = json.loads(path.read_text())
        steps = np.array([row["env_steps"] for row in record["evaluations"]])
        returns = np.array([row["eval_return"] for row in record["evaluations"]])
        add_curve(curves, record["task"], record["label"], Curve(steps, returns), path)
    return dict(sorted(curves.items()))


def _processor() -> str:
    """Name, family and model: under the one name AMD EPYC speeds differ threefold."""
    known = Path("/proc/cpuinfo")
    if not known.exists():
        return platform.processor()
    of = dict(
        re.findall(r"^(model name|cpu family|model)\s*: (.*)$", known.read_text(), re.MULTILINE)
    )
    model = [f"{field.split()[-1]} {of[field]}" for field in ("cpu family", "model") if field in of]
    return ", ".join([of.get("model name", platform.machine()), *model])


def _commit() -> str:
    """The commit that is checked out, with a plus if files differ from it."""
    run = lambda *arguments: subprocess.run(
        ["git", "-C", str(RESULTS.parent), *arguments], capture_output=True, text=True
    ).stdout.strip()
    changed = run("status", "--porcelain", "--", ":/reppo_fx", ":/benchmarks/*.py")
    return run("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
