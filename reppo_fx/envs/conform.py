"""An environment checked against the contract before anything is compiled, and cast where that is safe."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, ParamSpec, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_map_with_path
from jaxtyping import Array, PyTree

from ._casting import (
    ContractError,
    as_array,
    as_arrays,
    as_before,
    as_declared,
    as_flag,
    as_float,
    describe,
    is_real,
)
from .base import (
    Environment,
    HasActions,
    Observation,
    State,
    TimeStep,
    _keep,
    action_spec,
    select_part,
)

P = ParamSpec("P")
R = TypeVar("R")
Spec = jax.ShapeDtypeStruct


def conform(env: Environment) -> Environment:
    """The same environment, held to the contract: what is safe is cast, the rest is one sentence now.

    `reset`, `step` and `refresh` are traced once, abstractly, and their trace is kept for every later use.
    Observations come as declared (Python and NumPy numbers become arrays, integers become floats where floats
    were declared), rewards and metrics as float scalars (`[1]` becomes `[]`), flags as booleans; the state
    keeps its structure, shapes and dtypes from reset on. Functions get containers of their own, so that
    what `step` changes in place never reaches its caller.

    Args:
        env: the environment, for one instance.

    Returns:
        The environment; itself if it has been through here.

    Raises:
        ValueError: a sentence with the name of the environment and the field.

    >>> from reppo_fx.envs import probes
    >>> conform(probes.constant_reward()._replace(observation=jax.ShapeDtypeStruct((3,), float)))
    Traceback (most recent call last):
        ...
    ValueError: constant_reward: observation of reset has shape [1]; [3] was declared.
    """
    functions = (
        (env.reset, env.step) if env.refresh is _keep else (env.reset, env.step, env.refresh)
    )
    if all(isinstance(function, _Conformed) for function in functions):
        return env
    declared = _declared(env)
    _check_facts(env._replace(observation=declared))

    def reset(key: Array) -> tuple[State, Observation]:
        state, observation = _pair(env.name, "reset", "(state, observation)", env.reset(key))
        observation = as_declared(env.name, "observation of reset", observation, declared)
        return as_arrays(env.name, "state of reset", state), observation

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        before, state = state, jax.tree.map(lambda leaf: leaf, state)
        if env.num_actions is not None:
            action = _discrete_action(env.name, action)
        state, timestep = _pair(env.name, "step", "(state, TimeStep)", env.step(state, action))
        timestep = standard_timestep(env.name, timestep)
        return as_before(env.name, "step", state, before), timestep._replace(
            observation=as_declared(env.name, "observation", timestep.observation, declared),
            next_observation=as_declared(
                env.name, "next_observation", timestep.next_observation, declared
            ),
        )

    def refresh(state: State) -> State:
        before, state = state, jax.tree.map(lambda leaf: leaf, state)
        return as_before(env.name, "refresh", env.refresh(state), before)

    def restart(key: Array, state: State) -> tuple[State, Observation]:
        assert env.restart is not None
        before, state = state, jax.tree.map(lambda leaf: leaf, state)
        start = _pair(env.name, "restart", "(state, observation)", env.restart(key, state))
        observation = as_declared(env.name, "observation of restart", start[1], declared)
        return as_before(env.name, "restart", start[0], before), observation

    checked = env._replace(
        reset=_Conformed(reset),
        step=_Conformed(step),
        refresh=_keep if env.refresh is _keep else _Conformed(refresh),
        restart=_Conformed(restart) if env.restart else None,
        observation=declared,
        num_actions=None if env.num_actions is None else int(env.num_actions),
    )
    _trace(checked)
    return checked


def standard_timestep(name: str, timestep: object) -> TimeStep:
    """A time step of one instance with a float scalar as reward, booleans as flags, float scalars as metrics.

    Args:
        name: the environment's, for sentences.
        timestep: what its step gave; observations are left alone.

    Raises:
        ValueError: naming the field that is no such scalar.
    """
    if not isinstance(timestep, TimeStep):
        raise ContractError(
            f"{name}: step gave {describe(timestep)} as second; it must be a TimeStep."
        )
    if not isinstance(timestep.metrics, Mapping):
        raise ContractError(
            f"{name}: metrics is {describe(timestep.metrics)}; it must be a dict of scalars."
        )
    return timestep._replace(
        reward=as_float(name, "reward", timestep.reward),
        terminated=as_flag(name, "terminated", timestep.terminated),
        truncated=as_flag(name, "truncated", timestep.truncated),
        metrics={
            str(key): as_float(name, f"metrics[{key!r}]", value)
            for key, value in timestep.metrics.items()
        },
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Conformed(Generic[P, R]):
    """A checked function; inlined where it is used, but traced only once for the same shapes."""

    function: Callable[P, R]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._traced_once(*args, **kwargs)

    @functools.cached_property
    def _traced_once(self) -> Callable[P, R]:
        return jax.jit(self.function, inline=True)


def _trace(env: Environment) -> None:
    """Everything that the checks can say, said."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = action_spec(env)
    with _note(env.name, "reset"):
        state, _ = jax.eval_shape(env.reset, key)
    with _note(env.name, "step"):
        jax.eval_shape(env.step, state, action)
    if env.refresh is not _keep:
        with _note(env.name, "refresh"):
            jax.eval_shape(env.refresh, state)
    if env.restart is not None:
        with _note(env.name, "restart"):
            jax.eval_shape(env.restart, key, state)


