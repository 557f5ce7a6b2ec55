"""Four kinds of policies, small: `save_files.py` saves them with one line of jax, `test_lines.py` loads them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

import reppo_fx as rx
from reppo_fx.envs import Environment, probes
from reppo_fx.learner.networks import MakeNetworks, networks_from_config

CONFIG = rx.Config(
    total_steps=32,
    num_envs=2,
    num_steps=8,
    num_epochs=1,
    num_minibatches=2,
    num_evals=2,
    num_eval_envs=2,
    actor_width=4,
    critic_width=4,
    num_bins=5,
)
HYPERPARAMETERS = rx.Hyperparameters(discount=0.9, v_min=-2.0, v_max=2.0)


class Wave(NamedTuple):
    """An actor of somebody's own."""

    weight: jax.Array

    def __call__(self, observation):
        return jnp.sin(
            observation["near"] @ self.weight + observation["far"].astype(self.weight.dtype)
        )


def wave_networks(key, shapes, value_function, hyperparameters):
    flat = jax.ShapeDtypeStruct((1,), jnp.result_type(float))
    own = shapes._replace(actor_observation=flat, critic_observation=flat)
    inner = networks_from_config(CONFIG)(key, own, value_function, hyperparameters)
    weight = jax.random.normal(key, (1, shapes.policy_outputs))
    return rx.Networks(Wave(weight), OfNear(inner.critic))


class OfNear(NamedTuple):
    """A critic that looks at a part of what there is."""

    critic: rx.Critic

    def __call__(self, observation, action):
        return self.critic(observation["near"], action)


class Kind(NamedTuple):
    env: Environment
    networks: MakeNetworks | None = None

    def train(self):
        return rx.make_train(self.env, CONFIG, networks=self.networks)


def _showing(inner, show, **facts):
    """A probe that shows several things made of its number."""

    def reset(key):
        state, observation = inner.reset(key)
        return state, show(observation)

    def step(state, action):
        state, timestep = inner.step(state, action)
        return state, timestep._replace(
            observation=show(timestep.observation), next_observation=show(timestep.next_observation)
        )

    return inner._replace(
        reset=reset, step=step, observation=jax.eval_shape(show, inner.observation), **facts
    )


def kinds() -> dict[str, Kind]:
    """By name; in the precision that jax has now."""
    probe = probes.match_observation()._replace(episode_length=4)
    privileged = lambda x: {"state": x, "privileged_state": jnp.concatenate([x, -x])}
    nested = lambda x: {"state": {"near": x, "far": jnp.sign(x).astype(jnp.int8)}}
    return {
        "box": Kind(probe._replace(action_scale=2.0)),
        "choice": Kind(probes.masked(probes.bandit())._replace(episode_length=4)),
        "parts": Kind(_showing(probe, privileged, critic_part="privileged_state")),
        "own": Kind(_showing(probe, nested), wave_networks),
    }
