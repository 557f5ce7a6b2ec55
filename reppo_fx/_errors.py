"""Sentences for what users get wrong (one file for all rooms), and the class of our warnings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReppoWarning(UserWarning):
    """Something that works, but not as a person would expect: filter it by this class."""


class MissingExtraError(ImportError):
    """An optional dependency that is not installed, as opposed to one that is broken."""


def require_extra(what: str, extra: str) -> MissingExtraError:
    """The error for a missing optional dependency."""
    return MissingExtraError(
        f"{what} is not installed; install it with: pip install 'reppo_fx[{extra}]'"
    )


def counted(number: int, what: str) -> str:
    """How many there are, in words.

    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names most like `name`, ignoring case."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.4)
    return [by_lower[candidate] for candidate in close]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not known, with the nearest ones."""
    close = nearest(name, known)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
    return ValueError(f"unknown {kind} {name!r}{hint}")
