"""Transforms of units: what observations, actions and rewards are written in. Environment in, environment out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, ScalarLike

from .base import Environment, Observation, State, TimeStep, select_part


def scale_reward(env: Environment, scale: ScalarLike) -> Environment:
    """Multiply every reward by `scale`.

    Args:
        env: the environment, for one instance.
        scale: the factor; it may be traced.

    Returns:
        The environment with scaled rewards.

    >>> from reppo_fx.envs import probes
    >>> env = scale_reward(probes.constant_reward(), 0.1)
    >>> state, _ = env.reset(jax.random.key(0))
    >>> print(env.step(state, jnp.zeros(1))[1].reward)
    0.1
    """

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        state, timestep = env.step(state, action)
        return state, timestep._replace(reward=timestep.reward * scale)

    return env._replace(step=step)


def clip_action(env: Environment, limit: float | int = 0.999) -> Environment:
    """Clip actions to `[-limit·c, limit·c]` before the environment sees them; `c` is its `action_scale`.

    Args:
        env: the environment, for one instance.
        limit: share of the range that is left.

    Returns:
        The environment with clipped actions.

    Raises:
        ValueError: if `limit` is not positive, or actions are discrete.

    >>> from reppo_fx.envs import probes
    >>> env = clip_action(probes.match_observation(), 0.5)
    >>> state, observation = env.reset(jax.random.key(0))
    >>> print(observation, env.step(state, jnp.array([7.0]))[1].reward)  # as if the action were 0.5
    [1.] 1.0
    """
    _require_box(env)
    if not limit > 0:
        raise ValueError(f"limit is {limit}; it must be positive.")
    bound = limit * np.asarray(env.action_scale, float)

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        largest = jnp.asarray(bound, action.dtype)
        return env.step(state, jnp.clip(action, -largest, largest))

    return env._replace(step=step)


def action_range(
    env: Environment,
    low: ArrayLike | Sequence[float | int],
    high: ArrayLike | Sequence[float | int],
) -> Environment:
    """Give the environment actions in `[low, high]` for those in `[-1, 1]`, each dimension on its own.

    For an environment whose actions have units (a torque of 0 to 40), which says nothing in `action_scale`. Where
    it does say `c`, `[-c, c]` is what the agent gives, and becomes `[low, high]`. Linear, without a clip: see
    `clip_action` outside of it.

    Args:
        env: the environment.
        low: lower bounds, one number or one for each dimension.
        high: upper bounds, likewise.

    Returns:
        The environment with these actions.

    Raises:
        ValueError: if a bound is not finite, `low` is not below `high`, the sizes do not match the action, or
            actions are discrete.

    >>> from reppo_fx.envs import probes
    >>> env = action_range(probes.match_observation(), 0.0, 0.5)
    >>> state, observation = env.reset(jax.random.key(0))
    >>> print(observation, env.step(state, jnp.array([1.0]))[1].reward)  # best action 0.5
    [1.] 1.0
    """
    _require_box(env)
    bounds = {"low": np.asarray(low, float), "high": np.asarray(high, float)}
    for name, bound in bounds.items():
        if bound.shape not in ((), (env.action_size,)):
            raise ValueError(
                f"{name} has shape {list(bound.shape)}; actions of {env.name} have {env.action_size} entries."
            )
        if not np.isfinite(bound).all():
            raise ValueError(f"{name} is {bound.tolist()}; it must be finite.")
    lowest, highest = bounds["low"], bounds["high"]
    if not (lowest < highest).all():
        raise ValueError(
            f"low is {lowest.tolist()} and high is {highest.tolist()}; low must be below high."
        )
    middle = 0.5 * (lowest + highest)
    gain = 0.5 * (highest - lowest) / np.asarray(env.action_scale, float)

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        moved = jnp.asarray(middle, action.dtype) + jnp.asarray(gain, action.dtype) * action
        return env.step(state, moved)

    return env._replace(step=step)


def flatten_observation(env: Environment) -> Environment:
    """Give the actor's and the critic's part of an observation as one float vector each.

    A part may be any containers of arrays of any rank and dtype; its leaves are raveled and joined in jax's
    order (dicts by sorted key). An observation that is one part for both and no mapping becomes the vector
    itself; all others become a dict with a vector for each of the two names. A mask of actions stays as it is; what
    neither sees is left out.

    Args:
        env: the environment, for one instance.

    Returns:
        The environment with flat observations.

    >>> from reppo_fx.envs import probes
    >>> env = flatten_observation(probes.containers(probes.match_observation()))
    >>> {part: spec.shape for part, spec in env.observation.items()}
    {'privileged': (6,), 'state': (2,)}
    """
    parts = dict.fromkeys((env.actor_part, env.critic_part))
    mask = env.action_mask
    whole = len(parts) == 1 and mask is None and not isinstance(env.observation, Mapping)

    def flat(observation: Observation) -> Observation:
        vectors = {part: _vector(select_part(observation, part)) for part in parts}
        if mask is not None:
            vectors[mask] = select_part(observation, mask)
        return vectors[env.actor_part] if whole else vectors

    def reset(key: Array) -> tuple[State, Observation]:
        state, observation = env.reset(key)
        return state, flat(observation)

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        state, timestep = env.step(state, action)
        return state, timestep._replace(
            observation=flat(timestep.observation),
            next_observation=flat(timestep.next_observation),
        )

    def restart(key: Array, state: State) -> tuple[State, Observation]:
        assert env.restart is not None
        state, observation = env.restart(key, state)
        return state, flat(observation)

    return env._replace(
        reset=reset,
        step=step,
        restart=restart if env.restart else None,
        observation=jax.eval_shape(flat, env.observation),
    )


def _require_box(env: Environment) -> None:
    if env.num_actions is not None:
        raise ValueError(f"{env.name} has {env.num_actions} discrete actions, which have no range.")


def _vector(part: Observation) -> Array:
    leaves = [jnp.ravel(jnp.asarray(leaf)) for leaf in jax.tree.leaves(part)]
    return jnp.concatenate([leaf.astype(jnp.result_type(float)) for leaf in leaves])
