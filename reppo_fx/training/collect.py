"""Policy × environment → a time-major rollout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..envs import Environment
from ..learner.rollout import Rollout, RolloutState, Transition
from ..ops import RunningStatistics, statistics_update

Act = Callable[[Array, RunningStatistics, PyTree[Array]], Array]


def rollout(
    env: Environment,
    act: Act,
    state: RolloutState,
    keys: Array,
    update_statistics: bool = False,
) -> tuple[RolloutState, Rollout]:
    """Step a batched environment once per key with a frozen policy.

    Args:
        env: a batched environment, e.g. from `envs.training_environment`.
        act: `(key, statistics, observation) -> action`, for the whole batch.
        state: where to go on.
        keys: one key per step, `[T]`.
        update_statistics: whether the statistics take in every new observation at once (they are otherwise
            left to the caller, who has the whole batch).

    Returns:
        Where to go on next time, and the batch.
    """

    def step(carry: RolloutState, key: Array) -> tuple[RolloutState, Any]:
        action = act(key, carry.statistics, carry.observation)
        env_state, timestep = env.step(carry.env_state, action)
        statistics = carry.statistics
        if update_statistics:
            statistics = statistics_update(statistics, timestep.observation)
        row = Transition(
            observation=carry.observation,
            action=action,
            next_observation=timestep.next_observation,
            reward=timestep.reward,
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            metrics=timestep.metrics,
        )
        seen = (carry.statistics, statistics) if update_statistics else None
        return RolloutState(env_state, timestep.observation, statistics), (row, seen)

    state = state._replace(env_state=env.refresh(state.env_state))
    final, (transitions, seen) = jax.lax.scan(step, state, keys)
    before, after = seen if update_statistics else (state.statistics, state.statistics)
    return final, Rollout(transitions, before, after)


def count_nonfinite(transitions: Transition) -> Array:
    """How many steps `contain_nan` had to end."""
    zero = jnp.zeros_like(transitions.reward)
    return jnp.sum(transitions.metrics.get("nonfinite", zero))
