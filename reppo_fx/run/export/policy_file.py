"""From a policy, or a run's, to a file."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import unknown_name
from ...training.assembly import World
from ...training.policy import Policy
from ..durable import write_whole
from ..plan import Plan, label_text
from ..policies import load_policy, member_of, score_of
from ..records import control, read_config, world
from .arrays import to_arrays
from .check import check_alike
from .dense import dense_of
from .graph import run_onnx, to_onnx
from .inputs import Inputs, inputs_of
from .metadata import facts_of
from .program import run_program, to_program
from .reader import read_policy

FORMATS = {"onnx": ".onnx", "jax": ".jax.zip", "numpy": ".npz"}
"""What can be written, and how the names of such files end."""


def export_policy(
    policy: Policy,
    env: World,
    file: str | Path,
    format: str = "onnx",
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a policy to a file that is read without this package, checked against the policy before.

    What is written is deterministic, in single precision, with the observation statistics inside; its actions are
    as the environment gets them. Inputs are the leaves of an observation that the policy reads, by their paths
    (`state`, `robot.arm`; `observation` where it is one array), `[batch, ...]`.

    Args:
        policy: of one run, from `make_policy` or `load_policy`.
        env: whose observations it reads, pure or a simulator.
        file: to write; one that is there is replaced.
        format: `"onnx"`, for this package's own networks; `"numpy"`, arrays for the same, see `reader.py`;
            `"jax"`, for any policy, see `program.py`.
        facts: more to be said in the file's metadata, as JSON has it.

    Returns:
        The file.

    Raises:
        ValueError: for an unknown format, a policy of several members, one that the format cannot hold, or one
            whose actions are not the same in it.
        ImportError: for ONNX without the extra `export`.
        OSError: if the file cannot be written.

    >>> import jax, tempfile
    >>> from reppo_fx import Config, make_policy, make_train
    >>> from reppo_fx.envs import probes
    >>> train = make_train(probes.match_observation(), Config(episode_length=8, actor_width=8, critic_width=8))
    >>> policy = make_policy(train, jax.jit(train.init)(jax.random.key(0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     act, facts = read_policy(export_policy(policy, train.env, f"{folder}/policy.npz", "numpy"))
    >>> act(np.ones((2, 1), np.float32)).shape, facts["task"]
    ((2, 1), 'match_observation')
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if np.ndim(policy.statistics.count):
        members = len(policy.statistics.count)
        raise ValueError(
            f"policy is of {members} members; a file holds one: take its leaf[member]."
        )
    file = Path(file)
    if file.is_dir():
        raise ValueError(f"the file to write is {str(file)!r}, which is a folder.")
    inputs = inputs_of(policy, env)
    data, run = _written(policy, env, inputs, format, dict(facts or {}))
    check_alike(policy, inputs, run, format)
    write_whole(file, data)
    return file


def export_run(
    folder: str | Path,
    format: str = "onnx",
    *,
    best: bool = False,
    seed: int = 0,
    setting: int = 0,
    out: str | Path | None = None,
) -> Path:
    """Write a policy of a run to a file that is read without this package; see `export_policy`.

    Args:
        folder: of the run.
        format: `"onnx"`, `"jax"` or `"numpy"`.
        best: the policy at the evaluation where this member had its highest return, instead of the last one.
        seed: which one, from 0.
        setting: counts as in `metrics.csv`.
        out: the file; in the run's folder, named by what it is, if not given.

    Returns:
        Where it was written.

    Raises:
        ValueError: as `load_policy` and `export_policy`.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    folder = Path(folder)
    description = read_config(folder)
    plan = Plan.from_json(description)
    policy = load_policy(folder, seed, setting, best)
    score = score_of(folder, plan, member_of(plan, seed, setting), best)
    facts = {
        **control(description),
        "return": score.value,
        "env_steps": score.env_steps,
        "best": best,
        "seed": seed,
        "setting": label_text(plan.labels[setting]),
        "preset": plan.preset,
    }
    file = Path(out) if out is not None else folder / _name(plan, format, best, seed, setting)
    return export_policy(policy, world(description), file, format, facts)


def _name(plan: Plan, format: str, best: bool, seed: int, setting: int) -> str:
    """`policy.onnx`; what else could be meant in this run is a part of it."""
    parts = ["policy", *(["best"] if best else [])]
    parts += [f"setting{setting}"] if len(plan.labels) > 1 else []
    parts += [f"seed{seed}"] if plan.num_seeds > 1 else []
    return "-".join(parts) + FORMATS[format]


def _written(
    policy: Policy, env: World, inputs: Inputs, format: str, more: dict[str, Any]
) -> tuple[bytes, Callable[[dict[str, NDArray[Any]]], Any]]:
    """The content of the file, and a function that runs it on inputs by name."""
    facts = facts_of(policy, env, inputs, more)
    if format == "jax":
        data = to_program(policy, inputs, facts)
        return data, functools.partial(run_program, data)
    dense = dense_of(policy, inputs, format)
    if format == "onnx":
        data = to_onnx(dense, inputs, facts)
        return data, functools.partial(run_onnx, data)
    data = to_arrays(dense, facts)
    act, _ = read_policy(io.BytesIO(data))
    return data, lambda leaves: act(*leaves.values())
