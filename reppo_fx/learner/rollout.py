"""What is learned from: a time-major rollout of transitions. Pure worlds and programs fill it alike."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, PyTree

from ..ops import RunningStatistics


class Transition(NamedTuple):
    """Row `t` of a rollout; axes `[T, num_envs, ...]`, observations as the environment gives them.

    Attributes:
        observation: `x_t`.
        action: `a_t`, as the environment got it.
        next_observation: `x_{t+1}`, the true successor, before any auto-reset.
        reward: `r_t`.
        terminated: the episode ended for good at `t`.
        truncated: it was cut at `t`; the successor still has a value.
        nonfinite: the simulator failed at `t` and was contained: nothing is learned about this step's value.
        metrics: the simulator's own.
    """

    observation: PyTree[Array]
    action: PyTree[Array]
    next_observation: PyTree[Array]
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    nonfinite: Bool[Array, "*batch"]
    metrics: dict[str, Float[Array, "*batch"]]


class Rollout(NamedTuple):
    """A batch of transitions, with the statistics that `x_t` and `x_{t+1}` are normalized by.

    The statistics have a leading axis `[T]` where they change at every step, else none.

    Attributes:
        transitions: `[T, num_envs, ...]`.
        statistics: for `x_t`.
        next_statistics: for `x_{t+1}`.
    """

    transitions: Transition
    statistics: RunningStatistics
    next_statistics: RunningStatistics
