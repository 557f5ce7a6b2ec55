"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]


class Stop:
    """Which signal asked to stop, if any."""

    signal: int | None = None


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """The first Ctrl-C or SIGTERM asks the loop to stop at the next chance; a second one interrupts at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            # None: it was set by something that is not Python, and cannot be set again from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
