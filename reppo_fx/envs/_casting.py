"""Values as jax's arrays of a wanted shape and type, where that is safe; a sentence where it is not."""

from __future__ import annotations

from collections.abc import Hashable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_map_with_path
from jaxtyping import Array, DTypeLike, PyTree

from .base import Observation, State

Spec = jax.ShapeDtypeStruct


class ContractError(ValueError):
    """A sentence of ours, raised while jax traces."""


def as_array(name: str, field: str, value: object) -> Array:
    """An array of a definite dtype (no weak type, which a scan would trip over)."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        raise ContractError(
            f"{name}: {field} is {describe(value)}; jax has no array of it."
        ) from None
    return array.astype(array.dtype) if array.aval.weak_type else array


def as_arrays(name: str, field: str, tree: PyTree) -> PyTree[Array]:
    return tree_map_with_path(lambda path, x: as_array(name, f"{field}{keystr(path)}", x), tree)


def as_declared(
    name: str, field: str, observation: Observation, declared: PyTree[Spec]
) -> PyTree[Array]:
    """The observation in the containers and dtypes that were declared."""
    wanted, structure = tree_flatten_with_path(declared)
    given = dict(tree_flatten_with_path(observation)[0])
    if set(given) != {path for path, _ in wanted}:
        where, now, then = _difference(observation, declared, field)
        raise ContractError(f"{name}: {where} is {now}; {then} was declared.")
    leaves = [
        _cast(name, f"{field}{keystr(path)}", given[path], spec, "was declared")
        for path, spec in wanted
    ]
    return jax.tree.unflatten(structure, leaves)


def as_before(name: str, function: str, state: State, before: State) -> State:
    """The state with the dtypes that it had before a function changed it."""
    if _structure(state) != _structure(before):
        where, now, then = _difference(state, before, "state")
        raise ContractError(
            f"{name}: {where} is {now} after {function}, but was {then} before; it must stay the same."
        )
    why = f"was there before {function}, and must stay"
    return tree_map_with_path(
        lambda path, x, old: _cast(name, f"state{keystr(path)}", x, old, why), state, before
    )


def _cast(name: str, field: str, value: object, wanted: Array | Spec, why: str) -> Array:
    array = as_array(name, field, value)
    if array.shape != wanted.shape:
        raise ContractError(
            f"{name}: {field} has shape {list(array.shape)}; {list(wanted.shape)} {why}."
        )
    if array.dtype == wanted.dtype:
        return array
    if not _casts_safely(array.dtype, wanted.dtype):
        raise ContractError(f"{name}: {field} is {array.dtype}; {wanted.dtype} {why}.")
    return array.astype(wanted.dtype)


def _casts_safely(dtype: DTypeLike, wanted: DTypeLike) -> bool:
    """Numbers to floats of any width, else to what holds every value."""
    if jnp.issubdtype(wanted, jnp.floating):
        return is_real(dtype)
    exact = all(jnp.issubdtype(d, jnp.integer) or d == jnp.bool for d in (dtype, wanted))
    return exact and np.can_cast(dtype, wanted, "safe")


def is_real(dtype: DTypeLike) -> bool:
    kinds = (jnp.floating, jnp.integer, jnp.bool)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def _scalar(name: str, field: str, value: object) -> Array:
    array = as_array(name, field, value)
    if array.shape not in ((), (1,)):
        raise ContractError(f"{name}: {field} has shape {list(array.shape)}; it must be a scalar.")
    if not is_real(array.dtype):
        raise ContractError(f"{name}: {field} is {array.dtype}; it must be a real number.")
    return array.reshape(()) if array.ndim else array


def as_float(name: str, field: str, value: object) -> Array:
    scalar = _scalar(name, field, value)
    if not jnp.issubdtype(scalar.dtype, jnp.floating):
        return scalar.astype(jnp.result_type(float))
    # Half precision would be added up over thousands of steps.
    return scalar.astype(jnp.promote_types(scalar.dtype, jnp.float32))


def as_flag(name: str, field: str, value: object) -> Array:
    scalar = _scalar(name, field, value)
    return scalar if scalar.dtype == jnp.bool else scalar != 0


def _difference(new: PyTree, old: PyTree, where: str) -> tuple[str, str, str]:
    """The first place where two trees differ in containers or fields, and what each has there."""
    new_nodes, new_level = _one_level(new)
    old_nodes, old_level = _one_level(old)
    if new_level == old_level:
        for (path, new_node), (_, old_node) in zip(new_nodes, old_nodes, strict=True):
            if path and _structure(new_node) != _structure(old_node):
                return _difference(new_node, old_node, where + keystr(path))
    return where, describe(new), describe(old)


def _structure(tree: PyTree) -> Hashable:
    structure: Hashable = jax.tree.structure(tree)
    return structure


def _one_level(
    tree: PyTree,
) -> tuple[list[tuple[tuple[object, ...], PyTree]], Hashable]:
    return tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)


def describe(node: object) -> str:
    nodes, _ = _one_level(node)
    kind = type(node).__name__
    if node is None:
        return "None"
    if len(nodes) == 1 and not nodes[0][0]:
        return "an array" if hasattr(node, "shape") else f"{node!r:.40} ({kind})"
    return f"a {kind} of {', '.join(keystr(path).strip('[].') for path, _ in nodes) or 'nothing'}"
