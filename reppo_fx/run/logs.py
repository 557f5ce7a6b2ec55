"""Logs where people look: who is told of every evaluation, and what happens when one of them fails."""

from __future__ import annotations

import functools
import importlib
import secrets
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .._errors import MissingExtraError, require_extra, unknown_name
from .loop import Progress
from .plan import Plan, label_text
from .table import Evaluation

OnEvaluation = Callable[[Progress], object]
"""Called with the `Progress` of every evaluation."""

LONGEST_LABEL = 100


class Member(NamedTuple):
    """One run of a plan, as logs know it.

    Attributes:
        name: within its run, the same on every machine; a folder can have it.
        group: what the seeds of a setting have in common, also among the runs of other folders.
        settings: everything that decides its numbers, by the names of the flags.
        seed: which of the seeds it is.
        swept: the names of what is swept.
    """

    name: str
    group: str
    settings: dict[str, Any]
    seed: int
    swept: tuple[str, ...]


class Log(Protocol):
    """Where the evaluations of all members go, a run each."""

    def write(self, evaluation: Evaluation) -> None:
        """Take in the rows of an evaluation, one per member."""

    def close(self, failed: bool) -> None:
        """Finish; `failed` where an exception ends the run."""


class Start(NamedTuple):
    """What a log is opened with.

    Attributes:
        folder: of the run.
        id: of this log of this run, wherever it goes on.
        members: in the order of the rows.
        made: the evaluations that were made before, which the log must hold once.
        facts: about packages and device.
        say: shows a sentence.
    """

    folder: Path
    id: str
    members: list[Member]
    made: list[Evaluation]
    facts: Mapping[str, Any]
    say: Callable[[str], None]


class Kind(NamedTuple):
    """A kind of log.

    Attributes:
        title: what people call it.
        package: that it needs.
        make: module and class.
    """

    title: str
    package: str
    make: tuple[str, str]


LOGS: dict[str, Kind] = {
    "tensorboard": Kind("TensorBoard", "tensorboardX", ("log_tensorboard", "TensorBoardLog")),
    "wandb": Kind("Weights & Biases", "wandb", ("log_wandb", "WandbLog")),
}
"""By name, which is that of the extra, too."""


def check_logs(names: Iterable[str]) -> None:
    """Raise a sentence about the first log that cannot be had here.

    Raises:
        ValueError: for an unknown name.
        MissingExtraError: if its package is not installed.
    """
    for name in names:
        if name not in LOGS:
            raise unknown_name("log", name, LOGS)
        try:
            importlib.import_module(LOGS[name].package)
        except ModuleNotFoundError as error:
            raise require_extra(LOGS[name].package, name) from error


def logs_entry(names: Iterable[str], before: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The entry `logs` of `config.json`, if there are any: each one's name and id, with those it has already."""
    logs = dict(before or {})
    for name in names:
        logs.setdefault(name, secrets.token_hex(4))
    return {"logs": logs} if logs else {}


def read_logs(description: Mapping[str, Any]) -> dict[str, str]:
    """That entry back; empty where a run has none.

    Raises:
        ValueError: if it is not as it was written.
    """
    found = description.get("logs", {})
    if not isinstance(found, dict) or not all(isinstance(i, str) and i for i in found.values()):
        raise ValueError(f"the entry 'logs' is {found!r}; it must name logs and their ids.")
    for name in found:
        if name not in LOGS:
            raise unknown_name("log", name, LOGS)
    return dict(found)


def members_of(plan: Plan, folder: Path) -> list[Member]:
    """The members of a plan, seeds fastest.

    >>> from reppo_fx import Config, Hyperparameters
    >>> swept = {"kl_target": (0.1, 0.2)}
    >>> plan = Plan("probe", "cpu", Config(), Hyperparameters(), grid=swept, num_seeds=2)
    >>> [member.name for member in members_of(plan, Path("runs/probe"))][1:3]
    ['setting-0 kl_target=0.1/seed-1', 'setting-1 kl_target=0.2/seed-0']
    """
    described = plan.to_json()
    digits = len(str(len(plan.labels) - 1))
    members = []
    for setting, label in enumerate(plan.labels):
        text = " ".join(f"{name}={value:g}" for name, value in label.items())
        if len(text) > LONGEST_LABEL:  # names of folders have an end
            text = f"{text[:LONGEST_LABEL]}…"
        own = f"setting-{setting:0{digits}d} {text}" if label else ""
        group = f"{plan.task} {folder.name}" + (f": {label_text(label)}" if label else "")
        settings = {
            "task": plan.task,
            "preset": plan.preset,
            "random_seed": plan.seed,
            **described["config"],
            **described["hyperparameters"],
            # As they were written: float32 has made 0.0010000000475 of 0.001.
            **{name: float(f"{value:.6g}") for name, value in label.items()},
        }
        for seed in range(plan.num_seeds):
            name = "/".join(part for part in (own, f"seed-{seed}") if part)
            members.append(Member(name, group, settings, seed, tuple(label)))
    return members


def numbers_of(row: Mapping[str, str], member: Member) -> dict[str, float]:
    """The numbers of a member by their names in `metrics.csv`, without what it is known by."""
    known = {"setting", "seed", "env_steps", *member.swept}
    return {name: float(text) for name, text in row.items() if name not in known}


class Listeners:
    """All who are told of evaluations. Whoever fails gets one sentence, and training goes on.

    A log that fails is not written to again, as nobody knows what state it is in; a caller's own function is
    called again.

    Args:
        logs: names and ids.
        start: what they are opened with.
        on_evaluation: the caller's own function.
        warn: shows a sentence that stands out.
    """

    def __init__(
        self,
        logs: Mapping[str, str],
        start: Start,
        on_evaluation: OnEvaluation | None,
        warn: Callable[[str], None],
    ) -> None:
        self._start, self._warn = start, warn
        self._on_evaluation, self._told = on_evaluation, False
        self._logs: dict[str, Log] = {}
        for name, own_id in logs.items():
            self._guarded(name, functools.partial(self._open, name, own_id))

    def __enter__(self) -> Listeners:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name in [*self._logs]:
            self._guarded(name, functools.partial(self._logs[name].close, kind is not None))

    def evaluated(self, progress: Progress, evaluation: Evaluation) -> None:
        """Tell everybody."""
        for name in [*self._logs]:
            self._guarded(name, functools.partial(self._logs[name].write, evaluation))
        if self._on_evaluation is None:
            return
        try:
            self._on_evaluation(progress)
        except Exception as error:
            if not self._told:
                self._told = True
                self._warn(
                    f"Warning: on_evaluation failed at {progress.env_steps} steps: {_where(error)}. "
                    "Training goes on; further failures of it are not shown."
                )

    def _open(self, name: str, own_id: str) -> None:
        check_logs([name])
        module, made = LOGS[name].make
        make: Callable[[Start], Log] = getattr(
            importlib.import_module(f".{module}", __package__), made
        )
        self._logs[name] = make(self._start._replace(id=own_id))

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._logs.pop(name, None)
            why = str(error) if isinstance(error, MissingExtraError) else _in_words(error)
            self._warn(f"Warning: no log to {LOGS[name].title} any more: {why}. Training goes on.")


def _in_words(error: Exception) -> str:
    """Its kind and its first line."""
    lines = str(error).strip().splitlines()
    return (
        f"{type(error).__name__}: {lines[0].removesuffix('.')}" if lines else type(error).__name__
    )


def _where(error: Exception) -> str:
    """That, and where it was raised."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{_in_words(error)}{place}"
