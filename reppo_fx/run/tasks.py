"""What can be trained here, by the package that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .. import envs, hosts
from .._errors import MissingExtraError


class TaskFamily(NamedTuple):
    """A package's tasks, or why there are none.

    Attributes:
        title: what people call it.
        tasks: names as `reppo-fx train` takes them.
        missing: a sentence if it is not installed.
    """

    title: str
    tasks: tuple[str, ...]
    missing: str = ""


def tasks_by_family(pattern: str = "") -> Iterator[TaskFamily]:
    """Every family, with the tasks that have the pattern in their names and can be learned here."""
    wanted = pattern.lower()
    for family in envs.FAMILIES:
        try:
            names = family.names()
        except MissingExtraError as error:
            yield TaskFamily(family.title, (), str(error))
            continue
        yield TaskFamily(family.title, tuple(n for n in names if wanted in n.lower()))
    for prefix, host in hosts.FAMILIES.items():
        try:
            names = host.names()
        except ImportError as error:
            yield TaskFamily(host.title, (), str(error))
            continue
        found = [n for n in names if wanted in f"{prefix}:{n}".lower() and host.learnable(n)]
        yield TaskFamily(host.title, tuple(f"{prefix}:{name}" for name in found))
