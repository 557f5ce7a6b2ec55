"""The environment contract: two pure functions for *one* instance, and a few static facts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, SupportsFloat, TypeAlias, cast, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

State: TypeAlias = PyTree
"""Whatever an environment needs to remember: arrays in any containers."""

Observation: TypeAlias = PyTree
"""What an environment shows: arrays in any containers."""


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

    observation: Observation
    next_observation: Observation
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    metrics: dict[str, Float[Array, "*batch"]]


def seconds_of(owner: object, name: str) -> float | None:
    """A positive number of seconds that a simulator has under this name; none where it has no such thing.

    Args:
        owner: the simulator's object.
        name: of its attribute.

    Returns:
        The seconds, or none.

    >>> seconds_of(jax.ShapeDtypeStruct((), jnp.float32), "dt") is None
    True
    """
    try:
        return positive(getattr(owner, name))
    except Exception:  # what is computed when it is asked for may fail in its own way
        return None


def positive(value: object) -> float | None:
    """A positive number, or none where a simulator has something else in its place.

    >>> positive(30), positive(None), positive("fast"), positive(0)
    (30.0, None, None, None)
    """
    try:
        # Seven digits: 0.008 in single precision is meant to be 0.008.
        number = float(f"{float(cast(SupportsFloat, value)):.7g}")
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0.0 < number < math.inf else None


def _keep(state: State) -> State:
    return state


class Environment(NamedTuple):
    """An environment as pure functions; `envs.conform` checks one against this contract.

    Attributes:
        name: what people call it.
        reset: `key -> (state, observation)`.
        step: `(state, action) -> (state, TimeStep)`, actions `[action_size]`, see `action_scale`.
        observation: shape and dtype of every leaf of an observation (`jax.ShapeDtypeStruct`), in any containers.
        action_size: dimension `d` of the action; 1 where actions are discrete.
        episode_length: steps until the time limit; none if the task has none.
        actor_part: the part of an observation that the actor sees, as `select_part` names it.
        critic_part: the part that the critic sees (may be privileged).
        refresh: `state -> state`, called once before every rollout: the place for work that transforms need
            now and then but that is too dear for every step (fresh reset states).
        cheap_reset: a reset costs no more than a step, so that `auto_reset` may draw one in every step.
        action_scale: `c`, of the whole action or of each entry; actions are in `[-c, c]`.
        restart: `(key, state) -> (state, observation)`, the next episode of an instance, for what outlives an
            episode (its physics); none where `reset` alone will do. A transform with a state of its own, or
            one that changes observations, wraps it along with `reset`.
        num_actions: `n` where actions are discrete: an action is then one int32 in `[0, n)`, of shape `[]`. None
            for a box.
        action_mask: the part of an observation that says which of the `n` actions there are, as `select_part` names
            it: booleans `[n]`. An action that is ruled out is never taken. None where all are always there.
        action_seconds: simulated time that one action lasts, for whoever runs a policy elsewhere; none if not said.
    """

    name: str
    reset: Callable[[Array], tuple[State, Observation]]
    step: Callable[[State, Array], tuple[State, TimeStep]]
    observation: PyTree[jax.ShapeDtypeStruct]
    action_size: int
    episode_length: int | None = None
    actor_part: str = "state"
    critic_part: str = "state"
    refresh: Callable[[State], State] = _keep
    cheap_reset: bool = False
    action_scale: float | tuple[float, ...] = 1.0
    restart: Callable[[Array, State], tuple[State, Observation]] | None = None
    num_actions: int | None = None
    action_mask: str | None = None
    action_seconds: float | None = None

    def __repr__(self) -> str:
        return f"Environment({describe_world(self)})"


@runtime_checkable
class HasActions(Protocol):
    """What says how its actions look: an environment, pure or not."""

    @property
    def action_size(self) -> int: ...
    @property
    def num_actions(self) -> int | None: ...


def action_spec(world: HasActions) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one instance's action: `[d]` floats, or `[]` int32 where actions are discrete.

    Args:
        world: an environment, pure or a program.

    Returns:
        The shape and the dtype.

    >>> from reppo_fx.envs import probes
    >>> action_spec(probes.constant_reward()), action_spec(probes.bandit())
    (ShapeDtypeStruct(shape=(1,), dtype=float32), ShapeDtypeStruct(shape=(), dtype=int32))
    """
    if world.num_actions is None:
        return jax.ShapeDtypeStruct((world.action_size,), jnp.result_type(float))
    return jax.ShapeDtypeStruct((), jnp.int32)


