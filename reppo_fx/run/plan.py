"""What a run is, before it starts: everything that decides its numbers, as plain values that JSON can hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from ..settings import Config, Hyperparameters, check_hyperparameters
from ..sweeps.members import flatten_members, label_settings
from ..sweeps.space import grid


@dataclasses.dataclass(frozen=True)
class Plan:
    """One training run or sweep.

    Attributes:
        task: name of a Playground task or Brax environment.
        preset: where the settings came from, for the record.
        config: static settings.
        hyperparameters: plain numbers.
        grid: values of the hyperparameters that are swept; none for a single setting.
        num_seeds: runs per setting.
        seed: of the random key that is split into one per run.
    """

    task: str
    preset: str
    config: Config
    hyperparameters: Hyperparameters
    grid: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    num_seeds: int = 1
    seed: int = 0

    def check(self) -> None:
        """Raise a sentence about the first thing that cannot be.

        Raises:
            ValueError: naming the setting, its value and what is allowed.
        """
        if self.num_seeds < 1:
            raise ValueError(f"seeds is {self.num_seeds}; at least 1 is needed.")
        check_hyperparameters(self.hyperparameters)
        self.settings()

    def settings(self) -> Hyperparameters:
        """All settings, leaves `[settings]`."""
        return grid(self.hyperparameters, **self.grid)

    def members(self) -> tuple[jax.Array, Hyperparameters]:
        """Keys and settings of all members, `[settings · seeds]`."""
        return flatten_members(self.settings(), self.num_seeds, jax.random.key(self.seed))

    @property
    def labels(self) -> list[dict[str, float]]:
        """For each setting, the values of what is swept; one empty label for a single setting."""
        return label_settings(self.settings(), self.grid)

    @property
    def total_iterations(self) -> int:
        """Iterations of the whole run."""
        return self.config.total_iterations

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "task": self.task,
            "preset": self.preset,
            "seed": self.seed,
            "num_seeds": self.num_seeds,
            "config": dataclasses.asdict(self.config),
            "hyperparameters": {k: float(v) for k, v in self.hyperparameters._asdict().items()},
            "grid": {name: list(values) for name, values in self.grid.items()},
        }

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`; other entries are ignored."""
        return cls(
            task=description["task"],
            preset=description["preset"],
            config=Config(**description["config"]),
            hyperparameters=Hyperparameters(**description["hyperparameters"]),
            grid={name: tuple(values) for name, values in description["grid"].items()},
            num_seeds=description["num_seeds"],
            seed=description["seed"],
        )


def differences(saved: Plan, asked: Plan) -> list[str]:
    """One phrase per setting that differs, in the order of the fields; presets are only names and do not count."""
    flat = [_flatten({**plan.to_json(), "preset": ""}) for plan in (saved, asked)]
    names = list(dict.fromkeys([*flat[0], *flat[1]]))
    return [
        f"{name} was {flat[0].get(name)} and is {flat[1].get(name)}"
        for name in names
        if flat[0].get(name) != flat[1].get(name)
    ]


def label_text(label: Mapping[str, float]) -> str:
    """A label in words.

    >>> label_text({"learning_rate": 3e-4, "discount": 0.99})
    'learning_rate 0.0003, discount 0.99'
    """
    return ", ".join(f"{name} {value:g}" for name, value in label.items())


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(value if isinstance(value, dict) and name != "grid" else {name: value})
    return flat
