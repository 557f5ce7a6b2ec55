"""Returns that the authors of REPPO publish, for comparison; `published.csv` beside this file holds them.

Means at the end of training over the runs in the result files that come with their code (`results/` of
github.com/cvoelcker/reppo): REPPO after 50 M steps (`reppo`: 128 x 1024 steps per update, `reppo_small`:
32 x 1024), their tuned PPO and FastTD3 after as many, Brax SAC after its own budget; `best`: the highest mean of
these, of REPPO with a KL penalty and of Brax PPO. The last five columns are REPPO's variants of the paper's
Figure 7 by the names of `ablations.py`.
"""

from __future__ import annotations

import csv
from pathlib import Path

PATH = Path(__file__).with_name("published.csv")
METHODS = {
    "reppo": "REPPO",
    "reppo_small": "REPPO, small batch",
    "ppo": "tuned PPO",
    "fasttd3": "FastTD3",
    "sac": "SAC",
}
# Mean over the 23 tasks of return by the best, at so many million steps, from the same files. SAC's are too coarse.
STEPS = (2.5, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0)
CURVES = {
    "reppo": (0.35, 0.48, 0.65, 0.80, 0.86, 0.91, 0.93),
    "reppo_small": (0.40, 0.51, 0.62, 0.76, 0.82, 0.87, 0.90),
    "ppo": (0.17, 0.25, 0.36, 0.50, 0.62, 0.69, 0.73),
    "fasttd3": (0.31, 0.41, 0.55, 0.66, 0.73, 0.79, 0.83),
}
# Seconds of 50 M steps of REPPO on one L40S, for tasks whose names begin so.
SECONDS = {"Cartpole": 380, "Cheetah": 440, "Walker": 820, "Humanoid": 1137}
SECONDS_STEPS = 50_000_000


def read() -> dict[str, dict[str, float]]:
    """By task and method; what was not published is left out."""
    with PATH.open(newline="") as file:
        return {
            row.pop("task"): {method: float(mean) for method, mean in row.items() if mean}
            for row in csv.DictReader(file)
        }


RETURNS = read()
# Of REPPO.
PUBLISHED = {task: methods["reppo"] for task, methods in RETURNS.items()}
# The suite of 23 tasks; joystick tasks are of another.
DMC = tuple(task for task in RETURNS if "Joystick" not in task)


def seconds_of(task: str) -> float | None:
    """Published seconds of 50 M steps of a task, where there are any.

    >>> seconds_of("WalkerRun"), seconds_of("FishSwim")
    (820, None)
    """
    return next((seconds for begin, seconds in SECONDS.items() if task.startswith(begin)), None)