@contextmanager
def _note(name: str, function: str) -> Iterator[None]:
    """Our sentences come without jax's frames; other people's errors say what was being done."""
    try:
        yield
    except ContractError as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        error.add_note(f"(while {function} of the environment {name} was traced to check it)")
        raise


def _check_facts(env: Environment) -> None:
    name = env.name
    for fact, value in (("action_size", env.action_size), ("episode_length", env.episode_length)):
        if value is None and fact == "episode_length":
            continue
        try:
            whole = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            whole = 0
        if whole < 1:
            raise ValueError(
                f"{name}: {fact} is {value!r}; it must be a whole number of at least 1."
            )
    check_discrete(env)
    scale = np.asarray(env.action_scale)
    if scale.shape not in ((), (env.action_size,)):
        raise ValueError(
            f"{name}: action_scale has shape {list(scale.shape)}; it must be one number or one for each of "
            f"the {env.action_size} entries of an action."
        )
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"{name}: action_scale is {env.action_scale}; it must be positive.")
    for fact, part in (("actor_part", env.actor_part), ("critic_part", env.critic_part)):
        try:
            select_part(env.observation, part)
        except ValueError as error:
            raise ValueError(f"{name}: {fact} is {part!r}, but {error}") from None


@runtime_checkable
class World(HasActions, Protocol):
    """The static facts that `check_discrete` reads, of an environment, pure or not."""

    @property
    def name(self) -> str: ...
    @property
    def observation(self) -> PyTree[Spec]: ...
    @property
    def action_scale(self) -> float | tuple[float, ...]: ...
    @property
    def action_mask(self) -> str | None: ...


def check_discrete(env: World) -> None:
    """What discrete actions and their masks must be; nothing to say where there are none.

    Raises:
        ValueError: naming the fact that cannot be.
    """
    name, count, mask = env.name, env.num_actions, env.action_mask
    if count is None:
        if mask is not None:
            raise ValueError(
                f"{name}: action_mask is {mask!r}, but only discrete actions (num_actions) can be ruled out."
            )
        return
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 2:
        raise ValueError(
            f"{name}: num_actions is {count!r}; it must be a whole number of at least 2."
        )
    for fact, value in (("action_size", env.action_size), ("action_scale", env.action_scale)):
        if np.ndim(value) or value != 1:
            raise ValueError(
                f"{name}: {fact} is {value!r}, but actions are discrete (num_actions is {count}); it must be 1."
            )
    if mask is None:
        return
    try:
        part = select_part(env.observation, mask)
    except ValueError as error:
        raise ValueError(f"{name}: action_mask is {mask!r}, but {error}") from None
    if not hasattr(part, "dtype") or part.dtype != jnp.bool or part.shape != (count,):
        shown = f"{part.dtype}, {list(part.shape)}" if hasattr(part, "dtype") else describe(part)
        raise ValueError(
            f"{name}: action_mask is {mask!r}, which is {shown}; it must be booleans, [{count}]."
        )


def _discrete_action(name: str, action: object) -> Array:
    array = as_array(name, "action", action)
    if array.shape != () or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ContractError(
            f"{name}: an action of {array.dtype}, {list(array.shape)}, was given; actions are discrete: one whole "
            "number for each instance."
        )
    return array.astype(jnp.int32)


def _declared(env: Environment) -> PyTree[jax.ShapeDtypeStruct]:
    """The declared observation with dtypes that jax has under the present settings."""

    def canonical(path: tuple[object, ...], leaf: PyTree) -> Spec:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise ValueError(
                f"{env.name}: observation{keystr(path)} is declared as {describe(leaf)}; "
                "it must have a shape and a dtype (jax.ShapeDtypeStruct)."
            )
        if not is_real(leaf.dtype):
            raise ValueError(
                f"{env.name}: observation{keystr(path)} is declared as {leaf.dtype}; "
                "it must be of real numbers or booleans."
            )
        return Spec(tuple(leaf.shape), jax.dtypes.canonicalize_dtype(leaf.dtype))

    declared = tree_map_with_path(canonical, env.observation)
    if not jax.tree.leaves(declared):
        raise ValueError(f"{env.name}: observation is declared without a single array.")
    return declared


def _pair(name: str, function: str, wanted: str, result: object) -> tuple[State, PyTree]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ContractError(f"{name}: {function} gave {describe(result)}; it must give {wanted}.")
    return result[0], result[1]
