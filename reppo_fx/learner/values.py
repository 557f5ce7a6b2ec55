"""What a critic's outputs mean: value, labels, loss. Nothing else knows whether a critic is categorical."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..ops import (
    cross_entropy,
    hl_gauss_support,
    hl_gauss_targets,
    hl_gauss_value,
    squared_value_loss,
)
from ..settings import Hyperparameters


def _stateless(hyperparameters: Hyperparameters) -> PyTree[Array]:
    del hyperparameters
    return ()


class ValueFunction(NamedTuple):
    """How a critic's outputs are read and trained, as a bundle of functions.

    `state` is the value function's own, `LearnerState.values`: a PyTree of arrays, constant within an iteration.
    A fixed support has none.

    Attributes:
        num_outputs: outputs of the critic's head.
        offset: `hyperparameters -> start offset` of the critic (or none).
        value: `(outputs, hyperparameters, state) -> value`, one scalar per row.
        labels: `(targets, hyperparameters, state) -> labels`, what outputs are trained towards; once per iteration.
        loss: `(outputs, labels) -> loss`, one per row.
        init: `hyperparameters -> state`.
    """

    num_outputs: int
    offset: Callable[[Hyperparameters], Array | None]
    value: Callable[[Array, Hyperparameters, PyTree[Array]], Array]
    labels: Callable[[Array, Hyperparameters, PyTree[Array]], Array]
    loss: Callable[[Array, Array], Array]
    init: Callable[[Hyperparameters], PyTree[Array]] = _stateless


def categorical_value_function(num_bins: int = 151) -> ValueFunction:
    """HL-Gauss critic: `num_bins` logits on `[v_min, v_max]`, starting near value 0.

    The default: it needs a support that holds the values. `squared_value_function` needs none, and its gradients
    grow with the values.
    """

    def support(hp: Hyperparameters) -> Float[Array, " bins"]:
        return hl_gauss_support(hp.v_min, hp.v_max, num_bins)

    return ValueFunction(
        num_outputs=num_bins,
        offset=lambda hp: hl_gauss_targets(jnp.zeros((), jnp.result_type(float)), support(hp)),
        value=lambda outputs, hp, state: hl_gauss_value(outputs, support(hp), finite_logits=True),
        # Apart from the loss: Gaussian tails would take a tenth of every gradient step.
        labels=lambda targets, hp, state: hl_gauss_targets(targets, support(hp)),
        # Only the critic is differentiated: gradients through the whole update pass.
        loss=functools.partial(cross_entropy, stop_gradients=False, finite_logits=True),
    )


def squared_value_function() -> ValueFunction:
    """Scalar critic with squared error: the ablation without HL-Gauss."""
    return ValueFunction(
        num_outputs=1,
        offset=lambda hp: None,
        value=lambda outputs, hp, state: outputs[..., 0],
        labels=lambda targets, hp, state: targets,
        loss=lambda outputs, labels: squared_value_loss(
            outputs[..., 0], labels, stop_gradients=False
        ),
    )
