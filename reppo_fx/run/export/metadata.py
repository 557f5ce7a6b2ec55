"""What an exported file says of itself: where the policy comes from, what it takes and gives."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ...training.assembly import World
from ...training.policy import Policy
from .inputs import Inputs

FORMAT_VERSION = 1
ACTION = "action"
Metadata: TypeAlias = dict[str, Any]


def facts_of(policy: Policy, world: World, inputs: Inputs, more: Mapping[str, Any]) -> Metadata:
    """Everything that a reader may ask, as plain values; `more` comes from the run.

    Actions of a box are in `[low, high]`, as the environment gets them; `simulator_range`, where a simulator says
    so, is what −1 and 1 become in its own units, lowest of each entry and highest of each.
    """
    return {
        "format_version": FORMAT_VERSION,
        "task": world.name,
        "inputs": [
            {
                "name": name,
                "shape": ["batch", *shape],
                "dtype": str(inputs.dtypes[name]),
                "what": "mask" if name == inputs.mask else "observation",
            }
            for name, shape in inputs.shapes.items()
        ],
        "action": _action(policy, world),
        "seconds_per_action": getattr(world, "action_seconds", None),
        "simulator_range": getattr(world, "action_bounds", None),
        **more,
        "reppo_fx": importlib.metadata.version("reppo_fx"),
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def as_text(facts: Metadata) -> str:
    """As JSON, which has no NaN and no infinity."""
    return json.dumps(facts, allow_nan=False)


def _action(policy: Policy, world: World) -> Metadata:
    """Name, kind and range of the action, as the environment gets it."""
    if world.num_actions is not None:
        return {
            "name": ACTION,
            "dtype": "int32",
            "shape": ["batch"],
            "num_actions": world.num_actions,
        }
    scale = np.broadcast_to(np.asarray(world.action_scale, np.float32), (world.action_size,))
    ends = [policy.distribution.to_environment(jnp.asarray(end)) for end in (-scale, scale)]
    is_box = all(isinstance(end, jax.Array) and end.shape == scale.shape for end in ends)
    low, high = [np.asarray(end, np.float32).tolist() for end in ends] if is_box else (None, None)
    return {
        "name": ACTION,
        "dtype": "float32",
        "shape": ["batch", world.action_size],
        "num_actions": None,
        "low": low,
        "high": high,
    }
