"""How a sweep scales with its members: one program, against runs in sequence and against separate processes.

python benchmarks/sweep.py --members 1 2 4 8 16 32
python benchmarks/sweep.py CartpoleSwingup --members 1 4 16 --steps 200000

For each number of members M, each in a fresh process, with cold caches:
  together    one vmapped program
  sequence    one program for one member, run M times
  processes   M processes with one member each, side by side
Measured: steps per second summed over members, without compilation; seconds from the start of the process to the
first result; peak memory. And once: where compilation time goes, cold and with JAX's persistent cache.
Prints a table and writes benchmarks/results/sweep_TASK.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTED = time.perf_counter()
RESULTS = Path(__file__).parent / "results"
ROUNDS = 3


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", nargs="?", default="CartpoleBalance")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--steps", type=int, default=30_000, help="of each member, in all rounds")
    parser.add_argument("--most-processes", type=int, default=8, help="skip more than these")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--worker", choices=["together", "sequence", "compile"])
    return parser.parse_args()


def work(task: str, steps: int, way: str, members: int) -> dict:
    """One measurement, in the process it is made in."""
    import jax

    import reppo_fx as rx

    config, hyperparameters = rx.preset("cpu", total_steps=steps, num_evals=ROUNDS, num_eval_envs=1)
    train = rx.make_train(rx.envs.make(task), config)
    width = members if way == "together" else 1
    keys = jax.random.split(jax.random.key(0), width)
    settings = rx.grid(hyperparameters, learning_rate=[1e-3] * width)
    before = time.perf_counter()
    state = jax.block_until_ready(jax.jit(jax.vmap(train.init))(keys, settings))
    init_seconds = time.perf_counter() - before
    before = time.perf_counter()
    rounds = jax.jit(lambda s: jax.vmap(train.iterations, (0, None))(s, config.iterations_per_eval))
    program = rounds.lower(state).compile()
    compile_seconds = time.perf_counter() - before
    if way == "compile":
        env = rx.envs.training_environment(train.env, train.episode_length)
        before = time.perf_counter()
        env_keys = jax.random.split(keys[0], config.num_envs)
        reset = jax.jit(env.reset).lower(env_keys).compile()
        env_state, _ = reset(env_keys)
        action = jax.numpy.zeros((config.num_envs, env.action_size))
        jax.jit(env.step).lower(env_state, action).compile()
        return {
            "to_first_step": before - STARTED,
            "init_program": init_seconds,
            "training_program": compile_seconds,
            "environment_alone": time.perf_counter() - before,
        }
    jax.block_until_ready(program(state))
    first_result = time.perf_counter() - STARTED
    before = time.perf_counter()
    for _ in range(members // width):
        run = state
        for _ in range(ROUNDS):
            run, _ = program(run)
        jax.block_until_ready(run)
    seconds = time.perf_counter() - before
    done = ROUNDS * config.iterations_per_eval * config.steps_per_iteration * members
    return {
        "steps_per_second": done / seconds,
        "first_result_seconds": first_result,
        "compile_seconds": init_seconds + compile_seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def start(arguments: argparse.Namespace, way: str, members: int, cache: str | None = None):
    environment = dict(os.environ)
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = (
        "false"  # peaks, not pools, and room for neighbours
    )
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    command = [sys.executable, __file__, arguments.task, "--worker", way]
    command += ["--members", str(members), "--steps", str(arguments.steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def finish(process) -> dict:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args)} ended with {process.returncode}")
    return json.loads(output.splitlines()[-1])


def side_by_side(arguments: argparse.Namespace, members: int) -> dict:
    """M processes at once: their sums; the slowest first result."""
    parts = [finish(p) for p in [start(arguments, "together", 1) for _ in range(members)]]
    return {
        **parts[0],
        "steps_per_second": sum(part["steps_per_second"] for part in parts),
        "first_result_seconds": max(part["first_result_seconds"] for part in parts),
        "peak_bytes": sum(part["peak_bytes"] for part in parts),
    }


def measure(arguments: argparse.Namespace) -> dict:
    rows = []
    for members in arguments.members:
        ways = {
            "together": lambda m=members: finish(start(arguments, "together", m)),
            "sequence": lambda m=members: finish(start(arguments, "sequence", m)),
            "processes": lambda m=members: side_by_side(arguments, m),
        }
        for way, run in ways.items():
            if way == "processes" and members > arguments.most_processes:
                continue
            row = {"members": members, "way": way, **run()}
            rows.append(row)
            print(
                f"{members:>4} {way:<10} {row['steps_per_second']:>9.0f} steps/s  first result "
                f"{row['first_result_seconds']:5.0f} s  peak {row['peak_bytes'] / 2**30:5.2f} GiB",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as cache:
        compilation = {
            name: finish(start(arguments, "compile", 1, cache)) for name in ("cold", "cached")
        }
    print(json.dumps(compilation, indent=1))
    return {
        "task": arguments.task,
        "date": datetime.date.today().isoformat(),
        "device": rows[0]["device"],
        "jax": rows[0]["jax"],
        "cpu_count": os.cpu_count(),
        "steps_per_member": arguments.steps,
        "rows": rows,
        "compilation": compilation,
    }


def main() -> None:
    arguments = parse()
    if arguments.worker:
        print(
            json.dumps(work(arguments.task, arguments.steps, arguments.worker, *arguments.members))
        )
        return
    record = measure(arguments)
    path = arguments.out / f"sweep_{arguments.task}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
