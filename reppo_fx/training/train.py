"""Assembly: `make_train` binds environment, settings and functions into one vmappable `train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..envs import Environment, select_part, training_environment
from ..learner.networks import (
    MakeNetworks,
    ValueFunction,
    categorical_value_function,
    networks_from_config,
    squared_value_function,
)
from ..learner.objectives import ActorObjective, objective_from_config
from ..learner.optimizers import make_optimizer
from ..learner.update import Learner
from ..settings import Config, Hyperparameters, check_hyperparameters
from .evaluate import Episodes, evaluate_policy
from .iteration import (
    Assembly,
    TrainingMetrics,
    TrainState,
    init_state,
    make_policy,
    train_iteration,
)


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
class Train(Assembly):
    """`train(key, hyperparameters) -> (state, metrics)`, and the steps it is made of. Build with `make_train`.

    Every method is pure and can be jitted and vmapped.
    """

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
