"""One run on the host: folder, loop, display, checkpoints, and everything on disk at the end, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ..hosts import SimulatorError
from ..hosts.train import HostTrain
from ..learner.state import TrainState
from ..training.diagnosis import MOST_OUTSIDE, Watch
from ..training.train import Metrics
from . import worlds
from .checkpoints import CHECKPOINTS, Checkpoints
from .display import Display, best_first, count, loading, success_rate
from .durable import only_writer
from .folders import check_empty, new_folder
from .logs import (
    Listeners,
    OnEvaluation,
    Start,
    check_logs,
    logs_entry,
    members_of,
    read_logs,
)
from .loop import Progress, compile_programs, run_loop
from .pictures import EXPLAINING, plot_learning_curve, plot_sweep
from .plain import shell_word
from .plan import Plan, differences, label_text
from .policies import BestPolicies, save_policies
from .records import describe_run, read_config, write_config
from .stopping import stop_on_signal
from .table import METRICS, MetricsFile, as_metrics, missing_evaluations, read_metrics
from .warned import Told, Warned, listening
from .worlds import AnyTrain, bind, restore, train_in

SECONDS_BETWEEN_CHECKPOINTS = 60.0
GO_ON = "Go on with: "


class RunResult(NamedTuple):
    """What came out.

    Attributes:
        folder: where it is.
        env_steps: of each evaluation, `[evals]`.
        returns: `[evals, settings, seeds]`.
        seconds: in this process, compilation included.
        signal: the one that ended the run early, or none.
        failure: of the simulator, which ended the run early, or none.
    """

    folder: Path
    env_steps: NDArray[Any]
    returns: NDArray[Any]
    seconds: float
    signal: int | None
    failure: SimulatorError | None = None


def run_to_folder(
    plan: Plan,
    out: Path | None,
    console: Console,
    logs: Sequence[str] = (),
    on_evaluation: OnEvaluation | None = None,
    to_fit: Collection[str] = (),
) -> RunResult:
    """Train all members of a plan in one program, leaving settings, metrics, pictures, policies and checkpoints.

    Args:
        plan: what to run.
        out: folder to create; `runs/<task>` with a number if there is one already.
        console: where to show progress.
        logs: where else the evaluations go, `"tensorboard"` or `"wandb"`: a run per member, with its
            hyperparameters and the names of `metrics.csv`, in `tensorboard/` and `wandb/` in the folder.
        on_evaluation: called with the `Progress` of every evaluation, for any other logger. Its `metrics` are
            NumPy arrays `[members]`, settings × seeds; its `state` is good until it returns. What it raises is
            shown in a sentence, and training goes on. `train_live` has an example.
        to_fit: names of settings that are taken from the task, in place of the plan's own.

    Returns:
        The curve and where everything is.

    Raises:
        ValueError: unknown task or log, settings out of range, a folder that already holds something, or a
            checkpoint that could not be written.
        ImportError: if what the task or a log needs is not installed.
    """
    plan.check(to_fit)
    check_logs(logs)
    with (
        listening() as told,
        prepared(plan, console, to_fit) as (plan, train),
        new_run(train, plan, out, logs) as (folder, description),
    ):
        return Session(plan, train, folder, console, description, told, on_evaluation).run()


@contextmanager
def prepared(
    plan: Plan, console: Console, to_fit: Collection[str]
) -> Iterator[tuple[Plan, AnyTrain]]:
    """The plan as it fits its task, and what trains it, whose simulators are closed in the end."""
    with loading(console, plan.task):
        world = worlds.make_world(plan.task, plan.config)
        plan = plan.fitted(world, to_fit)
        train = train_in(world, plan.config)
    with closing(train):
        yield plan, train


@contextmanager
def new_run(
    train: AnyTrain, plan: Plan, out: Path | None, logs: Sequence[str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder that nobody else writes, and the description in it."""
    folder = new_folder(out, plan.task)
    with only_writer(folder):
        check_empty(folder)  # again: nobody else can have written since
        description = {**describe_run(train, plan), **logs_entry(logs)}
        write_config(folder, description)
        yield folder, description