@runtime_checkable
class DescribedWorld(HasActions, Protocol):
    """What can be said in a line: an environment, pure or not."""

    @property
    def name(self) -> str: ...
    @property
    def observation(self) -> Observation: ...
    @property
    def action_scale(self) -> float | tuple[float, ...]: ...
    @property
    def episode_length(self) -> int | None: ...


def describe_world(world: DescribedWorld) -> str:
    """Its name, what is seen, what is done, for how long.

    >>> from reppo_fx.envs import probes
    >>> print(describe_world(probes.match_observation()))
    match_observation: observation [1], action [1] in [-1, 1], no time limit
    >>> print(describe_world(probes.bandit()._replace(episode_length=5)))
    bandit: observation [1], one of 3 actions, 5 steps
    """
    scale, length = world.action_scale, world.episode_length
    ends = f"[-{scale:g}, {scale:g}]" if isinstance(scale, int | float) else f"±{scale}"
    box = f"action [{world.action_size}] in {ends}"
    done = box if world.num_actions is None else f"one of {world.num_actions} actions"
    limit = "no time limit" if length is None else f"{length} steps"
    return f"{world.name}: observation {describe_shapes(world.observation)}, {done}, {limit}"


def describe_shapes(tree: PyTree, axes: int = 0) -> str:
    """The shapes of a tree's leaves by their paths, without the first axes.

    >>> print(describe_shapes({"camera": jnp.zeros((8, 8)), "joints": {"arm": jnp.zeros(3)}}))
    camera [8, 8], joints.arm [3]
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = [
        (jax.tree_util.keystr(path, simple=True, separator="."), getattr(leaf, "shape", None))
        for path, leaf in leaves
    ]
    shown = [(name, "?" if shape is None else str([*shape[axes:]])) for name, shape in named]
    return ", ".join(f"{name} {shape}".strip() for name, shape in shown) or "nothing"


def select_part(observation: Observation, part: str) -> Observation:
    """The part of an observation with this name: a key, a field, an index, or a path of them with dots.

    An array is its own only part, whatever the name. `"state"`, the default name, means the whole of an
    observation that is no mapping (a tuple, a NamedTuple, a dataclass) and has no field of that name.

    Args:
        observation: any containers of arrays.
        part: the name.

    Returns:
        What is there.

    Raises:
        ValueError: if there is no such part, with those that there are.

    >>> select_part({"state": 1, "privileged_state": 2}, "privileged_state")
    2
    >>> select_part({"robot": {"arm": (3, 4)}}, "robot.arm.1")
    4
    >>> select_part((5, 6), "state")
    (5, 6)
    """
    parts = _parts(observation)
    if parts is None or (
        part == "state" and part not in parts and not isinstance(observation, Mapping)
    ):
        return observation
    found, rest = observation, part
    while True:
        parts = _parts(found) or {}
        if rest in parts:
            return parts[rest]
        # A key may itself hold dots: the longest name that fits is taken.
        head = max((n for n in parts if rest.startswith(f"{n}.")), key=len, default=None)
        if head is None:
            owner = "the observation"
            if rest != part:
                owner += f"'s part {part.removesuffix(f'.{rest}')!r}"
            known = f"its parts are {', '.join(map(repr, parts))}" if parts else "it has none"
            raise ValueError(f"{owner} has no part {rest!r}; {known}.")
        found, rest = parts[head], rest[len(head) + 1 :]


def _parts(node: Observation) -> dict[str, Observation] | None:
    """What a container holds, by name; none if it is not a container."""
    if isinstance(node, Mapping):
        return {str(name): value for name, value in node.items()}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return {name: getattr(node, name) for name in node._fields}
    if isinstance(node, tuple | list):
        return {str(index): value for index, value in enumerate(node)}
    if dataclasses.is_dataclass(node) and not isinstance(node, jax.ShapeDtypeStruct | type):
        return {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return None
