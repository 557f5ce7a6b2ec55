"""From a rollout to what the update learns from: λ-return targets, next embeddings, the old policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..ops import (
    entropy_regularized_rewards,
    generalized_advantages,
    lambda_returns,
    tanh_normal_sample,
)
from .networks import Networks, ValueFunction
from .rollout import Transition

# Layers of width 512 stay in a processor's cache; twice as many take half as long again on two cores.
STATES_AT_ONCE = 4096


class Batch(NamedTuple):
    """What a gradient step sees; all normalized, computed once with the parameters that collected the data.

    Attributes:
        label: what the critic's outputs are trained towards, from the target; one number per bin for a categorical
            critic, made here because it costs more time than the loss, and with 151 bins 0.6 kB per row.
    """

    actor_observation: Float[Array, "*batch o"]
    critic_observation: Float[Array, "*batch c"]
    action: Float[Array, "*batch d"]
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    target: Float[Array, "*batch"]
    label: Float[Array, "*batch labels"] | Float[Array, "*batch"]
    next_embedding: Float[Array, "*batch width"] | None
    old_mean: Float[Array, "*batch d"]
    old_std: Float[Array, "*batch d"]
    advantage: Float[Array, "*batch"] | None


class Successor(NamedTuple):
    """At the true successor: value, log-density of the sampled action, embedding of it."""

    value: Float[Array, "*batch"]
    log_prob: Float[Array, "*batch"]
    embedding: Float[Array, "*batch width"]


def evaluate_states(
    key: Array,
    networks: Networks,
    value_function: ValueFunction,
    actor_observation: Float[Array, "*batch o"],
    critic_observation: Float[Array, "*batch c"],
    num_samples: int,
    hyperparameters: Any,
) -> Successor:
    """`V(x) = mean_k Q(x, a_k)`, `a_k ~ π(·|x)`; log-density averaged alike, embedding of the first sample."""
    mean, std = networks.actor(actor_observation, hyperparameters.min_std)

    def once(key: Array) -> Successor:
        sample = tanh_normal_sample(key, mean, std)
        output = networks.critic(critic_observation, sample.action)
        value = value_function.value(output.outputs, hyperparameters)
        return Successor(value, sample.log_prob, output.embedding)

    if num_samples == 1:
        return once(key)
    # One sample at a time: memory stays that of one.
    samples = jax.lax.map(once, jax.random.split(key, num_samples))
    return Successor(samples.value.mean(0), samples.log_prob.mean(0), samples.embedding[0])


def make_batch(
    keys: Array,
    networks: Networks,
    value_function: ValueFunction,
    temperature: Float[Array, ""],
    observations: tuple[Array, Array],
    next_observations: tuple[Array, Array],
    transitions: Transition,
    config: Any,
    hyperparameters: Any,
) -> Batch:
    """Targets for a rollout, `[T, num_envs, ...]`.

    Args:
        keys: one per row, `[T]`; with `config.noise == "reused"` those that drew the rollout's actions.
        networks: with the parameters that collected the data.
        value_function: how to read the critic.
        temperature: α, constant.
        observations: the actor's and the critic's part of `x_t`, normalized.
        next_observations: the same at the true successors.
        transitions: the rollout, for actions, rewards and ends.
        config: static settings.
        hyperparameters: traced settings.

    Returns:
        The batch for `update`.
    """
    samples, hp = config.num_value_samples, hyperparameters

    def value_rows(keys: Array, parts: tuple[Array, Array]) -> Successor:
        return map_rows(
            lambda key, actor_part, critic_part: evaluate_states(
                key, networks, value_function, actor_part, critic_part, samples, hp
            ),
            keys,
            *parts,
        )

    successor = value_rows(keys, next_observations)
    reward = transitions.reward * hp.reward_scale
    soft_reward = entropy_regularized_rewards(
        reward, successor.log_prob, transitions.terminated, temperature, hp.discount
    )
    ends = (transitions.terminated, transitions.truncated)
    target = lambda_returns(soft_reward, successor.value, *ends, hp.discount, hp.trace_decay)
    advantage = None
    if config.policy_gradient == "score_gae":
        fold = jax.vmap(lambda key: jax.random.fold_in(key, 1))
        value = value_rows(fold(keys), observations).value
        advantage = generalized_advantages(
            soft_reward, value, successor.value, *ends, hp.discount, hp.trace_decay
        )
    act = lambda actor_part: networks.actor(actor_part, hp.min_std)
    old_mean, old_std = map_rows(act, observations[0])
    batch = Batch(
        actor_observation=observations[0],
        critic_observation=observations[1],
        action=transitions.action,
        reward=reward,
        terminated=transitions.terminated,
        truncated=transitions.truncated,
        target=target,
        label=value_function.labels(target, hp),
        next_embedding=successor.embedding if config.self_prediction else None,
        old_mean=old_mean,
        old_std=old_std,
        advantage=advantage,
    )
    return jax.lax.stop_gradient(batch)


def map_rows(function: Callable[..., Any], *arrays: Array) -> Any:
    """`vmap` over rows, in as many equal parts as keep activations small.

    All arrays are `[T, ...]`, the last one `[T, num_envs, ...]`. Hidden layers and logits of a whole rollout would
    take more memory than everything that is kept of it.
    """
    rows, num_envs = arrays[-1].shape[:2]
    parts = min(
        n
        for n in range(1, rows + 1)
        if rows % n == 0 and (rows // n * num_envs <= STATES_AT_ONCE or n == rows)
    )
    if parts == 1:
        return jax.vmap(function)(*arrays)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), arrays)
    mapped = jax.lax.map(lambda part: jax.vmap(function)(*part), split)
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), mapped)


def flatten_batch(batch: Batch) -> Batch:
    """`[T, num_envs, ...]` to `[T · num_envs, ...]`."""
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), batch)
