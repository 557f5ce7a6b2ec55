"""Evaluation: one whole episode per instance, with the deterministic policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..envs import Environment, batch, contain_nan, time_limit


class Episodes(NamedTuple):
    """Undiscounted return and length in steps of each episode."""

    returns: Float[Array, " episodes"]
    lengths: Float[Array, " episodes"]


def evaluate_policy(
    env: Environment,
    policy: Callable[[PyTree[Array]], Array],
    key: Array,
    num_episodes: int,
    episode_length: int,
) -> Episodes:
    """Run `num_episodes` fresh instances to their first end.

    Args:
        env: an environment for one instance, without time limit or auto-reset.
        policy: `observation -> action`, batched.
        key: for the resets.
        num_episodes: instances.
        episode_length: time limit in steps; every instance is stepped that often, and what comes after
            its first end is not counted.

    Returns:
        Return and length per episode.

    >>> from reppo_fx.envs import probes
    >>> policy = lambda observation: jnp.zeros((observation.shape[0], 1))
    >>> episodes = evaluate_policy(probes.constant_reward(), policy, jax.random.key(0), 2, 10)
    >>> print(episodes.returns, episodes.lengths)
    [10. 10.] [10. 10.]
    """
    env = batch(contain_nan(time_limit(env, episode_length)))
    state, observation = env.reset(jax.random.split(key, num_episodes))
    zeros = jnp.zeros((num_episodes,))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        state, observation, alive, returns, lengths = carry
        state, timestep = env.step(state, policy(observation))
        returns = returns + jnp.where(alive, timestep.reward, 0.0)
        lengths = lengths + jnp.where(alive, 1.0, 0.0)
        alive = alive & ~(timestep.terminated | timestep.truncated)
        return (state, timestep.observation, alive, returns, lengths), None

    start = (state, observation, jnp.ones((num_episodes,), bool), zeros, zeros)
    (_, _, _, returns, lengths), _ = jax.lax.scan(step, start, None, length=episode_length)
    return Episodes(returns, lengths)
