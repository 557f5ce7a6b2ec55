"""What every result holds beside its numbers, where it is kept, and how curves are read again."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reppo_fx.run.curves import Curve, Curves, add_curve
from reppo_fx.run.display import SUCCESS
from reppo_fx.run.records import describe_machine

RESULTS = Path(__file__).parent / "results"
# What explains why a run did not learn.
DIAGNOSTICS = (
    "entropy",
    "temperature",
    "multiplier",
    "kl",
    "closed_gate",
    "value_bias",
    "outside",
    "exploring",
    "unit",
    "q_value",
)
SUCCESS_NAMES = (*SUCCESS, *(f"{name} (last)" for name in SUCCESS))
DIGITS = 8
LINE = 300
"""Characters of a line of facts."""
Rows = Sequence[Mapping[str, Any]]


def stamp() -> dict[str, Any]:
    """Date, commit, versions, device. Opens the device."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        **describe_machine(),
        "cpu_count": os.cpu_count(),
        "processor": _processor(),
    }


def made_on(stamped: Mapping[str, Any]) -> str:
    """The machine, jax and the commit of a stamp, in words.

    >>> made_on({"processor": "P", "cpu_count": 2, "versions": {"jax": "0.10.2"}, "commit": "ab",
    ...          "device": {"backend": "gpu", "kind": "G"}})
    'P, 2 cores and G, jax 0.10.2, commit ab'
    """
    device = stamped.get("device", {})
    beside = f" and {device['kind']}" if device.get("backend", "cpu") != "cpu" else ""
    return (
        f"{stamped.get('processor', 'processor not recorded')}, {stamped['cpu_count']} cores{beside}, jax "
        f"{stamped['versions']['jax']}, commit {stamped['commit']}"
    )


def brief(value: Any) -> Any:
    """Numbers with the digits that tables and pictures can show, in lists of any depth.

    >>> brief([123456, [0.123456789, 1e-9]])
    [123456, [0.12345679, 1e-09]]
    """
    if isinstance(value, list | tuple):
        return [brief(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def thinned(rows: Rows, *also: str) -> dict[str, Rows]:
    """Of every evaluation what tables and pictures are made of; of the first, the middle and the last one also the
    diagnostics that explain a failure, as means over seeds (the last axis).

    Args:
        rows: an evaluation each; `"env_steps"` and numbers by name.
        *also: what is kept of every evaluation beside steps, seconds, returns and success.

    >>> rows = [{"env_steps": i, "eval_return": [1.0, i], "kl": [0.0, 0.2], "loss": [1.0, 1.0]} for i in (8, 16)]
    >>> print(*thinned(rows).values(), sep="\\n")
    [{'env_steps': 8, 'eval_return': [1.0, 8]}, {'env_steps': 16, 'eval_return': [1.0, 16]}]
    [{'env_steps': 8, 'kl': 0.1}, {'env_steps': 16, 'kl': 0.1}]
    """
    kept = ("env_steps", "seconds", "eval_return", *SUCCESS_NAMES, *also)
    picked = sorted({0, len(rows) // 2, len(rows) - 1}) if rows else []
    return {
        "evaluations": [{name: row[name] for name in kept if name in row} for row in rows],
        "diagnostics": [
            {
                "env_steps": rows[i]["env_steps"],
                **{
                    name: brief(np.mean(rows[i][name], axis=-1).tolist())
                    for name in DIAGNOSTICS
                    if name in rows[i]
                },
            }
            for i in picked
        ],
    }


def _entry(value: Any) -> str:
    """A line for each column of evaluations and for each thing in a list of objects, one line for anything else."""
    if isinstance(value, dict) and value and all(isinstance(one, list) for one in value.values()):
        lines = [f"{json.dumps(name)}: {json.dumps(inner)}" for name, inner in value.items()]
        return "{\n  " + ",\n  ".join(lines) + "\n }"
    if isinstance(value, list) and any(isinstance(one, dict) and one for one in value):
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
    return json.dumps(value)


def _packed(entries: Iterable[str]) -> Iterator[str]:
    """Entries of one line side by side, as many as `LINE` holds."""
    line = ""
    for entry in entries:
        together = f"{line}, {entry}" if line else entry
        if "\n" not in together and len(together) <= LINE:
            line = together
            continue
        if line:
            yield line
        line = entry
    yield line


def as_text(record: dict[str, Any]) -> str:
    """JSON of few lines. Evaluations are columns: the steps of all, the returns of all, a line each.

    >>> rows = [{"env_steps": 1, "x": 2.0}, {"env_steps": 3, "x": 4.0}]
    >>> print(as_text({"task": "a", "seeds": 2, "evaluations": rows}))
    {
     "task": "a", "seeds": 2,
     "evaluations": {
      "env_steps": [1, 3],
      "x": [2.0, 4.0]
     }
    }
    """
    rows = record.get("evaluations", [])
    if rows:
        if any(row.keys() != rows[0].keys() for row in rows):
            raise ValueError(f"evaluations do not all have {list(rows[0])}.")
        columns = {name: brief([row[name] for row in rows]) for name in rows[0]}
        record = {**record, "evaluations": columns}
    lines = _packed(f"{json.dumps(name)}: {_entry(value)}" for name, value in record.items())
    return "{\n " + ",\n ".join(lines) + "\n}"


def write(record: dict[str, Any], path: Path) -> None:
    """Write a result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(as_text(record) + "\n")
    new.replace(path)


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote; evaluations are rows again."""
    record: dict[str, Any] = json.loads(path.read_text())
    columns = record.get("evaluations")
    if columns:
        values = zip(*columns.values(), strict=True)
        record["evaluations"] = [dict(zip(columns, row, strict=True)) for row in values]
    return record


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
        record = read(path)
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

    def run(*arguments: str) -> str:
        command = ["git", "-C", str(RESULTS.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    changed = run("status", "--porcelain", "--", ":/reppo_fx", ":/benchmarks/*.py")
    return run("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
