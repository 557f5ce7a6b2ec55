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


def _entry(value: Any) -> str:
    """One line for each thing in a list of objects or in an object, one line for anything else."""
    if isinstance(value, dict) and value:
        lines = [f"{json.dumps(name)}: {json.dumps(inner)}" for name, inner in value.items()]
        return "{\n  " + ",\n  ".join(lines) + "\n }"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
    return json.dumps(value)


def as_text(record: dict[str, Any]) -> str:
    """JSON of few lines: an evaluation is one, so that a change of one is seen as one.

    >>> print(as_text({"task": "a", "rows": [{"x": [1, 2]}, {"x": [3, 4]}]}))
    {
     "task": "a",
     "rows": [
      {"x": [1, 2]},
      {"x": [3, 4]}
     ]
    }
    """
    return "{\n" + ",\n".join(f" {json.dumps(k)}: {_entry(v)}" for k, v in record.items()) + "\n}"


def write(record: dict[str, Any], path: Path) -> None:
    """Write a result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(as_text(record) + "\n")
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
