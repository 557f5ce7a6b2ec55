"""Live progress with Rich: a bar in a terminal, one line per evaluation elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Display:
    """What a person watches while a run goes on."""

    def __init__(self, console: Console, task: str, total_steps: int, num_seeds: int) -> None:
        self.console = console
        self._task, self._total, self._num_seeds = task, total_steps, num_seeds
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
            disable=not console.is_terminal,
        )
        self._id: TaskID | None = None

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Show that XLA is at work."""
        message = f"Compiling {self._task} for {self._num_seeds} seed(s) …"
        if self.console.is_terminal:
            with self.console.status(message):
                yield
        else:
            self.console.print(message)
            yield

    @contextmanager
    def training(self) -> Iterator[None]:
        """Show the bar."""
        with self._progress:
            self._id = self._progress.add_task(
                self._task, total=self._total, steps="", speed="", latest=""
            )
            yield

    def update(self, env_steps: int, seconds: float) -> None:
        """Move the bar."""
        speed = env_steps * self._num_seeds / max(seconds, 1e-9)
        assert self._id is not None
        self._progress.update(
            self._id,
            completed=env_steps,
            steps=f"{count(env_steps)}/{count(self._total)} steps",
            speed=f"{count(speed)} steps/s",
        )

    def evaluated(self, env_steps: int, seconds: float, mean: float, spread: float) -> None:
        """Show an evaluation."""
        text = f"return {mean:.1f} ± {spread:.1f}"
        if self.console.is_terminal:
            assert self._id is not None
            self._progress.update(self._id, latest=text)
            return
        speed = env_steps * self._num_seeds / max(seconds, 1e-9)
        self.console.print(
            f"{self._task}  {count(env_steps)}/{count(self._total)} steps  "
            f"{count(speed)} steps/s  {seconds:.0f} s  {text}"
        )


def count(number: float | int) -> str:
    """`1234567` as `1.23M`.

    >>> count(950), count(12_345), count(1_234_567)
    ('950', '12.3k', '1.23M')
    """
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.0f}"
