"""Environments: the contract, its transforms, probes with known values, and adapters (imported when called)."""

from .._errors import unknown_name
from .base import Environment, TimeStep, select_part
from .brax import brax, brax_names
from .playground import playground, playground_names
from .transforms import (
    auto_reset,
    batch,
    clip_action,
    contain_nan,
    random_start_age,
    scale_reward,
    time_limit,
    training_environment,
)

__all__ = [
    "Environment",
    "TimeStep",
    "auto_reset",
    "batch",
    "brax",
    "brax_names",
    "clip_action",
    "contain_nan",
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
