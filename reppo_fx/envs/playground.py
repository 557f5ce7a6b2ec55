"""Adapter for MuJoCo Playground (`pip install reppo_fx[playground]`)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from .._errors import nearest, unknown_name
from ._meshes import load_with_meshes
from ._physics import Randomizer, randomized
from ._simulator import Parts, Task, adapt, require, upstream_faults
from .base import Environment
from .transforms import action_repeat

_IMPLEMENTATIONS = ("jax", "warp")


def playground_names() -> tuple[str, ...]:
    """Every task that Playground knows now: its own (DMC suite, locomotion, manipulation) and registered ones.

    Returns:
        The names, suite by suite.

    Raises:
        ImportError: without the extra `playground`.
    """
    registry = _playground().registry
    suites = [part for part in vars(registry).values() if isinstance(part, ModuleType)]
    lists = [getattr(part, "ALL_ENVS", ()) for part in (registry, *suites)]
    return tuple(dict.fromkeys(name for names in lists for name in names))


def playground(
    task: str | Task,
    *,
    impl: str = "jax",
    config_overrides: Mapping[str, Any] | None = None,
    actor_part: str | None = None,
    critic_part: str | None = None,
    randomize: bool | Randomizer = False,
    redraw: str | int = "reset",
) -> Environment:
    """A MuJoCo Playground task, unwrapped: no time limit, no auto-reset; see `envs.time_limit`.

    The task's own metrics (`reward/…`) are the metrics of every step; its `action_repeat` is applied, and
    `episode_length` counts the steps that are left then. G1, Apollo and SpotJoystickGaitTracking pay negative
    rewards: the value range must reach below zero (`v_min`; preset `humanoid`).

    Pixels (`vision` in the config) are rendered by Warp, on the CPU too, for exactly `vision_config.nworld`
    instances at once: step `envs.batch(env)`. `make_train` traces one instance alone, and refuses them.

    Args:
        task: a name, e.g. `"CartpoleSwingup"`, or a task object (`MjxEnv`) of your own.
        impl: physics implementation. `"jax"` runs everywhere and repeats exactly; `"warp"`, Playground's own
            default, is made for CUDA, where it does not repeat exactly.
        config_overrides: entries of the task's own config, e.g. `{"sim_dt": 0.005}`; nested ones as a dict
            or with dots.
        actor_part: part of a dict observation that the actor sees; default `"state"`, or its only part.
        critic_part: part that the critic sees; default `"privileged_state"` where the task has it.
        randomize: domain randomization: `True` for Playground's own of that task, or a function
            `key -> mjx.Model` (or `(model, keys) -> (models, in_axes)`, as Playground writes them). What it
            changes is part of an instance's state.
        redraw: when an instance's physics is drawn anew: `"reset"`, at every start of an episode; a number
            `n`, at the first start after `n` rollouts; `"never"`.

    Returns:
        The environment. Its state is Playground's own `State` (inside a `RandomizedState` with `randomize`).

    Raises:
        ValueError: unknown name or override, with the nearest ones; a task that this jax cannot run.
        ImportError: without the extra `playground`, or without the meshes of the robot.
    """
    if isinstance(task, str):
        name, built = task, load_task(task, impl, config_overrides)
    else:
        name = type(getattr(task, "unwrapped", task)).__name__
        built = _given(task, name, impl, config_overrides)
    config = getattr(built, "_config", {})
    length = _whole(config, "episode_length", None)
    env = adapt(built, name, Parts(actor_part, critic_part), length, _num_rendered(config))
    if randomize is not False:
        randomizer = _randomizer(task) if randomize is True else randomize
        env = randomized(env, built, "_mjx_model", randomizer, redraw)
    repeat = _whole(config, "action_repeat", 1)
    return env if repeat in (None, 1) else action_repeat(env, repeat)


def load_task(
    name: str, impl: str = "jax", config_overrides: Mapping[str, Any] | None = None
) -> Task:
    """Playground's own object of a task: `playground` takes it in the place of the name."""
    package = _playground()
    registry, mjx_env = (
        package.registry,
        require("mujoco_playground._src.mjx_env", "MuJoCo Playground", "playground"),
    )
    known = playground_names()
    if name not in known:
        raise unknown_name("Playground task", name, known)
    config = registry.get_default_config(name)
    overrides = dict(_flat(config_overrides or {}))
    _set_implementation(name, config, impl, overrides)
    for key, value in overrides.items():
        _override(name, config, key, value)
    with upstream_faults(name, _num_rendered(config)):
        built: Task = load_with_meshes(mjx_env, name, lambda: registry.load(name, config=config))
        return built


def _given(task: Task, name: str, impl: str, config_overrides: Mapping[str, Any] | None) -> Task:
    if not isinstance(task, Task):
        raise ValueError(
            f"task must be a name or a task object with reset, step and action_size; it is {task!r}."
        )
    if config_overrides or impl != "jax":
        raise ValueError(
            f"impl and config_overrides belong to a task's name; {name} was given as an object that is "
            "already built: set them in its config."
        )
    return task


def _set_implementation(name: str, config: Any, impl: str, overrides: Mapping[str, Any]) -> None:
    if impl not in _IMPLEMENTATIONS:
        raise ValueError(
            f"impl is {impl!r}; it must be {' or '.join(map(repr, _IMPLEMENTATIONS))}."
        )
    if overrides.get("impl", impl) != impl:
        raise ValueError(
            f"config_overrides has impl={overrides['impl']!r}, but impl={impl!r} is what is used: "
            f"give impl={overrides['impl']!r} as the argument."
        )
    if "impl" in config:
        config.impl = impl
    elif impl != "jax":
        raise ValueError(f"{name} has no choice of implementation, but impl is {impl!r}.")


def _override(name: str, config: Any, key: str, value: Any) -> None:
    """Set one entry; what is not there, or of another type, is a sentence."""
    known = [entry for entry, _ in _flat(config)]
    if key not in known and not (_has(config, key) and not isinstance(value, Mapping)):
        close = nearest(key, known)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
        raise ValueError(f"config_overrides has {key!r}, which the config of {name} has not{hint}")
    try:
        config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"config_overrides has {key}={value!r}, but the config of {name} has "
            f"{_entry(config, key)!r} there, which is of another type."
        ) from error


def _flat(entries: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of a nested mapping (a config is none, but has `items`), keys joined with dots."""
    for key, value in entries.items():
        if hasattr(value, "items") and len(value):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _has(config: Any, key: str) -> bool:
    try:
        _entry(config, key)
    except (KeyError, TypeError, AttributeError):
        return False
    return True


def _entry(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _whole(config: Any, key: str, default: int | None) -> int | None:
    value = config.get(key, default) if hasattr(config, "get") else default
    return None if value is None else int(value)


def _num_rendered(config: Any) -> int | None:
    """How many instances a task with `vision` renders together; it can be run in no other number."""
    if not (hasattr(config, "get") and config.get("vision")):
        return None
    return int(config.get("vision_config", {}).get("nworld", 1))


def _randomizer(task: str | Task) -> Randomizer:
    if not isinstance(task, str):
        raise ValueError(
            "randomize=True needs a task's name: Playground keeps its randomizers by name. "
            "With a task object give the function."
        )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where it has none
        found: Randomizer | None = _playground().registry.get_domain_randomizer(task)
    if found is None:
        raise ValueError(
            f"randomize is True, but Playground has no randomizer for {task}; give a function `key -> mjx.Model`."
        )
    return found


def _playground() -> ModuleType:
    return require("mujoco_playground", "MuJoCo Playground", "playground")
