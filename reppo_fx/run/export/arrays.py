"""A policy as a `.npz`: arrays and a text, no pickle. `reader.py` is what reads it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from .dense import Dense
from .metadata import Metadata, as_text


def to_arrays(dense: Dense, facts: Metadata) -> bytes:
    """The file: what `Dense` has, numbered by layer, and the facts as JSON."""
    arrays: dict[str, Any] = {"mean": dense.mean, "std": dense.std}
    arrays |= {f"weight_{i}": weight for i, weight in enumerate(dense.weights)}
    arrays |= {f"bias_{i}": bias for i, bias in enumerate(dense.biases)}
    # The norm is before the layer that has its number.
    arrays |= {f"scale_{i}": scale for i, scale in enumerate(dense.scales, 1)}
    arrays |= {f"shift_{i}": shift for i, shift in enumerate(dense.shifts, 1)}
    if dense.bounds is not None:
        arrays |= dense.bounds._asdict()
    text = as_text({**facts, "layers": len(dense.weights), "norm": dense.norm})
    file = io.BytesIO()
    np.savez(file, metadata=np.array(text), **arrays)
    return file.getvalue()
