"""Arithmetic shared by the ops: zeros that cut, constants, half precision, and the inside of a softmax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

Dtype = Any  # numpy's own type of dtypes does not know bfloat16


def weighted(weight: Array, value: Array) -> Array:
    """`weight · value`, where a weight of exactly 0 keeps out a value that is not finite.

    `0 · NaN` and `0 · ∞` are NaN; here they are 0, and no NaN comes back through the gradients either. A
    finite value keeps its derivative with respect to the weight, also at 0.
    """
    return weight * jnp.where((weight == 0) & ~jnp.isfinite(value), jnp.zeros_like(value), value)


def constant(x: Array, stop_gradients: bool) -> Array:
    """`x` without its gradient, unless gradients through the update are wanted."""
    return jax.lax.stop_gradient(x) if stop_gradients else x


def wide_dtype(dtype: Dtype) -> Dtype:
    """The dtype to compute in: float32 for floating-point numbers of less than 32 bits, else the same."""
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4
    return jnp.dtype(jnp.float32) if narrow else jnp.dtype(dtype)


def widened(*arrays: Array) -> tuple[Dtype, tuple[Array, ...]]:
    """The dtype that the arrays have together, and the arrays in the one to compute in.

    An op computes in the second and rounds once, to the first: a sum of a hundred rows or bins has no digit
    left in bfloat16. Nothing happens to float32 and float64, nor to what is not a floating-point array.
    """
    dtype = jnp.result_type(*arrays)
    wide = wide_dtype(dtype)
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in arrays]
    return dtype, tuple(
        x.astype(wide) if floats else x for x, floats in zip(arrays, is_float, strict=True)
    )


def shifted_logits(logits: Array, finite: bool = False) -> tuple[Array, Array]:
    """Logits less their row's largest one, and `e` to these.

    `−∞` is a probability of 0 and `+∞` takes all of it; a row of nothing but `−∞` is no distribution: NaN.
    """
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    shifted = logits - largest
    if not finite:
        shifted = jnp.where(jnp.isposinf(logits), jnp.zeros_like(logits), shifted)
    return shifted, jnp.exp(shifted)
