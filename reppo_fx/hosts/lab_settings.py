"""Whether an environment with Isaac Lab's interface keeps the true successor, by its configuration."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

INTERFACE = (
    "reset",
    "step",
    "close",
    "num_envs",
    "device",
    "max_episode_length",
    "single_action_space",
    "cfg",
)
FINAL_OBS, AUTO_RESET, AUTORESET_MODE = "compute_final_obs", "auto_reset", "autoreset_mode"


def unwrapped(env: Any) -> Any:
    """The environment that has the facts."""
    base = getattr(env, "unwrapped", env)
    kind = type(env)
    by_gymnasium = any(
        c.__name__ == "Wrapper" and c.__module__.partition(".")[0] == "gymnasium"
        for c in kind.__mro__
    )
    missing = [name for name in INTERFACE if not hasattr(base, name)]
    if base is not env and not by_gymnasium and not missing:
        raise ValueError(
            f"env is a {kind.__name__} of {kind.__module__.partition('.')[0]}, which loses the true successor "
            "where an episode ends; give the environment inside it: env.unwrapped."
        )
    if hasattr(base, "possible_agents"):
        raise ValueError(
            f"{kind.__name__} has several agents; only environments of one can be learned."
        )
    if missing:
        raise ValueError(
            f"env is a {kind.__name__} without {', '.join(missing)}; it must have Isaac Lab's interface, as "
            "ManagerBasedRLEnv, DirectRLEnv and mjlab's ManagerBasedRlEnv have it, and not that of a training "
            "library's wrapper."
        )
    return base


def waits(base: Any) -> bool:
    """Whether it waits for `reset(env_ids=...)` where an episode ended, instead of restarting there.

    Raises:
        ValueError: if it restarts, and keeps no successor.
    """
    cfg, name = base.cfg, type(base).__name__
    mode = getattr(cfg, AUTORESET_MODE, None)
    if str(getattr(mode, "name", mode)).upper() == "DISABLED":
        waiting, setting = True, f"cfg.{AUTORESET_MODE} is DISABLED"
        known = _declares(cfg, AUTORESET_MODE)
    elif getattr(cfg, AUTO_RESET, True) is False:
        waiting, setting = True, f"cfg.{AUTO_RESET} is False"
        known = _declares(cfg, AUTO_RESET)
    elif getattr(cfg, FINAL_OBS, False):
        waiting, setting = False, f"cfg.{FINAL_OBS} is True"
        known = _declares(cfg, FINAL_OBS)
    else:
        raise ValueError(
            f"{name} restarts in the step that ends an episode, and the true successor is lost: {_remedy(cfg)}"
        )
    if not known:
        raise ValueError(
            f"{setting}, but {name} of this version does not know that setting and loses the true successor: "
            f"{_remedy(cfg)}"
        )
    if waiting and not takes_ids(base):
        raise ValueError(
            f"{setting}, but reset of {name} takes no env_ids, so that single instances cannot be started anew."
        )
    return waiting


def _remedy(cfg: Any) -> str:
    if hasattr(cfg, AUTO_RESET) and _declares(cfg, AUTO_RESET):
        return f"set cfg.{AUTO_RESET} = False."
    if hasattr(cfg, FINAL_OBS) and _declares(cfg, FINAL_OBS):
        return f"set cfg.{FINAL_OBS} = True."
    return f"a version is needed that has cfg.{FINAL_OBS} (Isaac Lab) or cfg.{AUTO_RESET} (mjlab)."


def _declares(cfg: Any, setting: str) -> bool:
    """Whether it is a setting of this configuration, and not an attribute that somebody gave it."""
    if not dataclasses.is_dataclass(cfg):
        return True
    return setting in (field.name for field in dataclasses.fields(cfg))


def takes_ids(base: Any) -> bool:
    """Whether single instances can be started anew."""
    return "env_ids" in inspect.signature(base.reset).parameters


def keeps_history(cfg: Any) -> bool:
    """Whether a term or a group of Isaac Lab's observations holds earlier ones."""

    def inside(node: Any) -> Iterable[Any]:
        if isinstance(node, Mapping):
            return node.values()
        return getattr(node, "__dict__", {}).values()

    groups = inside(getattr(cfg, "observations", None))
    return any(
        getattr(node, "history_length", None)
        for group in groups
        for node in (group, *inside(group))
    )
