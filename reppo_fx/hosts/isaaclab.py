"""Isaac Lab, mjlab, and whatever else has their step interface: torch tensors, on the CPU or on a GPU."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float, PyTree
from numpy.typing import NDArray

from .._errors import ReppoWarning
from ..envs import seconds_of
from .base import HostEnvironment, HostTimeStep, Restarting, blank, choose
from .lab_settings import FINAL_OBS, keeps_history, takes_ids, unwrapped, waits
from .reading import as_array, columns, make_reader, map_leaves, numbers
from .spaces import ActionRange, read_box

# What groups of observations are called, by Isaac Lab and by mjlab.
ACTOR_GROUPS = ("policy", "actor", "state")
CRITIC_GROUPS = ("critic", "privileged", "privileged_state")
# What `extras` holds besides numbers of an instance.
BOOKKEEPING = ("log", "final_obs", "time_outs")
PROBES = 3
Scale: TypeAlias = float | int | Sequence[Any] | NDArray[Any]


def isaaclab(
    env: Any,
    *,
    action_scale: Scale = 1.0,
    flatten: bool = True,
    actor_part: str | None = None,
    critic_part: str | None = None,
    metrics: tuple[str, ...] = (),
) -> HostEnvironment:
    """An environment with Isaac Lab's step interface, with actions in [−1, 1] and the true successor of every step.

    The successor is had in one of two ways; an environment that does neither is refused:

    - it restarts by itself and keeps the successor: Isaac Lab with `cfg.compute_final_obs = True`;
    - it waits for `reset(env_ids=...)`: mjlab with `cfg.auto_reset = False`, Isaac Lab with
      `cfg.autoreset_mode = AutoresetMode.DISABLED`. Only then can time limits differ from its own.

    Where `cfg.is_finite_horizon` is true its time limit terminates, else it truncates. There can be only this one
    environment in its process, so `num_envs` of a training must be its own, and evaluation happens in it too.

    Args:
        env: Isaac Lab's `ManagerBasedRLEnv` or `DirectRLEnv`, mjlab's `ManagerBasedRlEnv`, or one like them,
            perhaps in gymnasium's wrappers; not in those of a training library.
        action_scale: `[-1, 1]` times this is what an action without bounds gets (a number, or one for each entry).
            Those with bounds are rescaled to them.
        flatten: or leave all groups and their shapes as they are, for networks of your own.
        actor_part: the actor's group of observations; `policy` or `actor` if not given.
        critic_part: the critic's; `critic` or `privileged` if there is one, else the actor's.
        metrics: numbers to keep besides those that it gives at every step: of `extras`, 0 where they are not given;
            of `extras["log"]`, which are of all instances together, as they were last given.

    Returns:
        The environment.

    Raises:
        ValueError: for an environment that loses the true successor, or an argument that does not fit it.

    >>> # env = isaaclab(ManagerBasedRLEnv(cfg)); train = make_host_train(env, config)
    """
    base = unwrapped(env)
    kind = _Waiting if waits(base) else _SameStep
    return kind(env, base, action_scale, flatten, actor_part, critic_part, metrics)


class _Step(NamedTuple):
    """What a step gave: observations in its own memory, the rest copied."""

    observation: PyTree[Any]
    reward: Float[np.ndarray, " n"]
    terminated: Bool[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]
    extras: dict[str, Any]

    @property
    def ended(self) -> Bool[np.ndarray, " n"]:
        either: NDArray[Any] = self.terminated | self.truncated
        return either


class _Lab(HostEnvironment):
    """Facts and reading."""

    def __init__(
        self,
        env: Any,
        base: Any,
        action_scale: Scale,
        flatten: bool,
        actor_part: str | None,
        critic_part: str | None,
        metrics: tuple[str, ...],
    ) -> None:
        self._env, self._base, self.name = env, base, _name(env, base)
        self.num_envs = int(base.num_envs)
        self._range = read_box(self.name, _described(base.single_action_space))
        self.action_size = self._range.size
        self._scale = _checked_scale(self.name, self._range, action_scale)
        length = int(base.max_episode_length)
        self.episode_length = length if length > 0 else None
        self.action_seconds = seconds_of(base, "step_dt")
        self._groups: tuple[str, ...] | None = None
        self._closed = False
        self._said: dict[str, NDArray[Any]] = {}
        example, found = self._try_out()
        if isinstance(example, Mapping):
            actor_part, critic_part = _parts(self.name, example, actor_part, critic_part)
            if flatten:
                # What nobody sees (cameras) stays where it is.
                self._groups = tuple(
                    group
                    for group in example
                    if any(f"{part}.".startswith(f"{group}.") for part in (actor_part, critic_part))
                )
        reader = make_reader(
            self.name, example, flatten=flatten, actor_part=actor_part, critic_part=critic_part
        )
        self._reader, self.observation = reader, reader.observation
        self.actor_part, self.critic_part = reader.actor_part, reader.critic_part
        self.metrics = tuple(dict.fromkeys((*found, *metrics)))

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        observation, _ = self._env.reset() if seed is None else self._env.reset(seed=int(seed))
        self._said = {}
        return self._read(observation)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._env.close()

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        ids = np.flatnonzero(which)
        if not len(ids):
            return blank(self)
        # Not by way of gymnasium's wrappers, which do not let `env_ids` through.
        observation, extras = self._base.reset(env_ids=self._tensor(ids))
        self._listen(extras)
        return self._read(observation)

    def _take(self, action: Float[np.ndarray, "n d"]) -> _Step:
        own = self._range(np.asarray(action, np.float64) * self._scale)
        result = self._env.step(self._tensor(own.astype(np.float32)))
        if not isinstance(result, tuple) or len(result) != 5:
            count = f"{len(result)} things" if isinstance(result, tuple) else "no tuple"
            raise ValueError(
                f"{self.name}: step gave {count}, not the five of Isaac Lab's interface (observations, reward, "
                "terminated, truncated, extras)."
            )
        observation, *rest, extras = result
        reward, terminated, truncated = (np.array(as_array(x)).reshape(self.num_envs) for x in rest)
        terminated, truncated = terminated != 0, truncated != 0
        if getattr(self._base.cfg, "is_finite_horizon", False):
            terminated = terminated | truncated
        return _Step(observation, reward, terminated, truncated, extras)

    def _try_out(self) -> tuple[PyTree[NDArray[Any]], list[str]]:
        """An observation, and the names of the numbers that every step gives."""
        found: list[str] = []
        for _ in range(PROBES):
            observation, extras = self._env.reset()
            example = map_leaves(lambda leaf: np.array(as_array(leaf)), observation)
            if "log" in extras:
                extras["log"] = {}  # what it says of the restart is no number of a step
            step = self._take(np.zeros((self.num_envs, self._range.size)))
            found = list(_numbers(_of_instances(self._base, step.extras), self.num_envs))
            if not step.ended.any():
                return example, [*found, *_numbers(_log(step.extras), self.num_envs)]
        # What the log says is of ends or of every step: there is no telling.
        return example, found

    def _metrics(self, extras: Mapping[str, Any]) -> dict[str, Float[np.ndarray, " n"]]:
        self._listen(extras)
        own = _numbers(_of_instances(self._base, extras), self.num_envs, self.metrics)
        return columns(self._said | own, self.metrics, self.num_envs)

    def _listen(self, extras: Mapping[str, Any]) -> None:
        said = _numbers(_log(extras), self.num_envs, self.metrics)
        self._said |= {name: np.array(value) for name, value in said.items()}

    def _read(self, observation: PyTree[Any]) -> PyTree[NDArray[Any]]:
        """Observations as declared, in memory of their own."""
        if isinstance(observation, Mapping) and self._groups is not None:
            observation = {key: observation[key] for key in self._groups if key in observation}
        return self._reader.read(map_leaves(as_array, observation))

    def _tensor(self, array: NDArray[Any]) -> Any:
        return importlib.import_module("torch").from_numpy(array).to(self._base.device)


class _Waiting(_Lab, Restarting):
    """One that leaves what ended as it is until it is told to start it anew."""

    def advance(self, action: Float[np.ndarray, "n d"]) -> HostTimeStep:
        step = self._take(action)
        read = self._read(step.observation)
        self._check_that_itwaits(step.ended)
        return HostTimeStep(
            read, read, step.reward, step.terminated, step.truncated, self._metrics(step.extras)
        )

    def _check_that_itwaits(self, ended: Bool[np.ndarray, " n"]) -> None:
        if not ended.any() or not hasattr(self._base, "episode_length_buf"):
            return
        if (as_array(self._base.episode_length_buf)[ended] == 0).any():
            raise ValueError(
                f"{self.name} started instances anew by itself, though its cfg says that it does not; the true "
                "successor is lost."
            )


class _SameStep(_Lab):
    """One that restarts by itself, and keeps the successor in `extras`."""

    def __init__(self, env: Any, base: Any, *arguments: Any) -> None:
        super().__init__(env, base, *arguments)
        history = keeps_history(base.cfg)
        # Restarting some of them would count a step in the history of the others.
        self._restarts = takes_ids(base) and not history
        if history:
            warnings.warn(
                f"{self.name} observes a history, whose newest entry may be missing from its final_obs; "
                "cfg.autoreset_mode = AutoresetMode.DISABLED, where there is one, gives the true successor.",
                ReppoWarning,
                stacklevel=4,
            )

    @property
    def can_restart(self) -> bool:
        return self._restarts

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        if not self._restarts:
            raise NotImplementedError
        return super().restart(which)

    def step(self, action: Float[np.ndarray, "n d"]) -> HostTimeStep:
        step = self._take(action)
        successor = read = self._read(step.observation)
        if step.ended.any():
            successor = choose(step.ended, self._successor(step, read), read)
        return HostTimeStep(
            read,
            successor,
            step.reward,
            step.terminated,
            step.truncated,
            self._metrics(step.extras),
        )

    def _successor(self, step: _Step, like: PyTree[NDArray[Any]]) -> PyTree[NDArray[Any]]:
        # Taken out, so that a later end without one cannot be given this one.
        final = step.extras.pop("final_obs", None)
        if final is None:
            rows = np.flatnonzero(step.ended).tolist()
            raise ValueError(
                f"{self.name}: instances {rows} ended, but extras has no 'final_obs'; the true successor is lost. "
                f"Is this version older than cfg.{FINAL_OBS}?"
            )
        try:
            found = self._read(final)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.name}: extras['final_obs'] is no observation of all instances: {error}"
            ) from error
        have, want = (jax.tree.map(np.shape, tree) for tree in (found, like))
        if have != want:
            raise ValueError(
                f"{self.name}: extras['final_obs'] has shapes {have}, the observation {want}; it must have a row "
                "for each instance."
            )
        return found


def _name(env: Any, base: Any) -> str:
    for owner in (env, base):
        identifier = getattr(getattr(owner, "spec", None), "id", None)
        if identifier:
            return str(identifier)
    return type(base).__name__


class _Box(NamedTuple):
    """A box whose bounds have its shape: mjlab's are one number for all entries."""

    low: NDArray[Any]
    high: NDArray[Any]
    dtype: Any


