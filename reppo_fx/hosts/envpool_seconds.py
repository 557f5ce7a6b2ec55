"""How much simulated time an action of EnvPool's tasks takes: of most it does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Seconds per action in DeepMind Control, by the beginning of a task's name; the longest that fits counts.
_CONTROL = {
    "Acrobot": 0.01,
    "BallInCup": 0.02,
    "Cartpole": 0.01,
    "Cheetah": 0.01,
    "Finger": 0.02,
    "Fish": 0.04,
    "Hopper": 0.02,
    "Humanoid": 0.025,
    "HumanoidCMU": 0.02,
    "Manipulator": 0.01,
    "Pendulum": 0.02,
    "PointMass": 0.02,
    "Reacher": 0.02,
    "Swimmer": 0.03,
    "Walker": 0.025,
}
# Seconds per step of the physics in Gym's models, of which an action takes `frame_skip`.
_PHYSICS = {
    "ant.xml": 0.01,
    "half_cheetah.xml": 0.01,
    "hopper.xml": 0.002,
    "humanoid.xml": 0.003,
    "humanoidstandup.xml": 0.003,
    "inverted_double_pendulum.xml": 0.01,
    "inverted_pendulum.xml": 0.02,
    "pusher.xml": 0.01,
    "pusher_v5.xml": 0.01,
    "reacher.xml": 0.01,
    "swimmer.xml": 0.01,
    "walker2d.xml": 0.002,
    "walker2d_v5.xml": 0.002,
}
_CLASSIC = {"CartPole": 0.02, "Pendulum": 0.05, "Acrobot": 0.2}


def seconds_per_action(name: str, config: Mapping[str, Any]) -> float | None:
    """Seconds, or none where nobody has said.

    Args:
        name: of the task.
        config: of its specification.

    >>> seconds_per_action("CheetahRun-v1", {"task_name": "run", "frame_skip": 1})
    0.01
    >>> seconds_per_action("HalfCheetah-v5", {"xml_file": "half_cheetah.xml", "frame_skip": 5})
    0.05
    """
    if "ctrl_dt" in config:  # Playground's robots
        return float(config["ctrl_dt"])
    if "xml_file" in config:
        physics = _PHYSICS.get(str(config["xml_file"]))
        return None if physics is None else round(physics * int(config["frame_skip"]), 9)
    table = _CONTROL if "task_name" in config else _CLASSIC
    found = max((start for start in table if name.startswith(start)), key=len, default=None)
    return None if found is None else table[found]
