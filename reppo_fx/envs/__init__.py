"""Environments: the contract, its transforms, probes with known values, and adapters (imported when called)."""

from .._errors import unknown_name
from .base import Environment, TimeStep, select_part
from .brax import brax, brax_names
from .conform import conform
from .containment import contain_nan
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
    "Environment",
    "TimeStep",
    "action_range",
    "action_repeat",
    "auto_reset",
    "batch",
    "brax",
    "brax_names",
    "clip_action",
    "conform",
    "contain_nan",
    "flatten_observation",
    "make",
    "playground",
    "playground_names",
    "random_start_age",
    "scale_reward",
    "select_part",
    "time_limit",
    "training_environment",
]


def make(name: str) -> Environment:
    """A Playground task or a Brax environment, whichever knows the name.

    Raises:
        ValueError: if neither does, with the nearest names of both.
        ImportError: if neither package is installed.
    """
    known: dict[str, tuple[str, ...]] = {}
    missing = None
    for family, names in (("playground", playground_names), ("brax", brax_names)):
        try:
            known[family] = names()
        except ImportError as error:
            missing = error
    if name in known.get("playground", ()):
        return playground(name)
    if name in known.get("brax", ()):
        return brax(name)
    if not known and missing is not None:
        raise missing
    raise unknown_name("task", name, [n for names in known.values() for n in names])
