"""The start of a run, and one iteration of it: `train_iteration = learn ∘ collect`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..envs import Environment
from ..learner.learn import TrainingMetrics, learn
from ..learner.method import Method
from ..learner.networks import NetworkShapes
from ..learner.state import RolloutState, TrainState
from ..learner.update import learner_init
from ..settings import Hyperparameters
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
    hp = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), hyperparameters)
    network_key, env_key, key = jax.random.split(key, 3)
    shapes = NetworkShapes(
        method.actor_part(env.observation),
        method.critic_part(env.observation),
        env.action_size,
        method.distribution.num_outputs,
    )
    networks = method.networks(network_key, shapes, method.value_function, hp)
    env_state, observation = env.reset(jax.random.split(env_key, method.config.num_envs))
    statistics = method.normalizer.start(method.normalizer.init(env.observation), observation)
    return TrainState(
        learner=learner_init(method, networks, hp),
        rollout=RolloutState(env_state, observation, statistics),
        key=key,
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
    """
    return learn(method, *collect(method, env, state))
