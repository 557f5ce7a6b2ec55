"""Where a run goes: a folder that is new or empty."""

from __future__ import annotations

import re
from pathlib import Path

from .durable import LOCK
from .records import is_run


def new_folder(out: Path | None, task: str) -> Path:
    """The folder asked for, made; `runs/<task>` with a number if there is one already.

    Raises:
        ValueError: if it holds something, or cannot be made.
    """
    if out is not None:
        if out.exists():
            check_empty(out)
        return _make_folder(out, exist_ok=True)
    number = 1
    name = re.sub(
        r"[:/\\]+", "-", task
    )  # of simulators by family, which are no names of folders everywhere
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            return _make_folder(folder, exist_ok=False)
        except FileExistsError:
            number += 1


def check_empty(out: Path) -> None:
    """Raise a sentence where a folder holds something.

    Raises:
        ValueError: with what to do if it is a run.
    """
    if not out.is_dir():
        raise ValueError(f"out is {str(out)!r}, which is a file; give a folder, new or empty.")
    if any(path.name != LOCK for path in out.iterdir()):
        there = "; a run that is there goes on with --resume" if is_run(out) else ""
        raise ValueError(f"out is {str(out)!r}, which already exists and is not empty{there}.")


def _make_folder(folder: Path, exist_ok: bool) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise ValueError(
            f"out is {str(folder)!r}, which cannot be created: {error.strerror}."
        ) from error
    return folder
