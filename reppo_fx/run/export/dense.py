"""The numbers of a policy of this package's own layers, which formats without a compiler can hold."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...learner.continuous import TanhNormal
from ...learner.discrete import Categorical
from ...learner.masks import MaskedActor
from ...learner.networks import MLP, Actor, Linear, Norm
from ...learner.normalizers import as_seen
from ...ops import statistics_normalize
from ...training.policy import Policy
from .inputs import Inputs

Vector = Float[np.ndarray, " size"]
Matrix = Float[np.ndarray, "inputs outputs"]


class Bounds(NamedTuple):
    """`c` and the largest action that the environment gets, of each entry."""

    range: Vector
    limit: Vector


class Dense(NamedTuple):
    """`(x − mean) / std`, then layers, all in float32; of a box, only what gives the mode.

    Attributes:
        mean: of the observation.
        std: its root of variance and floor; ones where nothing is normalized.
        weights: of each layer.
        biases: of each.
        norm: `"rms"`, `"layer"` or `"none"`, between layers.
        scales: of the norms.
        shifts: of the norms, where they have some.
        bounds: of actions in a box; none where they are discrete.
    """

    mean: Vector
    std: Vector
    weights: tuple[Matrix, ...]
    biases: tuple[Vector, ...]
    norm: str
    scales: tuple[Vector, ...]
    shifts: tuple[Vector, ...]
    bounds: Bounds | None


def dense_of(policy: Policy, inputs: Inputs, format_: str) -> Dense:
    """The numbers of a policy in single precision.

    Raises:
        ValueError: if networks, distribution, normalizer or observations are not this package's own.
    """
    actor = policy.actor.actor if isinstance(policy.actor, MaskedActor) else policy.actor
    if type(actor) is not Actor or type(actor.trunk) is not MLP:
        raise _foreign(format_, f"the actor is a {type(actor).__name__} of your own")
    for layer in (*actor.trunk.layers, *actor.trunk.norms):
        if type(layer) not in (Linear, Norm):
            raise _foreign(format_, f"a layer of the actor is a {type(layer).__name__} of your own")
    if policy.normalize not in (statistics_normalize, as_seen):
        raise _foreign(format_, "observations are normalized by a function of your own")
    for name, dtype in inputs.dtypes.items():
        if dtype != np.float32 and dtype.kind not in "iub":
            raise _foreign(format_, f"{name} is {dtype}, neither float32 nor whole numbers")
    layers, norms = actor.trunk.layers, actor.trunk.norms
    weights = [np.asarray(layer.weight, np.float32) for layer in layers]
    biases = [np.asarray(layer.bias, np.float32) for layer in layers]
    bounds = _bounds(policy, weights[-1].shape[1], format_)
    if bounds is not None:  # the second half is the deviation
        weights[-1], biases[-1] = np.split(weights[-1], 2, 1)[0], np.split(biases[-1], 2)[0]
    mean, std = _moments(policy, weights[0].shape[0])
    return Dense(
        mean=mean,
        std=std,
        weights=tuple(weights),
        biases=tuple(biases),
        norm=norms[0].kind if norms else "none",
        scales=tuple(np.asarray(n.scale, np.float32) for n in norms if n.scale is not None),
        shifts=tuple(np.asarray(n.bias, np.float32) for n in norms if n.bias is not None),
        bounds=bounds,
    )


def _moments(policy: Policy, size: int) -> tuple[Vector, Vector]:
    if policy.normalize is as_seen:
        return np.zeros(size, np.float32), np.ones(size, np.float32)
    floor = np.asarray(policy.hyperparameters.variance_floor, np.float32)
    variance = np.asarray(policy.statistics.var, np.float32)
    return np.asarray(policy.statistics.mean, np.float32), np.sqrt(variance + floor)


def _bounds(policy: Policy, outputs: int, format_: str) -> Bounds | None:
    """From what the distribution itself does to the farthest of means and actions."""
    distribution = policy.distribution
    parameters = jax.eval_shape(
        lambda x: distribution.policy(x, policy.hyperparameters), jnp.zeros(outputs)
    )
    if isinstance(parameters, Categorical):
        return None
    if not isinstance(parameters, TanhNormal):
        kind = type(parameters).__name__
        raise _foreign(format_, f"the policy is a distribution of your own ({kind})")
    far = jnp.full(outputs // 2, jnp.inf)
    largest = distribution.mode(TanhNormal(far, jnp.ones_like(far)))
    limit = distribution.to_environment(far)
    return Bounds(np.asarray(largest, np.float32), np.asarray(limit, np.float32))


def _foreign(format_: str, what: str) -> ValueError:
    return ValueError(
        f"format is {format_!r}, which holds this package's own networks alone, but {what}; 'jax' holds any policy."
    )
