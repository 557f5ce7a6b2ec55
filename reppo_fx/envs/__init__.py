"""Environments: the contract, its transforms, probes with known values, and adapters (imported when called)."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .._errors import MissingExtraError, unknown_name
from ._physics import RandomizedState
from ._simulator import Task, require
from .base import Environment, TimeStep, action_spec, seconds_of, select_part
from .brax import brax, brax_names
from .brax import load_task as load_brax
from .conform import conform
from .containment import COUNTERS, LIMIT, RESET_TRIES, believed, contain_nan
from .gymnax import GymnaxState, GymnaxTask, gymnax, gymnax_names
from .playground import load_task as load_playground
from .playground import playground, playground_names
from .spaces import action_range, clip_action, flatten_observation, scale_reward
from .transforms import (
    action_repeat,
    auto_reset,
    batch,
    random_start_age,
    time_limit,
    training_environment,
)

__all__ = [
    "COUNTERS",
    "FAMILIES",
    "LIMIT",
    "RESET_TRIES",
    "Environment",
    "GymnaxState",
    "GymnaxTask",
    "RandomizedState",
    "TimeStep",
    "action_range",
    "action_repeat",
    "action_spec",
    "auto_reset",
    "batch",
    "believed",
    "brax",
    "brax_names",
    "clip_action",
    "conform",
    "contain_nan",
    "find_family",
    "flatten_observation",
    "gymnax",
    "gymnax_names",
    "make",
    "named_family",
    "playground",
    "playground_names",
    "random_start_age",
    "require",
    "scale_reward",
    "seconds_of",
    "select_part",
    "time_limit",
    "training_environment",
]


class _Family(NamedTuple):
    """One package that brings tasks: its names, its adapter, its extra, its top module, and what makes its own
    object of a name, where there is something to see of it."""

    title: str
    names: Callable[[], tuple[str, ...]]
    adapter: Callable[[Any], Environment]
    extra: str
    module: str
    load: Callable[[str], Task] | None = None


FAMILIES = (
    _Family(
        "MuJoCo Playground",
        playground_names,
        playground,
        "playground",
        "mujoco_playground",
        load_playground,
    ),
    _Family("Brax", brax_names, brax, "brax", "brax", load_brax),
    _Family("gymnax", gymnax_names, gymnax, "gymnax", "gymnax"),
)
"""The packages that `make` knows tasks of, in the order in which it asks them."""


def make(task: str | Task | GymnaxTask | Environment) -> Environment:
    """A task of Playground, Brax or gymnax, whichever knows it.

    Args:
        task: a name, e.g. `"CartpoleSwingup"`, `"hopper"` or `"CartPole-v1"`, with or without its family
            (`"gymnax:CartPole-v1"`), or a task object of one of the packages. An `Environment` comes back as it is.

    Returns:
        The environment, for one instance, without time limit or auto-reset.

    Raises:
        ValueError: if none knows it, with the nearest names, and the extra that would bring more.
        ImportError: if no such package, or not the family's, is installed.

    >>> from reppo_fx.envs import probes
    >>> make(probes.bandit()).num_actions
    3
    >>> # make("CartpoleSwingup"), make("gymnax:CartPole-v1")
    """
    if isinstance(task, Environment):
        return task
    if not isinstance(task, str):
        return _family_of(task).adapter(task)
    family, name = find_family(task)
    return family.adapter(name)


def find_family(task: str) -> tuple[_Family, str]:
    """The family that has a task, and the task's name there.

    Args:
        task: its name, with or without its family.

    Returns:
        The family, and the task's name without it.

    Raises:
        ValueError: if none knows it, with the nearest names, and the extra that would bring more.
        ImportError: if no such package is installed.

    >>> family, name = find_family("gymnax:CartPole-v1")
    >>> family.title, name
    ('gymnax', 'CartPole-v1')
    """
    if (named := named_family(task)) is not None:
        return named, task.partition(":")[2]
    known: list[str] = []
    missing: list[tuple[_Family, MissingExtraError]] = []
    for family in FAMILIES:
        try:
            names = family.names()
        except MissingExtraError as error:
            missing.append((family, error))
            continue
        if task in names:
            return family, task
        known.extend(names)
    if not known:
        extras = " or ".join(f"'reppo_fx[{family.extra}]'" for family, _ in missing)
        titles = " nor ".join(family.title for family, _ in missing)
        raise MissingExtraError(
            f"task {task!r} needs a simulator, but neither {titles} is installed; "
            f"install one with: pip install {extras}"
        ) from missing[0][1]
    hints = [
        f" {family.title} is not installed; its tasks come with: "
        f"pip install 'reppo_fx[{family.extra}]'"
        for family, _ in missing
    ]
    raise ValueError(str(unknown_name("task", task, known)) + "".join(hints))


def named_family(task: str) -> _Family | None:
    """The family that a name begins with, as in `"gymnax:CartPole-v1"`.

    Args:
        task: its name.

    Returns:
        The family; none where the name begins with no family's.

    >>> named_family("brax:hopper").title, named_family("hopper")
    ('Brax', None)
    """
    prefix, colon, _ = task.partition(":")
    return next((family for family in FAMILIES if colon and family.extra == prefix), None)


def _family_of(task: object) -> _Family:
    """By the package that a task's class comes from, or one of its bases."""
    bases = type(getattr(task, "unwrapped", task)).__mro__
    packages = {base.__module__.partition(".")[0] for base in bases}
    for family in FAMILIES:
        if family.module in packages:
            return family
    raise ValueError(
        "task must be a name, or a task object of Playground (`MjxEnv`), Brax (`Env`) or gymnax (`Environment`); "
        f"it is {task!r}."
    )
