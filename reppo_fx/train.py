"""Assembly: `make_train` binds environment, settings and functions into one vmappable `train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .envs import Environment, select_part, training_environment
from .evaluate import Episodes, evaluate_policy
from .networks import (
    MakeNetworks,
    NetworkSizes,
    ValueFunction,
    categorical_value_function,
    networks_from_config,
    squared_value_function,
)
from .objectives import ActorObjective, objective_from_config
from .ops import (
    RunningStatistics,
    statistics_init,
    statistics_normalize,
    statistics_update,
    tanh_normal_sample,
)
from .optimizers import make_optimizer
from .policy import Policy
from .rollout import Rollout, RolloutState, count_nonfinite, rollout
from .settings import Config, Hyperparameters, check_hyperparameters
from .targets import Batch, flatten_batch, make_batch
from .update import Learner, LearnerMetrics, LearnerState, learner_init, update


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


class Metrics(NamedTuple):
    """What a person looks at; axis `[num_evals]` from `train`.

    Attributes:
        env_steps: environment steps so far.
        eval_return: mean undiscounted return of the evaluation episodes.
        eval_return_std: its standard deviation over episodes.
        eval_length: mean episode length in steps.
        training: diagnostics of the last iteration.
    """

    env_steps: Int[Array, "*evals"]
    eval_return: Float[Array, "*evals"]
    eval_return_std: Float[Array, "*evals"]
    eval_length: Float[Array, "*evals"]
    training: TrainingMetrics


@dataclasses.dataclass(frozen=True, eq=False)
class Train:
    """`train(key, hyperparameters) -> (state, metrics)`, and the steps it is made of. Build with `make_train`.

    Every method is pure and can be jitted and vmapped.
    """

    env: Environment
    training_env: Environment
    config: Config
    learner: Learner
    networks: MakeNetworks
    episode_length: int

    def __call__(
        self, key: Array, hyperparameters: Hyperparameters | None = None
    ) -> tuple[TrainState, Metrics]:
        """Train for `config.total_steps`; metrics have a leading axis `[num_evals]`."""
        state = self.init(key, hyperparameters)
        return jax.lax.scan(
            lambda state, _: self.round(state), state, None, length=self.config.num_evals
        )

    def init(self, key: Array, hyperparameters: Hyperparameters | None = None) -> TrainState:
        """Fresh networks, environments and statistics."""
        hp = Hyperparameters() if hyperparameters is None else hyperparameters
        check_hyperparameters(hp)
        return init_state(self, key, hp)

    def iteration(self, state: TrainState) -> tuple[TrainState, TrainingMetrics]:
        """One rollout and its update."""
        return train_iteration(self, state)

    def iterations(
        self, state: TrainState, count: int | Array
    ) -> tuple[TrainState, TrainingMetrics]:
        """`count ≥ 1` iterations, which may be traced; the metrics are those of the last one."""
        step = jax.jit(self.iteration)  # traced once for both uses below
        _, shapes = jax.eval_shape(step, state)
        metrics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.fori_loop(0, count, lambda _, carry: step(carry[0]), (state, metrics))

    def evaluate(self, state: TrainState) -> Episodes:
        """`config.num_eval_envs` episodes with the deterministic policy; the state is left as it is."""
        policy = make_policy(self, state)
        return evaluate_policy(
            self.env,
            policy,
            jax.random.fold_in(state.key, 0),
            self.config.num_eval_envs,
            self.episode_length,
        )

    def round(self, state: TrainState) -> tuple[TrainState, Metrics]:
        """`config.iterations_per_eval` iterations, then an evaluation."""
        state, training = self.iterations(state, self.config.iterations_per_eval)
        return state, self.metrics(state, training, self.evaluate(state))

    def metrics(self, state: TrainState, training: TrainingMetrics, episodes: Episodes) -> Metrics:
        """The row of metrics that belongs to a state and its evaluation."""
        return Metrics(
            env_steps=state.iteration * self.config.steps_per_iteration,
            eval_return=jnp.mean(episodes.returns),
            eval_return_std=jnp.std(episodes.returns),
            eval_length=jnp.mean(episodes.lengths),
            training=training,
        )


def make_train(
    env: Environment,
    config: Config | None = None,
    *,
    networks: MakeNetworks | None = None,
    value_function: ValueFunction | None = None,
    actor_objective: ActorObjective | None = None,
    optimizer: Callable[[Any, Any], Any] = make_optimizer,
) -> Train:
    """Bind an environment and static settings into `train(key, hyperparameters) -> (state, metrics)`.

    What the config names can be replaced by functions of your own; each has a default of the same signature
    to copy from.

    Args:
        env: an environment for one instance, without time limit or auto-reset.
        config: static settings.
        networks: builds actor and critic; default `networks.make_networks` with the config's sizes.
        value_function: how the critic is read and trained; default by `config.critic`.
        actor_objective: default by `config.policy_gradient` and friends, from `objectives`.
        optimizer: `(hyperparameters, config) -> optax.GradientTransformation`; default `optimizers.make_optimizer`;
            wrap yours in `optimizers.skip_nonfinite` to keep divergence contained.

    Returns:
        A callable with the methods `init`, `iteration`, `evaluate`; see `Train`.

    Raises:
        ValueError: if the episode length is neither in the config nor known to the environment.

    >>> from reppo_fx import Config, Hyperparameters, make_train
    >>> from reppo_fx.envs import probes
    >>> config = Config(total_steps=64, num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2,
    ...                 num_evals=2, num_eval_envs=2, episode_length=8, actor_width=8, critic_width=8)
    >>> train = make_train(probes.constant_reward(), config)
    >>> state, metrics = jax.jit(train)(jax.random.key(0), Hyperparameters(discount=0.9, v_max=20.0))
    >>> print(metrics.env_steps, metrics.eval_return)
    [32 64] [8. 8.]
    """
    config = Config() if config is None else config
    episode_length = config.episode_length or env.episode_length
    if episode_length is None:
        raise ValueError(
            f"episode_length is not set, and {env.name} has none of its own; "
            "give it in the Config (steps until the time limit)."
        )
    for part in (env.actor_part, env.critic_part):
        select_part(env.observation, part)
    if value_function is None:
        value_function = (
            categorical_value_function(config.num_bins)
            if config.critic == "categorical"
            else squared_value_function()
        )
    learner = Learner(
        config=config,
        value_function=value_function,
        actor_objective=actor_objective or objective_from_config(config),
        optimizer=optimizer,
        action_size=env.action_size,
    )
    return Train(
        env=env,
        training_env=training_environment(env, config.training_time_limit or episode_length),
        config=config,
        learner=learner,
        networks=networks or networks_from_config(config),
        episode_length=episode_length,
    )


def init_state(train: Train, key: Array, hyperparameters: Hyperparameters) -> TrainState:
    """The start: networks, optimizers, environments at random ages, statistics that have seen nothing."""
    hp = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), hyperparameters)
    network_key, env_key, key = jax.random.split(key, 3)
    sizes = NetworkSizes(
        _part_size(train.env, train.env.actor_part),
        _part_size(train.env, train.env.critic_part),
        train.env.action_size,
    )
    networks = train.networks(network_key, sizes, train.learner.value_function, hp)
    env_keys = jax.random.split(env_key, train.config.num_envs)
    env_state, observation = train.training_env.reset(env_keys)
    statistics = statistics_init(train.env.observation)
    if train.config.statistics == "step":
        statistics = statistics_update(statistics, observation)
    return TrainState(
        learner=learner_init(networks, train.learner, hp),
        rollout=RolloutState(env_state, observation, statistics),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
        nonfinite=jnp.zeros(()),
        diverged_at=jnp.full((), -1, jnp.int32),
        hyperparameters=hp,
    )


def train_iteration(train: Train, state: TrainState) -> tuple[TrainState, TrainingMetrics]:
    """Roll out with a frozen policy, compute targets, update."""
    config, hp = train.config, state.hyperparameters
    rollout_key, target_key, update_key, key = jax.random.split(state.key, 4)
    keys = jax.random.split(rollout_key, config.num_steps)
    rollout_state, collected = rollout(
        train.training_env,
        make_behavior(train, state),
        state.rollout,
        keys,
        update_statistics=config.statistics == "step",
    )
    rollout_state, collected = _statistics_of_iteration(config, rollout_state, collected)
    target_keys = (
        keys if config.noise == "reused" else jax.random.split(target_key, config.num_steps)
    )
    batch = batch_from_rollout(train, state, collected, target_keys)
    learner, learner_metrics = update(
        state.learner, update_key, flatten_batch(batch), train.learner, hp
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


def batch_from_rollout(train: Train, state: TrainState, collected: Rollout, keys: Array) -> Batch:
    """Normalize a rollout and compute its targets with the parameters that collected it."""
    transitions = collected.transitions
    observations = network_inputs(
        train, state.hyperparameters, collected.statistics, transitions.observation
    )
    next_observations = network_inputs(
        train, state.hyperparameters, collected.next_statistics, transitions.next_observation
    )
    return make_batch(
        keys,
        state.learner.networks,
        train.learner.value_function,
        state.learner.duals.temperature,
        observations,
        next_observations,
        transitions,
        train.config,
        state.hyperparameters,
    )


def network_inputs(
    train: Train,
    hyperparameters: Hyperparameters,
    statistics: RunningStatistics,
    observation: PyTree[Array],
) -> tuple[Array, Array]:
    """The actor's and the critic's part of an observation, normalized unless the config says not to."""
    if train.config.statistics != "none":
        if (
            statistics.count.ndim
        ):  # statistics per row of a rollout: [T, ...] against [T, num_envs, ...]
            expand = lambda x: x[:, None]
            statistics = statistics._replace(
                mean=jax.tree.map(expand, statistics.mean), var=jax.tree.map(expand, statistics.var)
            )
        observation = statistics_normalize(statistics, observation, hyperparameters.variance_floor)
    env = train.env
    return select_part(observation, env.actor_part), select_part(observation, env.critic_part)


def make_behavior(
    train: Train, state: TrainState
) -> Callable[[Array, RunningStatistics, PyTree[Array]], Array]:
    """The policy that collects data: `(key, statistics, observation) -> action`."""
    hp, actor, limit = (
        state.hyperparameters,
        state.learner.networks.actor,
        train.config.action_limit,
    )

    def act(key: Array, statistics: RunningStatistics, observation: PyTree[Array]) -> Array:
        inputs, _ = network_inputs(train, hp, statistics, observation)
        sample = tanh_normal_sample(key, *actor(inputs, hp.min_std))
        return jnp.clip(sample.action, -limit, limit)

    return act


def make_policy(train: Train, state: TrainState) -> Policy:
    """The deterministic policy of a state, to evaluate, save or deploy."""
    return Policy(
        actor=state.learner.networks.actor,
        statistics=state.rollout.statistics,
        min_std=state.hyperparameters.min_std,
        variance_floor=state.hyperparameters.variance_floor,
        part=train.env.actor_part,
        normalize=train.config.statistics != "none",
        action_limit=train.config.action_limit,
    )


def _part_size(env: Environment, part: str) -> int:
    shape = select_part(env.observation, part).shape
    if len(shape) != 1:
        raise ValueError(
            f"the observation {part!r} of {env.name} has shape {list(shape)}; networks take flat ones, [size]."
        )
    return shape[0]
