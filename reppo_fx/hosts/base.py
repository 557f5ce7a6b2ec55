"""The contract for worlds that are programs of their own: a batch of instances, NumPy in and out."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree, UInt8
from numpy.typing import NDArray

from ..envs.base import describe_world

T = TypeVar("T", bound="Closing")
Actions: TypeAlias = Float[np.ndarray, "n d"] | Int[np.ndarray, " n"]
"""Of all instances: `[num_envs, d]` in [−1, 1], or `[num_envs]` whole numbers where they are discrete."""

ActionBounds: TypeAlias = tuple[tuple[float | None, ...], tuple[float | None, ...]]
"""What −1 and 1 become, `(low, high)`; none for entries without both bounds."""


class SimulatorError(RuntimeError):
    """A simulator failed while it ran. What was learned until then is not lost: a run can go on from there."""


class Closing:
    """What is closed at the end of a `with` statement."""

    def close(self) -> None:
        """Let go of everything that it holds; calling it twice does nothing."""

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class HostTimeStep(NamedTuple):
    """What one step of all instances gives; arrays are good until the environment is called again.

    Attributes:
        observation: to act on next; where an episode ended, the first one of the next.
        next_observation: the true successor of every state and action, before any restart.
        reward: `r_t`.
        terminated: the episode ended for good; the successor has no value.
        truncated: the episode was cut (time limit); the successor still has a value. Where a simulator says both,
            it has ended for good.
        metrics: the simulator's own numbers, those of `HostEnvironment.metrics`.
    """

    observation: PyTree[NDArray[Any]]
    next_observation: PyTree[NDArray[Any]]
    reward: Float[np.ndarray, " n"]
    terminated: Bool[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]
    metrics: dict[str, Float[np.ndarray, " n"]]

    @property
    def ended(self) -> Bool[np.ndarray, " n"]:
        """Where an episode ended, for good or not."""
        either: NDArray[Any] = np.logical_or(self.terminated, self.truncated)
        return either


class HostEnvironment(Closing, abc.ABC):
    """A batch of instances of a simulator that is a program of its own. Subclass it for one that has no adapter.

    `step` gives **the true successor, and restarts where an episode ended**. A simulator that does not restart
    by itself needs only `advance` and `restart`: see `Restarting`. What `step` and `reset` give may be buffers
    that the next call overwrites, of any real dtype; whoever keeps them copies them.

    Attributes:
        name: what people call it.
        num_envs: instances.
        observation: shape and dtype of every leaf of one instance's observation, in any containers.
        action_size: dimension `d` of the action; actions are in [−1, 1]. 1 where actions are discrete.
        episode_length: steps until the simulator's own time limit; none if it has none.
        actor_part: the part of an observation that the actor sees, as `envs.select_part` names it.
        critic_part: the part that the critic sees (may be privileged).
        metrics: names of the numbers that every step gives.
        action_scale: always 1: adapters rescale.
        num_actions: `n` where actions are discrete: `step` then gets int32 in `[0, n)`, one for each instance,
            `[num_envs]`. None for a box.
        action_mask: the part of an observation that says which of the `n` actions there are, as `envs.select_part`
            names it: booleans `[n]`. None where all are always there.
        action_seconds: simulated time that one action lasts; none if the simulator does not say.
        action_bounds: what −1 and 1 become in the simulator's own units, `(low, high)`; none for entries without
            both bounds, which stay as they are, and where the simulator does not say.
        picture_seconds: how long its pictures are to be shown, where it does not say how long an action lasts.
    """

    name: str
    num_envs: int
    observation: PyTree[jax.ShapeDtypeStruct]
    action_size: int
    episode_length: int | None = None
    actor_part: str = "state"
    critic_part: str = "state"
    metrics: tuple[str, ...] = ()
    action_scale: float = 1.0
    num_actions: int | None = None
    action_mask: str | None = None
    action_seconds: float | None = None
    action_bounds: ActionBounds | None = None
    picture_seconds: float | None = None

    def __repr__(self) -> str:
        if not hasattr(self, "observation"):
            return object.__repr__(self)  # while it is being made
        return f"{type(self).__name__}({self.num_envs} × {describe_world(self)})"

    @abc.abstractmethod
    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        """Start all instances anew.

        Args:
            seed: of everything random from here on; none to go on with the simulator's own random numbers.

        Returns:
            Their observations, `[num_envs, ...]`.
        """

    @abc.abstractmethod
    def step(self, action: Actions) -> HostTimeStep:
        """One step of all instances, with actions in [−1, 1], or numbers of discrete ones."""

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        """Start these instances anew, now; of what it gives, only their rows mean something.

        Raises:
            NotImplementedError: if the simulator cannot start single instances. Then time limits below its own,
                random first ages and the containment of its failures cannot be had.
        """
        raise NotImplementedError

    def picture(self, instance: int) -> UInt8[np.ndarray, "height width 3"]:
        """What one instance looks like now, before it is stepped.

        Raises:
            NotImplementedError: if the simulator cannot show it, or was not made so that it can.
        """
        raise NotImplementedError

    @property
    def can_restart(self) -> bool:
        """Whether `restart` works."""
        return type(self).restart is not HostEnvironment.restart

    def sized(self, num_envs: int) -> HostEnvironment:
        """Another one of the same kind, with so many instances.

        Raises:
            NotImplementedError: if there can be only the one that there is.
        """
        raise NotImplementedError


class Restarting(HostEnvironment):
    """For a simulator that does not restart by itself: give `reset`, `advance` and `restart`."""

    @abc.abstractmethod
    def advance(self, action: Actions) -> HostTimeStep:
        """One step of all instances, none of which is restarted: both observations are the successor."""

    @abc.abstractmethod
    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]: ...

    def step(self, action: Actions) -> HostTimeStep:
        timestep = self.advance(action)
        return restarted(self, timestep, timestep.ended)


def restarted(
    env: HostEnvironment, timestep: HostTimeStep, which: Bool[np.ndarray, " n"]
) -> HostTimeStep:
    """The time step after the instances that it says have started anew; it is copied before they do."""
    if not which.any():
        return timestep
    kept: HostTimeStep = jax.tree.map(np.array, timestep)
    start = env.restart(which)
    return kept._replace(observation=choose(which, start, kept.observation))


def blank(env: HostEnvironment) -> PyTree[NDArray[Any]]:
    """Observations of all instances, with nothing in them."""
    return jax.tree.map(
        lambda spec: np.zeros((env.num_envs, *spec.shape), spec.dtype), env.observation
    )


def choose(
    which: Bool[np.ndarray, " n"], new: PyTree[NDArray[Any]], old: PyTree[NDArray[Any]]
) -> PyTree[NDArray[Any]]:
    """Rows of one tree where it says so, else of the other; always new arrays."""

    def rows(new: NDArray[Any], old: NDArray[Any]) -> NDArray[Any]:
        return np.where(which.reshape(-1, *[1] * (np.ndim(old) - 1)), new, old)

    return jax.tree.map(rows, new, old)
