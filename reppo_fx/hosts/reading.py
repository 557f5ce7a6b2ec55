"""What adapters share: how observations become flat float vectors, and what is said of every instance numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree
from numpy.typing import NDArray

from ..envs import select_part
from ..envs._casting import is_real

PARTS = ("state", "privileged_state")


class Reader(NamedTuple):
    """How a simulator's observations are read.

    Attributes:
        read: `observations of all instances -> observations`, new arrays in jax's precision.
        observation: of one instance, after it.
        actor_part: that the actor sees.
        critic_part: that the critic sees.
        action_mask: that says which actions there are, if any does.
    """

    read: Callable[[PyTree], PyTree[NDArray[Any]]]
    observation: PyTree[jax.ShapeDtypeStruct]
    actor_part: str
    critic_part: str
    action_mask: str | None = None


def make_reader(
    name: str,
    example: PyTree,
    *,
    flatten: bool = True,
    actor_part: str | None = None,
    critic_part: str | None = None,
    action_mask: str | None = None,
    categories: Mapping[str, tuple[int, int]] | None = None,
) -> Reader:
    """Read observations like this one.

    Flattened, each part that actor or critic sees is one float vector, its leaves joined in the simulator's own
    order (a dict's insertion order). An observation with an entry `"state"`, or of which parts are named, has parts
    (`"privileged_state"` is the critic's, where it is there); any other is one vector as a whole.

    Args:
        name: the environment's, for sentences.
        example: an observation of all instances, `[n, ...]`.
        flatten: or leave containers and shapes as they are, for networks of one's own.
        actor_part: its name.
        critic_part: its name.
        action_mask: the part that says which discrete actions there are; it becomes booleans beside the others.
            Where no parts are named it is in the vector of the whole (`"state"`), too, as numbers.
        categories: for leaves that are one of several categories (path as `a.b.0`; `""` is the whole), the first
            one's number and how many there are: flattened, they become one-hot vectors.

    Raises:
        ValueError: for a part that is not there, or something that is no vector of numbers.
    """
    parts: dict[str, str] | None = None
    if isinstance(example, Mapping) and (actor_part or critic_part or PARTS[0] in example):
        actor = actor_part or (PARTS[0] if PARTS[0] in example else critic_part)
        critic = critic_part or (PARTS[1] if PARTS[1] in example else actor)
        parts = {"actor": actor or "", "critic": critic or ""}
        # First the one that was named: the other one follows from it.
        for role, part in sorted(parts.items(), reverse=actor_part is None):
            try:
                select_part(example, part)
            except ValueError as error:
                raise ValueError(f"{name}: {role}_part is {part!r}, but {error}") from None
    elif actor_part or critic_part:
        raise ValueError(
            f"{name}: actor_part is {actor_part!r} and critic_part {critic_part!r}, but the observation has no "
            "named parts."
        )
    read = _flat(name, example, parts, categories or {}) if flatten else _as_it_is
    if action_mask is not None:
        read = _with_mask(name, read, example, action_mask)
    seen = read(example)
    specs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), seen)
    names = parts or {"actor": PARTS[0], "critic": PARTS[0]}
    return Reader(read, specs, names["actor"], names["critic"], action_mask)


def _with_mask(
    name: str, read: Callable[[PyTree], PyTree[NDArray[Any]]], example: PyTree, part: str
) -> Callable[[PyTree], PyTree[NDArray[Any]]]:
    """What is read, in a dict with the mask as booleans."""
    if not isinstance(example, Mapping):
        raise ValueError(
            f"{name}: action_mask is {part!r}, but the observation has no named parts."
        )
    try:
        select_part(example, part)
    except ValueError as error:
        raise ValueError(f"{name}: action_mask is {part!r}, but {error}") from None

    def both(observation: PyTree) -> PyTree[NDArray[Any]]:
        own = read(observation)
        parts = own if isinstance(own, Mapping) else {PARTS[0]: own}
        return {**parts, part: np.asarray(select_part(observation, part)) != 0}

    return both


def _flat(
    name: str,
    example: PyTree,
    parts: dict[str, str] | None,
    categories: Mapping[str, tuple[int, int]],
) -> Callable[[PyTree], PyTree[NDArray[Any]]]:
    if parts is None:
        return _joined(name, example, "", categories)
    joined = {
        part: _joined(name, select_part(example, part), part, categories)
        for part in dict.fromkeys(parts.values())
    }

    def read(observation: PyTree) -> PyTree[NDArray[Any]]:
        return {part: join(select_part(observation, part)) for part, join in joined.items()}

    return read


def _joined(
    name: str, example: PyTree, path: str, categories: Mapping[str, tuple[int, int]]
) -> Callable[[PyTree], NDArray[Any]]:
    """One vector of all leaves; what cannot be joined is said now."""
    places, width = [], 0
    for place, leaf in leaves_in_order(example, path):
        kinds = categories.get(place)
        size = kinds[1] if kinds else _size(name, place, np.asarray(leaf))
        places.append((slice(width, width + size), kinds))
        width += size

    def join(part: PyTree) -> NDArray[Any]:
        leaves = leaves_in_order(part)
        whole = np.empty((len(np.asarray(leaves[0][1])), width), _real())
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which containment sees
            for (_, leaf), (columns, kinds) in zip(leaves, places, strict=True):
                if kinds is not None:
                    leaf = np.eye(kinds[1])[np.asarray(leaf).astype(int) - kinds[0]]
                whole[:, columns] = np.reshape(leaf, (len(whole), -1))
        return whole

    return join


def leaves_in_order(tree: PyTree, path: str = "") -> list[tuple[str, Any]]:
    """Leaves with their paths (`a.b.0`), dicts in their own order (jax sorts them)."""
    if isinstance(tree, Mapping):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, tuple | list):
        items = [(str(index), value) for index, value in enumerate(tree)]
    else:
        return [(path, tree)]
    return [
        leaf
        for key, value in items
        for leaf in leaves_in_order(value, f"{path}.{key}" if path else key)
    ]


def map_leaves(function: Callable[[Any], Any], tree: PyTree) -> PyTree:
    """As `jax.tree.map`, with dicts in their own order."""
    if isinstance(tree, Mapping):
        return {key: map_leaves(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_leaves(function, value) for value in tree)
    return function(tree)


def _size(name: str, place: str, leaf: NDArray[Any]) -> int:
    """How many numbers a leaf gives of one instance."""
    where = f"observation {place!r}" if place else "the observation"
    if leaf.ndim > 2:
        raise ValueError(
            f"{name}: {where} has shape {list(leaf.shape[1:])}, which is no vector; give flatten=False, and "
            "networks of your own (networks=) that take it as it is."
        )
    if not is_real(leaf.dtype):
        raise ValueError(f"{name}: {where} is of {leaf.dtype}; it must be of real numbers.")
    return leaf.size // len(leaf)


def _as_it_is(observation: PyTree) -> PyTree[NDArray[Any]]:
    """The same containers with copies in jax's precision."""
    with np.errstate(over="ignore"):
        return jax.tree.map(
            lambda leaf: np.array(leaf, jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype)),
            observation,
        )


def as_array(value: Any) -> NDArray[Any]:
    """Of a tensor, wherever it is, or of anything else; on the CPU it is the tensor's own memory."""
    array: NDArray[Any] = np.asarray(
        value.detach().cpu().numpy() if hasattr(value, "detach") else value
    )
    return array


def _real() -> np.dtype[Any]:
    dtype: np.dtype[Any] = jax.dtypes.canonicalize_dtype(np.float64)
    return dtype


def numbers(info: Mapping[str, Any], num_envs: int, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a simulator says of every instance in one real number each; flags and whole numbers count as such."""
    found = {}
    for key, value in info.items():
        if key in skip or not hasattr(value, "dtype"):
            continue
        array = np.asarray(value)
        if array.shape in ((num_envs,), (num_envs, 1)) and is_real(array.dtype):
            found[str(key)] = array.reshape(num_envs)
    return found


def columns(
    info: Mapping[str, Any], names: tuple[str, ...], num_envs: int
) -> dict[str, Float[np.ndarray, " n"]]:
    """These numbers as floats of their own; one that is not there is 0."""
    found = numbers({name: info[name] for name in names if name in info}, num_envs)
    return {
        name: np.array(found[name], _real()) if name in found else np.zeros(num_envs, _real())
        for name in names
    }


def is_flat(space: Any) -> bool:
    """Whether a space of observations is of numbers and vectors alone, which networks of ours can see."""
    inner = getattr(space, "spaces", None)
    if inner is not None:
        return all(map(is_flat, inner.values() if isinstance(inner, Mapping) else inner))
    shape = getattr(space, "shape", None)
    return shape is not None and len(shape) <= 1
