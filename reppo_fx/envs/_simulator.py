"""What Playground and Brax share: a `State` with `obs`, `reward` and a float `done`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .base import TimeStep


def pure_functions(task: Any) -> tuple[Any, Any]:
    """`reset` and `step` of the contract from a simulator's task object."""

    def reset(key):
        state = jax.tree.map(jnp.asarray, task.reset(key))
        return state, state.obs

    def step(state, action):
        # Some tasks return Python numbers (a reward of 1.0); a scan needs the types that reset gave.
        state = jax.tree.map(_like, task.step(state, action), state)
        ended = state.done > 0.5
        return state, TimeStep(
            observation=state.obs,
            next_observation=state.obs,
            reward=state.reward,
            terminated=ended,
            truncated=jnp.zeros_like(ended),
            metrics={},
        )

    return reset, step


def _like(new: Any, old: jax.Array) -> jax.Array:
    new = jnp.asarray(new)
    return new if new.dtype == old.dtype and not new.weak_type else new.astype(old.dtype)
