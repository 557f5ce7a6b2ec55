"""Signals that ask a run to stop."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]

SECONDS_TO_PRESS_AGAIN = 0.05


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


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Repeat an interrupt that Python drops, as those raised inside a destructor or a callback of the collector.

    While jax traces, a Ctrl-C lands in its collector's callback often enough to be seen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main, report = threading.get_ident(), sys.unraisablehook
    inside = threading.Event()
    inside.set()

    def press_again() -> None:
        if not inside.is_set():
            return
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, signal.SIGINT)  # wakes it, too
        else:
            _thread.interrupt_main()

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            report(dropped)
            return
        # From a thread: here it would be dropped like the first.
        again = threading.Timer(SECONDS_TO_PRESS_AGAIN, press_again)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        inside.clear()
        sys.unraisablehook = report
