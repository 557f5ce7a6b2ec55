"""Policy × program → a time-major rollout: one compiled `act` a step, one hand-over a rollout."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree
from numpy.typing import NDArray

from .._members import over_axis
from .._programs import keep_program
from ..envs import action_spec
from ..learner.learn import TrainingMetrics, learn
from ..learner.method import Method
from ..learner.normalizers import unchanged
from ..learner.rollout import Rollout, Transition
from ..learner.state import TrainState, key_streams
from ..ops import RunningStatistics
from ..training.collect import close
from ..training.policy import Policy, make_policy, with_statistics
from .base import HostEnvironment, HostTimeStep

P = ParamSpec("P")
T = TypeVar("T")


class Frozen(NamedTuple):
    """What acts during one rollout.

    Attributes:
        policy: of the state.
        keys: one per row.
        statistics: of whole observations.
    """

    policy: Policy
    keys: Array
    statistics: RunningStatistics


def collect(method: Method, env: HostEnvironment, state: TrainState) -> tuple[TrainState, Rollout]:
    """Step every instance `config.num_steps` times with a frozen policy.

    The simulator must be where the state left it: `state.rollout.observation` is acted on first. Everything of
    the simulator that is kept is copied.

    Args:
        method: the functions.
        env: as from `hosts.training_environment`, with `config.num_envs` instances, times the members of the state.
        state: whose policy acts; with or without an axis of members in front.

    Returns:
        The state with the observation to act on next, and the rollout, `[T, num_envs, ...]` behind any axis of
        members, on the device.
    """
    close = programs(method, state.iteration.ndim > 0).close
    collected: tuple[TrainState, Rollout] = close(state, *gather(method, env, state))
    return collected


class Gathered(NamedTuple):
    """A rollout in arrays of the host.

    Attributes:
        transitions: new arrays every time.
        observation: to act on next.
        noise: of the exploration, on the device.
    """

    transitions: Transition
    observation: PyTree[NDArray[Any]]
    noise: PyTree[Array]


def gather(method: Method, env: HostEnvironment, state: TrainState) -> Gathered:
    """Step every instance `config.num_steps` times."""
    members = state.iteration.shape
    actor = programs(method, bool(members)).actor(state)
    observation: PyTree[NDArray[Any]] = jax.tree.map(np.asarray, state.rollout.observation)
    first = jax.tree.leaves(observation)[0].shape[: len(members) + 1]
    if first != (*members, env.num_envs // max(1, *members, 1)):
        raise ValueError(
            f"{env.name} has {env.num_envs} instances, but the state was made with {list(first)} of them."
        )
    rows = _Rows(method.config.num_steps, first)
    given = action_shape(env)
    for step in range(method.config.num_steps):
        action = actor(step, observation)
        timestep = env.step(action.reshape(given))
        rows.write(step, observation, action, timestep)
        # A copy: the next call may overwrite what this one gave.
        observation = jax.tree.map(
            lambda leaf: _shaped(np.array(leaf), first), timestep.observation
        )
    return Gathered(rows.transitions(), observation, actor.noise)


def action_shape(env: HostEnvironment) -> tuple[int, ...]:
    """Of the actions of all members' instances, as the environment takes them: `[num_envs, d]`, or `[num_envs]`."""
    return (env.num_envs, *action_spec(env).shape)


