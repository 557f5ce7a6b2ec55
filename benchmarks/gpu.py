"""What to measure on a GPU, in order, as far as the time goes; starts where the last call stopped.

python benchmarks/gpu.py --minutes 25 --authors PATH
python benchmarks/gpu.py --minutes 5 --toy --out /tmp/toy     # every step once, at toy size, on any device

1. Throughput at the published setting for 1, 4, 16 and 64 members in one program, against the original code with
   as many seeds, and against the floor of the update's matrix products.
2. Full runs of control-suite tasks, cheapest first, all seeds of a task in one program. A run that the time is up
   for is stopped as by Ctrl-C, and goes on from its checkpoint in the next call.
Worlds are pure (MuJoCo Playground's MJX). Results are JSON beside the others, written after each; runs are in
OUT/runs. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import record

from reppo_fx.run.plan import Plan
from reppo_fx.run.records import read_config
from reppo_fx.run.table import read_returns

TASKS = ("CheetahRun", "WalkerRun", "HopperHop", "HumanoidWalk", "HumanoidRun")
MEMBERS = (1, 4, 16, 64)
SPARE = 20.0  # seconds that stopping a run may take
TOY = ["--total-steps", "2048", "--num-envs", "16", "--num-steps", "8", "--num-minibatches", "2"]
TOY += ["--num-epochs", "1", "--actor-width", "16", "--critic-width", "16", "--num-evals", "2"]
TOY += ["--num-eval-envs", "2", "--episode-length", "20"]


def call(command: list[str], deadline: float) -> bool:
    """Run until it ends or time is up; whether it ended well."""
    process = subprocess.Popen([sys.executable, *command])
    try:
        return process.wait(max(deadline - time.monotonic() - SPARE, 1.0)) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(SPARE)
    except subprocess.TimeoutExpired:
        process.kill()
    return False


def throughput(arguments: argparse.Namespace, members: int, deadline: float) -> None:
    size = "tiny" if arguments.toy else "published"
    task = "CartpoleSwingup" if arguments.toy else TASKS[0]
    many = f"_{members}" if members > 1 else ""
    if (arguments.out / f"gpu_speed_{size}_{task}{many}.json").exists():
        return
    command = [str(Path(__file__).parent / "speed.py"), task, "--size", size]
    # Of a call that is stopped the turns that it has done are kept there.
    new = arguments.out / f"new-{members}"
    command += ["--members", str(members), "--repeats", "1", "--resume", "--out", str(new)]
    command += ["--sides", "ours: cleaner"] if arguments.toy else []
    if arguments.authors:
        command += ["--authors", str(arguments.authors)]
    if call(command, deadline):
        for path in new.glob("speed_*.json"):
            path.replace(arguments.out / f"gpu_{path.name}")
        shutil.rmtree(new)


def full_run(arguments: argparse.Namespace, task: str, deadline: float) -> None:
    result = record.learning_file(arguments.out, "dmc", task)
    if result.exists():
        return
    folder = arguments.out / "runs" / task
    command = ["-m", "reppo_fx", "train"]
    if (folder / "checkpoints").exists():
        command += ["--resume", str(folder)]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        command += [task, "--preset", "dmc", "--seeds", str(arguments.seeds), "--out", str(folder)]
        command += TOY if arguments.toy else []
    if not call(command, deadline):
        return
    description = read_config(folder)
    steps, returns = read_returns(folder / "metrics.csv", Plan.from_json(description))
    rows = zip(steps.tolist(), np.asarray(returns)[:, 0].tolist(), strict=True)
    evaluations = [{"env_steps": step, "eval_return": seeds} for step, seeds in rows]
    record.write(
        {**description, "label": "dmc", **record.stamp(), "evaluations": evaluations}, result
    )


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
    deadline = time.monotonic() + 60.0 * arguments.minutes
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = [(throughput, members) for members in MEMBERS]
    jobs += [(full_run, task) for task in (("CartpoleBalance",) if arguments.toy else TASKS)]
    for job, what in jobs:
        if deadline - time.monotonic() < 2 * SPARE:
            print(f"time is up before {what}; call again to go on")
            break
        job(arguments, what, deadline)
    print(json.dumps(sorted(path.name for path in arguments.out.glob("*.json"))))


if __name__ == "__main__":
    main()
