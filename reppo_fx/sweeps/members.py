"""The member axis: many runs (settings × seeds) as one leading axis, on one device, a mesh, or several hosts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..settings import Hyperparameters

T = TypeVar("T")


class Stacked(eqx.Module, Generic[T]):
    """A PyTree whose leaves have run axes in front; an index takes the same entry of every leaf.

    >>> stacked = Stacked({"a": jnp.arange(6).reshape(2, 3)})
    >>> print(stacked[1, 2]["a"])
    5
    """

    tree: T

    def __getitem__(self, index: Any) -> T:
        return jax.tree.map(lambda leaf: leaf[index], self.tree)


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
        ValueError: if the leaves of `settings` do not share one axis.
    """
    lengths = {jnp.shape(leaf) for leaf in settings}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise ValueError(
            f"the leaves of settings have shapes {sorted(lengths)}; they must all be [settings], as from grid."
        )
    return next(iter(lengths))[0]


def flatten_members(
    settings: Hyperparameters, num_seeds: int, key: Array
) -> tuple[Array, Hyperparameters]:
    """Keys and settings of all members on one axis, `[settings · seeds]`, seeds fastest.

    Simulators are only sure to support a single extra axis, so there is never a second one.

    Raises:
        ValueError: if the leaves of `settings` do not share one axis, or `num_seeds < 1`.
    """
    count = num_settings(settings)
    if num_seeds < 1:
        raise ValueError(f"num_seeds is {num_seeds}; at least 1 is needed.")
    keys = jnp.tile(jax.random.split(key, num_seeds), count)
    return keys, jax.tree.map(lambda leaf: jnp.repeat(leaf, num_seeds), settings)


def unflatten_members(tree: T, settings: Hyperparameters, num_seeds: int) -> T:
    """Leaves `[settings · seeds, ...]` as `[settings, seeds, ...]`."""
    shape = (num_settings(settings), num_seeds)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), tree)


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


def over_members(function: Callable[..., Any], mesh: Mesh | None = None) -> Callable[..., Any]:
    """`vmap` over the member axis; on a mesh each device maps over its own share, and none talks to another.

    Args:
        function: of one member; every argument and result gets the member axis in front.
        mesh: devices that the axis is laid over, across all of the mesh's axes; it must divide evenly.
    """
    mapped = jax.vmap(function)
    if mesh is None:
        return mapped
    spec, mesh = PartitionSpec(mesh.axis_names), compiler_mesh(mesh)
    return jax.shard_map(mapped, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def compiler_mesh(mesh: Mesh) -> Mesh:
    """The same devices, with the compiler in charge of layouts (`jax.make_mesh` makes them part of types)."""
    return Mesh(mesh.devices, mesh.axis_names)


def lay_over(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Put arrays `[members, ...]`, which every process holds whole, onto the devices of a mesh."""
    if mesh is None:
        return tree
    sharding = NamedSharding(compiler_mesh(mesh), PartitionSpec(mesh.axis_names))
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda part: x[part]), tree
    )


def pad_members(tree: PyTree, size: int) -> PyTree:
    """Repeat the last member until there are `size`."""

    def pad(leaf: Array) -> Array:
        return leaf[jnp.minimum(jnp.arange(size), leaf.shape[0] - 1)]

    return jax.tree.map(pad, tree)


def is_key(leaf: Any) -> bool:
    """Whether an array holds typed random keys."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def expose_keys(tree: PyTree) -> PyTree:
    """Typed random keys as the integers they hold, for everything that only takes plain numbers."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def key_kinds(tree: PyTree) -> PyTree:
    """For each leaf what kind of random keys it holds, or an empty string."""
    return jax.tree.map(lambda x: jax.random.key_impl(x) if is_key(x) else "", tree)


def restore_keys(tree: PyTree, kinds: PyTree) -> PyTree:
    """The inverse of `expose_keys`, with the `key_kinds` of what it was given."""
    return jax.tree.map(
        lambda x, kind: jax.random.wrap_key_data(x, impl=kind) if kind else x, tree, kinds
    )


def measure_memory(compiled: jax.stages.Compiled, members: int) -> MemberMemory:
    """What a program compiled for this many members (on one device) needs.

    Per member this is its state (parameters, optimizer, environments), one rollout, and the batch made
    from it; the temporary buffers of one gradient step are small beside that.
    """
    stats: Any = compiled.memory_analysis()
    total = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        + stats.temp_size_in_bytes
        - stats.alias_size_in_bytes
    )
    return MemberMemory(total, -(-total // members))


def available_memory(device: jax.Device) -> int:
    """Bytes that a sweep may use: nine tenths of what a device still has, half of a host's memory."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(0.9 * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
