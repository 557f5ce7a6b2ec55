"""Critic losses besides the categorical one (`hl_gauss_loss`): squared error and self-prediction."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._checks import require_same_shape
from ._numerics import constant, widened


def squared_value_loss(
    values: Float[Array, "*batch"],
    targets: Float[Array, "*batch"],
    stop_gradients: bool = True,
) -> Float[Array, "*batch"]:
    """Squared error `(V − G)²`; no gradient through the target.

    For a critic with one output: the simplest, and free of any range of values. `hl_gauss_loss` bounds the
    gradient of a far target and is what REPPO's results rest on, but needs a support.

    Args:
        values: predicted values.
        targets: `G`; constant here.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.

    Returns:
        One loss per target, in squared reward units.

    Raises:
        ValueError: if the shapes differ.

    >>> print(squared_value_loss(jnp.array([1.0]), jnp.array([3.0])))
    [4.]
    """
    require_same_shape(values=values, targets=targets)
    dtype, (values, targets) = widened(values, targets)
    return jnp.square(values - constant(targets, stop_gradients)).astype(dtype)


def self_prediction_loss(
    predicted_embeddings: Float[Array, "*batch k"],
    next_embeddings: Float[Array, "*batch k"],
    predicted_rewards: Float[Array, "*batch"],
    rewards: Float[Array, "*batch"],
    terminated: Bool[Array, "*batch"],
    stop_gradients: bool = True,
) -> Float[Array, "*batch"]:
    r"""The auxiliary task: predict the next embedding and the reward.

    `L = (1 − terminated) / (k+1) · ( ‖ẑ − z_{t+1}‖² + (r̂ − r_t)² )`

    `z_{t+1}` is the critic's embedding of `(x_{t+1}, a_{t+1})` at collection time; no gradient into it. Add it
    to the critic's own loss where rewards alone teach the encoder too little; it can stand alone nowhere,
    because a constant embedding predicts itself.

    Args:
        predicted_embeddings: `ẑ`, predicted from `(x_t, a_t)`.
        next_embeddings: `z_{t+1}`; constant here.
        predicted_rewards: `r̂`.
        rewards: `r_t`; constant here.
        terminated: whether the episode ended at `t`; there is no next embedding then, and the row is left out.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.

    Returns:
        One loss per state.

    Raises:
        ValueError: if the shapes differ.

    Source: REPPO (arXiv 2507.11019), its auxiliary self-prediction loss.

    >>> z, r, no = jnp.ones((1, 3)), jnp.ones(1), jnp.zeros(1, bool)
    >>> print(self_prediction_loss(0 * z, z, r, r, no))
    [0.75]
    """
    require_same_shape(predicted_embeddings=predicted_embeddings, next_embeddings=next_embeddings)
    require_same_shape(predicted_rewards=predicted_rewards, rewards=rewards, terminated=terminated)
    dtype, arrays = widened(predicted_embeddings, next_embeddings, predicted_rewards, rewards)
    predicted_embeddings, next_embeddings, predicted_rewards, rewards = arrays
    embedding_gap = predicted_embeddings - constant(next_embeddings, stop_gradients)
    reward_gap = predicted_rewards - constant(rewards, stop_gradients)
    # Masked before squaring: a NaN in a row that does not count must not reach the gradient either.
    embedding_gap = jnp.where(terminated[..., None], jnp.zeros_like(embedding_gap), embedding_gap)
    reward_gap = jnp.where(terminated, jnp.zeros_like(reward_gap), reward_gap)
    features = predicted_embeddings.shape[-1] + 1
    loss = (jnp.square(embedding_gap).sum(-1) + jnp.square(reward_gap)) / features
    return loss.astype(dtype)
