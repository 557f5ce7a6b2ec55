"""The member axis over several devices, of one host or of many."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

P = ParamSpec("P")
T = TypeVar("T")
_spec: Callable[..., PartitionSpec] = PartitionSpec  # untyped in jax


def compiler_mesh(mesh: Mesh) -> Mesh:
    """The same devices, with the compiler in charge of layouts (`jax.make_mesh` makes them part of types)."""
    return Mesh(mesh.devices, mesh.axis_names)


def split_axis(mesh: Mesh) -> PartitionSpec:
    """The leading axis over all devices."""
    return _spec(mesh.axis_names)


def on_all(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, _spec())


def shard_members(function: Callable[P, T], mesh: Mesh) -> Callable[P, T]:
    """Each device calls `function` on its own share of the leading axis, and none talks to another.

    Args:
        function: of arrays `[members, ...]`.
        mesh: devices that the axis is laid over, across all of the mesh's axes; it must divide evenly.
    """
    spec = split_axis(mesh)
    return jax.shard_map(
        function, mesh=compiler_mesh(mesh), in_specs=spec, out_specs=spec, check_vma=False
    )


def lay_over(tree: T, mesh: Mesh | None) -> T:
    """Put arrays `[members, ...]`, which every process holds whole, onto the devices of a mesh."""
    if mesh is None:
        return tree
    sharding = NamedSharding(compiler_mesh(mesh), split_axis(mesh))
    laid: T = jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda part: x[part]), tree
    )
    return laid


def require_even(name: str, size: int, mesh: Mesh | None) -> None:
    """Raise a sentence unless the devices of the mesh divide `size` evenly."""
    if mesh is not None and size % mesh.size:
        raise ValueError(f"{name} is {size}; the {mesh.size} devices must divide it evenly.")
