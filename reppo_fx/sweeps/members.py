"""The member axis: many runs (settings × seeds) as one leading axis, the programs over it, and their memory."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, NamedTuple, ParamSpec, SupportsIndex, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Float

from .._keys import as_key as as_key
from .._keys import expose_keys as expose_keys
from .._keys import is_key as is_key
from .._keys import key_kinds as key_kinds
from .._keys import restore_keys as restore_keys
from .._members import over_axis
from .._programs import keep_program as keep_program
from .._ranges import as_count
from ..settings import Hyperparameters, check_hyperparameters
from .mesh import compiler_mesh as compiler_mesh
from .mesh import lay_over as lay_over
from .mesh import shard_members

P = ParamSpec("P")
T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])
Index = SupportsIndex | slice | Array | np.ndarray | None

UNKNOWN_HOST_MEMORY = 8 * 2**30
"""Bytes that a host is taken to have where nothing says how many."""


LONGEST_REPR = 200


class Stacked(eqx.Module, Generic[T]):
    """A PyTree whose leaves have run axes in front; an index takes the same entry of every leaf.

    >>> stacked = Stacked({"a": jnp.arange(6).reshape(2, 3)})
    >>> print(stacked[1, 2]["a"])
    5
    >>> Stacked(tuple(jnp.zeros(2) for _ in range(60)))
    Stacked(tuple of 60 arrays)
    """

    tree: T

    def __getitem__(self, index: Index | tuple[Index, ...]) -> T:
        parts = index if isinstance(index, tuple) else (index,)
        shape = jnp.shape(jax.tree.leaves(self.tree)[0])
        for axis, part in enumerate(parts):
            if not isinstance(part, SupportsIndex) or jnp.ndim(cast(Any, part)):
                break  # beyond a slice or an array, axes and parts need not correspond
            if axis >= len(shape) or not -shape[axis] <= part.__index__() < shape[axis]:
                raise IndexError(f"there is no run {index}; the runs have the axes {list(shape)}.")
        entry: T = jax.tree.map(lambda leaf: leaf[index], self.tree)
        return entry

    def __repr__(self) -> str:
        whole = repr(self.tree)
        if len(whole) <= LONGEST_REPR:
            return f"Stacked({whole})"
        return f"Stacked({type(self.tree).__name__} of {len(jax.tree.leaves(self.tree))} arrays)"


class MemberMemory(NamedTuple):
    """Bytes of a compiled program on one device, from XLA's own account.

    Attributes:
        total: arguments, outputs and temporary buffers together.
        per_member: `total` divided by the members that the device holds.
    """

    total: int
    per_member: int


def num_settings(settings: Hyperparameters) -> int:
    """The length of the axis that all leaves share.

    Raises:
        ValueError: if the leaves of `settings` do not share one axis, or it is empty.
    """
    lengths = {jnp.shape(leaf) for leaf in settings}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise ValueError(
            f"the leaves of settings have shapes {sorted(lengths)}; they must all be [settings], as from grid."
        )
    (count,) = next(iter(lengths))
    if count < 1:
        raise ValueError("there are no settings: their axis is empty.")
    return count


def flatten_members(
    settings: Hyperparameters, num_seeds: SupportsIndex, key: Array
) -> tuple[Array, Hyperparameters]:
    """Keys and settings of all members on one axis, `[settings · seeds]`, seeds fastest.

    Simulators are only sure to support a single extra axis, so there is never a second one.

    Args:
        settings: leaves `[settings]`.
        num_seeds: members per setting.
        key: a random key, typed or raw; split into one per seed. Keys come back typed.

    Raises:
        ValueError: if a value is out of range, the leaves of `settings` do not share one axis, `num_seeds < 1`,
            or `key` is no random key.
    """
    check_hyperparameters(settings)
    count, seeds = num_settings(settings), as_count("num_seeds", num_seeds)
    keys = jnp.tile(jax.random.split(as_key(key), seeds), count)
    dtype = jnp.result_type(float)
    return keys, jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf, dtype), seeds), settings)


def unflatten_members(tree: T, settings: Hyperparameters, num_seeds: SupportsIndex) -> T:
    """Leaves `[settings · seeds, ...]` as `[settings, seeds, ...]`."""
    shape = (num_settings(settings), num_seeds)
    shaped: T = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), tree)
    return shaped


def label_settings(settings: Hyperparameters, names: Iterable[str]) -> list[dict[str, float]]:
    """For each setting, the values of the named hyperparameters.

    >>> label_settings(Hyperparameters(discount=jnp.array([0.5, 1.0])), ["discount"])
    [{'discount': 0.5}, {'discount': 1.0}]
    """
    columns = {name: np.asarray(getattr(settings, name)).tolist() for name in names}
    count = max(jnp.size(leaf) for leaf in settings)
    return [{name: values[index] for name, values in columns.items()} for index in range(count)]


def lowest_unless_finite(scores: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Scores to rank by: what is not finite, up or down, loses to everything that is.

    >>> print(lowest_unless_finite(jnp.array([1.0, jnp.nan, jnp.inf])))
    [  1. -inf -inf]
    """
    return jnp.where(jnp.isfinite(scores), scores, -jnp.inf)


