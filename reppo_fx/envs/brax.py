"""Adapter for Brax (`pip install reppo_fx[brax]`)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._errors import require_extra, unknown_name
from ._simulator import pure_functions
from .base import Environment


def brax_names() -> tuple[str, ...]:
    """Every environment that Brax has registered."""
    return tuple(_envs()._envs)


def brax(
    name: str, *, backend: str = "generalized", episode_length: int = 1000, **kwargs: Any
) -> Environment:
    """A Brax environment, unwrapped: no time limit, no auto-reset; see `envs.time_limit`.

    Args:
        name: e.g. `"hopper"`.
        backend: physics pipeline: `"generalized"`, `"positional"`, `"spring"` or `"mjx"`.
        episode_length: the task's customary time limit in steps; a fact, not enforced here.
        **kwargs: passed to the environment, e.g. `terminate_when_unhealthy=False`.

    Returns:
        The environment. Its state is Brax's own `State`.

    Raises:
        ValueError: unknown name, with the nearest ones.
        ImportError: without the extra `brax`.
    """
    envs = _envs()
    if name not in envs._envs:
        raise unknown_name("Brax environment", name, envs._envs)
    # Brax's `fast` test environment takes no backend.
    task = envs.get_environment(name, **({} if name == "fast" else {"backend": backend}), **kwargs)

    reset, step = pure_functions(task)
    return Environment(
        name=name,
        reset=reset,
        step=step,
        observation=jax.ShapeDtypeStruct((task.observation_size,), jnp.result_type(float)),
        action_size=task.action_size,
        episode_length=episode_length,
    )


def _envs() -> Any:
    try:
        from brax import envs
    except ImportError as error:
        raise require_extra("Brax", "brax") from error
    return envs