def resume_in_folder(
    folder: Path,
    asked: Plan | None,
    console: Console,
    logs: Sequence[str] = (),
    on_evaluation: OnEvaluation | None = None,
) -> RunResult:
    """Go on with a run from its latest checkpoint, as if it had never stopped; one that is done is written again.

    With another `total_steps` it goes on to there: evaluations keep their distance, and the schedule of the
    learning rate its length.

    Args:
        folder: of the run.
        asked: what the caller believes the run to be; none to take it as it is.
        console: where to show progress.
        logs: as `run_to_folder` takes them, beside those that the run has already, which go on.
        on_evaluation: as `run_to_folder` takes it.

    Raises:
        ValueError: if the folder holds no run or another process writes there, its settings are not those asked
            for (all differences are named), it has already done more steps, or its checkpoint is damaged.
        ImportError: if what a log needs is not installed.
    """
    read_config(folder)  # a sentence if it is not a run, before anything is written there
    check_logs(logs)
    with listening() as told, only_writer(folder):
        description = read_config(folder)
        plan = Plan.from_json(description)
        different = differences(plan, asked) if asked is not None else []
        if different:
            raise ValueError(f"{folder} is another run: {'; '.join(different)}.")
        if asked is not None and asked.config.total_steps != plan.config.total_steps:
            plan = _with_total_steps(folder, plan, asked.config.total_steps, console)
        before = read_logs(description)
        resumed = {**description, **plan.to_json(), **logs_entry(logs, before)}
        if resumed != description:
            write_config(folder, resumed)
        with loading(console, plan.task):
            train = bind(plan.task, plan.config)
        with closing(train):
            return Session(plan, train, folder, console, resumed, told, on_evaluation).run()


def closing(train: AnyTrain) -> AbstractContextManager[AnyTrain]:
    """Closes the simulators that were started for a run."""
    return train if isinstance(train, HostTrain) else nullcontext(train)


def _with_total_steps(folder: Path, plan: Plan, total_steps: int, console: Console) -> Plan:
    """The plan of a run that is given another length, which is said."""
    new = plan.with_total_steps(total_steps)
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        done = max(checkpoints.steps(), default=0)
    # A run that stopped between two evaluations has made none that counts where it is.
    if new.total_iterations < done or (new.total_iterations == done and done not in plan.due):
        steps = done * plan.config.steps_per_iteration
        raise ValueError(
            f"total_steps is {total_steps}, but {folder} has already done {steps} steps; give more."
        )
    sentence = f"{folder} goes on to {total_steps} steps instead of {plan.config.total_steps}"
    if bool(np.any(np.asarray(new.settings().final_learning_rate) != 1.0)):
        sentence += (
            "; the learning rate falls as it was to fall at first, and stays at its final value "
            "once that schedule has ended"
        )
    console.print(f"{sentence}.", markup=False, highlight=False, soft_wrap=True)
    return new


