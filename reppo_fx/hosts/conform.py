"""A simulator held to the contract while it runs: what is safe is cast, the rest is one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import Bool, PyTree
from numpy.typing import NDArray

from ..envs import select_part
from ..envs.conform import check_discrete
from .base import Actions, HostEnvironment, HostTimeStep, SimulatorError
from .wrapper import Wrapper


def conform(env: HostEnvironment) -> HostEnvironment:
    """The same environment with observations as declared, float rewards and metrics, and flags never both true.

    Everything that it gives is checked at every call. Its own exceptions become a `SimulatorError`.

    Args:
        env: the environment.

    Returns:
        The environment; itself if it has been through here.

    Raises:
        ValueError: for static facts that cannot be.

    >>> from reppo_fx.envs import probes
    >>> from reppo_fx.hosts import pure
    >>> env = conform(pure(probes.constant_reward(), 2))
    >>> conform(env) is env
    True
    """
    return env if isinstance(env, Conformed) else Conformed(env)


class Conformed(Wrapper):
    """See `conform`."""

    def __init__(self, env: HostEnvironment) -> None:
        super().__init__(env)
        _check_facts(env)
        self.observation = jax.tree.map(_canonical, env.observation)
        self._real = jax.dtypes.canonicalize_dtype(np.float64)
        self.num_actions = None if env.num_actions is None else int(env.num_actions)
        self._specs, self._structure = tree_flatten_with_path(self.observation)

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        with self._failures("reset"):
            observation = self.env.reset(seed)
        return self._declared("the observation of reset", observation)

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        with self._failures("restart"):
            observation = self.env.restart(which)
        return self._declared("the observation of restart", observation)

    def step(self, action: Actions) -> HostTimeStep:
        if self.num_actions is not None:
            action = self._discrete(action)
        with self._failures("step"):
            timestep = self.env.step(action)
        if not isinstance(timestep, HostTimeStep):
            raise ValueError(
                f"{self.name}: step gave a {type(timestep).__name__}; it must be a HostTimeStep."
            )
        terminated = self._numbers("terminated", timestep.terminated) != 0
        truncated = (self._numbers("truncated", timestep.truncated) != 0) & ~terminated
        successor = self._declared("next_observation", timestep.next_observation)
        # Where nothing ended both are often one and the same; containment looks at what is the same once.
        same = timestep.observation is timestep.next_observation
        return HostTimeStep(
            successor if same else self._declared("observation", timestep.observation),
            successor,
            self._float("reward", timestep.reward),
            terminated,
            truncated,
            self._metrics(timestep.metrics),
        )

    def _discrete(self, action: object) -> NDArray[Any]:
        array = np.asarray(action)
        right = array.shape == (self.num_envs,) and np.issubdtype(array.dtype, np.integer)
        if not right or array.min() < 0 or array.max() >= (self.num_actions or 0):
            given = f"from {array.min()} to {array.max()}" if right else f"{list(array.shape)}"
            raise ValueError(
                f"{self.name}: actions {given} of {array.dtype} were given; they must be whole numbers from 0 to "
                f"{(self.num_actions or 0) - 1}, one for each of {self.num_envs} instances."
            )
        return array.astype(np.int32, copy=False)

    def _metrics(self, metrics: object) -> dict[str, NDArray[Any]]:
        if not isinstance(metrics, Mapping) or set(metrics) != set(self.metrics):
            given = sorted(metrics) if isinstance(metrics, Mapping) else metrics
            raise ValueError(
                f"{self.name}: metrics of step are {given}; {sorted(self.metrics)} were declared."
            )
        return {name: self._float(f"metrics[{name!r}]", metrics[name]) for name in self.metrics}

    def _float(self, field: str, value: object) -> NDArray[Any]:
        return self._numbers(field, value).astype(self._real)

    def _numbers(self, field: str, value: object) -> NDArray[Any]:
        array = np.asarray(value)
        if array.shape == (self.num_envs, 1):
            array = array[:, 0]
        if array.shape != (self.num_envs,) or array.dtype.kind not in "fiub":
            raise ValueError(
                f"{self.name}: {field} has shape {list(array.shape)} and dtype {array.dtype}; it must be a real "
                f"number for each of {self.num_envs} instances."
            )
        return array

    def _declared(self, field: str, observation: PyTree) -> PyTree[NDArray[Any]]:
        leaves = []
        for leaf, (path, spec) in zip(self._leaves(field, observation), self._specs, strict=True):
            array = np.asarray(leaf)
            if array.dtype == spec.dtype and array.shape == (self.num_envs, *spec.shape):
                leaves.append(array)
                continue
            if array.shape != (self.num_envs, *spec.shape) or array.dtype.kind not in "fiub":
                raise ValueError(
                    f"{self.name}: {field}{keystr(path)} has shape {list(array.shape)} and dtype {array.dtype}; "
                    f"{[self.num_envs, *spec.shape]} of {spec.dtype} was declared."
                )
            with np.errstate(over="ignore"):  # beyond float32 is infinite, which containment sees
                leaves.append(array.astype(spec.dtype, copy=False))
        return jax.tree.unflatten(self._structure, leaves)

    def _leaves(self, field: str, observation: PyTree) -> list[Any]:
        """In the order of what was declared; other containers of the same parts will do."""
        flat: tuple[list[Any], Any] = jax.tree.flatten(observation)
        leaves, structure = flat
        if structure != self._structure:
            given = tree_flatten_with_path(observation)[0]
            if [path for path, _ in given] != [path for path, _ in self._specs]:
                have, want = (
                    ", ".join(keystr(p) or "an array" for p, _ in x) for x in (given, self._specs)
                )
                raise ValueError(f"{self.name}: {field} has {have}; {want} was declared.")
        return leaves

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except (SimulatorError, NotImplementedError):
            raise
        except Exception as error:
            raise SimulatorError(
                f"{self.name} failed in {what}: {type(error).__name__}: {error}"
            ) from error


def _canonical(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(spec.shape, jax.dtypes.canonicalize_dtype(spec.dtype))


def _check_facts(env: HostEnvironment) -> None:
    for fact in ("num_envs", "action_size"):
        value = getattr(env, fact)
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(
                f"{env.name}: {fact} is {value!r}; it must be a whole number of at least 1."
            )
    check_discrete(env)
    length = env.episode_length
    if length is not None and (not isinstance(length, int | np.integer) or length < 1):
        raise ValueError(
            f"{env.name}: episode_length is {length!r}; it must be a whole number of at least 1."
        )
    if not jax.tree.leaves(env.observation):
        raise ValueError(f"{env.name}: observation is declared without a single array.")
    for fact in ("actor_part", "critic_part"):
        part = getattr(env, fact)
        try:
            select_part(env.observation, part)
        except ValueError as error:
            raise ValueError(f"{env.name}: {fact} is {part!r}, but {error}") from None
