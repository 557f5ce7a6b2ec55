"""What a folder of a run says about it, read and put together; for `show`, `list`, and whoever asks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .checkpoints import CHECKPOINTS, Checkpoints
from .display import best_first
from .durable import is_held
from .plan import Plan
from .records import read_config
from .table import METRICS, read_metrics
from .warned import Warned, read_warnings

RUNNING, DONE, STOPPED = "running", "done", "stopped"


def number(value: float, scale: float | None = None) -> str:
    """One digit behind the point, and more for small numbers: as many as another number has, if one is given.

    >>> number(999.64), number(-0.03125), number(0.0), number(0.184, 999.64), number(0.00125, -0.03125)
    ('999.6', '-0.0312', '0.0', '0.2', '0.0013')
    """
    size = abs(value if scale is None else scale)
    known = math.isfinite(size) and 0.0 < size < 10.0
    return f"{value:.{min(2 - math.floor(math.log10(size)), 6) if known else 1}f}"


class Score(NamedTuple):
    """A return: mean and spread over seeds, and after how many steps."""

    mean: float
    spread: float
    env_steps: int

    @property
    def text(self) -> str:
        """In few characters."""
        return f"{number(self.mean)} ± {number(self.spread, self.mean)}"


class Facts(NamedTuple):
    """A run as it is on disk.

    Attributes:
        folder: where.
        plan: what it is.
        description: all of `config.json`.
        env_steps: of each evaluation, `[evals]`.
        returns: `[evals, settings, seeds]`.
        seconds: of training until the last evaluation, compilation not included.
        done_steps: of each member: at the last evaluation or checkpoint, whichever is later.
        checkpoints: iterations of those that are there.
        state: `"running"`, `"done"` or `"stopped"`.
        written: when its files changed last, in seconds since 1970.
        warned: what a person was told.
    """

    folder: Path
    plan: Plan
    description: Mapping[str, Any]
    env_steps: NDArray[np.int64]
    returns: NDArray[np.float64]
    seconds: float
    done_steps: int
    checkpoints: list[int]
    state: str
    written: float
    warned: list[Warned]

    @property
    def total_steps(self) -> int:
        """Of each member, when it is done."""
        return self.plan.total_iterations * self.plan.config.steps_per_iteration

    @property
    def setting(self) -> int:
        """The best one, by the mean over its seeds at the last evaluation."""
        return best_first(self.returns[-1])[0] if len(self.returns) else 0

    def score(self, evaluation: int) -> Score:
        """Of the best setting, at one evaluation."""
        seeds = self.returns[evaluation, self.setting]
        return Score(float(seeds.mean()), float(seeds.std()), int(self.env_steps[evaluation]))

    @property
    def last(self) -> Score | None:
        """The return of the last evaluation; none before the first one."""
        return self.score(-1) if len(self.env_steps) else None

    @property
    def best(self) -> Score | None:
        """The highest return of that setting; none where there is no number."""
        means = self.returns[:, self.setting].mean(1) if len(self.returns) else np.empty(0)
        known = np.isfinite(means)
        if not known.any():
            return None
        return self.score(int(np.argmax(np.where(known, means, -math.inf))))


def read_facts(folder: Path) -> Facts:
    """Everything about the run in a folder; nothing is written there.

    Raises:
        ValueError: if the folder holds no run, or a file of it is not as a run writes it.
    """
    description = read_config(folder)
    plan = Plan.from_json(description)
    table = folder / METRICS
    steps, found = read_metrics(table, plan, ("eval_return", "seconds"))
    with Checkpoints(folder / CHECKPOINTS) as checkpoints:
        saved = checkpoints.steps()
    per_iteration = plan.config.steps_per_iteration
    done = max([int(step) for step in steps] + [step * per_iteration for step in saved], default=0)
    is_done = bool(len(steps)) and int(steps[-1]) >= plan.total_iterations * per_iteration
    files = [path for path in (table, folder / "config.json") if path.is_file()]
    return Facts(
        folder=folder,
        plan=plan,
        description=description,
        env_steps=steps,
        returns=found["eval_return"],
        seconds=float(found["seconds"].max(initial=0.0)),
        done_steps=done,
        checkpoints=saved,
        state=RUNNING if is_held(folder) else DONE if is_done else STOPPED,
        written=max(path.stat().st_mtime for path in files),
        warned=read_warnings(folder),
    )
