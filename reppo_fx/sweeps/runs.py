"""What a sweep gives: runs with axes and labels, and their metrics by name."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import jax
import numpy as np
from jaxtyping import ArrayLike, PyTree

from .._errors import counted, require_extra
from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..training.train import Metrics
from .members import (
    Stacked,
    label_settings,
    lowest_unless_finite,
)

if TYPE_CHECKING:
    import pandas


ROWS_SHOWN = 20


class Best(NamedTuple):
    """The index of the best setting, its values, its mean score, and the index of its best seed.

    Attributes:
        setting: counts along the first axis of the runs.
        hyperparameters: of that setting.
        score: its mean over seeds.
        seed: counts along the second axis.
    """

    setting: int
    hyperparameters: Hyperparameters
    score: float
    seed: int


class Runs(NamedTuple):
    """Results of a sweep; every leaf has the axes `[settings, seeds, ...]`.

    Attributes:
        state: final states; `runs.state[i, j]` is one, to evaluate or train further.
        metrics: with `[settings, seeds, num_evals]`.
        settings: the hyperparameters, `[settings]`.
    """

    state: Stacked[TrainState]
    metrics: Metrics
    settings: Hyperparameters

    def __repr__(self) -> str:
        shape = np.shape(self.metrics.eval_return)
        if not self._is_known():
            return f"Runs(eval_return: {list(shape)})"
        swept = f"swept: {', '.join(self.swept)}" if self.swept else "nothing swept"
        try:
            best = self.best()
        except ValueError:
            found = "none has a finite return"
        else:
            values = self.labels[best.setting].items()
            named = ", ".join(f"{name}={value:.4g}" for name, value in values) or "the only one"
            found = f"best: setting {best.setting} ({named}) with a mean return of {best.score:.4g}"
        settings, seeds, evaluations = map(counted, shape, ("setting", "seed", "evaluation"))
        return f"Runs({settings} × {seeds}, {evaluations}; {swept}; {found})"

    def _repr_html_(self) -> str:
        """A table for notebooks: the settings, best first."""
        shape = np.shape(self.metrics.eval_return)
        if not self._is_known() or 0 in shape:
            return f"<code>{html.escape(repr(self))}</code>"
        seeds = counted(shape[1], "seed")
        headings = ["setting", *self.swept, "last return", "best return", "steps"]
        rows = self._table()
        lines = [_html_row("th", headings), *(_html_row("td", row) for row in rows[:ROWS_SHOWN])]
        if len(rows) > ROWS_SHOWN:
            lines.append(_html_row("td", [f"… {len(rows) - ROWS_SHOWN} more"]))
        note = f"last: mean ± standard error over {seeds}; best: of any seed at any evaluation"
        return f"<table>{''.join(lines)}</table><small>{note}</small>"

    def _is_known(self) -> bool:
        """Whether it is a sweep's result, with values: not one run of it, a trace, or shapes."""
        leaves = (*self.settings, self.metrics.eval_return)
        return np.ndim(self.metrics.eval_return) == 3 and all(map(_has_values, leaves))

    def _table(self) -> list[list[str]]:
        """A row per setting, best first."""
        scores, labels = self.scores(), self.labels
        env_steps = np.asarray(self.metrics.env_steps)
        returns = np.asarray(self.metrics.eval_return)
        tops = np.where(np.isfinite(returns) & (env_steps >= 0), returns, -np.inf).max((1, 2))
        means = np.asarray(lowest_unless_finite(scores.mean(1)))
        made = np.where(np.isfinite(means), self.evaluations.min(1), 0)
        rows = []
        for index in np.lexsort((-means, -made)):  # as `best` ranks them
            own = scores[index]
            error = f" ± {own.std(ddof=1) / np.sqrt(len(own)):.4g}" if len(own) > 1 else ""
            top = f"{tops[index]:.4g}" if np.isfinite(tops[index]) else "none is finite"
            values = [f"{value:.4g}" for value in labels[index].values()]
            steps = f"{int(np.nanmax(env_steps[index], initial=0)):,}"  # NaN after a drop
            rows.append([str(index), *values, f"{own.mean():.4g}{error}", top, steps])
        return rows

    @property
    def swept(self) -> tuple[str, ...]:
        """The names of the hyperparameters that differ between settings."""
        values = self.settings._asdict().items()
        return tuple(name for name, leaf in values if len(np.unique(np.asarray(leaf))) > 1)

    @property
    def labels(self) -> list[dict[str, float]]:
        """For each setting, the values of what is swept."""
        return label_settings(self.settings, self.swept)

    @property
    def evaluations(self) -> np.ndarray:
        """`[settings, seeds]`: how many evaluations were made; fewer where successive halving dropped a setting."""
        made: np.ndarray = (np.asarray(self.metrics.env_steps) >= 0).sum(-1)
        return made

    def scores(self, last: SupportsIndex = 1) -> np.ndarray:
        """`[settings, seeds]`: the mean return of the last evaluations that were made; not finite if one was not.

        Args:
            last: how many evaluations to average; more of them lessen the luck of a single one.

        Raises:
            ValueError: unless `1 ≤ last ≤ num_evals`.
        """
        returns = np.asarray(self.metrics.eval_return)
        if not 1 <= last.__index__() <= returns.shape[-1]:
            raise ValueError(f"last is {last}; it must be between 1 and {returns.shape[-1]}.")
        made = self.evaluations[..., None]
        position = np.arange(returns.shape[-1])
        counted = (position < made) & (position >= made - last)
        return np.asarray(np.where(counted, returns, 0.0).sum(-1) / np.maximum(counted.sum(-1), 1))

    def best(self, last: SupportsIndex = 1) -> Best:
        """The setting with the highest mean score over seeds, the first of them if several are equal.

        Settings with a score that is not finite come last, before them those that were dropped earlier than others.

        Raises:
            ValueError: if no setting has finite scores.
        """
        scores = np.asarray(lowest_unless_finite(self.scores(last)))
        means, made = scores.mean(-1), self.evaluations.min(-1)
        if not np.isfinite(means).any():
            raise ValueError(
                "no setting has a finite return for all of its seeds; see metrics.eval_return."
            )
        made = np.where(np.isfinite(means), made, 0)
        index = int(np.where(made == made.max(), means, -np.inf).argmax())
        setting = jax.tree.map(lambda leaf: float(leaf[index]), self.settings)
        return Best(index, setting, float(means[index]), int(scores[index].argmax()))

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per member and evaluation: setting, seed, what is swept, and every metric (needs pandas).

        Metrics with axes of their own get one column per entry: `name/0`, `name/1`, …
        """
        try:
            import pandas
        except ImportError as error:
            raise require_extra("pandas", "dataframe") from error
        shape = np.shape(self.metrics.eval_return)
        setting, seed, _ = (index.ravel() for index in np.indices(shape))
        columns: dict[str, np.ndarray] = {"setting": setting, "seed": seed}
        for name in self.swept:
            columns[name] = np.asarray(getattr(self.settings, name))[setting]
        for name, values in flatten_metrics(self.metrics).items():
            for place in np.ndindex(np.shape(values)[3:]):
                column = "/".join([name, *map(str, place)])
                columns[column] = np.asarray(values)[(..., *place)].ravel()
        return pandas.DataFrame(columns)


def _html_row(tag: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _has_values(leaf: object) -> bool:
    """Whether a leaf has values: neither traced nor only a shape."""
    return isinstance(leaf, np.ndarray | jax.Array) and not isinstance(leaf, jax.core.Tracer)


def flatten_metrics(metrics: PyTree) -> dict[str, Any]:
    """All metrics by their own names, without nesting, in their order.

    Fields of NamedTuples within NamedTuples go by their own name alone, or by their path where two have the
    same. What is in a mapping or a sequence always goes by its path, from the field that holds it.

    Raises:
        ValueError: if two metrics get the same name.

    >>> flatten_metrics({"success": 1.0, "reward": {"alive": 2.0}})
    {'success': 1.0, 'reward/alive': 2.0}
    """
    found = list(_walk_metrics(metrics, (), 0))
    short = Counter("/".join(path[inner:]) for path, inner, _ in found)
    flat: dict[str, Any] = {}
    for path, inner, leaf in found:
        name = "/".join(path[inner:])
        name = name if short[name] == 1 else "/".join(path)
        if name in flat:
            raise ValueError(f"two metrics are named {name!r}; rename one of them.")
        flat[name] = leaf
    return flat


def _walk_metrics(
    node: PyTree, path: tuple[str, ...], inner: int, plain: bool = True
) -> Iterator[tuple[tuple[str, ...], int, ArrayLike]]:
    """Each leaf with its path, and where in that its short name begins; `plain` until a mapping is entered."""
    items: Mapping[str, PyTree]
    fields = hasattr(node, "_asdict")
    if fields:
        items = node._asdict()
    elif isinstance(node, Mapping):
        items = {str(key): value for key, value in node.items()}
    elif isinstance(node, tuple | list):
        items = {str(index): value for index, value in enumerate(node)}
    else:
        if node is not None:
            yield path, inner, node
        return
    plain = plain and fields
    for name, value in items.items():
        yield from _walk_metrics(value, (*path, name), len(path) if plain else inner, plain)
