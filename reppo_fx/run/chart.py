"""A curve as lines of text: block characters, which `plain` turns into others where a stream has none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 60, 7
Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


def chart(x: Numbers, y: Numbers, ends: tuple[str, str], width: int = WIDTH) -> list[str]:
    """Columns as high as `y` is over `x`, from 0 to the last `x`; what is not finite leaves its columns empty.

    Args:
        x: ascending, `[points]`, from above 0.
        y: `[points]`.
        ends: what to write under the first and the last column.
        width: columns.

    >>> print("\\n".join(chart(np.array([1, 2]), np.array([0.0, 10.0]), ("0", "2"), width=8)))
     10 ┤       █
        │      ▂█
        │      ██
        │     ▄██
        │     ███
        │    ▆███
      0 ┤   ▁████
        └────────
         0      2
    """
    y = y.astype(np.float64)
    share, low, high = _shares(x, y, (np.arange(width) + 1) / width * float(x[-1]))
    full = len(BLOCKS) - 1
    # A first step for the lowest value, so that it is seen.
    levels = np.maximum(1, np.round(share * HEIGHT * full))
    heights = np.where(np.isfinite(share), levels, 0).astype(int)
    labels = {HEIGHT - 1: f"{high:.4g}", 0: f"{low:.4g}"}
    margin = max(map(len, labels.values())) + 1
    lines = []
    for row in reversed(range(HEIGHT)):
        cells = "".join(BLOCKS[int(np.clip(h - row * full, 0, full))] for h in heights)
        label, edge = labels.get(row, ""), "┤" if row in labels else "│"
        lines.append(f"{label:>{margin}} {edge}{cells}".rstrip())
    blank = " " * (margin + 2)
    first, last = ends
    lines.append(f"{' ' * margin} └{'─' * width}")
    lines.append(f"{blank}{first}{last:>{width - len(first)}}")
    return lines


def _shares(x: Numbers, y: Numbers, at: Numbers) -> tuple[Numbers, float, float]:
    """How far up each column is, from 0 to 1, and what the two ends are; not a number where nothing is known."""
    known = np.isfinite(y)
    if not known.any():
        return np.full(at.shape, math.nan), 0.0, 1.0
    low, high = float(y[known].min()), float(y[known].max())
    low = 0.0 if low > 0.0 else low
    high = high if high > low else low + 1.0
    nearest = np.abs(at[:, None] - x[None, :]).argmin(1)
    values = np.interp(at, x[known], y[known])
    seen = known[nearest] & (at >= x[0] * (1 - 1e-9))
    return np.where(seen, (values - low) / (high - low), math.nan), low, high
