"""EnvPool: simulators in C++ threads (DeepMind Control, Gym's MuJoCo tasks, MuJoCo Playground's robots)."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, PyTree, UInt8
from numpy.typing import NDArray

from .._errors import unknown_name
from ..envs import require
from .base import Actions, HostTimeStep, Restarting, blank
from .envpool_seconds import seconds_per_action
from .reading import columns, is_flat, make_reader, numbers
from .spaces import read_action_space


def _load_egl() -> bool:
    """EnvPool draws by the EGL that it finds when it is imported, and ends the process where it finds none: whether
    this came first."""
    first = not any(name.partition(".")[0] == "envpool" for name in sys.modules)
    if sys.platform != "linux" or importlib.util.find_spec("envpool") is None:
        return True
    with contextlib.suppress(OSError):
        ctypes.CDLL("libEGL.so.1", mode=ctypes.RTLD_GLOBAL)
    return first


EGL_FIRST = _load_egl()
"""Whether this module was there before EnvPool was."""

# What every task says of an instance besides its own numbers.
BOOKKEEPING = ("env_id", "players", "elapsed_step", "terminated", "truncated", "reward", "discount")
DEFAULT_SIZE = 64
Rows = TypeVar("Rows")


def envpool(
    name: str,
    n: int = DEFAULT_SIZE,
    *,
    flatten: bool = True,
    actor_part: str | None = None,
    critic_part: str | None = None,
    **options: Any,
) -> EnvPool:
    """A task of EnvPool, with the true successor of every step; a `Box` of actions becomes [−1, 1].

    Observations are float vectors: a task's entries joined in its own order, which is that of `dm_control` and of
    Playground (HumanoidRun has 28 more numbers than Playground's); Playground's robots keep `state` for the actor
    and `privileged_state` for the critic.

    Args:
        name: e.g. `"CheetahRun-v1"`, `"HalfCheetah-v5"`, `"G1JoystickFlatTerrain-v1"`; see `envpool_names`.
        n: instances; `make_host_train` makes as many as it needs.
        flatten: or leave the task's containers and shapes as they are, for networks of your own.
        actor_part: the actor's part of an observation of several.
        critic_part: the critic's.
        **options: of `envpool.make`, e.g. `num_threads` (if not given, as many as this process has cores),
            `max_episode_steps`, `frame_skip`. EnvPool takes its seed when it is made: `reset(seed)` makes it anew,
            `reset()` goes on with its own random numbers.

    Returns:
        The environment.

    Raises:
        ImportError: if EnvPool is not installed.
        ValueError: for an unknown name, with near ones, actions that are neither a `Box` nor a `Discrete`, or an
            option that it does not have.
    """
    return EnvPool(name, n, flatten, actor_part, critic_part, options)


def envpool_names() -> tuple[str, ...]:
    """Every task that the installed EnvPool registers.

    Returns:
        The names, in alphabetical order.

    Raises:
        ImportError: if it is not installed.
    """
    return tuple(sorted(_module().list_all_envs()))


def envpool_learnable(name: str) -> bool:
    """Whether a task's specification can be had here, with observations and actions that can be learned."""
    with _quiet():
        try:
            spec = _module().make_spec(name)
            read_action_space(name, spec.gymnasium_action_space)
            return is_flat(spec.gymnasium_observation_space)
        except Exception:  # whatever a task of theirs lacks
            return False


class EnvPool(Restarting):
    """See `envpool`."""

    def __init__(
        self,
        name: str,
        n: int,
        flatten: bool,
        actor_part: str | None,
        critic_part: str | None,
        options: Mapping[str, Any],
    ) -> None:
        self._arguments = (flatten, actor_part, critic_part, options)
        self._options = dict(options)
        self._task, self.name, self.num_envs = name, name, n
        self._pool: Any = None
        if n < 1:
            raise ValueError(f"n is {n}; at least 1 instance is needed.")
        if name not in _module().list_all_envs():
            raise unknown_name("EnvPool task", name, envpool_names())
        one = self._make(1, 0)
        self._range = read_action_space(name, one.action_space)
        self.action_size, self.num_actions = self._range.size, self._range.num_actions
        with _quiet():
            example, _ = one.reset()
            *_, info = one.step(self._range(self._range.any(1)))
        reader = make_reader(
            name, example, flatten=flatten, actor_part=actor_part, critic_part=critic_part
        )
        self._read, self.observation = reader.read, reader.observation
        self.actor_part, self.critic_part = reader.actor_part, reader.critic_part
        self.metrics, self.action_bounds = tuple(numbers(info, 1, BOOKKEEPING)), self._range.bounds
        self.episode_length = int(one.spec.config.max_episode_steps)
        self.action_seconds = seconds_per_action(name, one.spec.config._asdict())
        one.close()

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        if self._pool is None or seed is not None:
            self.close()
            self._pool = self._make(self.num_envs, 0 if seed is None else seed)
        with _quiet():
            observation, info = self._pool.reset()
        return _by_instance(self._read(observation), info["env_id"])

    def advance(self, action: Actions) -> HostTimeStep:
        observation, reward, terminated, truncated, info = self._pool.step(self._range(action))
        read, own = self._read(observation), columns(info, self.metrics, self.num_envs)
        timestep = HostTimeStep(read, read, reward, terminated, truncated, own)
        return _by_instance(timestep, info["env_id"])

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        # Right after a step that ended, this is what keeps EnvPool from a step of its own that resets.
        ids = np.flatnonzero(which).astype(np.int32)
        observation, info = self._pool.reset(ids)
        whole = blank(self)
        read = _by_instance(self._read(observation), info["env_id"])
        for rows, all_rows in zip(*map(jax.tree.leaves, (read, whole)), strict=True):
            all_rows[ids] = rows
        return whole

    def picture(self, instance: int) -> UInt8[np.ndarray, "height width 3"]:
        if "render_mode" not in self._options:
            raise NotImplementedError
        if not EGL_FIRST:
            raise ValueError(
                "EnvPool was imported before reppo_fx.hosts, and draws only where EGL was loaded before it; "
                "import reppo_fx.hosts first"
            )
        seen: NDArray[Any] = self._pool.render(instance)[0]
        return seen

    def sized(self, num_envs: int) -> EnvPool:
        return EnvPool(self._task, num_envs, *self._arguments)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            _return_freed_memory()

    def _make(self, num_envs: int, seed: int) -> Any:
        options = {**_threads(num_envs), **self._options}
        with _quiet():
            try:
                return _module().make_gymnasium(self._task, num_envs=num_envs, seed=seed, **options)
            except (AssertionError, TypeError) as error:
                given = ", ".join(f"{key}={value!r}" for key, value in self._options.items())
                raise ValueError(f"{self._task} cannot be made with {given}: {error}") from error


def _by_instance(rows: Rows, ids: NDArray[Any]) -> Rows:
    """In the order of their numbers: EnvPool gives them as they are ready."""
    if (ids[1:] > ids[:-1]).all():
        return rows
    order = np.argsort(ids)
    in_order: Rows = jax.tree.map(lambda leaf: leaf[order], rows)
    return in_order


def _threads(num_envs: int) -> dict[str, int]:
    """EnvPool counts the machine's cores; where this process has fewer, threads beyond those are in the way."""
    if not hasattr(os, "sched_getaffinity"):  # macOS and Windows do not say
        return {}
    own = len(os.sched_getaffinity(0))
    return {} if own == os.cpu_count() else {"num_threads": min(own, num_envs)}


def _module() -> ModuleType:
    with _quiet():
        return require("envpool", "EnvPool", "envpool")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without its remarks about the precision of its own boxes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _return_freed_memory() -> None:
    """Give back what a pool's threads have freed: glibc keeps it, gigabytes after a few tasks of one process."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