def over_members(function: Callable[P, T], mesh: Mesh | None = None) -> Callable[P, T]:
    """`vmap` over the member axis; on a mesh each device maps over its own share, and none talks to another.

    Args:
        function: of one member; every argument and result gets the member axis in front.
        mesh: devices that the axis is laid over, across all of the mesh's axes; it must divide evenly.
    """
    mapped = over_axis(function)
    return mapped if mesh is None else shard_members(mapped, mesh)


def pad_members(tree: T, size: int) -> T:
    """Repeat the last member until there are `size`."""

    def pad(leaf: Array) -> Array:
        return leaf[jnp.minimum(jnp.arange(size), leaf.shape[0] - 1)]

    padded: T = jax.tree.map(pad, tree)
    return padded


def measure_memory(compiled: jax.stages.Compiled, members: int) -> MemberMemory:
    """What a program compiled for this many members (on one device) needs; zeros where XLA gives no account.

    Per member this is its state (parameters, optimizer, environments), one rollout, and the batch made
    from it; the temporary buffers of one gradient step are small beside that.
    """
    stats: Any = compiled.memory_analysis()
    if stats is None:
        return MemberMemory(0, 0)
    total = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        + stats.temp_size_in_bytes
        - stats.alias_size_in_bytes
    )
    return MemberMemory(total, -(-total // members))


def available_memory(device: jax.Device, sharing: int = 1) -> int:
    """Bytes that a sweep may use: nine tenths of what a device still has, half of a host's memory.

    Args:
        device: that it runs on.
        sharing: how many devices of this host are used at a time; those without memory of their own (CPUs)
            share the host's.
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(0.9 * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    return host_memory() // (2 * sharing)


def host_memory() -> int:
    """Bytes of this machine, or what its container may have of them; a modest guess where nothing says so."""
    known = [size for size in (_physical_memory(), *_container_limits()) if size]
    return min(known, default=UNKNOWN_HOST_MEMORY)


def _physical_memory() -> int | None:
    """From the system where it has `sysconf` (not on Windows), else from psutil if that is installed."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > 0:
            return size
    with contextlib.suppress(ImportError):
        return int(importlib.import_module("psutil").virtual_memory().total)
    return None


def _container_limits(root: Path = Path("/")) -> list[int]:
    """What Linux control groups (containers, batch systems) allow this process, of both versions."""
    groups = root / "sys/fs/cgroup"
    folders = [groups, groups / "memory"]
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, own = line.split(":", 2)
            if not controllers or "memory" in controllers.split(","):
                top = groups / "memory" if controllers else groups
                folders += [top / own.lstrip("/"), *(top / own.lstrip("/")).parents]
    limits = []
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                limits.append(int((folder / name).read_text()))
    return limits
