"""Actions that a state rules out: a mask beside what the actor sees, and `−∞` for their logits."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..settings import Hyperparameters
from .networks import ActorNetwork, MakeNetworks, Networks, NetworkShapes
from .values import ValueFunction


class Masked(NamedTuple):
    """What an actor sees where some actions are ruled out.

    Attributes:
        observation: the actor's part, normalized.
        mask: which actions there are, as the environment says; never normalized.
    """

    observation: PyTree[Array]
    mask: Bool[Array, "*batch n"]


class MaskedActor(eqx.Module):
    """An actor of `Masked` around one of observations: logits of actions that are ruled out are `−∞`.

    Where a mask rules out every action (a state at which nothing is done any more, or a contained failure) it
    rules out none.
    """

    actor: ActorNetwork

    def __call__(self, observation: Masked) -> Float[Array, "*batch n"]:
        outputs, mask = self.actor(observation.observation), observation.mask
        if outputs.shape != mask.shape or mask.dtype != jnp.bool:
            raise ValueError(
                f"the mask of actions is {list(mask.shape)} of {mask.dtype}; the actor gives "
                f"{list(outputs.shape)}, and for each of these it must say True or False."
            )
        allowed = mask | ~jnp.any(mask, axis=-1, keepdims=True)
        return jnp.where(allowed, outputs, jnp.full_like(outputs, -jnp.inf))


def masked_networks(make: MakeNetworks) -> MakeNetworks:
    """Networks whose actor is a `MaskedActor`; whoever makes them need not know of masks."""

    def networks(
        key: Array,
        shapes: NetworkShapes,
        value_function: ValueFunction,
        hyperparameters: Hyperparameters,
    ) -> Networks:
        actor, critic = make(key, shapes, value_function, hyperparameters)
        return Networks(MaskedActor(actor), critic)

    return networks


def without_mask(part: PyTree[Array], observation: PyTree[ArrayLike]) -> PyTree[Array]:
    """The actor's part as it is, where nothing is ruled out."""
    del observation
    return part
