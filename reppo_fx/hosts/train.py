"""Assembly: `make_host_train` binds a simulator, settings and functions; `learn` is the same as for pure worlds."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._keys import as_key, is_key
from .._members import over_axis
from .._programs import keep_program
from ..learner.distributions import Distribution
from ..learner.learn import TrainingMetrics
from ..learner.method import MakeOptimizer, Method
from ..learner.networks import MakeNetworks
from ..learner.objectives import ActorObjective
from ..learner.optimizers import make_optimizer
from ..learner.state import KeyStreams, TrainState, key_streams
from ..learner.values import ValueFunction
from ..settings import Config, Hyperparameters, check_hyperparameters
from ..training.assembly import episode_length_of, fields_of, make_method
from ..training.diagnosis import warn_of_findings
from ..training.evaluate import Episodes
from ..training.iteration import first_state, start_keys
from ..training.train import Metrics, describe_training, metrics_of, warn_of_sizes
from .base import Closing, HostEnvironment
from .collect import Programs, gather, programs, transition_shapes
from .conform import conform
from .evaluate import as_seed, evaluate
from .transforms import training_environment
from .worlds import Worlds


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HostTrain(Method, Closing):
    """`train(key, hyperparameters) -> (state, metrics)` on a simulator, and the steps it is made of.

    As `Train`, but not pure: the simulator's own state is in the simulator, which goes on from call to call. States
    and keys may have an axis of members in front, `[M]`, which then share one simulator of `M · num_envs`
    instances and one program: that is this class's `vmap`. Build with `make_host_train`; close it, or use it in a
    `with` statement, when the simulator is one to be closed.

    Attributes:
        env: the simulator as it was given.
        episode_length: steps of an evaluation episode.
        worlds: the simulators that are running.
    """

    env: HostEnvironment
    episode_length: int
    worlds: Worlds

    def __repr__(self) -> str:
        return f"HostTrain({describe_training(self.env, self.config, self.episode_length)})"

    def __call__(
        self, key: Array, hyperparameters: Hyperparameters | None = None
    ) -> tuple[TrainState, Metrics]:
        """Train for `config.total_steps`; metrics have an axis `[num_evals]`, behind that of any members."""
        state = self.init(key, hyperparameters)
        rows = []
        for count in self.config.iterations_between_evaluations:
            state, row = self.round(state, count)
            rows.append(row)
        axis = state.iteration.ndim
        metrics: Metrics = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *rows)
        warn_of_findings(metrics, state.hyperparameters)
        return state, metrics

    def init(self, key: Array, hyperparameters: Hyperparameters | None = None) -> TrainState:
        """Fresh networks and statistics, and the simulator started anew.

        Args:
            key: of one run, in either style; or typed keys `[M]`, one per member.
            hyperparameters: numbers; or leaves `[M]`, one per member, beside keys `[M]`.
        """
        hp = Hyperparameters() if hyperparameters is None else hyperparameters
        _check_not_traced((key, hp))
        check_hyperparameters(hp)
        keys = key if is_key(key) and jnp.ndim(key) == 1 else as_key(key)
        members = keys.shape
        hp = _for_members(hp, members)
        split = jax.vmap(start_keys)(keys) if members else start_keys(keys)
        world = self.worlds.training(members)
        observation = _in_shares(
            world.reset(as_seed(split.world)), (*members, self.config.num_envs)
        )
        self.worlds.started = True

        state: TrainState = self._start(bool(members))(
            split.networks, split.following, hp, observation
        )
        return state

    def init_shapes(self, keys: Array, hyperparameters: Hyperparameters) -> TrainState:
        """What `init` gives for keys `[M]`, as shapes; no simulator is started for it."""
        split = jax.eval_shape(jax.vmap(start_keys), keys)
        seen = _shapes(self.env.observation, (*keys.shape, self.config.num_envs))
        shapes: TrainState = jax.eval_shape(
            jax.vmap(self._first), split.networks, split.following, hyperparameters, seen
        )
        return shapes

    def compile(self, state: TrainState) -> TrainingMetrics:
        """Compile learning, with nothing run, and say what diagnostics it gives, as shapes."""
        world = self.worlds.training(state.iteration.shape)
        first = (*state.iteration.shape, self.config.num_steps, self.config.num_envs)
        transitions = transition_shapes(world, first)
        observation = _shapes(world.observation, (*first[:-2], first[-1]))
        return self.programs(state).compile(state, transitions, observation)

    def _start(self, members: bool) -> Callable[..., TrainState]:
        """The first state compiled, once; like all programs it holds its method weakly."""
        alive = weakref.ref(self)

        def first(*args: PyTree[Array]) -> TrainState:
            own = alive()
            assert own is not None
            return own._first(*args)

        make = lambda: jax.jit(over_axis(first) if members else first)
        return keep_program(self, ("host start", members), make)

    def _first(
        self, network_key: Array, key: Array, hp: Hyperparameters, seen: PyTree
    ) -> TrainState:
        return first_state(network_key, key, self, self.env, hp, (), seen)

    def restart(self, state: TrainState) -> TrainState:
        """The state with all episodes begun anew: its simulator is gone (a saved run), or was used otherwise."""
        members = state.iteration.shape
        world = self.worlds.training(members)
        observation = world.reset(as_seed(_streams(state).world))
        self.worlds.started = True
        shaped = _in_shares(observation, (*members, self.config.num_envs))
        return state._replace(
            rollout=state.rollout._replace(observation=jax.tree.map(jnp.array, shaped))
        )

    def iteration(self, state: TrainState) -> tuple[TrainState, TrainingMetrics]:
        """One rollout and its update."""
        _check_not_traced(state.iteration)
        if not self.worlds.started:
            state = self.restart(state)
        world = self.worlds.training(state.iteration.shape)
        gathered = gather(self, world, state)
        learned: tuple[TrainState, TrainingMetrics] = self.programs(state).learn(state, *gathered)
        return learned

    def iterations(self, state: TrainState, count: int) -> tuple[TrainState, TrainingMetrics]:
        """`count ≥ 1` iterations; the metrics are those of the last one."""
        for _ in range(int(count)):
            state, training = self.iteration(state)
        return state, training

    def evaluate(self, state: TrainState) -> Episodes:
        """Episodes with the deterministic policy: `config.num_eval_envs` of each member.

        In a simulator of its own where there can be a second one, which is seeded once and then goes on with its
        own random numbers. Where there can be only one, its training episodes begin anew afterwards.
        """
        members = state.iteration.shape
        world, seed = self.worlds.evaluation(members), None
        if not self.worlds.evaluated:
            seed = as_seed(_streams(state).evaluate)
        self.worlds.evaluated = True
        episodes = evaluate(self, world, state, seed=seed)
        wanted = self.config.num_eval_envs
        first: Episodes = jax.tree.map(lambda leaf: leaf[..., :wanted], episodes)
        return first

    def round(self, state: TrainState, count: int | None = None) -> tuple[TrainState, Metrics]:
        """Iterations, then an evaluation; as many as the longest stretch between two if no count is given."""
        if count is None:
            count = max(self.config.iterations_between_evaluations)
        state, training = self.iterations(state, count)
        return state, self.metrics(state, training, self.evaluate(state))

    def metrics(self, state: TrainState, training: TrainingMetrics, episodes: Episodes) -> Metrics:
        """The row of metrics that belongs to a state and its evaluation."""
        one = functools.partial(metrics_of, self)
        row: Metrics = (jax.vmap(one) if state.iteration.ndim else one)(state, training, episodes)
        return row

    def programs(self, state: TrainState) -> Programs:
        """The compiled pieces."""
        return programs(self, state.iteration.ndim > 0)

    def close(self) -> None:
        """Close every simulator that it uses; the one that was given, too."""
        self.worlds.close()


def make_host_train(
    env: HostEnvironment,
    config: Config | None = None,
    *,
    networks: MakeNetworks | None = None,
    distribution: Distribution | None = None,
    value_function: ValueFunction | None = None,
    actor_objective: ActorObjective | None = None,
    optimizer: MakeOptimizer = make_optimizer,
) -> HostTrain:
    """Bind a simulator and static settings into `train(key, hyperparameters) -> (state, metrics)`.

    As `make_train`, for worlds that are programs of their own; what can be given instead of the config's choices is
    the same.

    Args:
        env: from an adapter (`hosts.envpool`, `hosts.gymnasium`, …) or a `HostEnvironment` of your own. Where it
            can be had in any size it is made as large as needed; otherwise it must have `config.num_envs` instances
            (times the members that are trained side by side).
        config: static settings.
        networks: builds actor and critic.
        distribution: what the actor's outputs mean.
        value_function: how the critic is read and trained.
        actor_objective: a minibatch -> one loss per state.
        optimizer: of the actor and of the critic.

    Returns:
        A callable with the methods `init`, `iteration`, `evaluate`, `round`; see `HostTrain`.

    Raises:
        ValueError: if the episode length is neither in the config nor known to the simulator or longer than its own
            limit, an observation has not the parts that the networks see, or the size does not fit.

    Warns:
        ReppoWarning: where the config asks for more evaluations than iterations, or less than one iteration.

    >>> from reppo_fx import Config, Hyperparameters, hosts, make_host_train
    >>> from reppo_fx.envs import probes
    >>> config = Config(total_steps=64, num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2,
    ...                 num_evals=2, num_eval_envs=2, episode_length=8, actor_width=8, critic_width=8)
    >>> train = make_host_train(hosts.pure(probes.constant_reward(), 4), config)
    >>> state, metrics = train(jax.random.key(0), Hyperparameters(discount=0.9, v_max=20.0))
    >>> print(metrics.env_steps, metrics.eval_return)
    [32. 64.] [8. 8.]
    """
    config = Config() if config is None else config
    warn_of_sizes(config)
    checked = conform(env)
    length = episode_length_of(checked, config)
    method = make_method(
        checked,
        config,
        networks=networks,
        distribution=distribution,
        value_function=value_function,
        actor_objective=actor_objective,
        optimizer=optimizer,
    )
    limit = config.training_time_limit or length
    worlds = Worlds(
        checked,
        config,
        lambda sized: training_environment(sized, limit, limit=config.observation_limit),
    )
    return HostTrain(**fields_of(method), env=checked, episode_length=length, worlds=worlds)


def _streams(state: TrainState) -> KeyStreams:
    return jax.vmap(key_streams)(state.key) if state.iteration.ndim else key_streams(state.key)


def _check_not_traced(tree: PyTree) -> None:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise ValueError(
            "a simulator cannot be part of a compiled program: call it outside jit, vmap and grad. For several "
            "runs side by side give keys [M] (and settings [M]), or call sweep."
        )


def _for_members(hp: Hyperparameters, members: tuple[int, ...]) -> Hyperparameters:
    """Leaves `[M]` beside keys `[M]`, numbers beside one key."""

    def leaf(name: str, value: Any) -> Array:
        array = jnp.asarray(value, jnp.result_type(float))
        if array.shape not in ((), members):
            keys = f"{members[0]} keys" if members else "one key"
            raise ValueError(
                f"{name} has shape {list(array.shape)}, beside {keys}; it must be one number, or one for each key."
            )
        return jnp.broadcast_to(array, members)

    return Hyperparameters(**{name: leaf(name, value) for name, value in hp._asdict().items()})


def _shapes(specs: PyTree, first: tuple[int, ...]) -> PyTree:
    return jax.tree.map(lambda spec: jax.ShapeDtypeStruct((*first, *spec.shape), spec.dtype), specs)


def _in_shares(tree: PyTree, first: tuple[int, ...]) -> PyTree:
    return jax.tree.map(lambda leaf: np.array(leaf).reshape(*first, *leaf.shape[1:]), tree)
