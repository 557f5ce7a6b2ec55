"""Simulators that are programs: learning curves in them, and their speed beside MJX's on the same cores.

python benchmarks/hosts.py learn envpool:CheetahRun-v1 --label envpool --seeds 8
python benchmarks/hosts.py learn maniskill:PullCube-v1 --label published --env success=truncate --set num_envs=8
python benchmarks/hosts.py learn CheetahRun --label playground --seeds 8        a pure world, for comparison
python benchmarks/hosts.py speed CheetahRun --steps 500000                       whole training, EnvPool against MJX
python benchmarks/hosts.py shares CheetahRun-v1                                  where an iteration's time goes
python benchmarks/hosts.py threads CheetahRun-v1                                 EnvPool's threads
python benchmarks/hosts.py overlap CheetahRun-v1                                 two halves of the instances in turn
python benchmarks/hosts.py policy CartpoleBalance FOLDER                         a run's policies in both simulators

`--without-rendering` stands in for what ManiSkill asks of a rendering device (states need none).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import record
from engines import compare
from host_speed import overlap, shares, speed, threads
from host_trains import make_train, members, without_rendering

from reppo_fx.run import load_policies
from reppo_fx.run.loop import compile_programs, run_loop

HERE = record.RESULTS / "hosts"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("task")
    parser.add_argument("folder", nargs="?", help="of a run, for policy")
    parser.add_argument("--label", default="")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--env", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--without-rendering", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args()


def learn(arguments: argparse.Namespace) -> dict[str, Any]:
    """A learning curve, with whatever the simulator says of success."""
    train, hp = make_train(arguments, arguments.task)
    keys, settings = members(arguments, hp)
    started = time.perf_counter()
    programs = compile_programs(train, keys, settings)
    state = programs.init(keys, settings)
    compiled, rows = time.perf_counter(), []
    late = lambda: time.perf_counter() - compiled > arguments.seconds
    for progress in run_loop(train, programs, state, late):
        if progress.metrics is None:
            continue
        metrics = jax.tree.map(np.asarray, progress.metrics)
        row = {
            "env_steps": progress.env_steps,
            "seconds": round(progress.seconds, 2),
            "eval_return": metrics.eval_return.tolist(),
            "eval_length": metrics.eval_length.tolist(),
            "reward": metrics.training.reward.tolist(),
            **{f"{name} (last)": m.last.tolist() for name, m in metrics.eval_metrics.items()},
            **{k: v.tolist() for k, v in metrics.training.learner._asdict().items()},
        }
        rows.append(row)
        success = row.get("success_once (last)", row.get("success (last)"))
        print(
            f"{arguments.task} {arguments.label} {row['env_steps']:>8} steps  "
            f"return {np.mean(row['eval_return']):7.2f}  length {np.mean(row['eval_length']):.0f}  "
            f"reward {np.mean(row['reward']):.4f}  {'' if success is None else f'success {np.mean(success):.2f}  '}"
            f"{row['seconds']:.0f} s",
            flush=True,
        )
    return {
        "task": arguments.task,
        "label": arguments.label,
        "preset": arguments.preset,
        "seeds": arguments.seeds,
        "changes": arguments.set,
        "environment": arguments.env,
        "compile_seconds": round(compiled - started, 1),
        **record.thinned(rows, "reward"),
    }


def policy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns of the same policies in EnvPool and in Playground's MJX, and what differs."""
    found = compare(arguments.task, load_policies(arguments.folder))
    print(arguments.folder, found)
    return {"folder": Path(arguments.folder).name, **found}


COMMANDS = {
    command.__name__: command for command in (learn, speed, shares, threads, overlap, policy)
}


def main() -> None:
    arguments = parse()
    if arguments.without_rendering:
        without_rendering()
    result = COMMANDS[arguments.command](arguments)
    name = arguments.task.replace(":", "-")
    label = f"_{arguments.label}" if arguments.label else ""
    path = arguments.out / f"{arguments.command}{label}_{name}_{arguments.seed}.json"
    record.write({**record.stamp(), **result}, path)


if __name__ == "__main__":
    main()
