"""gymnasium: any `Env` by name or function, several of them side by side, or a ready `VectorEnv`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, PyTree, UInt8
from numpy.typing import NDArray

from .._errors import unknown_name
from ..envs import require, seconds_of
from ..envs.base import positive
from .base import Actions, HostEnvironment, HostTimeStep, Restarting
from .reading import columns, is_flat, leaves_in_order, make_reader, map_leaves, numbers
from .spaces import read_action_space

DEFAULT_SIZE = 16


def gymnasium(
    make: str | Callable[[], Any] | Any,
    n: int | None = None,
    *,
    flatten: bool = True,
    actor_part: str | None = None,
    critic_part: str | None = None,
    action_mask: str | None = None,
    metrics: tuple[str, ...] = (),
    **options: Any,
) -> HostEnvironment:
    """Instances of a gymnasium environment, with the true successor of every step.

    A `Box` of actions becomes [−1, 1], a `Discrete` numbers from 0.

    Observations become one float vector (dicts and tuples joined, categories one-hot), or one for each of the parts
    `state` and `privileged_state` where a dict has those.

    Args:
        make: the name of a registered environment, e.g. `"Pendulum-v1"`; a function that makes one; or a ready
            `VectorEnv`, which must restart in the same step (`AutoresetMode.SAME_STEP`) or not by itself
            (`DISABLED`). The instances of a name or a function are stepped in turn, in this process: see
            `hosts.parallel` for several.
        n: instances, 16 if not given; `make_host_train` makes as many as it needs. A ready `VectorEnv` has its own.
        flatten: or leave containers and shapes as they are, for networks of your own.
        actor_part: the actor's part of an observation of several.
        critic_part: the critic's.
        action_mask: the part of a dict that says which of discrete actions there are.
        metrics: numbers of `info` to keep besides those that its first step gives (`"is_success"`, which some give
            at the end only; 0 where it is not given).
        **options: of `gymnasium.make`.

    Returns:
        The environment.

    Raises:
        ImportError: if gymnasium is not installed.
        ValueError: for an unknown name, actions that are neither a `Box` nor a `Discrete`, or a `VectorEnv` that
            loses the true successor.

    >>> # env = gymnasium("HalfCheetah-v5"); train = make_host_train(env, config)
    """
    module = _module()
    reading = _Reading(flatten, actor_part, critic_part, action_mask, metrics)
    if isinstance(make, module.vector.VectorEnv):
        if n is not None and n != make.num_envs:
            raise ValueError(f"n is {n}, but the VectorEnv has {make.num_envs} instances.")
        return _ready(make, reading)
    if isinstance(make, module.Env):
        if n not in (None, 1):
            raise ValueError(
                f"n is {n}, but one environment object cannot be {n} instances; give a function that makes one."
            )
        vector = _sync([lambda: make])
        return _ready(vector, reading)
    name, factory = _factory(make, options)
    size = DEFAULT_SIZE if n is None else n
    if size < 1:
        raise ValueError(f"n is {size}; at least 1 instance is needed.")
    return _Made(factory, name, size, reading)


def gymnasium_names() -> tuple[str, ...]:
    """Every registered environment, of whatever package has been imported.

    Returns:
        The names, in alphabetical order.

    Raises:
        ImportError: if gymnasium is not installed.
    """
    return tuple(sorted(_module().registry))


def gymnasium_learnable(name: str) -> bool:
    """Whether an environment can be made here, with observations and actions that can be learned."""
    with _quiet():
        try:
            env = _module().make(name)
            env.close()
            read_action_space(name, env.action_space)
        except Exception:  # whatever an environment of theirs lacks
            return False
        return is_flat(env.observation_space)


class _Reading(NamedTuple):
    """How observations and `info` are read."""

    flatten: bool
    actor_part: str | None
    critic_part: str | None
    action_mask: str | None
    metrics: tuple[str, ...]


class _Vector(HostEnvironment):
    """Around a `VectorEnv`: facts and reading."""

    def __init__(self, name: str, vector: Any, reading: _Reading) -> None:
        self._vector, self.name, self.num_envs = vector, name, int(vector.num_envs)
        self._range = read_action_space(name, vector.single_action_space)
        self.action_size, self.num_actions = self._range.size, self._range.num_actions
        with _quiet():
            example, _ = vector.reset(seed=0)
            *_, info = vector.step(self._range(self._range.any(self.num_envs)))
        reader = make_reader(
            name,
            example,
            flatten=reading.flatten,
            actor_part=reading.actor_part,
            critic_part=reading.critic_part,
            action_mask=reading.action_mask,
            categories=_categories(vector.single_observation_space),
        )
        self._read, self.observation = reader.read, reader.observation
        self.actor_part, self.critic_part = reader.actor_part, reader.critic_part
        self.action_mask = reader.action_mask
        first = next(iter(getattr(vector, "envs", ())), None)
        self.action_seconds = seconds_of(getattr(first, "unwrapped", None), "dt")
        rate = positive((getattr(first, "metadata", None) or {}).get("render_fps"))
        self.picture_seconds = 1.0 / rate if rate else None
        self.action_bounds = self._range.bounds
        found = [key for key in numbers(info, self.num_envs) if not key.startswith("_")]
        self.metrics = tuple(dict.fromkeys((*found, *reading.metrics)))
        self.episode_length = _time_limit(vector)

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        with _quiet():
            observation, _ = self._vector.reset(seed=seed)
        return self._read(observation)

    def picture(self, instance: int) -> UInt8[np.ndarray, "height width 3"]:
        envs = getattr(self._vector, "envs", None)
        if envs is None:
            raise NotImplementedError
        with _quiet():
            seen: NDArray[Any] = np.asarray(envs[instance].render())
        return seen

    def close(self) -> None:
        self._vector.close()


class _Disabled(_Vector, Restarting):
    """A `VectorEnv` that does not restart by itself."""

    def advance(self, action: Actions) -> HostTimeStep:
        observation, reward, terminated, truncated, info = self._vector.step(self._range(action))
        read = self._read(observation)
        own = columns(info, self.metrics, self.num_envs)
        return HostTimeStep(read, read, reward, terminated, truncated, own)

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        with _quiet():
            observation, _ = self._vector.reset(options={"reset_mask": np.asarray(which)})
        return self._read(observation)


class _SameStep(_Vector):
    """A `VectorEnv` that restarts in the step that ends an episode, and keeps the successor in `info`."""

    def step(self, action: Actions) -> HostTimeStep:
        observation, reward, terminated, truncated, info = self._vector.step(self._range(action))
        ended = np.asarray(terminated) | np.asarray(truncated)
        own = columns(info, self.metrics, self.num_envs)
        read = self._read(observation)
        if not ended.any():
            return HostTimeStep(read, read, reward, terminated, truncated, own)
        successor = self._read(self._successor(observation, ended, info))
        last = columns(info.get("final_info", {}), self.metrics, self.num_envs)
        metrics = {key: np.where(ended, last[key], own[key]) for key in own}
        return HostTimeStep(read, successor, reward, terminated, truncated, metrics)

    def _successor(
        self, observation: PyTree[NDArray[Any]], ended: NDArray[Any], info: Mapping[str, Any]
    ) -> PyTree[NDArray[Any]]:
        """The observations with the rows that ended as they were before the restart."""
        finals = info.get("final_obs", info.get("final_observation"))
        copy = map_leaves(np.array, observation)
        for row in np.flatnonzero(ended):
            if finals is None or finals[row] is None:
                raise ValueError(
                    f"{self.name}: instance {row} ended, but info has no 'final_obs' for it; the true successor is "
                    "lost. AutoresetMode.DISABLED keeps it."
                )
            rows = leaves_in_order(finals[row])
            for (path, whole), (_, leaf) in zip(leaves_in_order(copy), rows, strict=True):
                del path
                whole[row] = leaf
        return copy


class _Made(_Disabled):
    """A `SyncVectorEnv` of one factory, which can be made in any size; made when it is first started."""

    def __init__(self, factory: Callable[[], Any], name: str, n: int, reading: _Reading) -> None:
        self._factory, self._reading = factory, reading
        super().__init__(name, self._make(1), reading)
        self._vector.close()
        self._vector, self.num_envs = None, n

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        if self._vector is None:
            self._vector = self._make(self.num_envs)
        return super().reset(seed)

    def sized(self, num_envs: int) -> HostEnvironment:
        return _Made(self._factory, self.name, num_envs, self._reading)

    def close(self) -> None:
        if self._vector is not None:
            self._vector.close()
            self._vector = None

    def _make(self, n: int) -> Any:
        return _sync([self._factory] * n)


def _sync(factories: list[Callable[[], Any]]) -> Any:
    vector = _module().vector
    with _quiet():
        return vector.SyncVectorEnv(factories, autoreset_mode=vector.AutoresetMode.DISABLED)


def _ready(vector: Any, reading: _Reading) -> HostEnvironment:
    modes = _module().vector.AutoresetMode
    mode = vector.metadata.get("autoreset_mode")
    name = str(getattr(getattr(vector, "spec", None), "id", None) or type(vector).__name__)
    kinds = {modes.DISABLED: _Disabled, modes.SAME_STEP: _SameStep}
    if mode not in kinds:
        found = f"has autoreset mode {mode}" if mode is not None else "says no autoreset mode"
        raise ValueError(
            f"{name} {found}, which adds a step of no meaning between episodes and leaves the true successor to "
            "guesswork; make it with autoreset_mode=AutoresetMode.SAME_STEP or AutoresetMode.DISABLED."
        )
    return kinds[mode](name, vector, reading)


def _factory(make: object, options: Mapping[str, Any]) -> tuple[str, Callable[[], Any]]:
    module = _module()
    if isinstance(make, str):
        try:
            module.spec(make)
        except module.error.Error:
            if ":" not in make:  # a name with a module in front is imported by make
                raise unknown_name("gymnasium environment", make, gymnasium_names()) from None
        identifier: str = make
        return identifier, lambda: module.make(identifier, **options)
    if not callable(make):
        raise ValueError(
            f"make is {make!r}; it must be the name of an environment, a function that makes one, or a VectorEnv."
        )
    if options:
        raise ValueError(
            f"{', '.join(options)} is for an environment by name; the function that makes one decides it."
        )
    return str(getattr(make, "__name__", type(make).__name__)), make


def _categories(space: Any, path: str = "") -> dict[str, tuple[int, int]]:
    """Where an observation is one of several categories."""
    spaces = getattr(space, "spaces", None)
    if spaces is not None:
        items = spaces.items() if isinstance(spaces, Mapping) else enumerate(spaces)
        return {
            place: kinds
            for key, inner in items
            for place, kinds in _categories(inner, f"{path}.{key}" if path else str(key)).items()
        }
    if isinstance(space, _module().spaces.Discrete):
        return {path: (int(space.start), int(space.n))}
    return {}


def _time_limit(vector: Any) -> int | None:
    """Of its registration, or of the wrapper around the first instance."""
    for owner in (vector, *getattr(vector, "envs", ())[:1]):
        length = getattr(getattr(owner, "spec", None), "max_episode_steps", None)
        if length is not None:
            return int(length)
        if hasattr(owner, "has_wrapper_attr") and owner.has_wrapper_attr("_max_episode_steps"):
            return int(owner.get_wrapper_attr("_max_episode_steps"))
    return None


def _module() -> ModuleType:
    module = require("gymnasium", "gymnasium", "gymnasium")
    require("gymnasium.vector", "gymnasium", "gymnasium")
    if not hasattr(module.vector, "AutoresetMode"):
        raise ImportError(
            f"gymnasium {module.__version__} cannot keep the true successor of a step; 1.1 or newer can: "
            "pip install 'reppo_fx[gymnasium]'"
        )
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """Without its remarks about other people's environments."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="gymnasium")
        warnings.filterwarnings("ignore", message=".*WARN:")
        yield
