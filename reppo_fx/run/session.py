"""One training run on the host: folder, loop, display, and everything on disk at the end, however it ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from ..envs import make
from ..iteration import TrainState
from ..settings import Config, Hyperparameters, check_hyperparameters
from ..train import Train, make_train
from .display import Display, count
from .loop import compile_programs, run_loop
from .plots import plot_learning_curve
from .records import MetricsFile, describe_run, save_policies, write_config


class RunResult(NamedTuple):
    """What came out: `env_steps [evals]`, `returns [evals, seeds]`, seconds with compilation, where it is."""

    folder: Path
    env_steps: np.ndarray
    returns: np.ndarray
    seconds: float
    interrupted: bool


def train_to_folder(
    task: str,
    preset: str,
    config: Config,
    hyperparameters: Hyperparameters,
    num_seeds: int,
    seed: int,
    out: Path | None,
    console: Console,
) -> RunResult:
    """Train `num_seeds` vmapped seeds on a task by name, leaving config, metrics, picture and policy on disk.

    Args:
        task: a Playground task or Brax environment.
        preset: its name, for the record only.
        config: static settings.
        hyperparameters: plain numbers.
        num_seeds: how many runs in one program.
        seed: of the random key that is split into one per run.
        out: folder to create; `runs/<task>` with a number if there is one already.
        console: where to show progress.

    Returns:
        The curve and where everything is.

    Raises:
        ValueError: unknown task, settings out of range, or a folder that already holds something.
    """
    started = time.perf_counter()
    if num_seeds < 1:
        raise ValueError(f"seeds is {num_seeds}; at least 1 is needed.")
    check_hyperparameters(hyperparameters)
    train = make_train(make(task), config)
    folder = _new_folder(out, task)
    write_config(folder, describe_run(train, task, preset, num_seeds, seed, hyperparameters))
    keys = jax.random.split(jax.random.key(seed), num_seeds)
    total = config.iterations_per_eval * config.num_evals * config.steps_per_iteration
    display = Display(console, task, total, num_seeds)
    with display.compiling():
        programs = compile_programs(train, keys, hyperparameters)
    metrics_file = MetricsFile(folder / "metrics.csv")
    steps: list[int] = []
    returns: list[np.ndarray] = []
    state: TrainState | None = None
    with _stop_on_interrupt() as stop, display.training():
        for progress in run_loop(train, programs, keys, hyperparameters, stop.is_set):
            state = progress.state
            display.update(progress.env_steps, progress.seconds)
            if progress.metrics is None:
                continue
            metrics_file.write(progress.seconds, progress.metrics)
            steps.append(progress.env_steps)
            returns.append(np.asarray(progress.metrics.eval_return))
            mean, spread = float(returns[-1].mean()), float(returns[-1].std())
            display.evaluated(progress.env_steps, progress.seconds, mean, spread)
    metrics_file.close()
    if state is not None and steps:
        _finish(folder, train, state, task, preset, np.array(steps), np.array(returns))
    return RunResult(
        folder=folder,
        env_steps=np.array(steps),
        returns=np.array(returns),
        seconds=time.perf_counter() - started,
        interrupted=stop.is_set(),
    )


def summary(task: str, result: RunResult) -> str:
    """The one line that a run ends with."""
    if not len(result.env_steps):
        return f"{task}: stopped before the first evaluation; settings are in {result.folder}/"
    last = result.returns[-1]
    ending = "stopped at" if result.interrupted else "after"
    seeds = "1 seed" if len(last) == 1 else f"± {last.std():.1f} over {len(last)} seeds"
    return (
        f"{task}: return {last.mean():.1f} ({seeds}) {ending} {count(int(result.env_steps[-1]))} steps each, "
        f"{result.seconds:.0f} s in all, compilation included; see {result.folder}/"
    )


def _finish(
    folder: Path,
    train: Train,
    state: TrainState,
    task: str,
    preset: str,
    steps: np.ndarray,
    returns: np.ndarray,
) -> None:
    save_policies(folder, train, state)
    plot_learning_curve(folder / "curve.png", f"REPPO on {task} ({preset} preset)", steps, returns)


def _new_folder(out: Path | None, task: str) -> Path:
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"out is {str(out)!r}, which already exists and is not empty.")
        out.mkdir(parents=True, exist_ok=True)
        return out
    number = 1
    while True:
        folder = Path("runs") / (task if number == 1 else f"{task}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C asks the loop to stop at the next chance; a second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(signum: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
