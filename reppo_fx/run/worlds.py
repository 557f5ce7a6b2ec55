"""From the name of a task to something that can be trained: a pure environment or a simulator."""

from __future__ import annotations

import weakref
from typing import Any, TypeAlias

import jax
from jax.stages import Wrapped

from .. import envs, hosts
from .._programs import keep_program
from ..hosts.train import HostTrain, make_host_train
from ..learner.state import TrainState
from ..settings import Config, Hyperparameters
from ..sweeps.members import over_members
from ..training.train import Train, make_train
from .checkpoints import Checkpoints, Restored

AnyTrain: TypeAlias = Train | HostTrain
World: TypeAlias = envs.Environment | hosts.HostEnvironment


def make_world(task: str, config: Config, **options: Any) -> World:
    """The world of a task by name: `FAMILY:NAME`, which simulators need; a bare name for pure environments.

    Args:
        task: the name.
        config: of the run; a simulator is made for its time limit.
        **options: of the family's adapter.

    Raises:
        ValueError: if nothing has it, with the nearest names.
        ImportError: if what it needs is not installed.
    """
    if ":" in task and envs.named_family(task) is None:
        limit = config.episode_length or config.training_time_limit
        return hosts.make(task, episode_length=limit, **options)
    family, name = envs.find_family(task)
    return family.adapter(name, **options)


def bind(task: str, config: Config) -> AnyTrain:
    """A task by name, ready to train."""
    return train_in(make_world(task, config), config)


def train_in(world: World, config: Config) -> AnyTrain:
    """`make_train` or `make_host_train`, whichever the world needs."""
    if isinstance(world, hosts.HostEnvironment):
        return make_host_train(world, config)
    return make_train(world, config)


def init_shapes(train: AnyTrain, keys: jax.Array, hyperparameters: Hyperparameters) -> TrainState:
    """The state of all members as shapes; no simulator is started."""
    if isinstance(train, HostTrain):
        return train.init_shapes(keys, hyperparameters)
    shapes: TrainState = jax.eval_shape(start_program(train), keys, hyperparameters)
    return shapes


def restore(
    train: AnyTrain,
    checkpoints: Checkpoints,
    keys: jax.Array,
    hyperparameters: Hyperparameters,
    step: int | None = None,
) -> Restored:
    """A saved state of all members to go on from, the latest if no step is given.

    A simulator's own state is not saved: its episodes start anew.

    Raises:
        CheckpointError: if there is none, it is damaged, or it is not of such members.
    """
    # A simulator is started below: only the shapes of a fresh state are needed.
    found = checkpoints.restore(init_shapes(train, keys, hyperparameters), step)
    if isinstance(train, HostTrain):
        return found._replace(state=train.restart(found.state))
    return found


def start_program(train: Train) -> Wrapped:
    """`train.init` over members, jitted: one for all who ask, as a simulator's reset is traced for seconds."""
    alive = weakref.ref(train)

    def init(key: jax.Array, hyperparameters: Hyperparameters) -> TrainState:
        own = alive()
        assert own is not None
        return own.init(key, hyperparameters)

    return keep_program(train, "init of members", lambda: jax.jit(over_members(init)))
