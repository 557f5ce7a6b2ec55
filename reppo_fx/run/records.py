"""`config.json`: what a run was, to repeat it, to go on with it, and to load its policies."""

from __future__ import annotations

import importlib.metadata
import json
import operator
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._errors import nearest
from ..envs import Environment, TimeStep, select_part
from ..envs.conform import check_discrete
from ..learner.continuous import tanh_normal
from .durable import write_whole
from .plan import Plan, entries
from .worlds import AnyTrain

VERSION = 4
CONFIG = "config.json"
WORLD_TYPES: dict[str, tuple[type, ...]] = {
    "observation": (dict,),
    "actor_part": (str,),
    "critic_part": (str,),
    "action_size": (int,),
    "action_scale": (float, tuple),
    "num_actions": (int, type(None)),
    "action_mask": (str, type(None)),
    "episode_length": (int,),
}
CONTROL_TYPES: dict[str, tuple[type, ...]] = {
    "seconds_per_action": (float, type(None)),
    "simulator_range": (tuple, type(None)),
}
PACKAGES = (
    "reppo_fx",
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "playground",
    "mujoco",
    "mujoco-mjx",
    "brax",
    "gymnax",
    "envpool",
    "gymnasium",
    "mani_skill",
    "mjlab",
    "torch",
    "orbax-checkpoint",
)


def describe_run(train: AnyTrain, plan: Plan) -> dict[str, Any]:
    """Everything needed to repeat a run, to go on with it, and to load its policy."""
    parts = train.env.observation
    observation = {
        name: [list(part.shape), str(part.dtype)]
        for name, part in (parts if isinstance(parts, dict) else {"": parts}).items()
    }
    return {
        "version": VERSION,
        **plan.to_json(),
        "environment": {
            "observation": observation,
            "actor_part": train.env.actor_part,
            "critic_part": train.env.critic_part,
            "action_size": train.env.action_size,
            "action_scale": train.env.action_scale,
            "num_actions": train.env.num_actions,
            "action_mask": train.env.action_mask,
            "episode_length": train.episode_length,
        },
        "control": {
            "seconds_per_action": train.env.action_seconds,
            "simulator_range": getattr(train.env, "action_bounds", None),
        },
        **describe_machine(),
    }


def describe_machine() -> dict[str, Any]:
    """Versions of what is installed, and the device."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "device": {
            "backend": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
        },
    }


def write_config(folder: Path, description: Mapping[str, Any]) -> None:
    """Write `config.json`, whole."""
    write_whole(folder / CONFIG, (json.dumps(description, indent=2) + "\n").encode())


def is_run(folder: Path) -> bool:
    """Whether a folder says that it is one; not whether it can be read."""
    return (folder / CONFIG).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` back.

    Args:
        folder: of the run.

    Returns:
        What the run was asked for, and where it ran; see the file.

    Raises:
        ValueError: if the folder holds no run, one of another version, or the file is not as it was written.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is not a run: {_why_no_run(Path(folder))}")
    try:
        description = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    version = description.get("version") if isinstance(description, dict) else None
    if version != VERSION:
        raise ValueError(f"{path} has version {version}; this package reads version {VERSION}.")
    try:
        Plan.from_json(description).check()
        world(description)
        control(description)
    except ValueError as error:
        raise ValueError(f"{path} is not as a run writes it: {error}") from error
    return dict(description)


def _why_no_run(folder: Path) -> str:
    """The end of a sentence, with what may have been meant."""
    if folder.is_file():
        return "it is a file; give the folder that it is in."
    if folder.is_dir():
        inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
        hint = f"; of the folders in it, {', '.join(inside[:3])} may be" if inside else ""
        return f"it has no config.json{hint}."
    beside = [p.name for p in folder.parent.glob("*") if p.is_dir()] if folder.name else []
    close = [str(folder.parent / name) for name in nearest(folder.name, beside)]
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
    return f"there is no such folder{hint}"


def world(description: Mapping[str, Any]) -> Environment:
    """An environment that has what networks are built from, and does nothing: policies load without simulators.

    Raises:
        ValueError: naming an entry of `environment` that is missing, unknown, or cannot be.
    """
    facts = entries("environment", description.get("environment"), WORLD_TYPES)
    for name in ("action_size", "episode_length"):
        if facts[name] < 1:
            raise ValueError(f"environment.{name} is {facts[name]}; it must be at least 1.")
    shapes = {name: _spec(name, spec) for name, spec in facts["observation"].items()}
    observation = shapes.get("", shapes)
    for part in (facts["actor_part"], facts["critic_part"]):
        select_part(observation, part)
    # Checks the range of actions, too.
    tanh_normal(facts["action_size"], facts["action_scale"])

    def reset(key: jax.Array) -> tuple[jax.Array, PyTree]:
        return key, jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), observation)

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        _, seen = reset(state)
        no = jnp.asarray(False)
        return state, TimeStep(seen, seen, jnp.zeros(()), no, no, {})

    env = Environment(
        name=str(description["task"]),
        reset=reset,
        step=step,
        observation=observation,
        action_size=facts["action_size"],
        episode_length=facts["episode_length"],
        actor_part=facts["actor_part"],
        critic_part=facts["critic_part"],
        action_scale=facts["action_scale"],
        num_actions=facts["num_actions"],
        action_mask=facts["action_mask"],
    )
    check_discrete(env)
    return env


def control(description: Mapping[str, Any]) -> dict[str, Any]:
    """How long an action lasts and what its range is in the simulator's own units; none where nobody said.

    Raises:
        ValueError: naming an entry of `control` that cannot be.
    """
    nothing = dict.fromkeys(CONTROL_TYPES)
    found = entries("control", description.get("control", nothing), CONTROL_TYPES)
    seconds = found["seconds_per_action"]
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ValueError(f"control.seconds_per_action is {seconds}; it must be positive.")
    return found


def _spec(name: str, saved: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a part of an observation, in the precision that jax has here."""
    try:
        shape, dtype = saved
        sizes = tuple(operator.index(size) for size in shape)
        if min(sizes, default=0) < 0:
            raise ValueError
        return jax.ShapeDtypeStruct(sizes, jax.dtypes.canonicalize_dtype(jnp.dtype(dtype)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"environment.observation[{name!r}] is {saved!r}; it must be a shape and a dtype."
        ) from error


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
