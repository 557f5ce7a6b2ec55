"""One preset on a suite of tasks; seeds and settings are members of one program. One table, one picture.

python benchmarks/suite.py --suite dmc --preset any --label any --steps 5000000 --seeds 5
python benchmarks/suite.py --suite dmc --label any --seeds 5 --original PATH       the original code beside it
python benchmarks/suite.py --suite brax --steps 500000                              pure worlds, in the program
python benchmarks/suite.py --label scaled --set value_scale=return v_min=-100 --vary sigma=0.005,0.015
python benchmarks/suite.py --suite six --variants figure7 --preset any --steps 1000000
python benchmarks/suite.py --tasks CheetahRun brax:hopper --label base --steps 500000 --seeds 4 --out /tmp/try
python benchmarks/suite.py --tasks maniskill:PullCube-v1 --env success=continue --without-rendering
python benchmarks/suite.py table --suite dmc      the table and the picture of what is there

One task after the other, JSON after each; what is there already is left out, so that it can be stopped at any time
and called again. Tasks are named as on the command line of `reppo-fx`, FAMILY:NAME; a bare name is a task of the
control suite in EnvPool. `--set` takes settings of either kind, `--vary` hyperparameters, each of whose values is
trained beside the others. `--variants` trains every change of a section of `ablations.py`: those of hyperparameters
beside the unchanged preset, each of the others as a program of its own. `--original` takes a copy of
github.com/cvoelcker/reppo, and runs it with its published hyperparameters at equal steps, data, minibatches, epochs
and widths on the tasks that MuJoCo Playground has.

The suites maniskill and gymnax want virtual environments of their own: benchmarks/environments/maniskill.sh, and
any one with `pip install 'reppo_fx[gymnax]'`, which holds jax below 0.12.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import record
from ablations import BASELINE, SECTIONS
from host_trains import without_rendering
from peers import NEEDED, holds_authors, missing_for_authors
from settings import our_settings, read_our_changes
from study import train_once
from suite_pictures import draw
from suite_tables import suite_table
from suites import SUITES, check_tasks, make, make_train, options_of, playground_name

import reppo_fx as rx
from reppo_fx.run.display import SUCCESS
from reppo_fx.run.loop import compile_programs, run_loop
from reppo_fx.run.session import closing
from reppo_fx.sweeps.members import flatten_members, host_memory, label_settings
from reppo_fx.training.presets import FITTED, PRESETS

VARIANTS = dict(SECTIONS.values())
INSTANCE = 14 * 2**20
"""Bytes of an instance of the control suite in EnvPool."""
# Of the training diagnostics; those of the learner are all there.
OF_TRAINING = ("value_bias", "outside", "unit")


def parse(texts: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", nargs="?", default="run", choices=("run", "table"))
    parser.add_argument("--suite", default="cheap", choices=SUITES)
    parser.add_argument("--tasks", nargs="+", help="instead of all of the suite")
    parser.add_argument("--preset", default="cpu", choices=PRESETS)
    parser.add_argument("--label", help=f"default: base, or {BASELINE} with --variants")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of each seed")
    parser.add_argument("--evals", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--vary", nargs="*", default=[], metavar="NAME=VALUE,VALUE")
    parser.add_argument("--variants", choices=VARIANTS, help="every change of this section, too")
    parser.add_argument("--env", nargs="*", metavar="NAME=VALUE", help="options of the tasks")
    parser.add_argument("--original", type=Path, metavar="PATH", help="run the code there, too")
    parser.add_argument("--original-python", default=sys.executable, help="interpreter for it")
    parser.add_argument("--without-rendering", action="store_true")
    parser.add_argument("--out", type=Path, help="default: results/SUITE, or results/VARIANTS")
    arguments = parser.parse_args(texts)
    arguments.label = arguments.label or (BASELINE if arguments.variants else "base")
    folder = arguments.variants or ("suite" if arguments.suite == "cheap" else arguments.suite)
    arguments.out = arguments.out or record.RESULTS / folder
    arguments.tasks = arguments.tasks or list(SUITES[arguments.suite])
    return arguments


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
    for name in ("steps", "evals", "seeds"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} is {getattr(arguments, name)}; it must be at least 1.")
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
        config, hp = our_settings(*_preset(arguments, program))
        members = len(settings_of(program, hp)[1]) * arguments.seeds
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
            f"--seeds and --vary make {members} members of {each} instances, which take "
            f"{members * each * INSTANCE / 2**30:.0f} GiB in EnvPool; this machine has {has / 2**30:.0f}."
        )


def _preset(arguments: argparse.Namespace, program: Program) -> tuple[str, dict[str, Any]]:
    return arguments.preset, read_our_changes(arguments.preset, program.changes)


def _axis(text: str) -> tuple[str, list[float]]:
    name, _, values = text.partition("=")
    try:
        return name, [float(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(f"--vary has {text!r}; it must be NAME=NUMBER,NUMBER,…") from None


def settings_of(
    program: Program, hp: rx.Hyperparameters
) -> tuple[rx.Hyperparameters, list[dict[str, float]]]:
    """Of every member without its seed: `[settings]`, and what is said of each."""
    parts, labels = [], []
    for own in [{}, *program.beside]:
        part = rx.grid(hp._replace(**own), **program.axes)
        parts.append(part)
        labels += label_settings(part, [*own, *program.axes])
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), labels


def fit(
    world: Any, config: rx.Config, hp: rx.Hyperparameters, changes: list[str]
) -> tuple[rx.Config, rx.Hyperparameters]:
    """What the preset for unknown tasks takes from the task, where it is not given, as on the command line."""
    given = {text.partition("=")[0] for text in changes}
    fitted, numbers = rx.preset_for(world, FITTED, episode_length=config.episode_length)
    if "discount" not in given:
        hp = hp._replace(discount=numbers.discount)
    if "training_time_limit" not in given:
        config = dataclasses.replace(config, training_time_limit=fitted.training_time_limit)
    return config, hp


def run_task(arguments: argparse.Namespace, task: str, program: Program) -> dict[str, Any]:
    """Curves of every setting and seed of a program on a task."""
    config, hp = our_settings(*_preset(arguments, program))
    options = options_of(task, arguments.env)
    world = make(task, config, options)
    if arguments.preset == FITTED:
        config, hp = fit(world, config, hp, program.changes)
    settings, labels = settings_of(program, hp)
    keys, members = flatten_members(settings, arguments.seeds, jax.random.key(0))
    started, rows = time.perf_counter(), []
    with closing(make_train(world, config)) as train:
        compiled = compile_programs(train, keys, members)
        for progress in run_loop(train, compiled, compiled.init(keys, members)):
            if progress.metrics is not None:
                rows.append(
                    row(progress.env_steps, progress.seconds, progress.metrics, arguments.seeds)
                )
                show(task, program.label, rows[-1])
    return {
        "task": task,
        "label": program.label,
        "preset": arguments.preset,
        "seeds": arguments.seeds,
        "changes": program.changes,
        "environment": options,
        "settings": labels,
        "seconds": round(time.perf_counter() - started, 1),
        **record.thinned(rows),
    }


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


def file_of(arguments: argparse.Namespace, task: str, program: Program) -> Path:
    return Path(arguments.out) / f"{program.label}_{task.replace(':', '-')}.json"


def check_files(arguments: argparse.Namespace, found: list[Program]) -> None:
    """That what is there is what would be trained: it is left out.

    Raises:
        ValueError: naming a file of another run.
    """
    for task in arguments.tasks:
        for program in found:
            path = file_of(arguments, task, program)
            if not path.exists():
                continue
            result = record.read(path)
            own = (arguments.preset, arguments.seeds, program.changes)
            there = tuple(result[name] for name in ("preset", "seeds", "changes"))
            if there != own:
                raise ValueError(
                    f"{path} is of another run: preset, seeds and changes are {there}, and not {own}; give another "
                    "--label or --out."
                )


def jobs(
    arguments: argparse.Namespace, found: list[Program]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is missing, in order: a task with all its programs, then the original code on it."""
    for task in arguments.tasks:
        for program in found:
            path = file_of(arguments, task, program)
            if not path.exists():
                yield f"{program.label} on {task}", partial(keep, path, arguments, task, program)
        if arguments.original:
            yield f"the original on {task}", partial(run_original, arguments, task, found[0])


