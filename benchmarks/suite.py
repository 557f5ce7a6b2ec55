"""One preset on a suite of tasks; seeds and settings are members of one program. One table, one picture.

python benchmarks/suite.py --suite dmc --preset any --label any --steps 5000000 --seeds 5
python benchmarks/suite.py --suite dmc --label any --seeds 5 --original PATH       the original code beside it
python benchmarks/suite.py --suite brax --steps 500000                              pure worlds, in the program
python benchmarks/suite.py --label scaled --set value_scale=return v_min=-100 --vary sigma=0.005,0.015
python benchmarks/suite.py --suite six --variants figure7 --preset any --steps 1000000
python benchmarks/suite.py --tasks CheetahRun brax:hopper --label base --steps 500000 --seeds 4 --out /tmp/try
python benchmarks/suite.py --tasks maniskill:PullCube-v1 --env success=continue --without-rendering
python benchmarks/suite.py table --suite dmc      the table and the picture of what is there

One task after the other, each in a process of its own, JSON after each. It can be stopped at any time and called
again: what is there already is left out, and the task that it was at goes on from its last evaluation (where
episodes of a simulator start anew). Tasks are named as on the command line of `reppo-fx`,
FAMILY:NAME; a bare name is a task of the control suite in EnvPool. `--set` takes settings of either kind,
`--vary` hyperparameters, each of whose values is trained beside the others. `--variants` trains every change of a
section of `ablations.py`: those of hyperparameters beside the unchanged preset, each of the others as a program
of its own. `--original` takes a copy of github.com/cvoelcker/reppo, and runs it with its published
hyperparameters at equal steps, data, minibatches, epochs and widths on the tasks that MuJoCo Playground has.

The suites maniskill and gymnax want virtual environments of their own: benchmarks/environments/maniskill.sh, and
any one with `pip install 'reppo_fx[gymnax]'`, which holds jax below 0.12.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import record
from ablations import BASELINE
from host_trains import without_rendering
from peers import NEEDED, holds_authors, missing_for_authors
from suite_pictures import draw
from suite_runs import (
    VARIANTS,
    Program,
    facts,
    folders,
    programs,
    result_name,
    run_original,
    run_task,
)
from suite_tables import suite_table
from suites import SUITES, check_tasks

from reppo_fx.run.checkpoints import Checkpoints
from reppo_fx.training.presets import PRESETS


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
    parser.add_argument("--at-once", type=int, help="seeds in a program, for less memory; all")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--vary", nargs="*", default=[], metavar="NAME=VALUE,VALUE")
    parser.add_argument("--variants", choices=VARIANTS, help="every change of this section, too")
    parser.add_argument("--env", nargs="*", metavar="NAME=VALUE", help="options of the tasks")
    parser.add_argument("--shift", type=float, default=0.0, help="added to every reward")
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


def file_of(arguments: argparse.Namespace, task: str, program: Program) -> Path:
    return Path(arguments.out) / f"{result_name(task, program)}.json"


def check_files(arguments: argparse.Namespace, found: list[Program]) -> None:
    """That what is there, done or not, is what would be trained.

    Raises:
        ValueError: naming what is of another run.
    """
    for task in arguments.tasks:
        for program in found:
            own = facts(arguments, task, program)
            for path, there in made_before(arguments, task, program):
                if told := differences(there, own):
                    raise ValueError(
                        f"{path} is of another run: {told}; give another --label or --out."
                    )


def differences(there: dict[str, Any], own: dict[str, Any]) -> str:
    """What a run that was made before has otherwise. A fact that it was not kept with is the same, or was 0.

    >>> differences({"seeds": 3, "changes": []}, {"seeds": 8, "changes": [], "shift": 0.0})
    'seeds is 3, and not 8'
    """
    there = {**own, "shift": 0.0, **there}
    return ", ".join(
        f"{name} is {there[name]}, and not {value}"
        for name, value in own.items()
        if there[name] != value
    )


def made_before(
    arguments: argparse.Namespace, task: str, program: Program
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What is there of a program on a task, and where: its result, or what it was stopped in."""
    path = file_of(arguments, task, program)
    if path.exists():
        yield path, record.read(path)
    for folder in folders(arguments, task, program):
        with Checkpoints(folder) as kept:
            if kept.steps():
                yield folder, kept.record()["run"]


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
    """Train a program on a task, and write what came out in place of what it was kept in."""
    result = run_task(arguments, task, program)
    record.write({**record.stamp(), **result}, path)
    for folder in folders(arguments, task, program):
        shutil.rmtree(folder, ignore_errors=True)


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
    return found


def run_apart(job: Callable[[], None], prepare: Callable[[], None] | None) -> None:
    """Run a job in a process of its own: its memory is given back, and one that is killed ends nothing else.

    It ends with this one, however this one ends.

    Raises:
        Exception: what the job raised, or that its process ended without a word.
    """
    apart = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=apart, initializer=_begin, initargs=(prepare,)) as pool:
        pool.submit(job).result()


def _begin(prepare: Callable[[], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare:
        prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only called in a child
    parent.join()
    os._exit(1)


def main() -> int:
    arguments = parse()
    if arguments.command == "table":
        if not any(arguments.out.glob("*.json")):
            print(f"{arguments.out} has no results yet.", file=sys.stderr)
            return 2
        print(suite_table(arguments.out))
        draw(arguments.out, arguments.out.parent / f"{arguments.out.name}_curves.png")
        return 0
    prepare = without_rendering if arguments.without_rendering else None
    if prepare:
        prepare()
    try:
        found = check(arguments)
    except (ValueError, ImportError, SystemExit) as error:
        print(error, file=sys.stderr)
        return 2
    failed = []
    for what, job in jobs(arguments, found):
        try:
            run_apart(job, prepare)
        except KeyboardInterrupt:
            print(f"stopped in {what}; what was done is kept, and the next call goes on from there")
            return 130
        except Exception:  # whatever it was: the other tasks are still to come
            traceback.print_exc()
            failed.append(what)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
