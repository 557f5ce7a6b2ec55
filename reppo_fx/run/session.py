"""One run on the host: folder, loop, display, checkpoints, and everything on disk at the end, however it ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from ..envs import make
from ..learner.state import TrainState
from ..training.train import Train, make_train
from .checkpoints import Checkpoints
from .display import Display, best_first, count
from .loop import Progress, compile_programs, run_loop
from .pictures import plot_learning_curve, plot_sweep
from .plan import Plan, differences, label_text
from .records import (
    MetricsFile,
    describe_run,
    read_config,
    read_returns,
    save_policies,
    write_config,
)

SECONDS_BETWEEN_CHECKPOINTS = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunResult(NamedTuple):
    """What came out.

    Attributes:
        folder: where it is.
        env_steps: of each evaluation, `[evals]`.
        returns: `[evals, settings, seeds]`.
        seconds: in this process, compilation included.
        signal: the one that ended the run early, or none.
    """

    folder: Path
    env_steps: np.ndarray
    returns: np.ndarray
    seconds: float
    signal: int | None


def run_to_folder(plan: Plan, out: Path | None, console: Console) -> RunResult:
    """Train all members of a plan in one program, leaving settings, metrics, pictures, policies and checkpoints.

    Args:
        plan: what to run.
        out: folder to create; `runs/<task>` with a number if there is one already.
        console: where to show progress.

    Returns:
        The curve and where everything is.

    Raises:
        ValueError: unknown task, settings out of range, a folder that already holds something, or a checkpoint
            that could not be written.
    """
    plan.check()
    train = make_train(make(plan.task), plan.config)
    folder = _new_folder(out, plan.task)
    write_config(folder, describe_run(train, plan))
    return _Session(plan, train, folder, console).run()


def resume_in_folder(folder: Path, asked: Plan | None, console: Console) -> RunResult:
    """Go on with a run from its latest checkpoint, as if it had never stopped; one that is done is written again.

    Args:
        folder: of the run.
        asked: what the caller believes the run to be; none to take it as it is.
        console: where to show progress.

    Raises:
        ValueError: if the folder holds no run, its settings are not those asked for (all differences are named),
            or its checkpoint is damaged.
    """
    plan = Plan.from_json(read_config(folder))
    different = differences(plan, asked) if asked is not None else []
    if different:
        raise ValueError(f"{folder} is another run: {'; '.join(different)}.")
    return _Session(plan, make_train(make(plan.task), plan.config), folder, console).run()


class _Session:
    """The pieces of a run on the host, and what happens to them from start to end."""

    def __init__(self, plan: Plan, train: Train, folder: Path, console: Console) -> None:
        self.started = time.perf_counter()
        self.plan, self.train, self.folder = plan, train, folder
        total = plan.total_iterations * plan.config.steps_per_iteration
        self.display = Display(console, plan.task, total, plan.labels, plan.num_seeds)
        self.last_save = time.perf_counter()

    def run(self) -> RunResult:
        """From compilation to the last file."""
        keys, members = self.plan.members()
        with Checkpoints(self.folder / "checkpoints") as checkpoints:
            with self.display.compiling():
                programs = compile_programs(self.train, keys, members)
                state = programs.init(keys, members)
                if checkpoints.steps():
                    state = checkpoints.restore(state).state
            done = int(state.iteration[0])
            metrics_file = MetricsFile(self.folder / "metrics.csv", self.plan, done)
            with _stop_on_signal() as stop, self.display.training(self._steps(done)):
                for progress in run_loop(
                    self.train, programs, state, lambda: stop.signal is not None
                ):
                    state = progress.state
                    self._record(progress, metrics_file, checkpoints)
                self._save(checkpoints, state, None)
                checkpoints.wait()
            metrics_file.close()
        return self._finish(state, stop.signal)

    def _steps(self, iterations: int) -> int:
        return iterations * self.plan.config.steps_per_iteration

    def _record(
        self, progress: Progress, metrics_file: MetricsFile, checkpoints: Checkpoints
    ) -> None:
        self.display.update(progress.env_steps, progress.seconds)
        if progress.metrics is not None:
            metrics_file.write(metrics_file.seconds + progress.seconds, progress.metrics)
            returns = np.asarray(progress.metrics.eval_return).reshape(-1, self.plan.num_seeds)
            self.display.evaluated(progress.env_steps, progress.seconds, returns)
            self._save(checkpoints, progress.state, float(returns.mean(1).max()))
        elif time.perf_counter() - self.last_save > SECONDS_BETWEEN_CHECKPOINTS:
            self._save(checkpoints, progress.state, None)

    def _save(self, checkpoints: Checkpoints, state: TrainState, score: float | None) -> None:
        checkpoints.save(int(state.iteration[0]), state, self.plan.to_json(), score)
        self.last_save = time.perf_counter()

    def _finish(self, state: TrainState, signal_: int | None) -> RunResult:
        steps, returns = read_returns(self.folder / "metrics.csv", self.plan)
        if len(steps):
            save_policies(self.folder, self.train, state)
            title = f"REPPO on {self.plan.task} ({self.plan.preset} preset)"
            labels = self.plan.labels
            texts = [label_text(label) for label in labels]
            plot_learning_curve(self.folder / "curve.png", title, steps, returns, texts)
            for name in self.plan.grid:
                plot_sweep(self.folder / f"sweep_{name}.png", title, name, labels, returns[-1])
        seconds = time.perf_counter() - self.started
        return RunResult(self.folder, steps, returns, seconds, signal_)


def summary(plan: Plan, result: RunResult) -> str:
    """The line that a run ends with."""
    if not len(result.env_steps):
        return f"{plan.task}: stopped before the first evaluation; settings are in {result.folder}/"
    best = best_first(result.returns[-1])[0]
    last = result.returns[-1, best]
    ending = "stopped at" if result.signal is not None else "after"
    seeds = "1 seed" if len(last) == 1 else f"± {last.std():.1f} over {len(last)} seeds"
    labels = plan.labels
    what = f"best of {len(labels)} settings ({label_text(labels[best])}): " if plan.grid else ""
    line = (
        f"{plan.task}: {what}return {last.mean():.1f} ({seeds}) {ending} {count(int(result.env_steps[-1]))} "
        f"steps each, {result.seconds:.0f} s in all, compilation included; see {result.folder}/"
    )
    command = "sweep" if plan.grid else "train"
    if result.signal is not None:
        line += f"\nGo on with: reppo-fx {command} --resume {result.folder}"
    return line


def _new_folder(out: Path | None, task: str) -> Path:
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"out is {str(out)!r}, which already exists and is not empty.")
        return _make_folder(out, exist_ok=True)
    number = 1
    while True:
        folder = Path("runs") / (task if number == 1 else f"{task}-{number}")
        try:
            return _make_folder(folder, exist_ok=False)
        except FileExistsError:
            number += 1


def _make_folder(folder: Path, exist_ok: bool) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise ValueError(
            f"out is {str(folder)!r}, which cannot be created: {error.strerror}."
        ) from error
    return folder


class _Stop:
    """Which signal asked to stop, if any."""

    signal: int | None = None


@contextmanager
def _stop_on_signal() -> Iterator[_Stop]:
    """The first Ctrl-C or SIGTERM asks the loop to stop at the next chance; a second one interrupts at once."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: Any) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
