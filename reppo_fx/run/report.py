"""Several runs together on disk: pictures, figures, and what has to be known to read them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .curves import load_curves
from .durable import write_whole
from .scores import Estimate
from .summaries import Scale, Summary, summarize


def write_report(
    runs: Iterable[str],
    out: Path,
    normalizer: float = 1000.0,
    threshold: float = 0.9,
    last: int = 1,
    floor: float | None = None,
) -> dict[str, Summary]:
    """Write `curves.png`, `summary.png` and `summary.json` for some runs, and return the summaries.

    Raises:
        ValueError: as `load_curves` and `summarize`, or if the folder cannot be made.
    """
    from .pictures import plot_comparison, plot_curves

    curves = load_curves(runs)
    summaries = summarize(curves, normalizer, threshold, last, floor)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out is {str(out)!r}, which cannot be created: {error.strerror}."
        ) from error
    plot_curves(out / "curves.png", curves)
    plot_comparison(out / "summary.png", curves, summaries, threshold)
    plain = {label: _plain(summary._asdict()) for label, summary in summaries.items()}
    write_whole(out / "summary.json", (json.dumps(plain, indent=1) + "\n").encode())
    return summaries


def notes(summaries: dict[str, Summary]) -> Iterator[str]:
    """What has to be known to read the figures, a sentence each."""
    scales = {
        task: scale for summary in summaries.values() for task, scale in summary.scales.items()
    }
    for task, scale in scales.items():
        if math.isfinite(scale.goal):
            way = f"from {scale.floor:g} to the best, {scale.best:g}"
            yield f"{task}: reached is a return of {scale.goal:g}, on the way {way}"
        else:
            yield f"{task}: no return is above {scale.floor:g}, so nothing counts as reached"
    for label, summary in summaries.items():
        if len(summary.runs) < len(scales):
            yield f"{label}: of {len(summary.runs)} of {len(scales)} tasks only, {', '.join(summary.runs)}"
    for label, summary in summaries.items():
        for task, number in summary.not_finite.items():
            if number:
                runs = f"{number} of {summary.runs[task]} runs"
                yield f"{label}: {runs} of {task} end with a return that is not finite; it counts as the lowest"


def _plain(value: Any) -> Any:
    """As JSON can hold it; what is infinite becomes null."""
    if isinstance(value, Estimate | Scale):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
