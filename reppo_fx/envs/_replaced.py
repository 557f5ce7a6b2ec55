"""One attribute of somebody else's object replaced for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Objects of a simulator are shared by all threads; two must not meet in one that is changed.
_REPLACING = threading.RLock()


@contextmanager
def replaced(owner: Any, attribute: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """`owner.attribute` is `change(its value)` inside, and what it was afterwards; one thread at a time."""
    with _REPLACING:
        own = getattr(owner, attribute)
        setattr(owner, attribute, change(own))
        try:
            yield
        finally:
            setattr(owner, attribute, own)
