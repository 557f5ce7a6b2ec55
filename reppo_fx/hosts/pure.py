"""A pure environment as a program: what it costs to leave the compiled loop, and the same numbers as inside."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree
from numpy.typing import NDArray

from ..envs import Environment, TimeStep, action_range, action_spec, batch
from ..envs import conform as conform_pure
from .base import Actions, HostTimeStep, Restarting


def pure(env: Environment, num_envs: int) -> PureHost:
    """An environment of `envs` stepped from the host, one compiled step at a time.

    For tests, and for comparing simulators with one loop around them: inside `make_train` it runs faster.

    Args:
        env: for one instance, without time limit or auto-reset.
        num_envs: instances.

    Returns:
        The environment; each of its instances can be started anew by itself.

    >>> from reppo_fx.envs import probes
    >>> world = pure(probes.constant_reward(), 2)
    >>> world.reset(0).shape, world.step(np.zeros((2, 1))).reward.tolist()
    ((2, 1), [1.0, 1.0])
    """
    return PureHost(env, num_envs)


class PureHost(Restarting):
    """See `pure`."""

    def __init__(self, env: Environment, num_envs: int) -> None:
        self._given = env
        scale = np.asarray(env.action_scale, float)
        if not (scale == 1).all():
            # Actions come in [-1, 1] here.
            env = action_range(env._replace(action_scale=1.0), -scale, scale)
        env = conform_pure(env)
        self.name, self.num_envs = env.name, num_envs
        self.observation, self.action_size = env.observation, env.action_size
        self.episode_length = env.episode_length
        self.actor_part, self.critic_part = env.actor_part, env.critic_part
        self.num_actions, self.action_mask = env.num_actions, env.action_mask
        self.action_seconds = env.action_seconds
        batched = batch(env)
        self._reset = jax.jit(lambda key: batched.reset(jax.random.split(key, num_envs)))
        self._step, self._merge = jax.jit(batched.step), jax.jit(_merge)
        self._key = jax.random.key(0)
        self._state, _ = jax.eval_shape(self._reset, self._key)
        spec = action_spec(env)
        action = jax.ShapeDtypeStruct((num_envs, *spec.shape), spec.dtype)
        _, timestep = jax.eval_shape(self._step, self._state, action)
        self.metrics = tuple(timestep.metrics)

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        if seed is not None:
            self._key = jax.random.key(seed)
        self._state, observation = self._reset(self._next_key())
        return _arrays(observation)

    def advance(self, action: Actions) -> HostTimeStep:
        action = np.asarray(action, action_spec(self).dtype)
        self._state, timestep = self._step(self._state, action)
        own: TimeStep = _arrays(timestep)
        return HostTimeStep(**own._asdict())

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        state, observation = self._reset(self._next_key())
        self._state = self._merge(np.asarray(which), state, self._state)
        return _arrays(observation)

    def sized(self, num_envs: int) -> PureHost:
        return PureHost(self._given, num_envs)

    def _next_key(self) -> Array:
        following: Array
        self._key, following = jax.random.split(self._key)
        return following


def _merge(which: Array, new: PyTree[Array], old: PyTree[Array]) -> PyTree[Array]:
    def rows(new: Array, old: Array) -> Array:
        return jnp.where(which.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(rows, new, old)


def _arrays(tree: PyTree[Array]) -> Any:
    return jax.tree.map(np.array, tree)
