"""`warnings.json`: what a person was told while a run went on, kept with the run."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from .._errors import ReppoWarning
from .durable import write_whole
from .plan import entries

WARNINGS = "warnings.json"
TYPES: dict[str, tuple[type, ...]] = {
    "sentence": (str,),
    "env_steps": (int, type(None)),
    "name": (str, type(None)),
}


class Warned(NamedTuple):
    """One warning.

    Attributes:
        sentence: as it was told.
        env_steps: of each member when it was seen first; none for what the settings alone say.
        name: of a finding (see `diagnose`); none for other warnings.
    """

    sentence: str
    env_steps: int | None = None
    name: str | None = None


class Told:
    """The warnings of one run: each once, in a file as soon as the run has a folder."""

    def __init__(self) -> None:
        self._warned: list[Warned] = []
        self._folder: Path | None = None

    def add(self, warned: Warned) -> None:
        """Take one in, unless it is there: findings by their name, others by what they say."""
        if any(_same(warned, other) for other in self._warned):
            return
        self._warned.append(warned)
        self._write()

    def keep_in(self, folder: Path, done: int) -> None:
        """Keep them in a folder from now on, with those that a run was warned of before, up to `done` steps."""
        before = [one for one in read_warnings(folder) if (one.env_steps or 0) <= done]
        new = [one for one in self._warned if not any(_same(one, other) for other in before)]
        self._warned, self._folder = [*before, *new], folder
        self._write()

    def _write(self) -> None:
        if self._folder is None:
            return
        path = self._folder / WARNINGS
        if self._warned or path.exists():
            found = [one._asdict() for one in self._warned]
            write_whole(path, (json.dumps(found, indent=2) + "\n").encode())


def _same(one: Warned, other: Warned) -> bool:
    return one.sentence == other.sentence or (one.name is not None and one.name == other.name)


def read_warnings(folder: Path) -> list[Warned]:
    """What a run has warned of, in that order.

    Raises:
        ValueError: if the file is not as a run writes it.
    """
    path = folder / WARNINGS
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, list):
            raise ValueError(f"it holds {type(found).__name__}, not a list.")
        return [Warned(**entries(str(n), one, TYPES)) for n, one in enumerate(found)]
    except ValueError as error:
        raise ValueError(f"{path} is not as a run writes it: {error}") from error


@contextmanager
def our_warnings(take: Callable[[str, Callable[[], None]], None]) -> Iterator[None]:
    """Hand our own Python warnings, not those of others, to `take(sentence, show)`; `show()` shows it as before."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            as_before = functools.partial(before, message, category, filename, lineno, file, line)
            if issubclass(category, ReppoWarning):
                take(str(message), as_before)
            else:
                as_before()

        warnings.showwarning = show
        yield


@contextmanager
def listening() -> Iterator[Told]:
    """Take in our own Python warnings; they are shown as before."""
    told = Told()

    def take(sentence: str, show: Callable[[], None]) -> None:
        show()
        told.add(Warned(sentence))

    with our_warnings(take):
        yield told
