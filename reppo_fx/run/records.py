"""What a run leaves on disk: `config.json`, `metrics.csv`, `policy.eqx`. Nothing in it is executed on loading."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ..learner.distributions import tanh_normal
from ..learner.learn import TrainingMetrics
from ..learner.networks import NetworkShapes, networks_from_config
from ..learner.state import TrainState
from ..learner.update import LearnerMetrics
from ..learner.values import categorical_value_function
from ..ops import statistics_init
from ..settings import Config
from ..sweeps.sweep import flatten_metrics
from ..training.policy import Policy, make_policy
from ..training.train import Metrics, Train, normalizer
from .plan import Plan

VERSION = 2
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
    "orbax-checkpoint",
)


def metric_columns(swept: Iterable[str] = ()) -> list[str]:
    """The columns of `metrics.csv`; with the setting's number and values in front when something is swept."""
    swept = list(swept)
    return [
        *(["setting", *swept] if swept else []),
        "seed",
        "env_steps",
        "seconds",
        *_metric_names(),
    ]


def describe_run(train: Train, plan: Plan) -> dict[str, Any]:
    """Everything needed to repeat a run, to go on with it, and to load its policy."""
    return {
        "version": VERSION,
        **plan.to_json(),
        "environment": {
            "observation": _write_spec(train.actor_part(train.env.observation)),
            "actor_part": train.env.actor_part,
            "action_size": train.env.action_size,
            "action_scale": train.env.action_scale,
            "episode_length": train.episode_length,
        },
        **describe_machine(),
    }


def describe_machine() -> dict[str, Any]:
    """Versions of what is installed, and the device."""
    return {
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
    """`metrics.csv`, one row per evaluation and member, on disk after every evaluation.

    Args:
        path: the file. An existing one is continued.
        plan: what is run.
        done: iterations that the run goes on from; rows of evaluations after that are dropped, as they come again,
            and so are those made out of turn when a run was interrupted.
    """

    def __init__(self, path: Path, plan: Plan, done: int = 0) -> None:
        self._labels, self._num_seeds = plan.labels, plan.num_seeds
        columns = metric_columns(plan.grid)
        kept = _rows_until(path, plan.config, done) if path.exists() else []
        fresh = path.with_suffix(".csv.new")
        with fresh.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(kept)
        fresh.replace(path)
        self.seconds = float(kept[-1]["seconds"]) if kept else 0.0
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file)

    def write(self, seconds: float, metrics: Metrics) -> None:
        """Append the rows of one evaluation; `metrics` has the axis `[members]`, seeds fastest."""
        flat = flatten_metrics(metrics)
        for member in range(len(metrics.env_steps)):
            setting, seed = divmod(member, self._num_seeds)
            label = self._labels[setting]
            values = [_number(flat[name][member]) for name in _metric_names()]
            self._writer.writerow(
                [
                    *([setting, *label.values()] if label else []),
                    seed,
                    int(metrics.env_steps[member]),
                    f"{seconds:.3f}",
                    *values,
                ]
            )
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _rows_until(path: Path, config: Config, done: int) -> list[dict[str, str]]:
    in_turn = {due * config.steps_per_iteration for due in config.evaluations if due <= done}
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["env_steps"] or 0) in in_turn]


def read_returns(path: Path, plan: Plan) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps `[evals]` and returns `[evals, settings, seeds]` from `metrics.csv`."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = list(dict.fromkeys(int(row["env_steps"]) for row in rows))
    returns = np.array([float(row["eval_return"]) for row in rows])
    return np.array(steps), returns.reshape(len(steps), -1, plan.num_seeds)


def save_policies(folder: Path, train: Train, state: TrainState) -> None:
    """Write the policies of all members to `policy.eqx` (arrays in NumPy's format, no pickle)."""
    policies = jax.vmap(lambda s: make_policy(train, s))(state)
    eqx.tree_serialise_leaves(folder / "policy.eqx", policies)


def load_policies(folder: str | Path) -> Policy:
    """The policies of a run, stacked: every leaf has a leading axis over members (settings × seeds).

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


def load_policy(folder: str | Path, seed: int = 0, setting: int = 0) -> Policy:
    """One policy from a run: `observation -> action`, any leading axes. `setting` counts as in `metrics.csv`.

    >>> # policy = load_policy("runs/CartpoleBalance")
    >>> # action = policy(observation)

    Raises:
        ValueError: if the folder holds no run, or the seed or the setting is not in it.
    """
    plan = Plan.from_json(read_config(Path(folder)))
    num_settings = len(plan.labels)
    if not 0 <= seed < plan.num_seeds:
        raise ValueError(f"seed is {seed}; this run has seeds 0 to {plan.num_seeds - 1}.")
    if not 0 <= setting < num_settings:
        raise ValueError(f"setting is {setting}; this run has settings 0 to {num_settings - 1}.")
    member = setting * plan.num_seeds + seed
    return jax.tree.map(lambda leaf: leaf[member], load_policies(folder))


def _blank_policies(description: dict[str, Any]) -> Policy:
    plan = Plan.from_json(description)
    config, environment = plan.config, description["environment"]
    observation = _read_spec(environment["observation"])
    distribution = tanh_normal(
        environment["action_size"], _read_scale(environment["action_scale"]), config.action_limit
    )
    shapes = NetworkShapes(
        observation, observation, environment["action_size"], distribution.num_outputs
    )
    value_function = categorical_value_function(config.num_bins)

    def blank(key: jax.Array) -> Policy:
        hp = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), plan.hyperparameters)
        return Policy(
            actor=networks_from_config(config)(key, shapes, value_function, hp).actor,
            statistics=statistics_init(observation),
            hyperparameters=hp,
            part=environment["actor_part"],
            distribution=distribution,
            normalize=normalizer(config).normalize,
        )

    return jax.vmap(blank)(plan.members()[0])


def _metric_names() -> list[str]:
    training = [name for name in TrainingMetrics._fields if name != "learner"]
    evaluation = ("eval_return", "eval_return_std", "eval_length")
    return [*evaluation, *training, *LearnerMetrics._fields]


def _write_spec(leaf: jax.ShapeDtypeStruct) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _read_spec(leaf: dict[str, Any]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(leaf["shape"]), leaf["dtype"])


def _read_scale(scale: float | list[float]) -> float | tuple[float, ...]:
    return tuple(scale) if isinstance(scale, list) else scale


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
