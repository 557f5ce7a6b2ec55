"""What is learned from: a time-major rollout of transitions, and where collecting goes on."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, PyTree

from ..ops import RunningStatistics


class Transition(NamedTuple):
    """Row `t` of a rollout; axes `[T, num_envs, ...]`, observations as the environment gives them."""

    observation: PyTree[Array]
    action: Float[Array, "*batch d"]
    next_observation: PyTree[Array]
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    metrics: dict[str, Float[Array, "*batch"]]


class RolloutState(NamedTuple):
    """What goes on from one rollout to the next."""

    env_state: Any
    observation: PyTree[Array]
    statistics: RunningStatistics


class Rollout(NamedTuple):
    """A batch, with the statistics at `x_t` and at `x_{t+1}`.

    These have a leading axis `[T]` where statistics change at every step, else none.
    """

    transitions: Transition
    statistics: RunningStatistics
    next_statistics: RunningStatistics
