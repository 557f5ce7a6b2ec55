"""`metrics.csv`: a row per evaluation and member, and one reader for everybody."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from ..sweeps.runs import flatten_metrics
from ..training.train import Metrics
from .durable import naming, sync, write_whole
from .plan import Plan

METRICS = "metrics.csv"


def metric_columns(metrics: Metrics, swept: Iterable[str] = ()) -> list[str]:
    """The columns of `metrics.csv`; with the setting's number and values in front when something is swept.

    Args:
        metrics: what one evaluation gives, or its shapes.
        swept: the names of what is swept.
    """
    swept = list(swept)
    names = [name for name in flatten_metrics(metrics) if name != "env_steps"]
    return [*(["setting", *swept] if swept else []), "seed", "env_steps", "seconds", *names]


class Evaluation(NamedTuple):
    """One evaluation as `metrics.csv` has it: steps, and a row per member, seeds fastest."""

    env_steps: int
    rows: list[dict[str, str]]


def read_evaluations(path: Path, plan: Plan) -> tuple[list[str], list[Evaluation]]:
    """The columns and the whole evaluations of `metrics.csv`; none if there is no such file.

    A last one that is not whole (the machine stopped while it was written) is left out: it comes again when the
    run goes on.

    Raises:
        ValueError: if the file is not one of a run of this plan, or damaged before its last evaluation.
    """
    if not path.exists():
        return [], []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    if not lines:
        return [], []
    columns, *table = map(_cells, lines)
    needed = {"seed", "env_steps", "seconds", "eval_return", *plan.grid}
    if not needed <= set(columns):
        missing = sorted(needed - set(columns))
        raise ValueError(f"{path} is not a table of this run: it has no column {missing[0]!r}.")
    members = len(plan.labels) * plan.num_seeds
    evaluations: list[Evaluation] = []
    for start in range(0, len(table), members):
        rows = table[start : start + members]
        before = evaluations[-1].env_steps if evaluations else 0
        evaluation = _evaluation(columns, rows, plan, before) if len(rows) == members else None
        if evaluation is None:
            if start + members < len(table):
                raise ValueError(
                    f"{path} is damaged: lines {start + 2} to {start + members + 1} are not the "
                    f"{members} row(s) of one evaluation. Remove them and what follows to go on from there."
                )
            break
        evaluations.append(evaluation)
    return columns, evaluations


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _evaluation(
    columns: list[str], rows: list[list[str]], plan: Plan, before: int
) -> Evaluation | None:
    """These rows as an evaluation, or none if they are not one made after `before` steps."""
    named = [dict(zip(columns, row, strict=False)) for row in rows]
    try:
        steps = {int(row["env_steps"]) for row in named}
        seeds = [int(row["seed"]) for row in named]
        settings = [int(row["setting"]) for row in named] if plan.grid else [0] * len(rows)
        for row in named:
            for text in row.values():
                float(text)
    except (ValueError, KeyError):
        return None
    members = [divmod(member, plan.num_seeds) for member in range(len(rows))]
    whole = all(len(row) == len(columns) for row in rows)
    in_order = [*zip(settings, seeds, strict=True)] == members
    if not (whole and in_order and len(steps) == 1 and min(steps) > before):
        return None
    return Evaluation(min(steps), named)


def missing_evaluations(folder: Path, plan: Plan, done: int) -> list[int]:
    """Iterations up to `done` after which an evaluation was due that `metrics.csv` does not have."""
    path = folder / METRICS
    made = read_evaluations(path, plan)[1]
    found = {evaluation.env_steps for evaluation in made}
    steps = plan.config.steps_per_iteration
    return [due for due in plan.due if due <= done and due * steps not in found]


def as_metrics(evaluation: Evaluation, shapes: Metrics) -> Metrics:
    """An evaluation as it was before it was written, to six digits; `shapes` says where which number was."""
    leaves, structure = jax.tree.flatten(shapes)
    places = flatten_metrics(jax.tree.unflatten(structure, range(len(leaves))))
    found = [np.empty(0)] * len(leaves)
    for name, place in places.items():
        column = [float(row[name]) for row in evaluation.rows]
        found[place] = np.array(column, leaves[place].dtype)
    metrics: Metrics = jax.tree.unflatten(structure, found)
    return metrics


class MetricsFile:
    """`metrics.csv`, one row per evaluation and member, on disk after every evaluation.

    Args:
        path: the file. An existing one is continued.
        plan: what is run.
        metrics: the shapes of what one evaluation gives.
        done: iterations that the run goes on from; rows of evaluations after that are dropped, as they come again,
            and so are those made out of turn when a run was interrupted.

    Attributes:
        kept: the evaluations that it goes on from.
        seconds: until the last of them.

    Raises:
        ValueError: if an existing file has other columns.
    """

    def __init__(self, path: Path, plan: Plan, metrics: Metrics, done: int = 0) -> None:
        self._path = path
        self._labels, self._num_seeds = plan.labels, plan.num_seeds
        columns = metric_columns(metrics, plan.grid)
        found, evaluations = read_evaluations(path, plan)
        if found and found != columns:
            other = next(iter(set(found) ^ set(columns)), "their order")
            raise ValueError(f"{path} has other columns than this package writes: {other}.")
        in_turn = {due * plan.config.steps_per_iteration for due in plan.due if due <= done}
        self.kept = [e for e in evaluations if e.env_steps in in_turn]
        kept = [row for e in self.kept for row in e.rows]
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns)
        writer.writeheader()
        writer.writerows(kept)
        write_whole(path, table.getvalue().encode())
        self.seconds = float(kept[-1]["seconds"]) if kept else 0.0
        self._columns = columns
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, env_steps: int, seconds: float, metrics: Metrics) -> Evaluation:
        """Append the rows of one evaluation, and give them; `metrics` has the axis `[members]`, seeds fastest."""
        flat = flatten_metrics(metrics)
        flat.pop("env_steps")
        rows = []
        for member in range(len(metrics.eval_return)):
            setting, seed = divmod(member, self._num_seeds)
            label = self._labels[setting]
            cells = [
                *([setting, *label.values()] if label else []),
                seed,
                env_steps,
                f"{seconds:.3f}",
                *(_number(values[member]) for values in flat.values()),
            ]
            rows.append(dict(zip(self._columns, map(str, cells), strict=True)))
        with naming(self._path):
            self._writer.writerows(rows)
            sync(self._file)
        return Evaluation(env_steps, rows)

    def close(self) -> None:
        """Close the file."""
        with naming(self._path):
            self._file.close()


def read_returns(path: Path, plan: Plan) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps `[evals]` and returns `[evals, settings, seeds]` from `metrics.csv`.

    Raises:
        ValueError: as `read_evaluations`.
    """
    steps, found = read_metrics(path, plan, ("eval_return",))
    return steps, found["eval_return"]


def read_metrics(
    path: Path, plan: Plan, names: Iterable[str]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Steps `[evals]`, and `[evals, settings, seeds]` of each named column of `metrics.csv` that is there.

    Raises:
        ValueError: as `read_evaluations`.
    """
    columns, evaluations = read_evaluations(path, plan)
    steps = np.array([evaluation.env_steps for evaluation in evaluations], np.int64)
    shape = (len(steps), len(plan.labels), plan.num_seeds)
    found = {}
    for name in names:
        if name in columns or not columns:
            values = [[float(row[name]) for row in e.rows] for e in evaluations]
            found[name] = np.array(values, np.float64).reshape(shape)
    return steps, found


def _number(value: Any) -> int | str:
    """Whole numbers with all their digits, others with six."""
    number = float(value)
    whole = np.issubdtype(np.asarray(value).dtype, np.integer) or number.is_integer()
    return int(value) if whole else f"{number:.6g}"
