"""From a rollout to what the update learns from: λ-return targets, embeddings of successors, the old policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..ops import (
    categorical_entropy,
    categorical_mean,
    entropy_regularized_rewards,
    generalized_advantages,
    lambda_returns,
)
from .batch import Batch, Successor
from .method import Method, network_inputs, policy_of
from .rollout import Rollout, Transition
from .state import TrainState, key_streams

# Layers of width 512 stay in a processor's cache; twice as many take half as long again on two cores.
STATES_AT_ONCE = 4096

T = TypeVar("T")


def make_batch(method: Method, state: TrainState, rollout: Rollout) -> Batch:
    r"""Normalize a rollout and compute its targets, with the parameters that collected it.

    `r̃_t = r_t − γ α log π(a_{t+1} | x_{t+1})`, `G_t` its λ-return with `V_{t+1} = Q(x_{t+1}, a_{t+1})`,
    `a_{t+1} ~ π` at the true successor: expectations over it where actions can be listed. Where a simulator
    failed, the trace is cut before the step, which itself is left out of the critic's loss: a failure neither pays
    nor costs.

    Args:
        method: the functions.
        state: of the learner that collected the rollout.
        rollout: `[T, num_envs, ...]`, from `collect` or from anywhere else.

    Returns:
        The batch for `update`, `[T, num_envs, ...]`.

    Source: REPPO (arXiv 2507.11019), eqs. of its soft λ-return.
    """
    hp, transitions = state.hyperparameters, rollout.transitions
    rows = transitions.reward.shape[0]
    observations = network_inputs(method, hp, rollout.statistics, transitions.observation)
    successors = network_inputs(method, hp, rollout.next_statistics, transitions.next_observation)
    keys = method.target_keys(key_streams(state.key), rows)
    successor = successor_values(method, state, keys, successors)
    act = lambda observation: policy_of(method, state.learner.networks.actor, observation, hp)
    old_policy = map_rows(act, observations[0])
    trust = method.exploration.weights(method.distribution, old_policy, transitions.action, hp)
    reward, target = soft_returns(method, state, transitions, successor, trust)
    return Batch(
        actor_observation=observations[0],
        critic_observation=observations[1],
        action=transitions.action,
        reward=reward,
        terminated=transitions.terminated,
        truncated=transitions.truncated,
        counts=method.counts(transitions),
        target=target,
        label=method.value_function.labels(target, hp, state.learner.values),
        auxiliary=method.auxiliary.target(successor),
        old_policy=old_policy,
        advantage=method.advantages(method, state, rollout, successor),
    )


def scaled_rewards(
    method: Method, state: TrainState, transitions: Transition
) -> Float[Array, "T *batch"]:
    """Rewards in the unit that is learned in: times `reward_scale`, over the value function's own."""
    reward = transitions.reward * state.hyperparameters.reward_scale
    return reward / method.value_function.unit(state.learner.values)


def soft_returns(
    method: Method,
    state: TrainState,
    transitions: Transition,
    successor: Successor,
    trust: Float[Array, "T *batch"] | None = None,
) -> tuple[Float[Array, "T *batch"], Float[Array, "T *batch"]]:
    """Scaled rewards, and targets: λ-returns of rewards with the entropy of the next action.

    Args:
        method: the functions.
        state: of the learner.
        transitions: `[T, num_envs]`.
        successor: values at the true successors.
        trust: weights of the actions taken, where another policy than the learner's took them.
    """
    hp = state.hyperparameters
    reward = scaled_rewards(method, state, transitions)
    soft_reward = _soft_rewards(state, reward, transitions, successor)
    target = lambda_returns(
        soft_reward,
        successor.value,
        transitions.terminated,
        transitions.truncated,
        hp.discount,
        hp.trace_decay,
        trace_weights=trace_weights(transitions, trust),
    )
    return reward, target


def _soft_rewards(
    state: TrainState,
    reward: Float[Array, "T *batch"],
    transitions: Transition,
    successor: Successor,
) -> Float[Array, "T *batch"]:
    return entropy_regularized_rewards(
        reward,
        successor.log_prob,
        transitions.terminated,
        state.learner.duals.temperature,
        state.hyperparameters.discount,
    )


def trace_weights(
    transitions: Transition, trust: Float[Array, "T *batch"] | None = None
) -> Float[Array, "T *batch"]:
    """`c_t`: nothing of what follows a step at which the simulator failed is trusted before it."""
    weights = jnp.ones_like(transitions.reward) if trust is None else trust
    return jnp.where(transitions.nonfinite, 0.0, weights).astype(transitions.reward.dtype)


def successor_values(
    method: Method,
    state: TrainState,
    keys: Array,
    inputs: tuple[PyTree[Array], PyTree[Array]],
) -> Successor:
    """Values of states `[T, num_envs, ...]`, as `value_of` has them.

    Args:
        method: the functions.
        state: of the learner.
        keys: one per row, `[T]`.
        inputs: the actor's and the critic's part, normalized.

    Returns:
        The value, the log-density averaged alike, and the embedding.
    """
    return map_rows(
        lambda key, actor_part, critic_part: value_of(
            method, state, key, (actor_part, critic_part)
        ),
        keys,
        *inputs,
    )


