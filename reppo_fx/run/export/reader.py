"""Reads what `reppo-fx export RUN --format numpy` writes. It needs NumPy alone: copy these lines to the robot.

act, facts = read_policy("policy.npz")
action = act(observation)            # or act(observation, mask); any leading axes
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np


def read_policy(path: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The policy, `observation -> action` with its range and limit applied, and what the file says of itself.

    Args:
        path: of the `.npz`.

    Returns:
        `act(observation, mask=None) -> action`, and the facts, a dict.

    Raises:
        ValueError: if the file is of another version of the format.
    """
    data = dict(np.load(path, allow_pickle=False))
    facts = json.loads(str(data["metadata"]))
    if facts["format_version"] != 1:
        raise ValueError(f"{path} has format version {facts['format_version']}; this reads 1.")

    def act(observation: Any, mask: Any = None) -> Any:
        x = (np.asarray(observation, np.float32) - data["mean"]) / data["std"]
        x = x @ data["weight_0"] + data["bias_0"]
        for i in range(1, facts["layers"]):
            if facts["norm"] == "layer":
                x = x - x.mean(-1, keepdims=True)
            if facts["norm"] != "none":
                x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * data[f"scale_{i}"]
            x = x + data[f"shift_{i}"] if facts["norm"] == "layer" else x
            x = x * 0.5 * (1 + np.tanh(x / 2))  # silu
            x = x @ data[f"weight_{i}"] + data[f"bias_{i}"]
        if facts["action"]["num_actions"] is None:
            return np.clip(data["range"] * np.tanh(x), -data["limit"], data["limit"])
        if mask is not None:
            x = np.where(mask | ~np.any(mask, -1, keepdims=True), x, -np.inf)
        return np.argmax(x, -1).astype(np.int32)

    return act, facts
