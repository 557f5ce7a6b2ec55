"""Learning curves of run folders, by task and label."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._errors import ReppoWarning
from .plan import Plan, label_text
from .records import read_config
from .table import read_returns


class Curve(NamedTuple):
    """Runs that share task and label: steps `[evals]`, returns `[evals, runs]`."""

    env_steps: NDArray[np.number[Any]]
    returns: NDArray[np.floating[Any]]


Curves = dict[str, dict[str, Curve]]
"""By task, then by label."""


def load_curves(runs: Iterable[str]) -> Curves:
    """Curves of run folders, each given as `FOLDER` or `LABEL=FOLDER`.

    Without a label a run goes by its preset, and each setting of a sweep by its values. Runs of the same task
    and label are taken together. Runs with returns that are not finite are named in a `ReppoWarning`.

    Raises:
        ValueError: if a folder holds no run or no evaluation or is given twice, or runs to be taken together
            were evaluated at different steps.
    """
    curves: Curves = {}
    seen: set[tuple[str, Path]] = set()
    for text in runs:
        label, folder = split_label(text)
        if (label, folder.resolve()) in seen:
            raise ValueError(f"{folder} is given twice; its runs would count twice.")
        seen.add((label, folder.resolve()))
        plan = Plan.from_json(read_config(folder))
        steps, returns = read_returns(folder / "metrics.csv", plan)
        if not len(steps):
            raise ValueError(f"{folder} has no evaluation in metrics.csv yet.")
        _warn_of_nonfinite(folder, plan, returns)
        for setting, values in enumerate(plan.labels):
            own = label_text(values) if values else "" if label else plan.preset
            parts = [part for part in (label, own) if part]
            curve = Curve(steps, returns[:, setting])
            add_curve(curves, plan.task, ": ".join(parts), curve, folder)
    return curves


def split_label(text: str) -> tuple[str, Path]:
    """`FOLDER` or `LABEL=FOLDER` as label (empty for none) and folder, either of which may hold more `=`.

    A text that is a folder is one; otherwise the shortest label that leaves a folder is taken.

    Raises:
        ValueError: if there is an `=`, and neither the text nor what follows one is a folder.
    """
    if os.path.isdir(text) or "=" not in text:
        return "", Path(text)
    label, _, rest = text.partition("=")
    while rest:
        if os.path.isdir(rest):
            return label, Path(rest)
        more, equals, rest = rest.partition("=")
        label = f"{label}={more}" if equals else label
    raise ValueError(f"runs has {text!r}; neither that nor what follows a '=' in it is a folder.")


def _warn_of_nonfinite(folder: Path, plan: Plan, returns: NDArray[np.floating[Any]]) -> None:
    for setting, seed in zip(*np.nonzero(~np.isfinite(returns).all(0)), strict=True):
        number = np.count_nonzero(~np.isfinite(returns[:, setting, seed]))
        which = f"{label_text(plan.labels[setting])}, seed {seed}" if plan.grid else f"seed {seed}"
        warnings.warn(
            f"{folder}, {which}: {number} of {len(returns)} returns are not finite; they count as the "
            f"lowest of {plan.task}.",
            ReppoWarning,
            stacklevel=3,
        )


def add_curve(curves: Curves, task: str, label: str, new: Curve, source: Path) -> None:
    """Add runs to those of the same task and label.

    Raises:
        ValueError: if those were evaluated at different steps; names the source.
    """
    labels = curves.setdefault(task, {})
    if label in labels:
        old = labels[label]
        if not np.array_equal(old.env_steps, new.env_steps):
            raise ValueError(
                f"{source} was evaluated at other steps than the other runs of {task} called {label!r}; "
                "give it another label: LABEL=FOLDER."
            )
        new = Curve(old.env_steps, np.concatenate([old.returns, new.returns], axis=1))
    labels[label] = new
