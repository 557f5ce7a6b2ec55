"""What a policy reads of an observation, leaf by leaf, as the inputs of an exported function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree
from numpy.typing import NDArray

from ...envs import select_part
from ...training.assembly import World
from ...training.policy import Policy
from ..leaves import named_leaves

WHOLE = "observation"
"""The input's name where an observation is a single array, which has none."""


class Inputs(NamedTuple):
    """The leaves of an observation that a policy reads, in jax's order; the mask of actions comes last.

    Attributes:
        shapes: of one instance, by name: the path in the observation, with dots.
        dtypes: by name, in single precision.
        mask: the name of the mask of actions, if there is one.
        whole: an observation of one instance, as shapes.
        places: of the leaves in it, by name.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype[Any]]
    mask: str | None
    whole: PyTree[jax.ShapeDtypeStruct]
    places: dict[str, int]

    def observation(self, leaves: Mapping[str, Any]) -> PyTree[Array | NDArray[Any]]:
        """An observation with these leaves; what the policy does not read is zero, without leading axes."""
        specs, structure = jax.tree.flatten(self.whole)
        values: list[Any] = [np.zeros(spec.shape, bool) for spec in specs]
        for name, place in self.places.items():
            values[place] = leaves[name]
        return jax.tree.unflatten(structure, values)


def inputs_of(policy: Policy, world: World) -> Inputs:
    """What a policy reads of the observations of its world.

    Raises:
        ValueError: if the observation has not the parts, or two leaves have paths that are spelled alike.
    """
    named = named_leaves(world.observation)
    names = [path or WHOLE for path in named]
    numbers = jax.tree.unflatten(jax.tree.structure(world.observation), range(len(names)))
    read = list(jax.tree.leaves(select_part(numbers, policy.part)))
    mask = None
    if world.action_mask is not None:
        (place,) = jax.tree.leaves(select_part(numbers, world.action_mask))
        mask = names[place]
        read = [*(other for other in read if other != place), place]
    specs = list(named.values())
    return Inputs(
        {names[place]: tuple(specs[place].shape) for place in read},
        {names[place]: _single(specs[place].dtype) for place in read},
        mask,
        world.observation,
        {names[place]: place for place in read},
    )


def _single(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """As jax has it without double precision: what an export takes does not depend on where it was made."""
    with jax.enable_x64(False):
        return np.dtype(jax.dtypes.canonicalize_dtype(dtype))
