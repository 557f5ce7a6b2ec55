"""One big run over several devices: environments and minibatches are laid over them, parameters are everywhere."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from .._keys import as_key
from ..learner.learn import TrainingMetrics
from ..learner.state import TrainState
from ..settings import Hyperparameters, check_hyperparameters
from ..training.train import Metrics, Train
from .mesh import compiler_mesh, on_all, require_even, split_axis


class Spread(NamedTuple):
    """Jitted steps of a run that lives on a mesh.

    Attributes:
        init: `(key, hyperparameters) -> state`.
        iteration: `state -> (state, metrics)`, as `Train.iteration`; the given state's memory is reused.
        round: `state -> (state, metrics)`, as `Train.round`; likewise.
    """

    init: Callable[[Array, Hyperparameters], TrainState]
    iteration: Callable[[TrainState], tuple[TrainState, TrainingMetrics]]
    round: Callable[[TrainState], tuple[TrainState, Metrics]]


def spread_environments(train: Train, mesh: Mesh) -> Spread:
    """Lay one run over a mesh: each device steps its share of the environments and of every minibatch.

    Gradients are summed across devices by the compiler; shuffling exchanges rows, as one batch on one device
    would. Results are those of one device up to the order of sums. The mesh may span processes, which must all
    make the same calls. For many runs, lay members over devices instead (`sweep(..., mesh=mesh)`): they need no
    exchange.

    `init` takes a random key of either style, and checks the hyperparameters. Keys of the kinds `rbg` and
    `unsafe_rbg` may give other numbers on other numbers of devices.

    Args:
        train: from `make_train`.
        mesh: devices to use, across all of its axes.

    Returns:
        `init`, `iteration` and `round`, compiled.

    Raises:
        ValueError: if the devices do not divide the environments and the minibatch evenly.

    >>> from reppo_fx import Config, Hyperparameters, make_train
    >>> from reppo_fx.envs import probes
    >>> config = Config(total_steps=64, num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2,
    ...                 num_evals=2, num_eval_envs=2, episode_length=8, actor_width=8, critic_width=8)
    >>> mesh = jax.make_mesh((1,), ("devices",))
    >>> run = spread_environments(make_train(probes.constant_reward(), config), mesh)
    >>> state, metrics = run.round(run.init(jax.random.key(0), Hyperparameters()))
    >>> print(metrics.env_steps)
    32.0
    """
    config = train.config
    minibatch = config.steps_per_iteration // config.num_minibatches
    require_even("num_envs", config.num_envs, mesh)
    require_even("the minibatch", minibatch, mesh)
    mesh = compiler_mesh(mesh)
    split = NamedSharding(mesh, split_axis(mesh))
    whole = on_all(mesh)

    constrain: Callable[..., jax.Array] = jax.lax.with_sharding_constraint

    def place(rows: jax.Array) -> jax.Array:
        return constrain(rows, split)

    train = dataclasses.replace(train, place=lambda batch: jax.tree.map(place, batch))
    shape = jax.eval_shape(train.init, jax.random.key(0), Hyperparameters())
    shardings = jax.tree.map(lambda _: whole, shape)
    rollout = shardings.rollout._replace(
        env_state=jax.tree.map(lambda _: split, shape.rollout.env_state),
        observation=jax.tree.map(lambda _: split, shape.rollout.observation),
    )
    shardings = shardings._replace(rollout=rollout)
    step = functools.partial(
        jax.jit,
        in_shardings=(shardings,),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    start = jax.jit(train.init, out_shardings=shardings)

    def init(key: Array, hyperparameters: Hyperparameters) -> TrainState:
        check_hyperparameters(hyperparameters)  # within jit there would be no values to see
        state: TrainState = start(as_key(key), hyperparameters)
        return state

    return Spread(
        init=init,
        iteration=step(train.iteration),
        round=step(train.round),
    )