def keep(path: Path, arguments: argparse.Namespace, task: str, program: Program) -> None:
    """Train a program on a task, and write what came out."""
    result = run_task(arguments, task, program)
    record.write({**record.stamp(), **result}, path)


def check(arguments: argparse.Namespace) -> list[Program]:
    """Everything that can be wrong with a command line, before anything is trained."""
    found = programs(arguments)
    if arguments.original and not holds_authors(arguments.original):
        raise ValueError(f"--original is {arguments.original}; it must hold src/jaxrl/reppo.py.")
    if arguments.original and (missing := missing_for_authors(arguments.original_python)):
        raise ValueError(
            f"--original needs {', '.join(NEEDED)}; {arguments.original_python} lacks {', '.join(missing)}: give "
            "another interpreter as --original-python."
        )
    check_tasks(arguments.tasks)
    check_files(arguments, found)
    for task in arguments.tasks:
        options_of(task, arguments.env)
    return found


def main() -> int:
    arguments = parse()
    if arguments.command == "table":
        if not any(arguments.out.glob("*.json")):
            print(f"{arguments.out} has no results yet.", file=sys.stderr)
            return 2
        print(suite_table(arguments.out))
        draw(arguments.out, arguments.out.parent / f"{arguments.out.name}_curves.png")
        return 0
    if arguments.without_rendering:
        without_rendering()
    try:
        found = check(arguments)
    except (ValueError, ImportError, SystemExit) as error:
        print(error, file=sys.stderr)
        return 2
    failed = []
    for what, job in jobs(arguments, found):
        try:
            job()
        except KeyboardInterrupt:
            print(f"stopped in {what}; what was done before it is kept, and is left out next time")
            return 130
        except Exception:  # whatever it was: the other tasks are still to come
            traceback.print_exc()
            failed.append(what)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
