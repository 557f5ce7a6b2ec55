"""What every result holds beside its numbers, and where it is kept."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from reppo_fx.run.records import describe_machine

RESULTS = Path(__file__).parent / "results"


def stamp() -> dict[str, Any]:
    """Date, commit, versions, device. Opens the device."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        **describe_machine(),
        "cpu_count": os.cpu_count(),
    }


def write(record: dict[str, Any], path: Path) -> None:
    """Write a result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(record, indent=1) + "\n")
    new.replace(path)


def _commit() -> str:
    """The commit that is checked out, with a plus if files differ from it."""
    run = lambda *arguments: subprocess.run(
        ["git", "-C", str(RESULTS.parent), *arguments], capture_output=True, text=True
    ).stdout.strip()
    changed = run("status", "--porcelain", "--", ":/reppo_fx", ":/benchmarks/*.py")
    return run("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
