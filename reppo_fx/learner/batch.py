"""What a gradient step sees: rows of observations, actions, targets, and the policy that collected them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


class Batch(NamedTuple):
    """All normalized, computed once with the parameters that collected the data; axes `[T, num_envs, ...]`.

    Attributes:
        actor_observation: `x_t` as the actor sees it.
        critic_observation: `x_t` as the critic sees it.
        action: `a_t`, as the environment got it.
        reward: `r_t`, scaled.
        terminated: the episode ended for good at `t`.
        truncated: it was cut at `t`.
        counts: whether the critic learns from the row.
        target: `G_t`.
        label: what the critic's outputs are trained towards, from the target; one number per bin for a categorical
            critic, made here because it costs more time than the loss, and with 151 bins 0.6 kB per row.
        auxiliary: target of the auxiliary task; none without one.
        old_policy: parameters of the policy that collected the data, at `x_t`.
        advantage: for objectives that use it, else none.
    """

    actor_observation: PyTree[Array]
    critic_observation: PyTree[Array]
    action: PyTree[Array]
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    counts: Bool[Array, "*batch"]
    target: Float[Array, "*batch"]
    label: Float[Array, "*batch labels"] | Float[Array, "*batch"]
    auxiliary: PyTree[Array]
    old_policy: PyTree[Array]
    advantage: Float[Array, "*batch"] | None


class Successor(NamedTuple):
    """At the true successor: value, log-density of the next action (sampled or its mean), embedding.

    Attributes:
        value: `V(x_{t+1})`.
        log_prob: `log π(a_{t+1} | x_{t+1})`, or its mean over actions.
        embedding: of the critic there.
    """

    value: Float[Array, "*batch"]
    log_prob: Float[Array, "*batch"]
    embedding: PyTree[Array]


def flatten_batch(batch: Batch) -> Batch:
    """`[T, num_envs, ...]` to `[T · num_envs, ...]`."""
    flat: Batch = jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), batch)
    return flat
