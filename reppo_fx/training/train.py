"""Assembly: `make_train` binds environment, settings and functions into one vmappable `train`."""

from __future__ import annotations

import dataclasses
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._errors import ReppoWarning, counted
from .._keys import as_key
from ..envs import Environment, conform, training_environment
from ..envs.base import DescribedWorld, describe_world
from ..learner.distributions import Distribution
from ..learner.learn import TrainingMetrics, env_steps
from ..learner.method import MakeOptimizer, Method
from ..learner.networks import MakeNetworks
from ..learner.objectives import ActorObjective
from ..learner.optimizers import make_optimizer
from ..learner.state import TrainState
from ..learner.values import ValueFunction
from ..settings import Config, Hyperparameters, check_hyperparameters
from .assembly import episode_length_of, fields_of, make_method
from .evaluate import EpisodeMetric, Episodes, evaluate
from .iteration import init_state, train_iteration


class Metrics(NamedTuple):
    """What a person looks at; axis `[num_evals]` from `train`.

    Attributes:
        env_steps: environment steps so far; a float, see `learner.learn.env_steps`.
        eval_return: mean undiscounted return of the evaluation episodes.
        eval_return_std: its standard deviation over episodes.
        eval_length: mean episode length in steps.
        training: diagnostics of the last iteration.
        eval_metrics: the environment's own metrics, means over the evaluation episodes.
    """

    env_steps: Float[Array, "*evals"]
    eval_return: Float[Array, "*evals"]
    eval_return_std: Float[Array, "*evals"]
    eval_length: Float[Array, "*evals"]
    training: TrainingMetrics
    eval_metrics: dict[str, EpisodeMetric]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Train(Method):
    """`train(key, hyperparameters) -> (state, metrics)`, and the steps it is made of. Build with `make_train`.

    It is the `Method` with a world bound to it, so `collect`, `make_batch`, `update` and `evaluate` take it. Every
    method of it is pure and can be jitted and vmapped.

    Attributes:
        env: the environment for one instance, as given.
        training_env: the same with time limit, containment and auto-reset, batched.
        episode_length: steps of an evaluation episode.
    """

    env: Environment
    training_env: Environment
    episode_length: int

    def __repr__(self) -> str:
        return f"Train({describe_training(self.env, self.config, self.episode_length)})"

    def __call__(
        self, key: Array, hyperparameters: Hyperparameters | None = None
    ) -> tuple[TrainState, Metrics]:
        """Train for `config.total_steps`; metrics have an axis in front, one entry per evaluation."""
        state = self.init(key, hyperparameters)
        counts = self.config.iterations_between_evaluations
        if len(set(counts)) == 1:
            once = lambda state, _: self.round(state, counts[0])
            return jax.lax.scan(once, state, None, length=len(counts))
        return jax.lax.scan(self.round, state, jnp.asarray(counts, jnp.int32))

    def init(self, key: Array, hyperparameters: Hyperparameters | None = None) -> TrainState:
        """Fresh networks, environments and statistics; the key may be of either style and any kind."""
        hp = Hyperparameters() if hyperparameters is None else hyperparameters
        check_hyperparameters(hp)
        return init_state(as_key(key), self, self.training_env, hp)

    def iteration(self, state: TrainState) -> tuple[TrainState, TrainingMetrics]:
        """One rollout and its update."""
        return train_iteration(self, self.training_env, state)

    def iterations(
        self, state: TrainState, count: int | Array
    ) -> tuple[TrainState, TrainingMetrics]:
        """`count ≥ 1` iterations, which may be traced; the metrics are those of the last one."""
        step = jax.jit(self.iteration)  # traced once for both uses below
        _, shapes = jax.eval_shape(step, state)
        start = (state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
        end: tuple[TrainState, TrainingMetrics] = jax.lax.fori_loop(
            0, count, lambda _, carry: step(carry[0]), start
        )
        return end

    def evaluate(self, state: TrainState) -> Episodes:
        """`config.num_eval_envs` episodes with the deterministic policy; the state is left as it is."""
        return evaluate(self, self.env._replace(episode_length=self.episode_length), state)

    def round(
        self, state: TrainState, count: int | Array | None = None
    ) -> tuple[TrainState, Metrics]:
        """Iterations, then an evaluation.

        Args:
            state: from `init` or the last round.
            count: how many; as many as the longest stretch between two evaluations if not given.
        """
        if count is None:
            count = max(self.config.iterations_between_evaluations)
        state, training = self.iterations(state, count)
        return state, self.metrics(state, training, self.evaluate(state))

    def metrics(self, state: TrainState, training: TrainingMetrics, episodes: Episodes) -> Metrics:
        """The row of metrics that belongs to a state and its evaluation."""
        return metrics_of(self, state, training, episodes)


def describe_training(world: DescribedWorld, config: Config, episode_length: int) -> str:
    """The world, and how much of it is trained on."""
    evaluations = len(config.evaluations)
    return (
        f"{describe_world(world)}; {config.total_iterations * config.steps_per_iteration:,} steps in "
        f"{config.total_iterations:,} iterations of {config.num_envs} × {config.num_steps}, "
        f"{counted(evaluations, 'evaluation')} of {config.num_eval_envs} × {episode_length}"
    )


def metrics_of(
    method: Method, state: TrainState, training: TrainingMetrics, episodes: Episodes
) -> Metrics:
    """The row of metrics that belongs to a state and its evaluation."""
    return Metrics(
        env_steps=env_steps(method, state.iteration),
        eval_return=jnp.mean(episodes.returns),
        eval_return_std=jnp.std(episodes.returns),
        eval_length=jnp.mean(episodes.lengths),
        training=training,
        eval_metrics=jax.tree.map(jnp.mean, episodes.metrics),
    )


def make_train(
    env: Environment,
    config: Config | None = None,
    *,
    networks: MakeNetworks | None = None,
    distribution: Distribution | None = None,
    value_function: ValueFunction | None = None,
    actor_objective: ActorObjective | None = None,
    optimizer: MakeOptimizer = make_optimizer,
) -> Train:
    """Bind an environment and static settings into `train(key, hyperparameters) -> (state, metrics)`.

    What the config names can be replaced by functions of your own; each has a default of the same signature
    to copy from. Every name in the config is turned into a function here, and nowhere else.

    Args:
        env: an environment for one instance, without time limit or auto-reset.
        config: static settings.
        networks: builds actor and critic; default `networks.make_networks` with the config's sizes. Your own get
            the shapes of observations, of any rank.
        distribution: what the actor's outputs mean; default `tanh_normal` on the action's range, or `categorical`
            where actions are discrete.
        value_function: how the critic is read and trained; default by `config.critic`.
        actor_objective: default by `config.policy_gradient` and friends, from `objectives`.
        optimizer: `(hyperparameters, config) -> optax.GradientTransformation`; default `optimizers.make_optimizer`;
            wrap yours in `optimizers.skip_nonfinite` to keep divergence contained.

    Returns:
        A callable with the methods `init`, `iteration`, `evaluate`; see `Train`.

    Raises:
        ValueError: if the episode length is neither in the config nor known to the environment, an observation
            has not the parts that the networks see, the distribution gives other actions than the environment
            takes, or the environment is not what its contract says.

    Warns:
        ReppoWarning: where the config asks for more evaluations than iterations, or less than one iteration.

    >>> from reppo_fx import Config, Hyperparameters, make_train
    >>> from reppo_fx.envs import probes
    >>> config = Config(total_steps=64, num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2,
    ...                 num_evals=2, num_eval_envs=2, episode_length=8, actor_width=8, critic_width=8)
    >>> train = make_train(probes.constant_reward(), config)
    >>> state, metrics = jax.jit(train)(jax.random.key(0), Hyperparameters(discount=0.9, v_max=20.0))
    >>> print(metrics.env_steps, metrics.eval_return)
    [32. 64.] [8. 8.]
    """
    config = Config() if config is None else config
    warn_of_sizes(config)
    env = conform(env)
    episode_length = episode_length_of(env, config)
    method = make_method(
        env,
        config,
        networks=networks,
        distribution=distribution,
        value_function=value_function,
        actor_objective=actor_objective,
        optimizer=optimizer,
    )
    return Train(
        **fields_of(method),
        env=env,
        training_env=training_environment(
            env,
            config.training_time_limit or episode_length,
            limit=config.observation_limit,
        ),
        episode_length=episode_length,
    )


def warn_of_sizes(config: Config, stacklevel: int = 3) -> None:
    """Say where a config asks for less than one iteration, or more evaluations than iterations."""
    if config.total_steps < config.steps_per_iteration:
        warnings.warn(
            f"total_steps is {config.total_steps:,}, but one iteration is num_envs * num_steps = "
            f"{config.steps_per_iteration:,} steps, and that many are trained.",
            ReppoWarning,
            stacklevel=stacklevel,
        )
    elif config.num_evals > config.total_iterations:
        warnings.warn(
            f"num_evals is {config.num_evals}, but total_steps = {config.total_steps:,} are only "
            f"{config.total_iterations} iterations of {config.steps_per_iteration:,} steps: "
            f"{len(config.evaluations)} evaluations, one after each.",
            ReppoWarning,
            stacklevel=stacklevel,
        )
