"""Static checks shared by the ops: they run while tracing and cost nothing afterwards."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def shape_text(shape: tuple[int, ...]) -> str:
    """`(128, 64)` as `[128, 64]`, the way the docs write shapes."""
    return "[" + ", ".join(str(size) for size in shape) + "]"


def require_same_shape(**arrays: Any) -> None:
    """Raise a sentence naming the first array whose shape differs from the first one's."""
    (first, reference), *rest = ((name, jnp.shape(value)) for name, value in arrays.items())
    for name, shape in rest:
        if shape != reference:
            raise ValueError(
                f"{first} is {shape_text(reference)} but {name} is {shape_text(shape)}; "
                "they must have the same shape."
            )


def require_last_axis(size: int, because: str, **arrays: Any) -> None:
    """Raise unless every array's last axis has `size` entries."""
    for name, value in arrays.items():
        shape = jnp.shape(value)
        if not shape or shape[-1] != size:
            raise ValueError(
                f"{name} is {shape_text(shape)} but its last axis must have {size} entries, {because}."
            )


def require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}.")


def match_dtype(value: Any, like: Array) -> Array:
    """`value` (often a Python float or a bool array) as an array of `like`'s dtype."""
    if not jnp.issubdtype(like.dtype, jnp.floating):
        raise ValueError(
            f"an array of dtype {like.dtype} was given where floating-point numbers are needed; "
            "cast it first, or a discount of 0.99 would be cut to 0."
        )
    return jnp.asarray(value).astype(like.dtype)
