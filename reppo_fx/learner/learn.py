"""What a rollout from anywhere goes through: `learn = update ∘ make_batch`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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
        nonfinite: environment steps and resets that were not finite and were contained, so far.
        skipped_updates: gradient steps that were dropped for not being finite, so far.
        diverged_at: environment steps when the first one was dropped; −1 never.
        env: the environment's own metrics, mean over the rollout's steps.
    """

    learner: LearnerMetrics
    reward: Float[Array, ""]
    target: Float[Array, ""]
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
    state, metrics = update(method, state, batch)
    transitions = rollout.transitions
    return state, TrainingMetrics(
        learner=metrics,
        reward=jnp.mean(transitions.reward),
        target=jnp.mean(batch.target),
        nonfinite=state.nonfinite,
        skipped_updates=state.learner.skipped_updates,
        diverged_at=jnp.where(state.diverged_at < 0, -1.0, env_steps(method, state.diverged_at)),
        env=jax.tree.map(jnp.mean, transitions.metrics),
    )


def env_steps(method: Method, iterations: Int[Array, ""]) -> Float[Array, ""]:
    """Environment steps of so many iterations: a float, for a 32-bit integer ends at 2³¹.

    Exact while iterations times the odd part of the steps per iteration stay below 2²⁴, and to seven digits beyond.
    """
    dtype = jnp.result_type(float)
    return iterations.astype(dtype) * jnp.asarray(method.config.steps_per_iteration, dtype)
