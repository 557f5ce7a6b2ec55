"""What `suite.py` trains: programs of settings and seeds on a task, and the original code beside them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import record
from ablations import SECTIONS
from settings import our_settings, read_our_changes, settings_for
from study import train_once
from suites import full_name, options_of, playground_name

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.hosts.wrapper import Wrapper
from reppo_fx.learner.state import TrainState
from reppo_fx.run.checkpoints import Checkpoints
from reppo_fx.run.display import SUCCESS
from reppo_fx.run.loop import Programs, compile_programs, run_loop
from reppo_fx.run.session import closing
from reppo_fx.run.worlds import AnyTrain, World, make_world, restore, train_in
from reppo_fx.sweeps.members import flatten_members, host_memory, label_settings
from reppo_fx.sweeps.space import grid_but_for
from reppo_fx.training.presets import settings_to_fit

VARIANTS = dict(SECTIONS.values())
INSTANCE = 14 * 2**20
"""Bytes of an instance of the control suite in EnvPool."""
UNFINISHED = "unfinished"
"""The folder beside the results, of what is not done."""
# Of the training diagnostics; those of the learner are all there.
OF_TRAINING = ("value_bias", "outside", "exploring", "unit")


class Program(NamedTuple):
    """What is trained at once.

    Attributes:
        label: of its results.
        changes: of the preset, as on the command line.
        axes: values of hyperparameters, all combinations.
        beside: changes of hyperparameters, each trained beside the others.
    """

    label: str
    changes: list[str]
    axes: dict[str, list[float]]
    beside: list[dict[str, float]]


def programs(arguments: argparse.Namespace) -> list[Program]:
    """The preset with what rides along in its program, then the variants that need their own.

    Raises:
        ValueError: for a setting that does not exist or cannot be.
    """
    for name in ("steps", "evals", "seeds", "at_once"):
        number = getattr(arguments, name)
        if number is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {number}; it must be at least 1.")
    sizes = [f"total_steps={arguments.steps}", f"num_evals={arguments.evals}", "num_eval_envs=8"]
    changes = [*sizes, *arguments.set]
    axes = dict(_axis(text) for text in arguments.vary)
    beside, others = [], []
    for label, text in VARIANTS.get(arguments.variants, {}).items():
        own = dict(part.split("=", 1) for part in text.split())
        if set(own) <= set(rx.Hyperparameters._fields):
            beside.append({name: float(value) for name, value in own.items()})
        else:
            others.append(Program(label, [*changes, *text.split()], axes, []))
    found = [Program(arguments.label, changes, axes, beside), *others]
    for program in found:
        config = our_settings(*_preset(arguments, program))[0]
        members = len(labels_of(arguments, program)) * len(groups(arguments)[0])
        if any(":" not in task for task in arguments.tasks):
            check_memory(members, config)
    return found


def check_memory(members: int, config: rx.Config) -> None:
    """That EnvPool's instances of the control suite fit into this machine: a process that is killed says nothing.

    Raises:
        ValueError: if they do not.
    """
    each, has = config.num_envs + config.num_eval_envs, host_memory()
    if members * each * INSTANCE > has:
        raise ValueError(
            f"--seeds and --vary make {members} members at once of {each} instances, which take "
            f"{members * each * INSTANCE / 2**30:.0f} GiB in EnvPool; this machine has {has / 2**30:.0f}: "
            "give a smaller --at-once."
        )


def _preset(arguments: argparse.Namespace, program: Program) -> tuple[str, dict[str, Any]]:
    return arguments.preset, read_our_changes(arguments.preset, program.changes)


def _axis(text: str) -> tuple[str, list[float]]:
    name, _, values = text.partition("=")
    try:
        return name, [float(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(f"--vary has {text!r}; it must be NAME=NUMBER,NUMBER,…") from None


def settings_of(program: Program, hp: rx.Hyperparameters) -> rx.Hyperparameters:
    """Of every member without its seed: `[settings]`."""
    parts = [rx.grid(hp._replace(**own), **program.axes) for own in [{}, *program.beside]]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def labels_of(arguments: argparse.Namespace, program: Program) -> list[dict[str, float]]:
    """What results say of each of them; known before the task has decided what is left to it.

    Raises:
        ValueError: for settings that cannot be.
    """
    preset, changes = _preset(arguments, program)
    hp = our_settings(preset, changes)[1]
    labels = []
    for own in [{}, *program.beside]:
        undecided = settings_to_fit(preset, {**changes, **own})
        part = grid_but_for(undecided, hp._replace(**own), program.axes)
        labels += label_settings(part, [*own, *program.axes])
    return labels


class _PayingMore(Wrapper):
    def __init__(self, env: hosts.HostEnvironment, by: float) -> None:
        super().__init__(env)
        self.by = by

    def again(self, env: hosts.HostEnvironment) -> hosts.HostEnvironment:
        return _PayingMore(env, self.by)

    def step(self, action: Any) -> Any:
        timestep = self.env.step(action)
        return timestep._replace(reward=timestep.reward + timestep.reward.dtype.type(self.by))


def paying_more(world: World, by: float) -> World:
    """The same world, which pays so much more at every step: what is learned must not depend on it."""
    if not by:
        return world
    if isinstance(world, hosts.HostEnvironment):
        return _PayingMore(world, by)

    def step(state: Any, action: jax.Array) -> Any:
        state, timestep = world.step(state, action)
        return state, timestep._replace(reward=timestep.reward + by)

    return world._replace(step=step)


def run_task(arguments: argparse.Namespace, task: str, program: Program) -> dict[str, Any]:
    """Curves of every setting and seed of a program on a task."""
    own = facts(arguments, task, program)
    own["settings"] = labels_of(arguments, program)
    parts = [run_seeds(arguments, task, program, own, seeds) for seeds in groups(arguments)]
    rows = [joined(own_rows) for own_rows in zip(*parts, strict=True)]
    places = list(dict.fromkeys(_places(arguments, task, program)))
    several = {"made_on": places} if len(places) > 1 else {}
    return {**own, **several, "seconds": rows[-1]["seconds"], **record.thinned(rows)}


def _places(arguments: argparse.Namespace, task: str, program: Program) -> Iterator[str]:
    """Where what is kept was trained, and with which code, in order."""
    for folder in folders(arguments, task, program):
        with Checkpoints(folder) as kept:
            yield from places_of(kept)


def places_of(kept: Checkpoints) -> list[str]:
    """Machines and commits that a run was trained with so far."""
    found: list[str] = kept.record().get("made_on", []) if kept.steps() else []
    return found


def groups(arguments: argparse.Namespace) -> list[range]:
    """Seeds that are trained at once."""
    seeds, most = range(arguments.seeds), arguments.at_once or arguments.seeds
    return [seeds[start : start + most] for start in seeds[::most]]


def run_seeds(
    arguments: argparse.Namespace, task: str, program: Program, own: dict[str, Any], seeds: range
) -> list[dict[str, Any]]:
    """Evaluations of some of the seeds, in one program; kept from one to the next."""
    preset, changes = _preset(arguments, program)
    unfitted, _ = our_settings(preset, changes)
    folder = unfinished(arguments, task, program, seeds)
    if rows := done_before(folder, unfitted.total_steps):
        return rows
    world = paying_more(
        make_world(full_name(task), unfitted, **own["environment"]), arguments.shift
    )
    config, hp = settings_for(world, preset, changes)
    keys, members = flatten_members(settings_of(program, hp), arguments.seeds, jax.random.key(0))
    chosen = np.arange(len(keys)).reshape(-1, arguments.seeds)[:, seeds].ravel()
    keys, members = jax.tree.map(lambda leaf: leaf[chosen], (keys, members))
    with (
        closing(train_in(world, config)) as train,
        Checkpoints(folder, keep=1) as kept,
    ):
        kept.hold()
        places = list(dict.fromkeys([*places_of(kept), record.made_on(record.stamp())]))
        compiled = compile_programs(train, keys, members)
        state, rows = begin(train, compiled, keys, members, kept)
        before = rows[-1]["seconds"] if rows else 0.0
        for progress in run_loop(train, compiled, state):
            if progress.metrics is not None:
                seconds = before + progress.seconds
                rows.append(row(progress.env_steps, seconds, progress.metrics, len(seeds)))
                show(task, program.label, rows[-1])
                said = {"run": own, "rows": rows, "made_on": places}
                kept.save(progress.iteration, progress.state, said)
    return rows


def done_before(folder: Path, total_steps: int) -> list[dict[str, Any]]:
    """Evaluations of seeds that were trained to the end before others of their task were; else none."""
    with Checkpoints(folder) as kept:
        rows: list[dict[str, Any]] = kept.record()["rows"] if kept.steps() else []
    return rows if rows and rows[-1]["env_steps"] >= total_steps else []


def joined(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The same evaluation of several groups of seeds as one; they were trained one after the other.

    >>> of = lambda seconds, returns: {"env_steps": 8, "seconds": seconds, "eval_return": returns}
    >>> joined((of(1.0, [[3.0, 4.0], [5.0, 6.0]]), of(2.0, [[7.0], [8.0]])))
    {'env_steps': 8, 'seconds': 3.0, 'eval_return': [[3.0, 4.0, 7.0], [5.0, 6.0, 8.0]]}
    """
    first = rows[0]
    numbers = {
        name: np.concatenate([one[name] for one in rows], axis=1).tolist()
        for name in first
        if isinstance(first[name], list)
    }
    return {**first, "seconds": round(sum(one["seconds"] for one in rows), 1), **numbers}


