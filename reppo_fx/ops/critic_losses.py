"""Critic losses besides the categorical one (`hl_gauss_loss`): squared error and self-prediction."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._checks import require_same_shape


def squared_value_loss(
    values: Float[Array, "*batch"], targets: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Squared error `(V − G)²`; no gradient through the target.

    Args:
        values: predicted values.
        targets: `G`.

    Returns:
        One loss per target, in squared reward units.

    Raises:
        ValueError: if the shapes differ.

    >>> print(squared_value_loss(jnp.array([1.0]), jnp.array([3.0])))
    [4.]
    """
    require_same_shape(values=values, targets=targets)
    return jnp.square(values - jax.lax.stop_gradient(targets))


def self_prediction_loss(
    predicted_embeddings: Float[Array, "*batch k"],
    next_embeddings: Float[Array, "*batch k"],
    predicted_rewards: Float[Array, "*batch"],
    rewards: Float[Array, "*batch"],
    terminated: Bool[Array, "*batch"],
) -> Float[Array, "*batch"]:
    r"""The auxiliary task: predict the next embedding and the reward.

    `L = (1 − terminated) / (k+1) · ( ‖ẑ − z_{t+1}‖² + (r̂ − r_t)² )`

    `z_{t+1}` is the critic's embedding of `(x_{t+1}, a_{t+1})` at collection time; no gradient into it.

    Args:
        predicted_embeddings: `ẑ`, predicted from `(x_t, a_t)`.
        next_embeddings: `z_{t+1}`; constant here.
        predicted_rewards: `r̂`.
        rewards: `r_t`; constant here.
        terminated: whether the episode ended at `t`; there is no next embedding then.

    Returns:
        One loss per state.

    Raises:
        ValueError: if the shapes differ.

    Source: REPPO (arXiv 2507.11019), section 3, auxiliary task.

    >>> z, r, no = jnp.ones((1, 3)), jnp.ones(1), jnp.zeros(1, bool)
    >>> print(self_prediction_loss(0 * z, z, r, r, no))
    [0.75]
    """
    require_same_shape(predicted_embeddings=predicted_embeddings, next_embeddings=next_embeddings)
    require_same_shape(predicted_rewards=predicted_rewards, rewards=rewards, terminated=terminated)
    embedding_gap = predicted_embeddings - jax.lax.stop_gradient(next_embeddings)
    reward_gap = predicted_rewards - jax.lax.stop_gradient(rewards)
    # Masked before squaring: a NaN in a row that does not count must not reach the gradient either.
    embedding_gap = jnp.where(terminated[..., None], jnp.zeros_like(embedding_gap), embedding_gap)
    reward_gap = jnp.where(terminated, jnp.zeros_like(reward_gap), reward_gap)
    features = predicted_embeddings.shape[-1] + 1
    return (jnp.square(embedding_gap).sum(-1) + jnp.square(reward_gap)) / features
