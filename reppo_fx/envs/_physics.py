"""Domain randomization: every instance of a simulator's task has a physics of its own, drawn from a key."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from ._replaced import replaced
from .base import Environment, TimeStep

Model = Any  # Playground's `mjx.Model`, Brax's `System`: a PyTree of arrays
Physics = dict[str, Array]
"""The entries of a model that differ between instances, by their path."""

Randomizer = Callable[[Array], Model] | Callable[[Model, Array], tuple[Model, Any]]
"""`key -> model`, or `(model, keys [n]) -> (models [n], in_axes)`."""


class RandomizedState(NamedTuple):
    """The simulator's state, the physics of this instance, and how many refreshes ago it was drawn.

    Attributes:
        inner: the simulator's.
        physics: what the randomizer drew.
        age: refreshes since then.
    """

    inner: Any
    physics: Physics
    age: Int[Array, "*batch"]


def randomized(
    env: Environment, task: Any, slot: str, randomize: Randomizer, redraw: str | int
) -> Environment:
    """Give every instance of `env` a physics of its own.

    Args:
        env: the adapted task.
        task: the simulator's object behind it.
        slot: the attribute of the task that holds its model.
        randomize: `key -> model`, or Playground's and Brax's `(model, keys [n]) -> (models [n], in_axes)`.
        redraw: `"reset"`: anew at every start of an episode; `n`: at the first start after `n` refreshes
            (one a rollout); `"never"`: an instance keeps its physics.

    Returns:
        The environment; its state is a `RandomizedState`.
    """
    _check_redraw(redraw)
    bare = getattr(task, "unwrapped", task)
    if not hasattr(bare, slot):
        raise ValueError(
            f"randomize needs a task that keeps its model in `{slot}`; {env.name} has no such attribute."
        )
    model = getattr(bare, slot)
    draw = _drawing(randomize, model)
    if not jax.eval_shape(draw, jax.eval_shape(lambda: jax.random.key(0))):
        raise ValueError(f"randomize changes nothing in the model of {env.name}.")

    def own(physics: Physics) -> AbstractContextManager[None]:
        # While it is traced. A copy of the task would not do: many keep bound methods of themselves.
        return replaced(bare, slot, lambda _: _with_physics(model, physics))

    def start(key: Array, physics: Physics, age: Array) -> tuple[RandomizedState, PyTree[Array]]:
        with own(physics):
            inner, observation = env.reset(key)
        return RandomizedState(inner, physics, age), observation

    def reset(key: Array) -> tuple[RandomizedState, PyTree[Array]]:
        reset_key, physics_key = jax.random.split(key)
        return start(reset_key, draw(physics_key), jnp.zeros((), jnp.int32))

    def restart(key: Array, state: RandomizedState) -> tuple[RandomizedState, PyTree[Array]]:
        if isinstance(redraw, str):  # "never"
            return start(key, state.physics, state.age)
        reset_key, physics_key = jax.random.split(key)
        due = state.age >= redraw
        fresh = draw(physics_key)
        physics = jax.tree.map(lambda new, old: jnp.where(due, new, old), fresh, state.physics)
        return start(reset_key, physics, jnp.where(due, 0, state.age))

    def step(state: RandomizedState, action: Array) -> tuple[RandomizedState, TimeStep]:
        with own(state.physics):
            inner, timestep = env.step(state.inner, action)
        return state._replace(inner=inner), timestep

    def refresh(state: RandomizedState) -> RandomizedState:
        return state._replace(inner=env.refresh(state.inner), age=state.age + 1)

    return env._replace(
        reset=reset,
        step=step,
        refresh=refresh,
        restart=None if redraw == "reset" else restart,
    )


def _check_redraw(redraw: str | int) -> None:
    if isinstance(redraw, str):
        known = redraw in ("reset", "never")
    else:
        known = not isinstance(redraw, bool) and redraw >= 1
    if not known:
        raise ValueError(
            f"redraw is {redraw!r}; it must be 'reset' (at every start of an episode), 'never', or a whole "
            "number of refreshes (one a rollout), at least 1."
        )


def _drawing(randomize: Randomizer, model: Model) -> Callable[[Array], Physics]:
    """`key -> physics` from either kind of function: what it put in the place of the model's own arrays."""
    function = cast("Callable[..., Any]", randomize)
    takes_model = _count_required(function) == 2

    def draw(key: Array) -> Physics:
        drawn = function(model, key[None])[0] if takes_model else function(key)
        return _changes(model, drawn)

    return draw


def _count_required(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    count = sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)
    if count not in (1, 2):
        raise ValueError(
            "randomize must be `key -> model` or `(model, keys) -> (models, in_axes)`; "
            f"what was given needs {count} arguments."
        )
    return count


def _changes(model: Model, drawn: Model) -> Physics:
    same: bool = jax.tree.structure(drawn) == jax.tree.structure(model)  # type: ignore[operator]
    if not same:
        raise ValueError(
            f"randomize must give a model like the task's own ({type(model).__name__}, the same entries); "
            f"it gave {type(drawn).__name__}."
        )
    changes = {}
    pairs = zip(jax.tree.leaves_with_path(model), jax.tree.leaves(drawn), strict=True)
    for (path, old), new in pairs:
        if new is old:
            continue
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if jnp.size(new) != jnp.size(old):
            raise ValueError(
                f"randomize changes the shape of {name}: {jnp.shape(old)} in the task's own model, "
                f"{jnp.shape(new)} in what it gave."
            )
        changes[name] = jnp.asarray(new).reshape(jnp.shape(old)).astype(jnp.asarray(old).dtype)
    return changes


def _with_physics(model: Model, physics: Physics) -> Model:
    def choose(path: Any, leaf: Any) -> Any:
        return physics.get(jax.tree_util.keystr(path, simple=True, separator="."), leaf)

    return jax.tree.map_with_path(choose, model)
