"""Random keys of both styles and of every kind: one typed key in, plain numbers where only those will do."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

T = TypeVar("T")


def as_key(key: ArrayLike, name: str = "key") -> Array:
    """One typed random key, from either style.

    A raw key, as from `jax.random.PRNGKey`, says nothing about its kind: as everywhere in jax it is taken for
    one of the default kind (`jax.config.jax_default_prng_impl`). Works on traced keys too.

    Args:
        key: a typed key of any kind, or a raw one (`uint32`) of the default kind.
        name: what the caller calls it, for the sentence.

    Raises:
        ValueError: for several keys, for raw ones of another kind, and for what is no key.

    >>> as_key(jax.random.PRNGKey(7)) == jax.random.key(7)
    Array(True, dtype=bool)
    """
    shape, dtype = jnp.shape(key), getattr(key, "dtype", None)
    if is_key(key):
        if shape:
            raise ValueError(f"{name} holds keys of shape {list(shape)}; give one of them.")
        return cast(Array, key)
    if dtype != jnp.uint32:
        what = repr(key) if dtype is None else f"an array of {dtype}"
        raise ValueError(
            f"{name} is {what}; it must be a random key, as from jax.random.key(seed)."
        )
    raw = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    if shape != raw:
        kind = jax.config.values["jax_default_prng_impl"]
        raise ValueError(
            f"{name} is a raw array of shape {list(shape)}, and one raw key of the default kind, {kind}, has "
            f"{list(raw)}; give one typed key: jax.random.key(seed), or "
            "jax.random.wrap_key_data(key, impl=...) to say of what kind it is."
        )
    typed: Array = jax.random.wrap_key_data(jnp.asarray(key))
    return typed


def is_key(leaf: object) -> bool:
    """Whether an array holds typed random keys."""
    return hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def key_kind(keys: Array | jax.ShapeDtypeStruct) -> Any:
    """What kind typed keys are of; their shape and dtype will do.

    >>> key_kind(jax.eval_shape(lambda: jax.random.key(0, impl="rbg")))
    'rbg'
    """
    return jax.random.key_impl(jnp.empty((0,), keys.dtype))


def expose_keys(tree: PyTree) -> PyTree:
    """Typed random keys as the integers they hold, for everything that only takes plain numbers."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def key_kinds(tree: PyTree) -> PyTree:
    """For each leaf what kind of random keys it holds, or an empty string."""
    return jax.tree.map(lambda x: key_kind(x) if is_key(x) else "", tree)


def restore_keys(tree: T, kinds: PyTree) -> T:
    """The inverse of `expose_keys`, with the `key_kinds` of what it was given."""
    restored: T = jax.tree.map(
        lambda x, kind: jax.random.wrap_key_data(x, impl=kind) if kind else x, tree, kinds
    )
    return restored
