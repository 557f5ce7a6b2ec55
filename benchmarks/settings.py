"""Settings by this package's names, whichever side runs them: sizes, and NAME=VALUE of a command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import reppo_fx as rx

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
        SystemExit: for a name that is not in `like`.
    """
    changes = {}
    for text in texts:
        name, value = text.split("=", 1)
        if name not in like:
            raise SystemExit(f"--set {text}: {name!r} must be one of {', '.join(sorted(like))}.")
        kind = type(like[name])
        if kind is bool and value not in ("True", "False"):
            raise SystemExit(f"--set {text}: {name} must be True or False.")
        changes[name] = value == "True" if kind is bool else kind(value)
    return changes


def write_changes(changes: Mapping[str, Any]) -> list[str]:
    """What `read_changes` reads."""
    return [f"{name}={value}" for name, value in changes.items()]


def our_settings(preset: str, texts: Iterable[str] = ()) -> tuple[rx.Config, rx.Hyperparameters]:
    """A preset with changes of configuration and hyperparameters; `width` is that of both networks."""
    config, hyperparameters = rx.preset(preset)
    floats = dict.fromkeys(rx.Hyperparameters._fields, 0.0)
    changes = read_changes(texts, {**vars(config), **floats, "width": 0})
    width = changes.pop("width", None)
    if width is not None:
        changes = {"actor_width": width, "critic_width": width, **changes}
    own = {name: changes.pop(name) for name in floats if name in changes}
    return rx.preset(preset, **changes)[0], hyperparameters._replace(**own)
