"""What a run is, before it starts: everything that decides its numbers, as plain values that JSON can hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import jax

from .._errors import unknown_name
from ..settings import Config, Hyperparameters
from ..sweeps.members import flatten_members, label_settings
from ..sweeps.space import grid, grid_but_for
from ..training.presets import FittedWorld, fit_to_world

Types = tuple[type, ...]
# What a random key takes: more would wrap around, and two seeds would be one.
LARGEST_SEED = 2**32 - 1


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
        evaluations: iterations after which an evaluation is due, where a run was given another length than it
            started with; otherwise the config decides.
    """

    task: str
    preset: str
    config: Config
    hyperparameters: Hyperparameters
    grid: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    num_seeds: int = 1
    seed: int = 0
    evaluations: tuple[int, ...] = ()

    def check(self, undecided: Collection[str] = ()) -> None:
        """Raise a sentence about the first thing that cannot be.

        Args:
            undecided: names of settings that the task will decide.

        Raises:
            ValueError: naming the setting, its value and what is allowed.
        """
        if self.num_seeds < 1:
            raise ValueError(f"seeds is {self.num_seeds}; at least 1 is needed.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed is {self.seed}; it must be from 0 to {LARGEST_SEED}.")
        grid_but_for(undecided, self.hyperparameters, self.grid)

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
    def due(self) -> tuple[int, ...]:
        """Iterations after which an evaluation is due, ascending; the last is the end."""
        return self.evaluations or self.config.evaluations

    @property
    def total_iterations(self) -> int:
        """Iterations of the whole run."""
        return self.due[-1]

    def with_total_steps(self, total_steps: int) -> Plan:
        """The same run, going on for longer or ending sooner.

        Evaluations that were due stay where they were and go on at the same distance; there is one at the end.
        The schedule of the learning rate keeps its length.
        """
        total = math.ceil(total_steps / self.config.steps_per_iteration)
        distance = max(1, round(self.total_iterations / len(self.due)))
        further = range(self.total_iterations + distance, total, distance)
        before = tuple(iteration for iteration in (*self.due, *further) if iteration < total)
        schedule = self.config.schedule_steps or self.config.total_steps
        config = dataclasses.replace(self.config, total_steps=total_steps, schedule_steps=schedule)
        return dataclasses.replace(self, config=config, evaluations=(*before, total))

    def fitted(self, world: FittedWorld, names: Collection[str]) -> Plan:
        """The same run, with the settings in `names` as they fit the world.

        Raises:
            ValueError: where they do not go with what is given.
        """
        config, numbers = fit_to_world(world, self.config, self.hyperparameters, names)
        plan = dataclasses.replace(self, config=config, hyperparameters=numbers)
        plan.check()
        return plan

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
            "evaluations": list(self.evaluations),
        }

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`; what else a description holds is for others.

        Raises:
            ValueError: naming an entry that is missing, unknown, or not of its type.
        """
        found = entries("", description, PLAN_TYPES, others=True)
        config = entries("config", found["config"], _types_of_config())
        floats = dict.fromkeys(Hyperparameters._fields, (float,))
        numbers = entries("hyperparameters", found["hyperparameters"], floats)
        swept = entries("grid", found["grid"], dict.fromkeys(found["grid"], (tuple,)))
        for name, values in swept.items():
            if not values or not all(is_of(value, (float,)) for value in values):
                raise ValueError(f"grid.{name} is {list(values)!r}; it must be a list of numbers.")
        due = found["evaluations"]
        if not all(is_of(value, (int,)) and value > 0 for value in due) or [*due] != sorted({*due}):
            raise ValueError(f"evaluations is {[*due]!r}; it must be a rising list of counts.")
        return cls(
            task=found["task"],
            preset=found["preset"],
            config=Config(**config),
            hyperparameters=Hyperparameters(**numbers),
            grid=swept,
            num_seeds=found["num_seeds"],
            seed=found["seed"],
            evaluations=due,
        )


PLAN_TYPES: dict[str, Types] = {
    "task": (str,),
    "preset": (str,),
    "seed": (int,),
    "num_seeds": (int,),
    "config": (dict,),
    "hyperparameters": (dict,),
    "grid": (dict,),
    "evaluations": (tuple,),
}
JSON_NAMES: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    tuple: "a list",
    type(None): "null",
}


def differences(saved: Plan, asked: Plan) -> list[str]:
    """One phrase per setting that differs, in the order of the fields; the length of a run is no such setting."""
    flat = [_flatten(plan.to_json()) for plan in (saved, asked)]
    names = dict.fromkeys([*flat[0], *flat[1]])
    return [
        f"{name} was {flat[0].get(name)} and is {flat[1].get(name)}"
        for name in names
        if name not in ("total_steps", "evaluations") and flat[0].get(name) != flat[1].get(name)
    ]


def settings_apart(
    plan: Plan, config: Config, hyperparameters: Hyperparameters
) -> list[tuple[str, Any, Any]]:
    """Name, value there and value in the plan, of each setting that differs from others; not of what is swept."""
    others = dataclasses.replace(plan, config=config, hyperparameters=hyperparameters)
    was, own = (_flatten(one.to_json()) for one in (others, plan))
    return [
        (name, was[name], own[name])
        for name in own
        if was[name] != own[name] and name not in plan.grid
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


def _types_of_config() -> dict[str, Types]:
    """The types of every field, from its annotation; a kind that JSON does not have may be anything."""
    plain = {"int": int, "float": float, "bool": bool, "str": str, "None": type(None)}
    types: dict[str, Types] = {}
    for field in dataclasses.fields(Config):
        names = [name.strip().partition("[")[0] for name in str(field.type).split("|")]
        types[field.name] = tuple(tuple if n == "tuple" else plain.get(n, object) for n in names)
    return types


def entries(
    place: str, found: object, types: Mapping[str, Types], others: bool = False
) -> dict[str, Any]:
    """The entries that `types` names, lists as tuples: each must be there and of its type, and no others but if
    they are allowed."""

    def full(name: str) -> str:
        return f"{place}.{name}" if place else name

    if not isinstance(found, Mapping):
        raise ValueError(f"the entry {place!r} is {found!r}; it must be an object.")
    for name in found:
        if name not in types and not others:
            raise unknown_name("entry", full(name), map(full, types))
    checked: dict[str, Any] = {}
    for name, kinds in types.items():
        if name not in found:
            raise ValueError(f"the entry {full(name)!r} is missing.")
        value = found[name]
        if not is_of(value, kinds):
            words = " or ".join(JSON_NAMES.get(kind, kind.__name__) for kind in kinds)
            raise ValueError(f"{full(name)} is {value!r}; it must be {words}.")
        checked[name] = tuple(value) if tuple in kinds and isinstance(value, list) else value
    return checked


def is_of(value: Any, kinds: Types) -> bool:
    """Whether a value from JSON has one of the types; whole numbers are floats too, booleans are no numbers."""
    if isinstance(value, bool):
        return bool in kinds or object in kinds
    wider = {float: (int, float), tuple: (list, tuple)}
    return any(isinstance(value, wider.get(kind, kind)) for kind in kinds)