def value_of(
    method: Method,
    state: TrainState,
    key: Array,
    inputs: tuple[PyTree[Array], PyTree[Array]],
    num_samples: int | None = None,
) -> Successor:
    """Values of states with any leading axes, by the method's `state_value`: `sampled_value` or `expected_value`.

    Args:
        method: the functions.
        state: of the learner.
        key: for actions, where they are sampled.
        inputs: the actor's and the critic's part, normalized.
        num_samples: of these; `config.num_value_samples` unless said otherwise.

    Returns:
        Value, log-density and embedding, one per state.
    """
    return method.state_value(
        method, state, key, inputs, num_samples or method.config.num_value_samples
    )


def sampled_value(
    method: Method,
    state: TrainState,
    key: Array,
    inputs: tuple[PyTree[Array], PyTree[Array]],
    num_samples: int,
) -> Successor:
    """`V(x) = mean_k Q(x, a_k)`, `a_k ~ π(·|x)`; log-densities averaged alike, the embedding at the first one.

    Args:
        method: the functions.
        state: of the learner.
        key: of the actions.
        inputs: the actor's and the critic's part of the states, normalized.
        num_samples: actions per state.

    Returns:
        Value, log-density and embedding, one per state.
    """
    networks, hp = state.learner.networks, state.hyperparameters
    actor_part, critic_part = inputs
    policy = policy_of(method, networks.actor, actor_part, hp)

    def once(key: Array) -> Successor:
        sample = method.distribution.sample(key, policy)
        output = networks.critic(critic_part, sample.action)
        value = method.value_function.value(output.outputs, hp, state.learner.values)
        return Successor(value, sample.log_prob, output.embedding)

    if num_samples == 1:
        return once(key)
    # One sample at a time: memory stays that of one.
    samples = jax.lax.map(once, jax.random.split(key, num_samples))
    embedding = jax.tree.map(lambda x: x[0], samples.embedding)
    return Successor(samples.value.mean(0), samples.log_prob.mean(0), embedding)


def expected_value(
    method: Method,
    state: TrainState,
    key: Array,
    inputs: tuple[PyTree[Array], PyTree[Array]],
    num_samples: int,
) -> Successor:
    """`V(x) = Σ_a π(a|x) Q(x, a)` and `Σ_a π log π`, exact: where the distribution lists its actions.

    Args:
        method: the functions.
        state: of the learner.
        key: not used: nothing is drawn.
        inputs: the actor's and the critic's part of the states, normalized.
        num_samples: not used.

    Returns:
        Value, `Σ_a π log π` and embedding, one per state.
    """
    del key, num_samples
    networks, hp = state.learner.networks, state.hyperparameters
    actor_part, critic_part = inputs
    policy = policy_of(method, networks.actor, actor_part, hp)
    assert method.distribution.logits is not None
    logits = method.distribution.logits(policy)
    output = networks.critic(critic_part, None)
    q_values = method.value_function.value(output.outputs, hp, state.learner.values)
    return Successor(
        categorical_mean(logits, q_values), -categorical_entropy(logits), output.embedding
    )


def no_advantages(
    method: Method, state: TrainState, rollout: Rollout, successor: Successor
) -> None:
    """For objectives that need none."""
    del method, state, rollout, successor


def gae_advantages(
    method: Method, state: TrainState, rollout: Rollout, successor: Successor
) -> Float[Array, "T *batch"]:
    """Generalized advantages of the actions taken; none where the simulator failed."""
    hp, transitions = state.hyperparameters, rollout.transitions
    inputs = network_inputs(method, hp, rollout.statistics, transitions.observation)
    keys = jax.random.split(key_streams(state.key).advantages, transitions.reward.shape[0])
    reward = scaled_rewards(method, state, transitions)
    advantage = generalized_advantages(
        _soft_rewards(state, reward, transitions, successor),
        successor_values(method, state, keys, inputs).value,
        successor.value,
        transitions.terminated,
        # A step before a failure bootstraps: its advantage must not contain what followed.
        transitions.truncated | _before_failure(transitions),
        hp.discount,
        hp.trace_decay,
    )
    return jnp.where(transitions.nonfinite, jnp.zeros_like(advantage), advantage)


def _before_failure(transitions: Transition) -> Array:
    failed = transitions.nonfinite
    return jnp.concatenate([failed[1:], jnp.zeros_like(failed[:1])])


def map_rows(function: Callable[..., T], *arrays: PyTree[Array]) -> T:
    """`vmap` over rows, in as many equal parts as keep activations small.

    All arrays are `[T, ...]`, those of the last one `[T, num_envs, ...]`. Hidden layers and logits of a whole
    rollout would take more memory than everything that is kept of it.
    """
    rows, num_envs = jax.tree.leaves(arrays[-1])[0].shape[:2]
    parts = min(
        n
        for n in range(1, rows + 1)
        if rows % n == 0 and (rows // n * num_envs <= STATES_AT_ONCE or n == rows)
    )
    if parts == 1:
        together: T = jax.vmap(function)(*arrays)
        return together
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), arrays)
    mapped = jax.lax.map(lambda part: jax.vmap(function)(*part), split)
    joined: T = jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), mapped)
    return joined
