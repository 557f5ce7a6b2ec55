"""A simulator's task object with every habit that real ones have, small enough to know its numbers."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class ToyState:
    data: Any
    obs: Any
    reward: Any
    done: Any
    metrics: Any
    info: Any


class ToyModel(NamedTuple):
    """What Playground keeps in `_mjx_model`, and Brax in `sys`."""

    mass: jax.Array
    damping: jax.Array


class ToyTask:
    """A cart: force over mass. Writes into the state it is given, gives Python numbers and a float `done`."""

    action_size = 1

    def __init__(self, ends_at=4, **config):
        self._mjx_model = self.sys = ToyModel(jnp.ones(()), jnp.zeros((2,)))
        self._config = config
        self.ends_at = ends_at
        self._reward = self._own_reward  # a bound method in an attribute, as Cartpole has it

    def model(self):
        return self._mjx_model

    def reset(self, rng):
        data = {"speed": jnp.zeros(()), "mass_at_reset": self.model().mass}
        metrics = {"reward/speed": 0.0, "success": False, "profile": jnp.zeros(3)}
        info = {"rng": rng, "steps": 0, "share": 0, "cause": {"ended": 0.0}}
        return ToyState(data, jnp.zeros((2,)), 0.0, 0.0, metrics, info)

    def step(self, state, action):
        speed = state.data["speed"] + action[0] / self.model().mass
        state.info["steps"] += 1
        state.info["share"] = state.info["steps"] / self.ends_at
        state.info["cause"]["ended"] = 1.0
        state.metrics["reward/speed"] = self._reward(speed)
        state.metrics["success"] = speed > 1.5
        done = jnp.where(state.info["steps"] >= self.ends_at, 1.0, 0.0)
        obs = jnp.stack([speed, self.model().mass])
        data = {**state.data, "speed": speed}
        return dataclasses.replace(state, data=data, obs=obs, reward=speed[None], done=done)

    def _own_reward(self, speed):
        return speed * self.model().mass
