"""Settings by this package's names, whichever side runs them: sizes, and NAME=VALUE of a command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import reppo_fx as rx
from reppo_fx._errors import unknown_name
from reppo_fx.training.presets import FittedWorld, fit_to_world, settings_to_fit

KEYS = ("num_envs", "num_steps", "num_minibatches", "num_epochs", "width")
SIZES = {
    "tiny": dict(zip(KEYS, (16, 8, 2, 1, 16), strict=True)),
    # The published setting, made small enough for eight runs at a time on two cores.
    "curves": dict(zip(KEYS, (128, 64, 16, 8, 64), strict=True)),
    "small": dict(zip(KEYS, (256, 64, 16, 4, 128), strict=True)),
    "large": dict(zip(KEYS, (1024, 128, 64, 2, 512), strict=True)),
    "published": dict(zip(KEYS, (1024, 128, 64, 8, 512), strict=True)),
}


def read_changes(texts: Iterable[str], like: Mapping[str, Any]) -> dict[str, Any]:
    """`NAME=VALUE` as values of the types in `like`.

    Raises:
        SystemExit: for a name that is not in `like`, or a value that is not of its type.
    """
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SystemExit(f"--set has {text!r}; it must be NAME=VALUE.")
        if name not in like:
            raise SystemExit(str(unknown_name("setting", name, like)))
        kind = type(like[name])
        if kind is bool and value not in ("True", "False"):
            raise SystemExit(f"--set {text}: {name} must be True or False.")
        if kind is type(None):
            kind = int  # all that may be left out are lengths
        try:
            changes[name] = value == "True" if kind is bool else kind(value)
        except ValueError:
            kinds = {int: "a whole number", float: "a number"}
            raise SystemExit(f"--set {text}: {name} must be {kinds[kind]}.") from None
    return changes


def write_changes(changes: Mapping[str, Any]) -> list[str]:
    """What `read_changes` reads."""
    return [f"{name}={value}" for name, value in changes.items()]


def read_our_changes(preset: str, texts: Iterable[str]) -> dict[str, Any]:
    """`read_changes` for `our_settings`."""
    floats = dict.fromkeys(rx.Hyperparameters._fields, 0.0)
    return read_changes(texts, {**vars(rx.preset(preset)[0]), **floats, "width": 0})


def our_settings(preset: str, changes: Mapping[str, Any]) -> tuple[rx.Config, rx.Hyperparameters]:
    """A preset with changes of configuration and hyperparameters; `width` is that of both networks."""
    changes = dict(changes)
    if "width" in changes:
        width = changes.pop("width")
        changes = {"actor_width": width, "critic_width": width, **changes}
    traced = rx.Hyperparameters._fields
    own = {name: changes.pop(name) for name in traced if name in changes}
    config, hyperparameters = rx.preset(preset, **changes)
    return config, hyperparameters._replace(**own)


def settings_for(
    world: FittedWorld, preset: str, changes: Mapping[str, Any]
) -> tuple[rx.Config, rx.Hyperparameters]:
    """`our_settings` as the command line takes them: those that a preset fits to the task are, unless changed."""
    return fit_to_world(world, *our_settings(preset, changes), settings_to_fit(preset, changes))
