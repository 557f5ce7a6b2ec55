"""Adapter for gymnax (`pip install reppo_fx[gymnax]`): classic control, MinAtar, bsuite."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._errors import unknown_name
from ._simulator import _fit, _flag, _metrics, _number, _type, require
from .base import Environment, Observation, TimeStep
from .spaces import action_range, flatten_observation


@runtime_checkable
class GymnaxTask(Protocol):
    """An environment object of gymnax; states and parameters are its own dataclasses."""

    @property
    def default_params(self) -> Any: ...

    @property
    def name(self) -> str: ...

    def reset_env(self, key: Array, params: Any) -> tuple[Any, Any]: ...

    def step_env(
        self, key: Array, state: Any, action: Array, params: Any
    ) -> tuple[Any, Any, Any, Any, dict[Any, Any]]: ...

    def is_truncated(self, state: Any, params: Any) -> Any: ...

    def action_space(self, params: Any) -> Any: ...

    def observation_space(self, params: Any) -> Any: ...


class GymnaxState(NamedTuple):
    """gymnax's own state, and the key that its next step draws from.

    Attributes:
        inner: gymnax's own.
        key: of the next step.
    """

    inner: PyTree[Array]
    key: Array


def gymnax_names() -> tuple[str, ...]:
    """Every environment that gymnax has registered.

    Returns:
        The names, in its own order.

    Raises:
        ImportError: without the extra `gymnax`.
    """
    return tuple(_gymnax().registered_envs)


def gymnax(
    task: str | GymnaxTask,
    env_params: Any = None,
    *,
    flatten: bool = True,
    **overrides: Any,
) -> Environment:
    """A gymnax environment, unwrapped: no time limit, no auto-reset; see `envs.time_limit`.

    Steps are its `step_env`, which neither resets nor cuts, so `next_observation` is the true successor. Its time
    limit is `episode_length`, a fact that is not enforced here. Discrete actions are whole numbers
    (`num_actions`); those of a box are given in `[-1, 1]` and become its bounds. What a step's `info` holds are
    metrics, except `discount`, which is `terminated` again.

    Args:
        task: a name, e.g. `"CartPole-v1"`, or an environment object of gymnax.
        env_params: its parameters, a dataclass; none: its default ones.
        flatten: observations as one float vector: boards are raveled, a category becomes one-hot. False: as
            they are, for networks of your own.
        **overrides: single parameters in place of those of `env_params`, e.g. `max_steps_in_episode=200`, or
            arguments of the environment's class, e.g. `size=10` of `"DeepSea-bsuite"`. What gymnax derived from
            a parameter (CartPole's `total_mass` from `masspole`) does not follow it.

    Returns:
        The environment. Its state is a `GymnaxState`.

    Raises:
        ValueError: unknown name or parameter, with the nearest ones; a space that the contract does not have.
        ImportError: without the extra `gymnax`.
    """
    if isinstance(task, str):
        name, (built, rest) = task, _load(task, overrides)
    elif isinstance(task, GymnaxTask):
        name, built, rest = task.name, task, overrides
    else:
        raise ValueError(
            f"task must be a name or an environment object with reset_env and step_env; it is {task!r}."
        )
    params = _parameters(name, built, env_params, rest)
    env = _adapt(built, name, params)
    if flatten:
        env = _as_vector(env, built.observation_space(params))
    return _with_actions(env, built.action_space(params))


def _load(name: str, overrides: dict[str, Any]) -> tuple[GymnaxTask, dict[str, Any]]:
    """The environment, and those overrides that its class does not take."""
    registry = _gymnax().registration._registry
    if name not in registry:
        raise unknown_name("gymnax environment", name, registry)
    takes = inspect.signature(registry[name]).parameters
    own = {key: value for key, value in overrides.items() if key in takes}
    try:
        built: GymnaxTask = registry[name](**own)
    except OSError as error:  # MNIST is downloaded
        raise ValueError(
            f"{name} cannot be built here ({type(error).__name__}: {error}): it loads files of its own."
        ) from error
    return built, {key: value for key, value in overrides.items() if key not in own}


def _parameters(name: str, task: GymnaxTask, given: Any, overrides: dict[str, Any]) -> Any:
    default = task.default_params
    if given is not None and not isinstance(given, type(default)):
        kind = type(default)
        raise ValueError(
            f"env_params is {given!r}; {name} has a {kind.__module__}.{kind.__qualname__}, or None for its "
            "default ones."
        )
    params = default if given is None else given
    known = [field.name for field in dataclasses.fields(params)]
    for key in overrides:
        if key not in known:
            takes = [p for p in inspect.signature(type(task)).parameters if p not in known]
            raise unknown_name(f"parameter of {name}", key, [*known, *takes])
    return dataclasses.replace(params, **overrides)


def _adapt(task: GymnaxTask, name: str, params: Any) -> Environment:
    """The contract, with observations and actions as gymnax has them."""
    space = task.action_space(params)
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(f"{name} has the action space {space!r}; it must be a Discrete or a Box.")

    def first(key: Array) -> tuple[Any, Any]:
        return task.reset_env(key, params)

    def move(key: Array, state: Any, action: Array) -> tuple[Any, Any, Any, Any, Any]:
        action = action.reshape(shape).astype(dtype)
        return task.step_env(key, state, action, params)

    def dry_run(key: Array) -> tuple[Any, Any]:
        before = first(key)
        after = move(key, before[1], jnp.zeros(shape, dtype))
        return jax.tree.map(jnp.asarray, before), jax.tree.map(jnp.asarray, after[:2])

    before, after = jax.eval_shape(dry_run, jax.random.key(0))
    observation, types = jax.tree.map(_type, before, after)
    truncates = _has_own_truncation(task)

    def reset(key: Array) -> tuple[GymnaxState, Observation]:
        reset_key, step_key = jax.random.split(key)
        seen, inner = jax.tree.map(_fit, first(reset_key), (observation, types))
        return GymnaxState(inner, step_key), seen

    def step(state: GymnaxState, action: Array) -> tuple[GymnaxState, TimeStep]:
        key, step_key = jax.random.split(state.key)
        seen, inner, reward, ended, info = move(step_key, state.inner, action)
        seen, inner = jax.tree.map(_fit, (seen, inner), (observation, types))
        terminated = _flag(jnp.asarray(ended))
        cut = jnp.asarray(task.is_truncated(inner, params) if truncates else False)
        metrics = {key: jnp.asarray(value) for key, value in info.items() if key != "discount"}
        return GymnaxState(inner, key), TimeStep(
            observation=seen,
            next_observation=seen,
            reward=_number(jnp.asarray(reward)),
            terminated=terminated,
            truncated=_flag(cut) & ~terminated,
            metrics=_metrics(metrics),
        )

    return Environment(
        name=name,
        reset=reset,
        step=step,
        observation=observation,
        action_size=max(1, int(np.prod(shape))),
        episode_length=_episode_length(name, params),
        cheap_reset=True,  # gymnax itself draws one in every step
    )


def _has_own_truncation(task: GymnaxTask) -> bool:
    """Whether it cuts for another reason than the time limit, which `envs.time_limit` sees to."""
    base = _gymnax().environments.environment.Environment
    return getattr(type(task), "is_truncated", None) is not base.is_truncated


def _episode_length(name: str, params: Any) -> int | None:
    length = getattr(params, "max_steps_in_episode", None)
    if length is None:
        return None
    if not float(length) >= 1 or float(length) % 1:
        raise ValueError(
            f"max_steps_in_episode of {name} is {length}; it must be a whole number of at least 1."
        )
    return int(length)


def _with_actions(env: Environment, space: Any) -> Environment:
    """`num_actions` for a Discrete; a Box from `[-1, 1]`."""
    if (n := getattr(space, "n", None)) is not None:
        return env._replace(num_actions=int(n))
    bounds = [
        np.broadcast_to(np.asarray(bound, float), space.shape).ravel()
        for bound in (space.low, space.high)
    ]
    if not np.isfinite(bounds).all():
        raise ValueError(f"{env.name} has the action space {space!r}; its bounds must be finite.")
    return action_range(env, *bounds)


def _as_vector(env: Environment, space: Any) -> Environment:
    """Observations as one float vector, a Discrete as one-hot."""
    categories = getattr(space, "n", None)

    def whole(observation: Observation) -> Observation:
        if categories is not None:
            return jax.nn.one_hot(observation, categories)
        # Alone in a tuple, a mapping is one part with everything in it.
        return (observation,) if isinstance(observation, Mapping) else observation

    def reset(key: Array) -> tuple[GymnaxState, Observation]:
        state, observation = env.reset(key)
        return state, whole(observation)

    def step(state: GymnaxState, action: Array) -> tuple[GymnaxState, TimeStep]:
        state, timestep = env.step(state, action)
        seen = whole(timestep.observation)
        return state, timestep._replace(observation=seen, next_observation=seen)

    declared = jax.eval_shape(whole, env.observation)
    return flatten_observation(env._replace(reset=reset, step=step, observation=declared))


def _gymnax() -> ModuleType:
    return require("gymnax", "gymnax", "gymnax")
