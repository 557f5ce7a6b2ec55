"""From the name of a task to something that can be trained: a pure environment or a simulator."""

from __future__ import annotations

from typing import TypeAlias

import jax

from .. import envs, hosts
from ..hosts.train import HostTrain, make_host_train
from ..learner.state import TrainState
from ..settings import Config, Hyperparameters
from ..training.train import Train, make_train

AnyTrain: TypeAlias = Train | HostTrain
World: TypeAlias = envs.Environment | hosts.HostEnvironment


def make_world(task: str, config: Config) -> World:
    """The world of a task by name: `FAMILY:NAME`, which simulators need; a bare name for pure environments.

    Raises:
        ValueError: if nothing has it, with the nearest names.
        ImportError: if what it needs is not installed.
    """
    if ":" in task and envs.named_family(task) is None:
        return hosts.make(task, episode_length=config.episode_length or config.training_time_limit)
    return envs.make(task)


def bind(task: str, config: Config) -> AnyTrain:
    """`make_train` or `make_host_train`, whichever the task needs."""
    world = make_world(task, config)
    if isinstance(world, hosts.HostEnvironment):
        return make_host_train(world, config)
    return make_train(world, config)


def init_shapes(train: AnyTrain, keys: jax.Array, hyperparameters: Hyperparameters) -> TrainState:
    """The state of all members as shapes; no simulator is started."""
    if isinstance(train, HostTrain):
        return train.init_shapes(keys, hyperparameters)
    shapes: TrainState = jax.eval_shape(jax.vmap(train.init), keys, hyperparameters)
    return shapes
