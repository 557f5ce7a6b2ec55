"""What a rollout from anywhere goes through: `learn = update ∘ make_batch`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .batch import Batch
from .method import Method
from .rollout import Rollout
from .state import TrainState
from .targets import make_batch
from .update import LearnerMetrics, update


class TrainingMetrics(NamedTuple):
    """Diagnostics of one iteration; of the last one before each evaluation in `Metrics`.

    Attributes:
        learner: of the gradient steps.
        reward: mean reward per step, as the environment gives it.
        target: mean target, in scaled reward.
        value_bias: mean of `Q(x, a) − G` at the first row of the rollout, before learning from it: how much more
            the critic promised than the λ-returns that followed, in scaled reward.
        outside: share of targets that the critic's outputs cannot hold, and that are cut to what they can.
        exploring: share of the instances that explore in the coming rollout.
        unit: what one unit of scaled reward is worth in rewards of the environment.
        nonfinite: environment steps and resets that were not finite and were contained, so far.
        skipped_updates: gradient steps that were dropped for not being finite, so far.
        diverged_at: environment steps when the first one was dropped; −1 never.
        env: the environment's own metrics, mean over the rollout's steps.
    """

    learner: LearnerMetrics
    reward: Float[Array, ""]
    target: Float[Array, ""]
    value_bias: Float[Array, ""]
    outside: Float[Array, ""]
    exploring: Float[Array, ""]
    unit: Float[Array, ""]
    nonfinite: Int[Array, ""]
    skipped_updates: Int[Array, ""]
    diverged_at: Float[Array, ""]
    env: dict[str, Float[Array, ""]]


def learn(
    method: Method, state: TrainState, rollout: Rollout
) -> tuple[TrainState, TrainingMetrics]:
    """Targets and gradient steps of one rollout.

    Args:
        method: the functions.
        state: of the learner that collected the rollout.
        rollout: `[T, num_envs, ...]`.

    Returns:
        The new state, and what a person looks at.
    """
    batch = make_batch(method, state, rollout)
    bias = value_bias(method, state, batch)
    state, metrics = update(method, state, batch)
    hp, values, transitions = state.hyperparameters, state.learner.values, rollout.transitions
    outside = method.value_function.outside(batch.target, hp, values)
    return state, TrainingMetrics(
        learner=metrics,
        reward=jnp.mean(transitions.reward),
        target=jnp.mean(batch.target),
        value_bias=bias,
        outside=_mean_where(batch.counts, outside.astype(batch.target.dtype)),
        exploring=method.exploration.share(state.rollout.noise, hp, method.config.num_envs),
        unit=jnp.asarray(method.value_function.unit(values) / hp.reward_scale),
        nonfinite=state.nonfinite,
        skipped_updates=state.learner.skipped_updates,
        diverged_at=jnp.where(state.diverged_at < 0, -1.0, env_steps(method, state.diverged_at)),
        env=jax.tree.map(jnp.mean, transitions.metrics),
    )


def value_bias(method: Method, state: TrainState, batch: Batch) -> Float[Array, ""]:
    """Mean of `Q(x, a) − G` over the first row of a batch, whose targets hold the most real rewards."""
    first = jax.tree.map(lambda leaf: leaf[0], batch)
    output = state.learner.networks.critic(first.critic_observation, first.action)
    values = state.learner.values
    value = method.value_function.value(output.outputs, state.hyperparameters, values)
    return _mean_where(first.counts, value - first.target)


def _mean_where(counts: Array, values: Array) -> Float[Array, ""]:
    """Mean over the rows that the critic learns from; 0 without any."""
    total = jnp.sum(jnp.where(counts, values, jnp.zeros_like(values)))
    return total / jnp.maximum(jnp.sum(counts, dtype=values.dtype), 1.0)


def env_steps(method: Method, iterations: Int[Array, ""]) -> Float[Array, ""]:
    """Environment steps of so many iterations: a float, for a 32-bit integer ends at 2³¹.

    Exact while iterations times the odd part of the steps per iteration stay below 2²⁴, and to seven digits beyond.
    """
    dtype = jnp.result_type(float)
    return iterations.astype(dtype) * jnp.asarray(method.config.steps_per_iteration, dtype)
