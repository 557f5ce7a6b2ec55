"""Adapter for Brax (`pip install reppo_fx[brax]`)."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

from .._errors import unknown_name
from ._physics import Randomizer, randomized
from ._simulator import Parts, Task, adapt, require, upstream_faults
from .base import Environment

_BACKENDS = ("generalized", "positional", "spring", "mjx")


def brax_names() -> tuple[str, ...]:
    """Every environment that Brax has registered.

    Returns:
        The names, in its own order.

    Raises:
        ImportError: without the extra `brax`.
    """
    return tuple(_envs()._envs)


def brax(
    task: str | Task,
    *,
    backend: str = "generalized",
    episode_length: int = 1000,
    actor_part: str | None = None,
    critic_part: str | None = None,
    randomize: Randomizer | None = None,
    redraw: str | int = "reset",
    **kwargs: Any,
) -> Environment:
    """A Brax environment, unwrapped: no time limit, no auto-reset; see `envs.time_limit`.

    The environment's own metrics are the metrics of every step.

    Args:
        task: a name, e.g. `"hopper"`, or an environment object (`brax.envs.Env`) of your own.
        backend: physics pipeline: `"generalized"`, `"positional"`, `"spring"` or `"mjx"`.
        episode_length: the task's customary time limit in steps; a fact, not enforced here.
        actor_part: part of a dict observation that the actor sees; default `"state"`, or its only part.
        critic_part: part that the critic sees; default `"privileged_state"` where there is one.
        randomize: domain randomization: a function `key -> System` (or `(sys, keys) -> (systems, in_axes)`, as
            Brax writes them). What it changes is part of an instance's state.
        redraw: when an instance's physics is drawn anew: `"reset"`, at every start of an episode; a number
            `n`, at the first start after `n` rollouts; `"never"`.
        **kwargs: passed to the environment, e.g. `terminate_when_unhealthy=False`.

    Returns:
        The environment. Its state is Brax's own `State` (inside a `RandomizedState` with `randomize`).

    Raises:
        ValueError: unknown name, with the nearest ones; a task that this jax cannot run.
        ImportError: without the extra `brax`.
    """
    if isinstance(task, str):
        name, built = task, load_task(task, backend, **kwargs)
    else:
        name = type(getattr(task, "unwrapped", task)).__name__
        built = _given(task, name, backend, kwargs)
    env = adapt(built, name, Parts(actor_part, critic_part), episode_length)
    return env if randomize is None else randomized(env, built, "sys", randomize, redraw)


def load_task(name: str, backend: str = "generalized", **kwargs: Any) -> Task:
    """Brax's own object of an environment: `brax` takes it in the place of the name."""
    envs = _envs()
    if name not in envs._envs:
        raise unknown_name("Brax environment", name, envs._envs)
    if backend not in _BACKENDS:
        raise ValueError(f"backend is {backend!r}; it must be {', '.join(map(repr, _BACKENDS))}.")
    if _takes(envs._envs[name], "backend"):
        kwargs = {"backend": backend, **kwargs}
    try:
        with upstream_faults(name):
            built: Task = envs.get_environment(name, **kwargs)
            return built
    except TypeError as error:
        found = re.search(r"__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if not found or found[1] not in kwargs:
            raise
        raise ValueError(
            f"{name} takes no argument {found[1]!r} (its value here: {kwargs[found[1]]!r})."
        ) from error


def _given(task: Task, name: str, backend: str, kwargs: dict[str, Any]) -> Task:
    if not isinstance(task, Task):
        raise ValueError(
            f"task must be a name or an environment object with reset, step and action_size; it is {task!r}."
        )
    if kwargs or backend != "generalized":
        given = ", ".join(kwargs) or "backend"
        raise ValueError(
            f"{given} belongs to an environment's name; {name} was given as an object that is already built."
        )
    return task


def _takes(make: Any, argument: str) -> bool:
    """Whether a class or function takes a keyword argument."""
    parameters = inspect.signature(make).parameters
    return argument in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def _envs() -> ModuleType:
    require("brax", "Brax", "brax")
    return require("brax.envs", "Brax", "brax")