class _Rows:
    """Arrays `[*members, T, num_envs, ...]`, made when the first row is known."""

    def __init__(self, num_steps: int, first: tuple[int, ...]) -> None:
        self._steps, self._first = num_steps, first
        self._leaves: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def write(
        self,
        step: int,
        observation: PyTree[NDArray[Any]],
        action: NDArray[Any],
        timestep: HostTimeStep,
    ) -> None:
        own: Any = timestep  # NumPy's arrays, where a transition says jax's
        counted = "nonfinite" in own.metrics
        row = Transition(
            observation=observation,
            action=action,
            next_observation=own.next_observation,
            reward=own.reward,
            terminated=own.terminated,
            truncated=own.truncated,
            nonfinite=own.metrics["nonfinite"] > 0 if counted else own.terminated & False,
            metrics=own.metrics,
        )
        leaves, structure = jax.tree.flatten(row)
        if not self._leaves:
            self._structure = structure
            self._leaves = [self._blank(np.asarray(leaf)) for leaf in leaves]
        for leaf, (_, by_row) in zip(leaves, self._leaves, strict=True):
            row_of = by_row[step]
            row_of[...] = leaf if leaf.shape == row_of.shape else np.reshape(leaf, row_of.shape)

    def _blank(self, leaf: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """An array, and the same one with its rows in front."""
        members, inner = self._first[:-1], _shaped(leaf, self._first).shape[len(self._first) :]
        whole = np.empty((*members, self._steps, self._first[-1], *inner), leaf.dtype)
        return whole, np.moveaxis(whole, len(members), 0)

    def transitions(self) -> Transition:
        rows: Transition = jax.tree.unflatten(self._structure, [leaf for leaf, _ in self._leaves])
        return rows


def _shaped(leaf: NDArray[Any], first: tuple[int, ...]) -> NDArray[Any]:
    """`[M · N, ...]` or `[M, N, ...]` as `[M, N, ...]`."""
    if leaf.shape[: len(first)] == first:
        return leaf
    return leaf.reshape(*first, *leaf.shape[1:])


def transition_shapes(env: HostEnvironment, first: tuple[int, ...]) -> Transition:
    """What `gather` gives, `[*first, ...]`, as shapes."""
    real = jax.dtypes.canonicalize_dtype(np.float64)

    def of(*shape: int, dtype: Any = real) -> Any:
        return jax.ShapeDtypeStruct((*first, *shape), dtype)

    seen = jax.tree.map(lambda spec: of(*spec.shape, dtype=spec.dtype), env.observation)
    return Transition(
        observation=seen,
        action=of(*action_spec(env).shape, dtype=action_spec(env).dtype),
        next_observation=seen,
        reward=of(),
        terminated=of(dtype=np.bool_),
        truncated=of(dtype=np.bool_),
        nonfinite=of(dtype=np.bool_),
        metrics={name: of() for name in env.metrics},
    )


class Programs:
    """The compiled pieces around a simulator, for one state or for an axis of members.

    They hold the method weakly: a method that nobody needs any more takes its simulators along.
    """

    def __init__(self, method: Method, members: bool) -> None:
        over = over_axis if members else _alone
        alive = weakref.ref(method)

        def bound(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                own = alive()
                assert own is not None  # only traced while somebody holds it
                return function(own, *args)

            return call

        self._running = method.normalizer.observe is not unchanged
        self._freeze = jax.jit(over(bound(_freeze)))
        self.policy = jax.jit(over(bound(make_policy)))
        self.close = jax.jit(over(bound(_close)))
        self.learn = jax.jit(over(bound(_learn)))

        def act(structure: Any, *args: PyTree[Array]) -> Any:
            one = functools.partial(bound(_act), self._running, structure)
            return over(one)(*args)

        # Flat leaves: jax takes those apart in C++, but a module's fields in Python, at every call.
        self._act = jax.jit(act, static_argnums=0)

    def compile(
        self, state: TrainState, transitions: Transition, observation: PyTree[jax.ShapeDtypeStruct]
    ) -> TrainingMetrics:
        """Compile `learn` for these shapes, and say what diagnostics it gives."""
        gathered = (transitions, observation, state.rollout.noise)
        _, training = jax.eval_shape(self.learn, state, *gathered)
        self.learn.lower(state, *gathered).compile()
        diagnostics: TrainingMetrics = training
        return diagnostics

    def actor(self, state: TrainState) -> Actor:
        """What acts during one rollout."""
        frozen = self._freeze(state)
        leaves, structure = jax.tree.flatten(frozen.policy)
        return Actor(
            functools.partial(self._act, structure, leaves, frozen.keys),
            state.iteration.shape,
            frozen.statistics if self._running else None,
            state.rollout.noise,
        )


class Actor:
    """`(step, observation) -> action`; statistics that take in every step and noise that lasts go along."""

    def __init__(
        self,
        act: Callable[..., Any],
        members: tuple[int, ...],
        statistics: RunningStatistics | None,
        noise: PyTree[Array],
    ) -> None:
        self._act, self._members, self._statistics = act, members, statistics
        self.noise = noise

    def __call__(self, step: int, observation: PyTree[ArrayLike]) -> NDArray[Any]:
        row = np.full(self._members, step, np.int32)
        action, self._statistics, self.noise = self._act(
            self._statistics, self.noise, row, observation
        )
        return np.asarray(action)


def programs(method: Method, members: bool) -> Programs:
    """Those of a method, made once."""
    return keep_program(method, ("host", members), lambda: Programs(method, members))


def _alone(function: Callable[P, T]) -> Callable[P, T]:
    return function


def _freeze(method: Method, state: TrainState) -> Frozen:
    keys = method.action_keys(key_streams(state.key), method.config.num_steps)
    return Frozen(make_policy(method, state), keys, state.rollout.statistics)


def _act(
    method: Method,
    running: bool,
    structure: Any,
    leaves: list[Array],
    keys: Array,
    statistics: RunningStatistics | None,
    noise: PyTree[Array],
    step: Array,
    observation: PyTree[Array],
) -> tuple[PyTree[Array], RunningStatistics | None, PyTree[Array]]:
    """Actions for one row; statistics that take in every step have not seen what is acted on, but for the first."""
    policy: Policy = jax.tree.unflatten(structure, leaves)
    if running:
        assert statistics is not None
        seen = method.normalizer.observe(statistics, observation)
        choose = lambda new, old: jnp.where(step == 0, old, new)
        statistics = jax.tree.map(choose, seen, statistics)
        policy = with_statistics(method, policy, statistics)
    action, noise = method.exploration.act(
        keys[step], method.distribution, policy.at(observation), noise, policy.hyperparameters
    )
    return method.distribution.to_environment(action), statistics, noise


def _close(
    method: Method,
    state: TrainState,
    transitions: Transition,
    observation: PyTree[Array],
    noise: PyTree[Array],
) -> tuple[TrainState, Rollout]:
    world = state.rollout._replace(observation=observation, noise=noise)
    return close(method, state, world, transitions)


def _learn(
    method: Method,
    state: TrainState,
    transitions: Transition,
    observation: PyTree[Array],
    noise: PyTree[Array],
) -> tuple[TrainState, TrainingMetrics]:
    return learn(method, *_close(method, state, transitions, observation, noise))
