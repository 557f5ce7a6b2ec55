"""Probe environments: they learn in seconds, and the right answer is known in closed form.

Observations and actions have one number each unless said otherwise. γ is the discount.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .base import Environment, TimeStep


class ProbeState(NamedTuple):
    """Key for the next draw, the number shown, and the step within the episode."""

    key: Array
    shown: Array
    step: Array


def _draw_sign(key: Array) -> Array:
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def _probe(name, draw, reward, length=None):
    """A probe that shows `draw(key, step)` and pays `reward(shown, step, action)`; ends after `length`."""

    def reset(key):
        key, draw_key = jax.random.split(key)
        start = jnp.zeros((), jnp.int32)
        shown = draw(draw_key, start)
        return ProbeState(key, shown, start), shown[None]

    def step(state, action):
        key, draw_key = jax.random.split(state.key)
        clock = state.step + 1
        shown = draw(draw_key, clock)
        ended = jnp.asarray(False) if length is None else clock >= length
        timestep = TimeStep(
            observation=shown[None],
            next_observation=shown[None],
            reward=reward(state.shown, state.step, action),
            terminated=ended,
            truncated=jnp.asarray(False),
            metrics={},
        )
        return ProbeState(key, shown, clock), timestep

    observation = jax.ShapeDtypeStruct((1,), jnp.result_type(float))
    return Environment(name, reset, step, observation, action_size=1, cheap_reset=True)


def constant_reward() -> Environment:
    """Reward 1 at every step, forever: `V = 1/(1−γ)`; only a bootstrap at the time limit gets it right."""
    return _probe("constant_reward", lambda key, step: jnp.zeros(()), lambda x, t, a: jnp.ones(()))


def reward_by_observation() -> Environment:
    """One-step episodes that pay the number shown (−1 or 1): `V(x) = x`."""
    return _probe(
        "reward_by_observation", lambda key, step: _draw_sign(key), lambda x, t, a: x, length=1
    )


def two_step_credit() -> Environment:
    """Shows 0 then 1, pays 1 at the second and last step: `V(0) = γ`, `V(1) = 1`."""
    return _probe(
        "two_step_credit",
        lambda key, step: step.astype(float),
        lambda x, t, a: t.astype(float),
        length=2,
    )


def match_observation() -> Environment:
    """One-step episodes that pay `1 − (a − x/2)²` for a shown `x` of −1 or 1: best action `x/2`."""
    return _probe(
        "match_observation",
        lambda key, step: _draw_sign(key),
        lambda x, t, a: 1.0 - jnp.square(a[0] - 0.5 * x),
        length=1,
    )


def terminating_reward(length: int) -> Environment:
    """Reward 1 per step and a true end after `length` steps, the step shown: `V_t = (1−γ^{L−t})/(1−γ)`."""
    return _probe(
        "terminating_reward",
        lambda key, step: step.astype(float) / length,
        lambda x, t, a: jnp.ones(()),
        length=length,
    )


def nan_bomb(inner: Environment, probability: float = 0.01) -> Environment:
    """`inner`, but some steps give NaN for reward, observation and state, as a diverging simulator does."""

    def reset(key):
        key, reset_key = jax.random.split(key)
        state, observation = inner.reset(reset_key)
        return (key, state), observation

    def step(state, action):
        key, inner_state = state
        key, bomb_key = jax.random.split(key)
        inner_state, timestep = inner.step(inner_state, action)
        fuse = jnp.where(jax.random.bernoulli(bomb_key, probability), jnp.nan, 0.0)

        def blow(x):
            return x + fuse.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

        return (key, jax.tree.map(blow, inner_state)), jax.tree.map(blow, timestep)

    return inner._replace(name=f"nan_bomb({inner.name})", reset=reset, step=step)
