"""The leaves of a PyTree by their paths, as plain numbers that files can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpy.typing import DTypeLike, NDArray

from .._keys import expose_keys, is_key, key_kind

KINDS = (jnp.floating, jnp.signedinteger, jnp.unsignedinteger, jnp.complexfloating)


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of a PyTree by their paths, in its order.

    Raises:
        ValueError: if two of them have paths that are spelled alike.

    >>> named_leaves({"a": [1, 2]})
    {'a.0': 1, 'a.1': 2}
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in named:
            raise ValueError(f"two leaves have the path {name!r}; rename one of them.")
        named[name] = leaf
    return named


def to_numbers(path: str, leaf: Any) -> NDArray[Any]:
    """A copy of a leaf, never a view: the next step reuses the memory. Random keys as the integers they hold.

    Raises:
        ValueError: if it holds no numbers.
    """
    array = np.array(expose_keys(leaf), copy=True)
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise ValueError(f"{path} is a {type(leaf).__name__}; only arrays of numbers are saved.")
    return array


def from_numbers(path: str, array: NDArray[Any], like: Any) -> jax.Array:
    """An array, or random keys, of the dtype of `like`.

    Raises:
        ValueError: if that would change a number.
    """
    if is_key(like):
        keys: jax.Array = jax.random.wrap_key_data(jnp.asarray(array), impl=key_kind(like))
        return keys
    dtype = jax.eval_shape(expose_keys, like).dtype
    converted = convert(array, dtype)
    if converted is None:
        remedy = " (JAX_ENABLE_X64=1 keeps them)" if array.dtype.itemsize == 8 else ""
        raise ValueError(
            f"{path} is {array.dtype} in it, and {dtype} here would change its numbers{remedy}."
        )
    return jnp.asarray(converted)


def convert(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any] | None:
    """The same numbers in another precision of the same kind; none if one of them is not the same there.

    >>> convert(np.array([0.5, np.nan]), np.float32)
    array([0.5, nan], dtype=float32)
    >>> convert(np.array([0.1]), np.float32) is None, convert(np.array([1.0]), np.int32) is None
    (True, True)
    """
    if array.dtype == dtype:
        return array
    if not _same_kind(array.dtype, dtype):
        return None
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
        back = converted.astype(array.dtype)
    same = (back == array) | ((back != back) & (array != array))
    return converted if bool(np.all(same)) else None


def rounded(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any] | None:
    """As `convert`, but real numbers are rounded; none if one is beyond the range.

    >>> rounded(np.array([0.1]), np.float32), rounded(np.array([1e300]), np.float32) is None
    (array([0.1], dtype=float32), True)
    """
    here = jnp.dtype(dtype)
    if not all(jnp.issubdtype(each, jnp.floating) for each in (array.dtype, here)):
        return convert(array, dtype)
    with np.errstate(over="ignore"):
        nearest = array.astype(here)
    return nearest if bool(np.all(np.isfinite(nearest) == np.isfinite(array))) else None


def describe(leaf: Any, numbers: Any) -> dict[str, Any]:
    """Shape and dtype of the numbers of a leaf, and for random keys their kind, for JSON."""
    kind = str(key_kind(leaf)) if is_key(leaf) else ""
    return {"shape": list(numbers.shape), "dtype": str(numbers.dtype), "key": kind}


def misfits(saved: Mapping[str, dict[str, Any]], expected: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit between what was described and the leaves that are expected, in words."""
    for path in [*expected, *(path for path in saved if path not in expected)]:
        if path not in saved or path not in expected:
            side = "is missing from it" if path not in saved else "is in it, but not expected"
            yield f"{path} {side}"
            continue
        leaf = expected[path]
        there, here = saved[path], describe(leaf, jax.eval_shape(expose_keys, leaf))
        alike = there["shape"] == here["shape"] and there["key"] == here["key"]
        if not alike or not _same_kind(there["dtype"], here["dtype"]):
            yield f"{path} is {_in_words(there)} in it, but {_in_words(here)} here"


def _in_words(leaf: dict[str, Any]) -> str:
    return f"{leaf['shape']} {leaf['dtype']}" + (f" ({leaf['key']} keys)" if leaf["key"] else "")


def _same_kind(one: DTypeLike, other: DTypeLike) -> bool:
    types = jnp.dtype(one), jnp.dtype(other)
    return types[0] == types[1] or any(
        all(jnp.issubdtype(each, kind) for each in types) for kind in KINDS
    )
