"""What a run leaves on disk: `config.json`, `metrics.csv`, `policy.eqx`. Nothing in it is executed on loading."""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..iteration import TrainingMetrics, TrainState, make_policy
from ..networks import Actor
from ..ops import statistics_init
from ..policy import Policy
from ..settings import Config, Hyperparameters
from ..train import Metrics, Train
from ..update import LearnerMetrics

VERSION = 1
PACKAGES = (
    "reppo_fx",
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "playground",
    "mujoco",
    "mujoco-mjx",
    "brax",
)


def metric_columns() -> list[str]:
    """The columns of `metrics.csv`."""
    return ["seed", "env_steps", "seconds", *_metric_names()]


def describe_run(
    train: Train,
    task: str,
    preset: str,
    num_seeds: int,
    seed: int,
    hyperparameters: Hyperparameters,
) -> dict[str, Any]:
    """Everything needed to repeat a run and to load its policy."""
    parts = train.env.observation
    observation = {
        name: list(part.shape)
        for name, part in (parts if isinstance(parts, dict) else {"": parts}).items()
    }
    return {
        "version": VERSION,
        "task": task,
        "preset": preset,
        "seed": seed,
        "num_seeds": num_seeds,
        "config": dataclasses.asdict(train.config),
        "hyperparameters": {k: float(v) for k, v in hyperparameters._asdict().items()},
        "environment": {
            "observation": observation,
            "actor_part": train.env.actor_part,
            "action_size": train.env.action_size,
            "episode_length": train.episode_length,
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "device": {
            "backend": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
        },
    }


def write_config(folder: Path, description: dict[str, Any]) -> None:
    """Write `config.json`."""
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` back.

    Raises:
        ValueError: if the folder holds no run, or one of another version.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a run: it has no config.json.")
    description = json.loads(path.read_text())
    if description.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {description.get('version')}; this package reads version {VERSION}."
        )
    return description


class MetricsFile:
    """`metrics.csv`, one row per evaluation and seed, on disk after every evaluation."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(metric_columns())
        self._file.flush()

    def write(self, seconds: float, metrics: Metrics) -> None:
        """Append the rows of one evaluation; `metrics` has the axis `[seeds]`."""
        flat = _flatten(metrics)
        for seed in range(len(metrics.env_steps)):
            values = [_number(flat[name][seed]) for name in _metric_names()]
            self._writer.writerow([seed, int(metrics.env_steps[seed]), f"{seconds:.3f}", *values])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def save_policies(folder: Path, train: Train, state: TrainState) -> None:
    """Write the policies of all seeds to `policy.eqx` (arrays in NumPy's format, no pickle)."""
    policies = jax.vmap(lambda s: make_policy(train, s))(state)
    eqx.tree_serialise_leaves(folder / "policy.eqx", policies)


def load_policies(folder: str | Path) -> Policy:
    """The policies of a run, stacked: every leaf has a leading axis over seeds.

    Raises:
        ValueError: if the folder holds no run, or its policy file does not fit its config.
    """
    folder = Path(folder)
    description = read_config(folder)
    path = folder / "policy.eqx"
    if not path.is_file():
        raise ValueError(
            f"{folder} has no policy.eqx; the run ended before its first training step."
        )
    like = eqx.filter_eval_shape(lambda: _blank_policies(description))
    try:
        return eqx.tree_deserialise_leaves(path, like)
    except (RuntimeError, ValueError, EOFError) as error:
        raise ValueError(f"{path} does not fit the settings in config.json: {error}") from error


def load_policy(folder: str | Path, seed: int = 0) -> Policy:
    """One seed's policy from a run: `observation -> action`, any leading axes.

    >>> # policy = load_policy("runs/CartpoleBalance")
    >>> # action = policy(observation)

    Raises:
        ValueError: if the folder holds no run or the seed is not in it.
    """
    num_seeds = read_config(Path(folder))["num_seeds"]
    if not 0 <= seed < num_seeds:
        raise ValueError(f"seed is {seed}; this run has seeds 0 to {num_seeds - 1}.")
    return jax.tree.map(lambda leaf: leaf[seed], load_policies(folder))


def _blank_policies(description: dict[str, Any]) -> Policy:
    config = Config(**description["config"])
    environment = description["environment"]
    shapes = environment["observation"]
    spec = {k: jax.ShapeDtypeStruct(tuple(v), jnp.result_type(float)) for k, v in shapes.items()}
    part = environment["actor_part"]
    observation = spec.get("", spec)
    size = shapes[""][0] if "" in shapes else shapes[part][0]

    def blank(key: jax.Array) -> Policy:
        return Policy(
            actor=Actor(
                key,
                size,
                environment["action_size"],
                config.actor_width,
                config.actor_depth,
                config.norm,
            ),
            statistics=statistics_init(observation),
            min_std=jnp.zeros(()),
            variance_floor=jnp.zeros(()),
            part=part,
            normalize=config.statistics != "none",
            action_limit=config.action_limit,
        )

    return jax.vmap(blank)(jax.random.split(jax.random.key(0), description["num_seeds"]))


def _metric_names() -> list[str]:
    training = [name for name in TrainingMetrics._fields if name != "learner"]
    evaluation = ("eval_return", "eval_return_std", "eval_length")
    return [*evaluation, *training, *LearnerMetrics._fields]


def _flatten(metrics: Metrics) -> dict[str, Any]:
    return {
        **metrics._asdict(),
        **metrics.training._asdict(),
        **metrics.training.learner._asdict(),
    }


def _number(value: Any) -> int | str:
    return (
        int(value) if np.issubdtype(np.asarray(value).dtype, np.integer) else f"{float(value):.6g}"
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
