"""What every room asks of a PyTree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree


def all_finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    """Whether every number in a tree is finite; integers, flags and keys always are.

    >>> print(all_finite({"a": jnp.ones(2), "b": jnp.arange(3)}), all_finite(jnp.array([jnp.nan])))
    True False
    """
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves], bool))
