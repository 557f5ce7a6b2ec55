"""Live progress with Rich: a bar in a terminal, one line per evaluation elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..sweeps.members import lowest_unless_finite

ROWS_SHOWN = 20


class Display:
    """What a person watches while a run goes on: a bar, and for a sweep a table of its settings, best first."""

    def __init__(
        self,
        console: Console,
        task: str,
        total_steps: int,
        labels: list[dict[str, float]],
        num_seeds: int,
    ) -> None:
        self.console = console
        self._task, self._total = task, total_steps
        self._labels, self._num_members = labels, num_seeds * len(labels)
        self._start = 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[steps]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[green]{task.fields[latest]}"),
            console=console,
        )
        self._id: TaskID = self._progress.add_task(
            task, total=total_steps, steps="", speed="", latest="", start=False
        )
        self._live: Live | None = None

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Show that XLA is at work."""
        message = f"Compiling {self._task} for {self._num_members} member(s) …"
        if self.console.is_terminal:
            with self.console.status(message):
                yield
        else:
            self.console.print(message)
            yield

    @contextmanager
    def training(self, start: int = 0) -> Iterator[None]:
        """Show the bar, from the steps that are already done."""
        self._start = start
        self._progress.start_task(self._id)
        self._progress.update(self._id, completed=start)
        if not self.console.is_terminal:
            yield
            return
        with Live(self._progress, console=self.console, refresh_per_second=8) as self._live:
            yield
        self._live = None

    def update(self, env_steps: int, seconds: float) -> None:
        """Move the bar; seconds count from where it started."""
        self._progress.update(
            self._id,
            completed=env_steps,
            steps=f"{count(env_steps)}/{count(self._total)} steps",
            speed=f"{count(self._speed(env_steps, seconds))} steps/s",
        )

    def evaluated(self, env_steps: int, seconds: float, returns: NDArray) -> None:
        """Show an evaluation, `[settings, seeds]`."""
        best = returns[best_first(returns)[0]]
        text = f"{'best ' if len(returns) > 1 else ''}return {best.mean():.1f} ± {best.std():.1f}"
        self._progress.update(self._id, latest=text)
        if self._live is not None and len(returns) > 1:
            self._live.update(Group(self._progress, self._table(returns)))
        if not self.console.is_terminal:
            self.console.print(
                f"{self._task}  {count(env_steps)}/{count(self._total)} steps  "
                f"{count(self._speed(env_steps, seconds))} steps/s  {seconds:.0f} s  {text}",
                soft_wrap=True,
            )

    def _speed(self, env_steps: int, seconds: float) -> float:
        return (env_steps - self._start) * self._num_members / max(seconds, 1e-9)

    def _table(self, returns: NDArray) -> Table:
        order = best_first(returns)
        names = list(self._labels[0])
        table = Table(*names, "return", "± over seeds", "best seed", box=None)
        for index in order[:ROWS_SHOWN]:
            values = [f"{self._labels[index][name]:g}" for name in names]
            row = returns[index]
            table.add_row(*values, f"{row.mean():.1f}", f"{row.std():.1f}", f"{row.max():.1f}")
        if len(order) > ROWS_SHOWN:
            table.add_row(f"… {len(order) - ROWS_SHOWN} more")
        return table


def best_first(returns: NDArray) -> list[int]:
    """Settings by mean return `[settings, seeds]`; what is not finite comes last."""
    means = np.asarray(lowest_unless_finite(returns.mean(1)))
    return [int(index) for index in np.argsort(-means, kind="stable")]


def count(number: float | int) -> str:
    """`1234567` as `1.23M`.

    >>> count(950), count(12_345), count(1_234_567)
    ('950', '12.3k', '1.23M')
    """
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.0f}"
