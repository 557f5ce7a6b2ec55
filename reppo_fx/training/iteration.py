"""The start of a run, and one iteration of it: `train_iteration = learn ∘ collect`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..envs import Environment
from ..learner.learn import TrainingMetrics, learn
from ..learner.method import Method
from ..learner.networks import NetworkShapes
from ..learner.state import RolloutState, TrainState, key_streams
from ..learner.update import learner_init
from ..settings import Hyperparameters
from .assembly import World
from .collect import collect


def init_state(
    key: Array,
    method: Method,
    env: Environment,
    hyperparameters: Hyperparameters,
) -> TrainState:
    """The start: networks, optimizers, environments at random ages, statistics of the first observations.

    Args:
        key: random key of the run.
        method: the functions.
        env: a batched environment that resets itself, as from `envs.training_environment`.
        hyperparameters: of the run; kept in the state, as arrays.
    """
    network_key, env_key, key = start_keys(key)
    env_state, observation = env.reset(jax.random.split(env_key, method.config.num_envs))
    return first_state(network_key, key, method, env, hyperparameters, env_state, observation)


class StartKeys(NamedTuple):
    """What the key of a run is split into."""

    networks: Array
    world: Array
    following: Array


def start_keys(key: Array) -> StartKeys:
    """Keys for networks, for the world's first reset, and for what follows."""
    return StartKeys(*jax.random.split(key, 3))


def first_state(
    network_key: Array,
    following_key: Array,
    method: Method,
    world: World,
    hyperparameters: Hyperparameters,
    env_state: PyTree,
    observation: PyTree[Array],
) -> TrainState:
    """Networks, optimizers, and statistics of the first observations, before anything is learned.

    Args:
        network_key: of the networks.
        following_key: of all that comes after.
        method: the functions.
        world: whose static facts the networks are built for.
        hyperparameters: of the run; kept in the state, as arrays.
        env_state: whatever collecting needs to go on.
        observation: of all instances, to act on first.
    """
    hp = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), hyperparameters)
    shapes = NetworkShapes(
        method.actor_part(world.observation),
        method.critic_part(world.observation),
        world.action_size,
        method.distribution.num_outputs,
        world.num_actions,
    )
    networks = method.networks(network_key, shapes, method.value_function, hp)
    statistics = method.normalizer.start(method.normalizer.init(world.observation), observation)
    noise = method.exploration.start(
        key_streams(following_key).noise, method.distribution, method.config.num_envs
    )
    return TrainState(
        learner=learner_init(method, networks, hp),
        rollout=RolloutState(env_state, observation, statistics, noise),
        key=following_key,
        iteration=jnp.zeros((), jnp.int32),
        nonfinite=jnp.zeros((), jnp.int32),
        diverged_at=jnp.full((), -1, jnp.int32),
        hyperparameters=hp,
    )


def train_iteration(
    method: Method, env: Environment, state: TrainState
) -> tuple[TrainState, TrainingMetrics]:
    """Roll out with a frozen policy, compute targets, update.

    Args:
        method: the functions.
        env: a batched environment that resets itself.
        state: from `init_state` or the last iteration.

    Returns:
        The new state, and what a person looks at.
    """
    return learn(method, *collect(method, env, state))
