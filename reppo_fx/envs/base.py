"""The environment contract: two pure functions for *one* instance, and a few static facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, PyTree


class TimeStep(NamedTuple):
    """What one step gives.

    Attributes:
        observation: the observation to act on next; after an auto-reset, that of the new episode.
        next_observation: the true successor of the state and action, before any auto-reset.
        reward: `r_t`.
        terminated: the episode ended for good; the successor has no value.
        truncated: the episode was cut (time limit); the successor still has a value. Never both.
        metrics: a dict of scalars with the same keys at every step.
    """

    observation: PyTree[Array]
    next_observation: PyTree[Array]
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    metrics: dict[str, Float[Array, "*batch"]]


def _keep(state: Any) -> Any:
    return state


class Environment(NamedTuple):
    """An environment as pure functions.

    Attributes:
        name: what people call it.
        reset: `key -> (state, observation)`.
        step: `(state, action) -> (state, TimeStep)`, actions `[action_size]`, see `action_scale`.
        observation: shape and dtype of every leaf of an observation (`jax.ShapeDtypeStruct`).
        action_size: dimension `d` of the action.
        episode_length: steps until the time limit; none if the task has none.
        actor_part: name of the part of a dict observation that the actor sees.
        critic_part: name of the part that the critic sees (may be privileged).
        refresh: `state -> state`, called once before every rollout: the place for work that transforms need
            now and then but that is too dear for every step (fresh reset states).
        cheap_reset: a reset costs no more than a step, so that `auto_reset` may draw one in every step.
        action_scale: `c`, of the whole action or of each entry; actions are in `[-c, c]`.
        restart: `(key, state) -> (state, observation)`, the next episode of an instance, for what outlives an
            episode (its physics); none where `reset` alone will do. A transform with a state of its own, or
            one that changes observations, wraps it along with `reset`.
    """

    name: str
    reset: Callable[[Array], tuple[Any, PyTree[Array]]]
    step: Callable[[Any, Array], tuple[Any, TimeStep]]
    observation: PyTree[jax.ShapeDtypeStruct]
    action_size: int
    episode_length: int | None = None
    actor_part: str = "state"
    critic_part: str = "state"
    refresh: Callable[[Any], Any] = _keep
    cheap_reset: bool = False
    action_scale: float | tuple[float, ...] = 1.0
    restart: Callable[[Array, Any], tuple[Any, PyTree[Array]]] | None = None


def select_part(observation: Any, part: str) -> Any:
    """The named part of a dict observation; a plain array is its only part.

    >>> select_part({"state": 1, "privileged_state": 2}, "privileged_state")
    2
    """
    if not isinstance(observation, Mapping):
        return observation
    if part not in observation:
        raise ValueError(
            f"the observation has no part {part!r}; its parts are {', '.join(map(repr, observation))}."
        )
    return observation[part]
