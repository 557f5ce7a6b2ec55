"""What to measure on a GPU, in order, as far as the time goes; starts where the last call stopped.

python benchmarks/gpu.py --minutes 25 --authors PATH
python benchmarks/gpu.py --minutes 5 --toy --out /tmp/toy     # every step once, at toy size, on any device

1. Every program is compiled, all side by side, into one cache: what a GPU is lent for is not compiling, and one
   program at a time keeps most of the host's cores idle. The first full run starts meanwhile.
2. Throughput at the published setting for 1, 4, 16 and 64 members in one program, for one beside the original code
   and the floor of the update's matrix products.
3. Full runs of control-suite tasks, cheapest first, all seeds of a task in one program. A run that the time is up
   for is stopped as by Ctrl-C, and goes on from its checkpoint in the next call; its curve so far is written with
   `stopped_at`.
Worlds are pure (MuJoCo Playground's MJX). Results are JSON beside the others, written after each; runs are in
OUT/runs, compiled programs there too. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import record
from speed import SIDES, file_name

from reppo_fx.run.plan import Plan
from reppo_fx.run.records import read_config
from reppo_fx.run.table import read_evaluations

TASKS = ("CheetahRun", "WalkerRun", "HopperHop", "HumanoidWalk", "HumanoidRun")
ORIGINAL, _, OURS = SIDES
# Members and whose program, in order of what is wanted most.
PROGRAMS = ((1, OURS), (1, ORIGINAL), (16, OURS), (4, OURS), (64, OURS))
TOGETHER = "compiled_side_by_side"
"""In a result: seconds until a program was compiled while all of them were."""
STOPPED = "stopped_at"
LABEL = "gpu"
SPARE = 20.0  # seconds that stopping a run may take
COMPILING = 0.45  # of the time, at most
TOY = ["--total-steps", "2048", "--num-envs", "16", "--num-steps", "8", "--num-minibatches", "2"]
TOY += ["--num-epochs", "1", "--actor-width", "16", "--critic-width", "16", "--num-evals", "2"]
TOY += ["--num-eval-envs", "2", "--episode-length", "20"]


def cache(arguments: argparse.Namespace) -> Path:
    """Of compiled programs."""
    return Path(arguments.out).resolve() / "runs" / "cache"


def compiled_in(arguments: argparse.Namespace, members: int, side: str) -> Path:
    """Where it is told how long a program was compiled."""
    return Path(arguments.out) / "runs" / "compiled" / f"{members} {side}.json"


def start(
    arguments: argparse.Namespace, command: list[str], out: Path | None = None
) -> subprocess.Popen[bytes]:
    """A process with the common cache that takes of the device's memory what it needs, and not most of it."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache(arguments)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    with out.open("wb") if out else nullcontext() as writes:
        return subprocess.Popen(
            [sys.executable, *command], env={**os.environ, **settings}, stdout=writes
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, and for good if that takes too long."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(SPARE)
    except subprocess.TimeoutExpired:
        process.kill()


def finish(process: subprocess.Popen[bytes], until: float) -> bool:
    """Wait until it ends or time is up; whether it ended well."""
    try:
        return process.wait(max(until - time.monotonic(), 1.0)) == 0
    except subprocess.TimeoutExpired:
        stop(process)
    return False


def task_and_size(arguments: argparse.Namespace) -> tuple[str, str]:
    return ("CartpoleSwingup", "tiny") if arguments.toy else (TASKS[0], "published")


def wanted(arguments: argparse.Namespace) -> list[tuple[int, str]]:
    """The programs whose throughput is not there yet."""
    sides = (OURS, ORIGINAL) if arguments.authors else (OURS,)
    return [
        (members, side)
        for members, side in PROGRAMS
        if side in sides and not kept(arguments, members, side)
    ]


def result_of(arguments: argparse.Namespace, members: int) -> Path:
    task, size = task_and_size(arguments)
    return Path(arguments.out) / file_name(task, size, members, label=LABEL)


def kept(arguments: argparse.Namespace, members: int, side: str) -> bool:
    path = result_of(arguments, members)
    return path.exists() and any(turn["side"] == side for turn in record.read(path)["turns"])


def speed_command(arguments: argparse.Namespace, members: int) -> list[str]:
    task, size = task_and_size(arguments)
    command = [str(Path(__file__).parent / "speed.py"), task, "--size", size]
    command += ["--members", str(members)] + ["--without-floor"] * (members > 1)
    return command + (["--authors", str(arguments.authors)] if arguments.authors else [])


def compile_all(arguments: argparse.Namespace, until: float) -> None:
    """Compile every program, all at the same time; the first full run trains while that takes."""
    path = partial(compiled_in, arguments)
    missing = [one for one in wanted(arguments) if not path(*one).exists()]
    if not missing:
        return
    path(*missing[0]).parent.mkdir(parents=True, exist_ok=True)
    first = next(filter(None, (full_command(arguments, task) for task in tasks(arguments))), None)
    running = start(arguments, first) if first else None
    parts = {
        one: start(
            arguments,
            [*speed_command(arguments, one[0]), "--side", one[1], "--only-compile"],
            path(*one).with_suffix(".part"),
        )
        for one in missing
    }
    for one, process in parts.items():
        if finish(process, until):
            path(*one).with_suffix(".part").replace(path(*one))
    if running:
        stop(running)


def throughput(arguments: argparse.Namespace, members: int, side: str, until: float) -> None:
    """Measure one program by itself, from the cache; beside it, how long compiling took when all did."""
    command = [*speed_command(arguments, members), "--sides", side, "--repeats", "1", "--resume"]
    command += ["--label", LABEL, "--out", str(arguments.out), "--cache", str(cache(arguments))]
    compiled = compiled_in(arguments, members, side)
    if finish(start(arguments, command), until) and compiled.exists():
        measured = record.read(result_of(arguments, members))
        seconds = json.loads(compiled.read_text().splitlines()[-1])["compile_seconds"]
        measured.setdefault(TOGETHER, {})[side] = round(seconds, 1)
        record.write(measured, result_of(arguments, members))


def tasks(arguments: argparse.Namespace) -> tuple[str, ...]:
    return ("CartpoleBalance",) if arguments.toy else TASKS


def full_command(arguments: argparse.Namespace, task: str) -> list[str]:
    """What starts a full run, or goes on with it; nothing if it is done."""
    result = record.learning_file(arguments.out, "dmc", task)
    if result.exists() and STOPPED not in record.read(result):
        return []
    folder = arguments.out / "runs" / task
    if (folder / "checkpoints").exists():
        return ["-m", "reppo_fx", "train", "--resume", str(folder)]
    shutil.rmtree(folder, ignore_errors=True)
    command = ["-m", "reppo_fx", "train", task, "--preset", "dmc", "--out", str(folder)]
    return [*command, "--seeds", str(arguments.seeds), *(TOY if arguments.toy else [])]


def full_run(arguments: argparse.Namespace, task: str, until: float) -> None:
    """Train one to its end, if there is time; what it has reached by then is written."""
    command = full_command(arguments, task)
    if not command:
        return
    done = finish(start(arguments, command), until)
    folder = arguments.out / "runs" / task
    if (folder / "metrics.csv").exists():
        write_curve(folder, record.learning_file(arguments.out, "dmc", task), done)


def write_curve(folder: Path, result: Path, done: bool) -> None:
    """The curve of a run, and where it was stopped if it is not done."""
    description = read_config(folder)
    _, found = read_evaluations(folder / "metrics.csv", Plan.from_json(description))
    evaluations = [
        {
            "env_steps": one.env_steps,
            "seconds": float(one.rows[0]["seconds"]),
            "eval_return": [float(row["eval_return"]) for row in one.rows],
        }
        for one in found
    ]
    stopped = {} if done or not found else {STOPPED: found[-1].env_steps}
    own = {**description, "label": "dmc", **record.stamp(), **stopped}
    record.write({**own, "evaluations": evaluations}, result)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    parser.add_argument("--toy", action="store_true", help="sizes that any device can do")
    arguments = parser.parse_args()
    began = time.monotonic()
    until = began + 60.0 * arguments.minutes - SPARE
    arguments.out.mkdir(parents=True, exist_ok=True)
    compile_all(arguments, began + 60.0 * arguments.minutes * COMPILING)
    for members, side in wanted(arguments):
        if until - time.monotonic() > SPARE:
            throughput(arguments, members, side, until)
    for task in tasks(arguments):
        if until - time.monotonic() > SPARE:
            full_run(arguments, task, until)
    if until - time.monotonic() <= SPARE:
        print("time is up; call again to go on")
    print(json.dumps(sorted(path.name for path in arguments.out.glob("*.json"))))


if __name__ == "__main__":
    main()
