"""Live progress with Rich: a bar in a terminal, one line per evaluation elsewhere."""

from __future__ import annotations

import importlib
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
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
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from ..sweeps.members import lowest_unless_finite
from ..training.train import Metrics
from .loop import Built, Tell
from .plain import is_unicode, plain

ROWS_SHOWN = 20
NOTEBOOK_WIDTH = 110
NOTEBOOK_FORMAT = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'
SECONDS_BETWEEN_DRAWINGS = 0.2
MOST_COLUMNS = 100_000
Returns = NDArray[np.floating[Any]]
SUCCESS = ("success_once", "success", "is_success")
"""Names under which simulators say it, at the end of an episode."""
SUFFIXES = ("", "k", "M", "G", "T", "P")


def make_console(stderr: bool = False) -> Console:
    """A console that prints text as it is: a folder's name is neither markup nor an emoji."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """One line, never wrapped, nothing in it interpreted."""
    line = Text(plain(text, console.encoding), style=style or "")
    console.print(line, soft_wrap=True)


def plain_table(console: Console, headings: list[str], rows: list[list[str]]) -> Table:
    """A table of text as it is; all columns but the first one to the right."""

    def write(text: str) -> Text:
        return Text(plain(text, console.encoding))

    columns = [
        Column(write(heading), no_wrap=True, justify="right" if index else "left")
        for index, heading in enumerate(headings)
    ]
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*map(write, row))
    return table


def print_table(console: Console, headings: list[str], rows: list[list[str]]) -> None:
    """A table as wide as it is: a pipe has no width, and a label that is cut off hides which is which."""
    table = plain_table(console, headings, rows)
    options = console.options.update(width=MOST_COLUMNS)
    for number, line in enumerate(console.render_lines(table, options, pad=False)):
        text = "".join(segment.text for segment in line).rstrip()
        print_line(console, text, style=None if number else "bold")


@contextmanager
def loading(console: Console, task: str) -> Iterator[None]:
    """Say in a terminal that a simulator is imported and looked at, which takes seconds."""
    if not console.is_terminal:
        yield
        return
    spinner = Spinner("dots" if is_unicode(console.encoding) else "line")
    spinner.update(text=Text(plain(f"Loading {task} …", console.encoding)))
    with Live(spinner, console=console, transient=True):
        yield


class NotebookLive:
    """Something that is drawn again and again in the same place of a notebook.

    With IPython alone, when it is told to: Rich's own `Live` needs ipywidgets there, and a thread that draws.
    """

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable, self._drawn = renderable, -math.inf
        self._place: Any = None

    def __enter__(self) -> NotebookLive:
        show: Callable[..., Any] = importlib.import_module("IPython.display").display
        self._place = show(self._bundle(), raw=True, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()

    def update(self, renderable: RenderableType) -> None:
        """Show something else."""
        self._renderable = renderable
        self._draw()

    def refresh(self) -> None:
        """Draw it as it is now, if the last time is a while ago."""
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_DRAWINGS:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._place.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        """For notebooks, and for what shows only text."""
        page = Console(record=True, file=io.StringIO(), width=NOTEBOOK_WIDTH, force_jupyter=False)
        page.print(self._renderable)
        html = page.export_html(inline_styles=True, clear=False, code_format=NOTEBOOK_FORMAT)
        return {"text/html": html, "text/plain": page.export_text()}


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
        self._spinner = "dots" if is_unicode(console.encoding) else "line"
        self._progress = Progress(
            SpinnerColumn(self._spinner),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[steps]}", markup=False),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[latest]}", style="green", markup=False),
            console=console,
        )
        self._id: TaskID = self._progress.add_task(
            self._plain(task), total=total_steps, steps="", speed="", latest="", start=False
        )
        self._live: Live | NotebookLive | None = None

    @contextmanager
    def compiling(self) -> Iterator[Tell]:
        """Show that XLA is at work, and what it is told; an interrupt says that nothing else was."""
        members = "1 member" if self._num_members == 1 else f"{self._num_members} members"
        message = f"Compiling {self._task} for {members}"
        told: list[Built] = []
        try:
            if self.console.is_terminal:
                with self._spinning(message, told):
                    yield told.append
                if told:
                    print_line(self.console, _account(told))
            else:
                print_line(self.console, f"{message} …")
                yield self._told
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt("interrupted while compiling, before any training") from error

    def _spinning(self, message: str, told: list[Built]) -> Live:
        """A line that says what is going on, and for how long."""
        start = time.perf_counter()
        spinner = Spinner(self._spinner)

        def line() -> Spinner:
            doing = f"{_doing(told[-1])}  " if told else ""
            seconds = time.perf_counter() - start
            spinner.update(text=Text(self._plain(f"{message} … {doing}{seconds:.0f} s")))
            return spinner

        return Live(get_renderable=line, console=self.console, transient=True)

    def _told(self, built: Built) -> None:
        """Where nothing moves, a line for what is done."""
        if built.stage != "tracing":
            after = f" after {built.seconds:.1f} s" if built.stage == "compiled" else ""
            print_line(self.console, f"  {_doing(built)}{after}")

    @contextmanager
    def training(self, start: int = 0) -> Iterator[None]:
        """Show the bar, from the steps that are already done."""
        self._start = start
        self._progress.start_task(self._id)
        self._progress.update(self._id, completed=start)
        if self.console.is_jupyter:
            live: Live | NotebookLive = NotebookLive(self._progress)
        elif self.console.is_terminal:
            live = Live(self._progress, console=self.console, refresh_per_second=8)
        else:
            yield
            return
        with live as self._live:
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
        if self._live is not None:
            self._live.refresh()

    def say(self, text: str) -> None:
        """A line above the bar, or among the others."""
        print_line(self.console, text)

    def warn(self, text: str) -> None:
        """A line that stands out."""
        print_line(self.console, text, style="yellow")

    def evaluated(
        self, env_steps: int, seconds: float, returns: Returns, success: Returns | None = None
    ) -> None:
        """Show an evaluation, `[settings, seeds]`, and the share of episodes that succeeded, if that is known."""
        first = best_first(returns)[0]
        best = returns[first]
        text = f"{'best ' if len(returns) > 1 else ''}return {best.mean():.1f} ± {best.std():.1f}"
        if success is not None:
            text += f"  success {success[first].mean():.0%}"
        self._progress.update(self._id, latest=self._plain(text))
        if self._live is not None and len(returns) > 1:
            self._live.update(Group(self._progress, self._table(returns)))
        if self._live is None:
            print_line(
                self.console,
                f"{self._task}  {count(env_steps)}/{count(self._total)} steps  "
                f"{count(self._speed(env_steps, seconds))} steps/s  {seconds:.0f} s  {text}",
            )

    def _speed(self, env_steps: int, seconds: float) -> float:
        return (env_steps - self._start) * self._num_members / max(seconds, 1e-9)

    def _table(self, returns: Returns) -> Table:
        order = best_first(returns)
        names = list(self._labels[0])
        rows = []
        for index in order[:ROWS_SHOWN]:
            values = [f"{self._labels[index][name]:g}" for name in names]
            row = returns[index]
            rows.append([*values, f"{row.mean():.1f}", f"{row.std():.1f}", f"{row.max():.1f}"])
        if len(order) > ROWS_SHOWN:
            rows.append([f"… {len(order) - ROWS_SHOWN} more"])
        return plain_table(self.console, [*names, "return", "± over seeds", "best seed"], rows)

    def _plain(self, text: str) -> str:
        return plain(text, self.console.encoding)


def success_rate(metrics: Metrics, num_seeds: int) -> Returns | None:
    """Share of evaluation episodes that succeeded, `[settings, seeds]`; none where the simulator does not say."""
    for name in SUCCESS:
        if name in metrics.eval_metrics:
            rate: Returns = np.asarray(metrics.eval_metrics[name].last).reshape(-1, num_seeds)
            return rate
    return None


def best_first(returns: Returns) -> list[int]:
    """Settings by mean return `[settings, seeds]`; what is not finite comes last."""
    means = np.asarray(lowest_unless_finite(returns.mean(1)))
    return [int(index) for index in np.argsort(-means, kind="stable")]


def count(number: int | float) -> str:
    """`1234567` as `1.23M`; three digits at most, whatever the size.

    >>> count(950), count(12_345), count(1_234_567), count(999_999), count(5 * 10**12)
    ('950', '12.3k', '1.23M', '1M', '5T')
    """
    if not math.isfinite(number):
        return str(number)
    if abs(number) < 999.5:
        return f"{number:.0f}"
    exponent = int(f"{number:.2e}".partition("e")[2])
    thousands = min(exponent // 3, len(SUFFIXES) - 1)
    return f"{number / 1000.0**thousands:.3g}{SUFFIXES[thousands]}"


def _doing(built: Built) -> str:
    """What is going on, in a few words."""
    if built.stage == "tracing":
        return f"tracing {built.number} of {built.total} ({built.name})"
    if built.stage == "compiling":
        traced = f"traced in {built.seconds:.1f} s, " if built.seconds else ""
        return f"{traced}compiling {built.total} program{'s' if built.total > 1 else ''} …"
    how = "from the cache" if built.cached else "compiled"
    return f"{built.number} of {built.total} ready ({built.name}, {how})"


def _account(told: list[Built]) -> str:
    """What was going on, when it is over."""
    compiled = [built for built in told if built.stage == "compiled"]
    traced = [f"traced in {b.seconds:.1f} s" for b in told if b.stage == "compiling" and b.seconds]
    seconds = max((built.seconds for built in compiled), default=0.0)
    cached = sum(built.cached for built in compiled)
    return (
        f"{', '.join([*traced, f'compiled in {seconds:.1f} s']).capitalize()}, "
        f"{cached} of {len(compiled)} programs from the cache"
    )
