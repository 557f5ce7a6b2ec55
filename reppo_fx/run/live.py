"""From Python: train in front of a person, in a notebook or a script, and get back what there is."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from rich.console import Console

from ..hosts.train import HostTrain
from ..settings import Config, Hyperparameters
from ..sweeps.members import Stacked, unflatten_members
from ..sweeps.runs import Runs
from ..training.policy import Policy
from ..training.presets import FITTED, preset, settings_to_fit
from ..training.train import Metrics, Train
from .checkpoints import CHECKPOINTS, Checkpoints
from .display import make_console
from .logs import OnEvaluation, check_logs
from .plan import Plan
from .policies import policies_of
from .session import GO_ON, RunResult, Session, new_run, prepared, summary
from .stopping import no_interrupt_lost
from .warned import listening
from .worlds import AnyTrain, init_shapes

OWN = "own"


class Trained(NamedTuple):
    """What came of a run, all of it in memory; the folder has it too.

    Attributes:
        runs: states and metrics with the axes `[settings, seeds]`, as `sweep` gives them.
        policies: the last ones; `policies[i, j]` is that of setting `i` and seed `j`, `observation -> action`. Each
            member's best are in the folder: `load_policy(folder, seed, setting, best=True)`.
        folder: what the command line takes, too: `reppo-fx plot`, `train --resume`, …
        complete: whether it did all its steps: it was neither interrupted nor left by its simulator.
    """

    runs: Runs
    policies: Stacked[Policy]
    folder: Path
    complete: bool

    def __repr__(self) -> str:
        ended = "complete" if self.complete else "ended early"
        return f"Trained({self.runs!r}, {ended}, in {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return self.runs._repr_html_()


def train_live(
    task: str | Train | HostTrain,
    config: Config | None = None,
    hyperparameters: Hyperparameters | None = None,
    *,
    grid: Mapping[str, Sequence[float]] | None = None,
    num_seeds: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
    logs: Sequence[str] = (),
    on_evaluation: OnEvaluation | None = None,
    console: Console | None = None,
) -> Trained:
    """Train with a live bar, in a notebook or a terminal, and leave what `reppo-fx train` leaves.

    It can be interrupted (Ctrl-C, a notebook's stop button): the state is then evaluated and saved, and what there
    is comes back. A second interrupt does not wait for that evaluation.

    Args:
        task: a name, as the command line takes it, or what `make_train` or `make_host_train` gave.
        config: with a name only; the preset `any`, as it fits the task's episodes, if not given.
        hyperparameters: numbers; those of the preset if neither they nor a config is given.
        grid: values of the hyperparameters that are swept, every combination of them.
        num_seeds: runs per setting, all of them in one program.
        seed: of the random key that is split into one per seed.
        out: folder to create; `runs/<task>` with a number if there is one already.
        logs: as `run_to_folder` takes them: `"tensorboard"`, `"wandb"`.
        on_evaluation: called with the `Progress` of every evaluation, for any logger; see `run_to_folder`.
        console: where to show progress; standard output if not given.

    Returns:
        The runs, their policies and the folder; a picture in a notebook.

    Raises:
        ValueError: as `run_to_folder`, or if a config is given beside a train that has its own.
        KeyboardInterrupt: where there is nothing to give back yet: while it compiles, or before the first save.

    A logger of your own, in ten lines:

    >>> import csv, tempfile
    >>> import reppo_fx as rx
    >>> from reppo_fx.envs import probes
    >>> config = rx.Config(total_steps=64, num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2,
    ...                    num_evals=2, num_eval_envs=2, episode_length=8, actor_width=8, critic_width=8)
    >>> train = rx.make_train(probes.constant_reward(), config)
    >>> with tempfile.TemporaryDirectory() as out, open(f"{out}/mine.csv", "w") as file:
    ...     write = csv.writer(file).writerow
    ...     on_evaluation = lambda progress: write([progress.env_steps, *progress.metrics.eval_return])
    ...     trained = train_live(train, num_seeds=3, out=f"{out}/run", on_evaluation=on_evaluation,
    ...                          console=Console(quiet=True))
    ...     file.flush()
    ...     print(open(f"{out}/mine.csv").read())
    32,8.0,8.0,8.0
    64,8.0,8.0,8.0
    <BLANKLINE>
    >>> print(trained.runs.metrics.eval_return.shape, trained.policies[0, 2](jax.numpy.ones(1)).shape)
    (1, 3, 2) (1,)
    """
    console = make_console() if console is None else console
    plan = _plan(task, config, hyperparameters, grid or {}, num_seeds, seed)
    to_fit = settings_to_fit(
        plan.preset, () if hyperparameters is None else Hyperparameters._fields
    )
    plan.check(to_fit)
    check_logs(logs)
    folder = Path(out) if out is not None else None
    with (
        listening() as told,
        _bound(task, plan, console, to_fit) as (plan, train),
        new_run(train, plan, folder, logs) as (folder, about),
    ):
        session = Session(plan, train, folder, console, about, told, on_evaluation)
        result = _run(session)
        trained = _trained(session, result)
    for line in summary(plan, result, console.encoding).splitlines():
        if isinstance(task, str) or not line.startswith(GO_ON):  # it cannot make what was given
            session.display.say(line)
    if result.failure is not None:
        session.display.warn(f"Warning: {result.failure}")
    if result.signal not in (None, signal.SIGINT):
        signal.raise_signal(result.signal)  # whoever sent it wanted more than the end of a run
    return trained


def _plan(
    task: str | Train | HostTrain,
    config: Config | None,
    hyperparameters: Hyperparameters | None,
    grid: Mapping[str, Sequence[float]],
    num_seeds: int,
    seed: int,
) -> Plan:
    """What is asked for, with the defaults of what is not."""
    name, source = task if isinstance(task, str) else task.env.name, OWN
    if not isinstance(task, str):
        if config is not None:
            raise ValueError(
                "config is given, but the train that is given has its own; leave it out."
            )
        config = task.config
    elif config is None:
        config, usual = preset(FITTED)
        hyperparameters, source = hyperparameters or usual, FITTED
    numbers = hyperparameters or Hyperparameters()
    for field, value in numbers._asdict().items():
        if np.ndim(value):
            raise ValueError(
                f"{field} has shape {list(np.shape(value))}; it must be one number. What is swept goes "
                f"into grid: grid={{{field!r}: [...]}}."
            )
    return Plan(
        task=name,
        preset=source,
        config=config,
        hyperparameters=Hyperparameters(*(float(np.asarray(number)) for number in numbers)),
        grid={name: tuple(map(float, values)) for name, values in grid.items()},
        num_seeds=num_seeds,
        seed=seed,
    )


def _bound(
    task: str | Train | HostTrain, plan: Plan, console: Console, to_fit: Collection[str]
) -> AbstractContextManager[tuple[Plan, AnyTrain]]:
    """What trains, and the plan as it fits it; simulators are closed by whoever made them."""
    return prepared(plan, console, to_fit) if isinstance(task, str) else nullcontext((plan, task))


def _run(session: Session) -> RunResult:
    """To its end, or to what an interrupt leaves."""
    try:
        with no_interrupt_lost():
            return session.run()
    except KeyboardInterrupt:
        with Checkpoints(session.folder / CHECKPOINTS) as checkpoints:
            if session.state is not None and not _is_gone(session.state):
                session.save(checkpoints)
            elif checkpoints.steps():
                like = init_shapes(session.train, *session.plan.members())
                session.state = checkpoints.restore(like).state
            else:
                raise
        return session.finish(session.state, signal.SIGINT)


def _is_gone(state: PyTree) -> bool:
    """Whether its memory was taken for a next state that never came."""
    return any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(state))


def _trained(session: Session, result: RunResult) -> Trained:
    """Members as `[settings, seeds]`, evaluations behind them."""
    plan, state = session.plan, session.state
    assert state is not None
    settings = jax.tree.map(jax.numpy.asarray, plan.settings())
    members = len(plan.labels) * plan.num_seeds
    rows = session.evaluations
    metrics: Metrics
    if rows:
        metrics = jax.tree.map(lambda *leaves: np.stack(leaves, 1), *rows)
    else:
        metrics = jax.tree.map(lambda leaf: np.zeros((members, 0), leaf.dtype), session.shapes)
    policies = policies_of(session.train, state)
    shaped = unflatten_members((state, metrics, policies), settings, plan.num_seeds)
    runs = Runs(Stacked(shaped[0]), shaped[1], settings)
    complete = result.signal is None and result.failure is None
    return Trained(runs, Stacked(shaped[2]), result.folder, complete)
