"""Compiled programs that live as long as what they belong to."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

T = TypeVar("T")

KEPT_PROGRAMS = 8
"""Programs kept for one owner, e.g. a `Train`; the one used longest ago goes first."""
_PROGRAMS: WeakKeyDictionary[Any, dict[Hashable, Any]] = WeakKeyDictionary()


def keep_program(owner: object, kind: Hashable, make: Callable[[], T]) -> T:
    """The program that was made for this owner before, or a new one; kept as long as the owner lives.

    What is kept is a jitted function, so shapes, dtypes and jax's own settings find the right compilation, and
    the compilations go with it.

    Args:
        owner: what the program belongs to.
        kind: everything else that decides it.
        make: makes it; the program must not hold the owner (take a `weakref`), or neither would ever go.
    """
    programs = _PROGRAMS.setdefault(owner, {})
    program = programs.pop(kind, None) or make()
    programs[kind] = program  # the latest at the end
    while len(programs) > KEPT_PROGRAMS:
        del programs[next(iter(programs))]
    return cast(T, program)