def facts(arguments: argparse.Namespace, task: str, program: Program) -> dict[str, Any]:
    """What makes a run of a program on a task what it is: a result of others is of another run."""
    return {
        "task": task,
        "label": program.label,
        "preset": arguments.preset,
        "seeds": arguments.seeds,
        "at_once": arguments.at_once or arguments.seeds,
        "changes": program.changes,
        "environment": options_of(task, arguments.env),
        "shift": arguments.shift,
    }


def unfinished(arguments: argparse.Namespace, task: str, program: Program, seeds: range) -> Path:
    """Where seeds of a program are kept from evaluation to evaluation until its result is written."""
    name = result_name(task, program)
    own = f"{name}_seeds_{seeds.start}_to_{seeds.stop - 1}" if arguments.at_once else name
    return Path(arguments.out) / UNFINISHED / own


def folders(arguments: argparse.Namespace, task: str, program: Program) -> list[Path]:
    """Those of what is not done, a group of seeds each."""
    return [unfinished(arguments, task, program, seeds) for seeds in groups(arguments)]


def result_name(task: str, program: Program) -> str:
    """What the files of a program on a task are called."""
    return f"{program.label}_{task.replace(':', '-')}"


def begin(
    train: AnyTrain,
    compiled: Programs,
    keys: jax.Array,
    members: rx.Hyperparameters,
    kept: Checkpoints,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """A fresh state and no rows, or those of the last evaluation, where episodes of a simulator start anew."""
    if not kept.steps():
        return compiled.init(keys, members), []
    found = restore(train, kept, keys, members)
    rows: list[dict[str, Any]] = found.record["rows"]
    print(f"going on after {rows[-1]['env_steps']} steps", flush=True)
    return found.state, rows


def row(steps: int, seconds: float, metrics: rx.Metrics, seeds: int) -> dict[str, Any]:
    """Of one evaluation; numbers are `[settings, seeds]`."""

    def of(leaf: Any) -> Any:
        return np.asarray(leaf, float).reshape(-1, seeds).tolist()

    training = metrics.training
    return {
        "env_steps": steps,
        "seconds": round(seconds, 1),
        "eval_return": of(metrics.eval_return),
        **{name: of(m.last) for name, m in metrics.eval_metrics.items() if name in SUCCESS},
        **{name: of(leaf) for name, leaf in training.learner._asdict().items()},
        **{name: of(getattr(training, name)) for name in OF_TRAINING},
    }


def show(task: str, label: str, found: dict[str, Any]) -> None:
    means = np.mean(found["eval_return"], axis=1)
    texts = " ".join(f"{mean:.4g}" for mean in means)
    success = next((found[name] for name in SUCCESS if name in found), None)
    if success is not None:
        texts += "  success " + " ".join(f"{np.mean(seeds):.2f}" for seeds in success)
    print(
        f"{task} {label} {found['env_steps']:>8} {found['seconds']:.0f} s: {texts}",
        flush=True,
    )


def original_changes(config: rx.Config) -> list[str]:
    """What makes a run of the original code as long and as large as one of ours."""
    names = ("num_envs", "num_steps", "num_minibatches", "num_epochs", "total_steps", "num_evals")
    widths = {"actor_hidden_dim": config.actor_width, "critic_hidden_dim": config.critic_width}
    found = {**{name: getattr(config, name) for name in names}, **widths}
    if config.episode_length is not None:
        found["max_episode_steps"] = config.episode_length
    return [f"{name}={value}" for name, value in found.items()]


def run_original(arguments: argparse.Namespace, task: str, program: Program) -> None:
    """The original code on the same task by its name in Playground, unless its results are there."""
    name = playground_name(task)
    if name is None:
        print(f"{task} is not a task of MuJoCo Playground, so the original code is left out.")
        return
    changes = original_changes(our_settings(*_preset(arguments, program))[0])
    own = ["--authors", str(arguments.original), "--seeds", str(arguments.seeds)]
    own += ["--set", *changes]
    label = f"original-{arguments.label}"
    train_once(arguments.out, name, label, own, arguments.original_python)
