"""Adapter for MuJoCo Playground (`pip install reppo_fx[playground]`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._errors import require_extra, unknown_name
from ._simulator import pure_functions
from .base import Environment


def playground_names() -> tuple[str, ...]:
    """Every task that Playground has registered (DMC suite, locomotion, manipulation)."""
    return tuple(_registry().ALL_ENVS)


def playground(
    name: str,
    *,
    impl: str = "jax",
    config_overrides: Mapping[str, Any] | None = None,
    actor_part: str = "state",
    critic_part: str | None = None,
) -> Environment:
    """A MuJoCo Playground task, unwrapped: no time limit, no auto-reset; see `envs.time_limit`.

    Args:
        name: e.g. `"CartpoleSwingup"`.
        impl: physics implementation. `"jax"` runs everywhere and repeats exactly; `"warp"`, Playground's own
            default, needs CUDA and does not.
        config_overrides: entries of the task's own config, e.g. `{"sim_dt": 0.005}`.
        actor_part: part of a dict observation that the actor sees.
        critic_part: part that the critic sees; `"privileged_state"` where the task has it.

    Returns:
        The environment. Its state is Playground's own `State`.

    Raises:
        ValueError: unknown name, with the nearest ones.
        ImportError: without the extra `playground`.
    """
    registry = _registry()
    if name not in registry.ALL_ENVS:
        raise unknown_name("Playground task", name, registry.ALL_ENVS)
    config = registry.get_default_config(name)
    if "impl" in config:
        config.impl = impl
    elif impl != "jax":
        raise ValueError(f"{name} has no choice of implementation, but impl is {impl!r}.")
    task = registry.load(name, config=config, config_overrides=dict(config_overrides or {}))
    sizes = task.observation_size
    observation = (
        {part: _spec(size) for part, size in sizes.items()}
        if isinstance(sizes, Mapping)
        else _spec(sizes)
    )
    if critic_part is None:
        privileged = isinstance(sizes, Mapping) and "privileged_state" in sizes
        critic_part = "privileged_state" if privileged else actor_part

    reset, step = pure_functions(task)
    return Environment(
        name=name,
        reset=reset,
        step=step,
        observation=observation,
        action_size=task.action_size,
        episode_length=int(config.episode_length),
        actor_part=actor_part,
        critic_part=critic_part,
    )


def _spec(size: int | tuple[int, ...]) -> jax.ShapeDtypeStruct:
    shape = (size,) if isinstance(size, int) else tuple(size)
    return jax.ShapeDtypeStruct(shape, jnp.result_type(float))


def _registry() -> Any:
    try:
        from mujoco_playground import registry
    except ImportError as error:
        raise require_extra("MuJoCo Playground", "playground") from error
    return registry