class Session:
    """The pieces of a run on the host, and what happens to them from start to end."""

    def __init__(
        self,
        plan: Plan,
        train: AnyTrain,
        folder: Path,
        console: Console,
        description: Mapping[str, Any],
        told: Told,
        on_evaluation: OnEvaluation | None = None,
    ) -> None:
        self.told = told
        self.started = time.perf_counter()
        self.plan, self.train, self.folder = plan, train, folder
        self.description, self.on_evaluation = description, on_evaluation
        self.state: TrainState | None = None
        self.complete = True
        self.evaluations: list[Metrics] = []
        self.shapes: Metrics | None = None
        total = self._steps(plan.total_iterations)
        self.display = Display(console, plan.task, total, plan.labels, plan.num_seeds)
        self.watch = Watch(plan.members()[1])
        self.last_save = time.perf_counter()

    def run(self) -> RunResult:
        """From compilation to the last file; `state` and `evaluations` are what has come of it."""
        keys, members = self.plan.members()
        with Checkpoints(self.folder / CHECKPOINTS) as checkpoints:
            with self.display.compiling() as tell:
                programs = compile_programs(self.train, keys, members, tell)
                self.shapes = programs.metrics
                state = self._start(checkpoints, lambda: programs.init(keys, members))
            done = int(state.iteration[0])
            self.told.keep_in(self.folder, self._steps(done))
            self.best = BestPolicies(self.folder, self.train, self.plan, done)
            with (
                MetricsFile(self.folder / METRICS, self.plan, programs.metrics, done) as table,
                stop_on_signal() as stop,
                self._listeners(table) as self.listeners,
                self.display.training(self._steps(done)),
            ):
                stopped = lambda: stop.signal is not None
                self.evaluations = [as_metrics(made, programs.metrics) for made in table.kept]
                loop = run_loop(self.train, programs, state, stopped, self.plan.due)
                state, failure = self._train(loop, state, table, checkpoints)
                checkpoints.wait()
        return self.finish(state, stop.signal)._replace(failure=failure)

    def _listeners(self, table: MetricsFile) -> Listeners:
        """Logs with what was evaluated before, and the caller."""
        start = Start(
            folder=self.folder,
            id="",
            members=members_of(self.plan, self.folder),
            made=table.kept,
            facts={name: self.description.get(name) for name in ("versions", "device")},
            say=self.display.say,
        )
        logs = read_logs(self.description)
        return Listeners(logs, start, self.on_evaluation, self.display.warn)

    def _train(
        self,
        loop: Iterator[Progress],
        state: TrainState,
        table: MetricsFile,
        checkpoints: Checkpoints,
    ) -> tuple[TrainState, SimulatorError | None]:
        """The last state, which is saved, and what ended the run if it was the simulator."""
        failure = None
        try:
            for progress in loop:
                self.state = state = progress.state
                self.complete = progress.metrics is not None or not progress.due
                self._record(progress, table, checkpoints)
        except SimulatorError as error:
            failure = error
            self.told.add(Warned(str(error), self._steps(int(state.iteration[0]))))
        self.state = state
        self.save(checkpoints)
        return state, failure

    def save(self, checkpoints: Checkpoints) -> None:
        """Keep the state as it is, unless an evaluation is due that could not be made."""
        if self.complete and self.state is not None:
            self._save(checkpoints, self.state, None)

    def _start(self, checkpoints: Checkpoints, fresh: Callable[[], TrainState]) -> TrainState:
        """The latest state whose evaluations are all in the table; a fresh one if nothing was saved."""
        steps = checkpoints.steps()
        if not steps:
            return fresh()
        missing = missing_evaluations(self.folder, self.plan, steps[-1])
        usable = [step for step in steps if not missing or step < missing[0]]
        if not usable:
            raise ValueError(
                f"{self.folder / METRICS} lacks the evaluation at {self._steps(missing[0])} steps, and the "
                f"first checkpoint is from {self._steps(steps[0])}: this run cannot go on as it was."
            )
        checkpoints.discard_after(usable[-1])
        if isinstance(self.train, HostTrain):
            self.display.say(
                f"{self.plan.task} is a simulator whose own state is not saved: its episodes start anew."
            )
        restored: TrainState = restore(
            self.train, checkpoints, *self.plan.members(), usable[-1]
        ).state
        return restored

    def _steps(self, iterations: int) -> int:
        return iterations * self.plan.config.steps_per_iteration

    def _record(self, progress: Progress, table: MetricsFile, checkpoints: Checkpoints) -> None:
        self.display.update(progress.env_steps, progress.seconds)
        if progress.metrics is not None:
            self._record_evaluation(progress, progress.metrics, table, checkpoints)
        elif not progress.due and self._is_time_to_save():
            # Never where an evaluation is due and not made: who went on from there would not make it.
            self._save(checkpoints, progress.state, None)

    def _record_evaluation(
        self, progress: Progress, metrics: Metrics, table: MetricsFile, checkpoints: Checkpoints
    ) -> None:
        """Row, policies, checkpoint, in this order: what goes on from a checkpoint finds what was before it.
        Then the logs, which are made of the table again if they miss the last."""
        seconds = table.seconds + progress.seconds
        evaluation = table.write(progress.env_steps, seconds, metrics)
        self.evaluations.append(metrics)
        returns = np.asarray(metrics.eval_return)
        score = None
        if progress.due:
            self.best.update(progress.env_steps, returns, progress.state)
            score = float(returns.reshape(-1, self.plan.num_seeds).mean(1).max())
        self.display.evaluated(
            progress.env_steps,
            progress.seconds,
            returns.reshape(-1, self.plan.num_seeds),
            success_rate(metrics, self.plan.num_seeds),
        )
        for finding in self.watch.evaluated(metrics):
            self.display.warn(f"Warning: {finding.sentence}")
            self.told.add(Warned(finding.sentence, int(finding.env_steps), finding.name))
        self._save(checkpoints, progress.state, score)
        self.listeners.evaluated(progress, evaluation)

    def _is_time_to_save(self) -> bool:
        return time.perf_counter() - self.last_save > SECONDS_BETWEEN_CHECKPOINTS

    def _save(self, checkpoints: Checkpoints, state: TrainState, score: float | None) -> None:
        checkpoints.save(int(state.iteration[0]), state, self.plan.to_json(), score)
        self.last_save = time.perf_counter()

    def finish(self, state: TrainState, signal_: int | None) -> RunResult:
        """Everything that is on disk at the end."""
        steps, metrics = read_metrics(
            self.folder / METRICS, self.plan, ("eval_return", *EXPLAINING)
        )
        returns = metrics["eval_return"]
        if len(steps):
            save_policies(self.folder, self.train, state)
            title = f"REPPO on {self.plan.task} ({self.plan.preset} preset)"
            labels = self.plan.labels
            texts = [label_text(label) for label in labels]
            bounds = {"outside": MOST_OUTSIDE}
            if "kl_target" not in self.plan.grid:
                bounds["kl"] = float(np.asarray(self.plan.hyperparameters.kl_target))
            curve = self.folder / "curve.png"
            plot_learning_curve(curve, title, steps, returns, texts, metrics, bounds)
            for name in self.plan.grid:
                plot_sweep(self.folder / f"sweep_{name}.png", title, name, labels, returns[-1])
        seconds = time.perf_counter() - self.started
        return RunResult(self.folder, steps, returns, seconds, signal_)


def summary(plan: Plan, result: RunResult, encoding: str = "utf-8") -> str:
    """The line that a run ends with, for a stream of that encoding."""
    command = "sweep" if plan.grid else "train"
    folder = shell_word(str(result.folder), encoding)
    early = result.signal is not None or result.failure is not None
    go_on = f"\n{GO_ON}reppo-fx {command} --resume {folder}" if early else ""
    if not len(result.env_steps):
        return f"{plan.task}: stopped before the first evaluation; see {result.folder}/{go_on}"
    best = best_first(result.returns[-1])[0]
    last = result.returns[-1, best]
    ending = "stopped at" if early else "after"
    seeds = "1 seed" if len(last) == 1 else f"± {last.std():.1f} over {len(last)} seeds"
    labels = plan.labels
    what = f"best of {len(labels)} settings ({label_text(labels[best])}): " if plan.grid else ""
    return (
        f"{plan.task}: {what}return {last.mean():.1f} ({seeds}) {ending} {count(int(result.env_steps[-1]))} "
        f"steps each, {result.seconds:.0f} s in all, compilation included; see {result.folder}/{go_on}"
    )
