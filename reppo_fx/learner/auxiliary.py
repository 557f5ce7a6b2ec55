"""The critic's auxiliary task: what it predicts beside values, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..ops import self_prediction_loss
from .batch import Batch, Successor
from .networks import CriticOutput


class AuxiliaryTask(NamedTuple):
    """Two functions.

    Attributes:
        target: `successor -> target`, of each row, at collection time; none if there is nothing to keep.
        loss: `(critic output, batch) -> loss`, one per row.
    """

    target: Callable[[Successor], PyTree[Array]]
    loss: Callable[[CriticOutput, Batch], Float[Array, "*batch"]]


def _predict_successor(output: CriticOutput, batch: Batch) -> Float[Array, "*batch"]:
    if output.predicted_embedding is None or output.predicted_reward is None:
        raise ValueError(
            "the critic predicts no successor; give self_prediction=False in the Config, or predictions."
        )
    return self_prediction_loss(
        output.predicted_embedding,
        batch.auxiliary,
        output.predicted_reward,
        batch.reward,
        batch.terminated,
        stop_gradients=False,
    )


SELF_PREDICTION = AuxiliaryTask(lambda successor: successor.embedding, _predict_successor)
"""Predict the critic's embedding at the successor, and the reward."""

NO_AUXILIARY_TASK = AuxiliaryTask(
    lambda successor: None, lambda output, batch: jnp.zeros_like(batch.reward)
)
"""The ablation without it."""
