"""Simulators by name, as a command line has them: `envpool:CheetahRun-v1`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .._errors import unknown_name
from .base import HostEnvironment
from .envpool import envpool, envpool_learnable, envpool_names
from .gymnasium import gymnasium, gymnasium_learnable, gymnasium_names
from .maniskill import maniskill, maniskill_names


class Family(NamedTuple):
    """A package that brings tasks.

    Attributes:
        title: what people call it.
        make: `name -> environment`.
        names: of everything that it has.
        learnable: whether a task of that name can be made here, and has actions that can be learned.
        limit: the option that sets the simulator's own time limit.
    """

    title: str
    make: Callable[..., HostEnvironment]
    names: Callable[[], tuple[str, ...]]
    learnable: Callable[[str], bool]
    limit: str


FAMILIES: dict[str, Family] = {
    "envpool": Family("EnvPool", envpool, envpool_names, envpool_learnable, "max_episode_steps"),
    "gymnasium": Family(
        "gymnasium", gymnasium, gymnasium_names, gymnasium_learnable, "max_episode_steps"
    ),
    # Making one takes seconds, and some ask for downloads: they are taken at their names.
    "maniskill": Family(
        "ManiSkill", maniskill, maniskill_names, lambda name: True, "episode_length"
    ),
}
"""Simulators by the word before the colon: `envpool:CheetahRun-v1`."""


def make(task: str, *, episode_length: int | None = None, **options: Any) -> HostEnvironment:
    """A simulator's task by `FAMILY:NAME`.

    Args:
        task: e.g. `"envpool:CheetahRun-v1"` or `"gymnasium:HalfCheetah-v5"`.
        episode_length: the time limit that is going to be needed: where the task's own is shorter it is made with
            this one.
        **options: of the family's adapter.

    Returns:
        The environment, with as many instances as the adapter makes of itself, unless `n` is among the options.

    Raises:
        ValueError: for an unknown family or name, with the nearest ones.
        ImportError: if the family's package is not installed.
    """
    prefix, colon, name = task.partition(":")
    if not colon or prefix not in FAMILIES:
        raise unknown_name("family of simulators", prefix, FAMILIES)
    family = FAMILIES[prefix]
    env = family.make(name, **options)
    own = env.episode_length
    if episode_length is not None and own is not None and own < episode_length:
        env.close()
        env = family.make(name, **{family.limit: episode_length}, **options)
    return env


def is_host_task(task: str) -> bool:
    """Whether a task's name begins with a family of simulators.

    Args:
        task: the name.

    Returns:
        Whether `make` knows its family.

    >>> is_host_task("envpool:CheetahRun-v1"), is_host_task("CheetahRun")
    (True, False)
    """
    return task.partition(":")[0] in FAMILIES and ":" in task
