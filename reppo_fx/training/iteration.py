"""One iteration: a rollout with a frozen policy, its targets, the update. Functions over an `Assembly`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..envs import Environment, select_part
from ..learner.networks import MakeNetworks, NetworkSizes
from ..learner.rollout import Rollout, RolloutState
from ..learner.targets import Batch, flatten_batch, make_batch
from ..learner.update import Learner, LearnerMetrics, LearnerState, learner_init, update
from ..ops import (
    RunningStatistics,
    statistics_init,
    statistics_normalize,
    statistics_update,
    tanh_normal_sample,
)
from ..settings import Config, Hyperparameters
from .collect import count_nonfinite, rollout
from .policy import Policy


@dataclasses.dataclass(frozen=True, eq=False)
class Assembly:
    """What `make_train` binds; everything here is static.

    Attributes:
        env: the environment for one instance, as given.
        training_env: the same with time limit, containment and auto-reset, batched.
        config: static settings.
        learner: the functions of an update.
        networks: builds actor and critic.
        episode_length: steps of an evaluation episode.
    """

    env: Environment
    training_env: Environment
    config: Config
    learner: Learner
    networks: MakeNetworks
    episode_length: int


class TrainState(NamedTuple):
    """All that the next step needs, arrays only: learner, environments, statistics, key, counters, settings.

    Attributes:
        learner: parameters, optimizer states, multipliers.
        rollout: environment states, the observations to act on next, observation statistics.
        key: random key for what follows.
        iteration: iterations done.
        nonfinite: environment steps that were not finite and were contained, so far.
        diverged_at: environment steps at which a gradient step was first dropped for not being finite; −1 never.
        hyperparameters: those given to `init`, as arrays.
    """

    learner: LearnerState
    rollout: RolloutState
    key: Array
    iteration: Int[Array, ""]
    nonfinite: Float[Array, ""]
    diverged_at: Int[Array, ""]
    hyperparameters: Hyperparameters


class TrainingMetrics(NamedTuple):
    """Diagnostics of one iteration; of the last one before each evaluation in `Metrics`."""

    learner: LearnerMetrics
    reward: Float[Array, ""]
    target: Float[Array, ""]
    nonfinite: Float[Array, ""]
    skipped_updates: Int[Array, ""]
    diverged_at: Int[Array, ""]


def init_state(assembly: Assembly, key: Array, hyperparameters: Hyperparameters) -> TrainState:
    """The start: networks, optimizers, environments at random ages, statistics that have seen nothing."""
    hp = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), hyperparameters)
    network_key, env_key, key = jax.random.split(key, 3)
    sizes = NetworkSizes(
        _part_size(assembly.env, assembly.env.actor_part),
        _part_size(assembly.env, assembly.env.critic_part),
        assembly.env.action_size,
    )
    networks = assembly.networks(network_key, sizes, assembly.learner.value_function, hp)
    env_keys = jax.random.split(env_key, assembly.config.num_envs)
    env_state, observation = assembly.training_env.reset(env_keys)
    statistics = statistics_init(assembly.env.observation)
    if assembly.config.statistics == "step":
        statistics = statistics_update(statistics, observation)
    return TrainState(
        learner=learner_init(networks, assembly.learner, hp),
        rollout=RolloutState(env_state, observation, statistics),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
        nonfinite=jnp.zeros(()),
        diverged_at=jnp.full((), -1, jnp.int32),
        hyperparameters=hp,
    )


def train_iteration(assembly: Assembly, state: TrainState) -> tuple[TrainState, TrainingMetrics]:
    """Roll out with a frozen policy, compute targets, update."""
    config, hp = assembly.config, state.hyperparameters
    rollout_key, target_key, update_key, key = jax.random.split(state.key, 4)
    keys = jax.random.split(rollout_key, config.num_steps)
    rollout_state, collected = rollout(
        assembly.training_env,
        make_behavior(assembly, state),
        state.rollout,
        keys,
        update_statistics=config.statistics == "step",
    )
    rollout_state, collected = _statistics_of_iteration(config, rollout_state, collected)
    target_keys = (
        keys if config.noise == "reused" else jax.random.split(target_key, config.num_steps)
    )
    batch = batch_from_rollout(assembly, state, collected, target_keys)
    learner, learner_metrics = update(
        state.learner, update_key, flatten_batch(batch), assembly.learner, hp
    )
    iteration = state.iteration + 1
    diverged = (learner.skipped_updates > 0) & (state.diverged_at < 0)
    new = TrainState(
        learner=learner,
        rollout=rollout_state,
        key=key,
        iteration=iteration,
        nonfinite=state.nonfinite + count_nonfinite(collected.transitions),
        diverged_at=jnp.where(diverged, iteration * config.steps_per_iteration, state.diverged_at),
        hyperparameters=hp,
    )
    metrics = TrainingMetrics(
        learner=learner_metrics,
        reward=jnp.mean(collected.transitions.reward),
        target=jnp.mean(batch.target),
        nonfinite=new.nonfinite,
        skipped_updates=learner.skipped_updates,
        diverged_at=new.diverged_at,
    )
    return new, metrics


def _statistics_of_iteration(
    config: Config, rollout_state: RolloutState, collected: Rollout
) -> tuple[RolloutState, Rollout]:
    """Take in the batch at once. The first one is learned from with its own statistics, later ones with
    those they were collected with."""
    if config.statistics != "iteration":
        return rollout_state, collected
    old = rollout_state.statistics
    new = statistics_update(old, collected.transitions.observation)
    used = jax.tree.map(lambda n, o: jnp.where(old.count == 0, n, o), new, old)
    collected = collected._replace(statistics=used, next_statistics=used)
    return rollout_state._replace(statistics=new), collected


def batch_from_rollout(
    assembly: Assembly, state: TrainState, collected: Rollout, keys: Array
) -> Batch:
    """Normalize a rollout and compute its targets with the parameters that collected it."""
    transitions = collected.transitions
    observations = network_inputs(
        assembly, state.hyperparameters, collected.statistics, transitions.observation
    )
    next_observations = network_inputs(
        assembly, state.hyperparameters, collected.next_statistics, transitions.next_observation
    )
    return make_batch(
        keys,
        state.learner.networks,
        assembly.learner.value_function,
        state.learner.duals.temperature,
        observations,
        next_observations,
        transitions,
        assembly.config,
        state.hyperparameters,
    )


def network_inputs(
    assembly: Assembly,
    hyperparameters: Hyperparameters,
    statistics: RunningStatistics,
    observation: PyTree[Array],
) -> tuple[Array, Array]:
    """The actor's and the critic's part of an observation, normalized unless the config says not to."""
    if assembly.config.statistics != "none":
        normalize = statistics_normalize
        if statistics.count.ndim:  # statistics per row of a rollout
            normalize = jax.vmap(normalize, in_axes=(0, 0, None))
        observation = normalize(statistics, observation, hyperparameters.variance_floor)
    env = assembly.env
    return select_part(observation, env.actor_part), select_part(observation, env.critic_part)


def make_behavior(
    assembly: Assembly, state: TrainState
) -> Callable[[Array, RunningStatistics, PyTree[Array]], Array]:
    """The policy that collects data: `(key, statistics, observation) -> action`."""
    hp, actor, limit = (
        state.hyperparameters,
        state.learner.networks.actor,
        assembly.config.action_limit,
    )

    def act(key: Array, statistics: RunningStatistics, observation: PyTree[Array]) -> Array:
        inputs, _ = network_inputs(assembly, hp, statistics, observation)
        sample = tanh_normal_sample(key, *actor(inputs, hp.min_std))
        return jnp.clip(sample.action, -limit, limit)

    return act


def make_policy(assembly: Assembly, state: TrainState) -> Policy:
    """The deterministic policy of a state, to evaluate, save or deploy."""
    return Policy(
        actor=state.learner.networks.actor,
        statistics=state.rollout.statistics,
        min_std=state.hyperparameters.min_std,
        variance_floor=state.hyperparameters.variance_floor,
        part=assembly.env.actor_part,
        normalize=assembly.config.statistics != "none",
        action_limit=assembly.config.action_limit,
    )


def _part_size(env: Environment, part: str) -> int:
    shape = select_part(env.observation, part).shape
    if len(shape) != 1:
        raise ValueError(
            f"the observation {part!r} of {env.name} has shape {list(shape)}; networks take flat ones, [size]."
        )
    return shape[0]