def _described(space: Any) -> Any:
    if not all(hasattr(space, name) for name in ("low", "high", "shape", "dtype")):
        return space
    low, high = (
        np.broadcast_to(np.asarray(bound), space.shape) for bound in (space.low, space.high)
    )
    return _Box(low, high, space.dtype)


def _checked_scale(name: str, own: ActionRange, scale: Scale) -> Float[np.ndarray, " d"]:
    given = np.asarray(scale, np.float64)
    if given.shape not in ((), (own.size,)) or not ((given > 0) & np.isfinite(given)).all():
        raise ValueError(
            f"action_scale is {scale!r}; it must be a positive number, or one for each of the {own.size} entries "
            f"of an action of {name}."
        )
    bounded = np.isfinite(own.low) & np.isfinite(own.high)
    if (bounded & (given != 1)).any():
        raise ValueError(
            f"action_scale is {scale!r}, but {name} has bounds of its own, from {own.low.tolist()} to "
            f"{own.high.tolist()}, to which actions are rescaled; leave it at 1 there."
        )
    return np.broadcast_to(given, own.size)


def _parts(
    name: str, example: Mapping[str, Any], actor: str | None, critic: str | None
) -> tuple[str, str]:
    """The groups of actor and critic, where they are not named, by what they are called."""
    known = [group for group in ACTOR_GROUPS if group in example]
    only = list(example) if len(example) == 1 else []
    actor = actor or next(iter(known + only), None)
    if actor is None:
        raise ValueError(
            f"{name} observes the groups {', '.join(map(repr, example))}, none of which is called "
            f"{' or '.join(map(repr, ACTOR_GROUPS))}; name the actor's with actor_part."
        )
    return actor, critic or next((group for group in CRITIC_GROUPS if group in example), actor)


def _numbers(
    given: Mapping[str, Any], n: int, names: tuple[str, ...] | None = None
) -> dict[str, NDArray[Any]]:
    """Those of these names, or all, that are a number for each instance or one for all."""
    found = {}
    for key, value in given.items():
        if not isinstance(value, Mapping) and (names is None or key in names):
            array = as_array(value)
            found[key] = np.broadcast_to(array, n) if array.ndim == 0 else array
    return numbers(found, n)


def _of_instances(base: Any, extras: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in extras.items() if key not in BOOKKEEPING}
    return _successes(base) | own


def _log(extras: Mapping[str, Any]) -> Mapping[str, Any]:
    log = extras.get("log")
    return log if isinstance(log, Mapping) else {}


def _successes(base: Any) -> dict[str, Any]:
    """Where a task that ends by success says so: a term of its terminations."""
    manager: Any = getattr(base, "termination_manager", None)
    terms = getattr(manager, "active_terms", ())
    return {term: manager.get_term(term) for term in terms if "success" in term}
