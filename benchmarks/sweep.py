"""How a sweep scales with its members: one program, against runs in sequence and against separate processes.

python benchmarks/sweep.py --members 1 2 4 8 16 32
python benchmarks/sweep.py CartpoleSwingup --members 1 4 16 --steps 200000

For each number of members M, each in a fresh process, with cold caches:
  together    one vmapped program
  sequence    one program for one member, run M times
  processes   M processes with one member each, side by side
Measured: steps per second summed over members, by the median round, without compilation or evaluation; seconds
from the start of the process to the first result; peak memory; how many processor cores were busy; and for one
program the share of the time that goes into collecting (environment and policy) rather than learning. And once:
where compilation time goes, cold and with JAX's persistent cache. Prints rows as they come and writes
benchmarks/results/sweep_TASK.json after each; rows that are in it already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
ROUNDS = 3
WAYS = ("together", "sequence", "processes")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", nargs="?", default="CartpoleBalance")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--steps", type=int, default=30_000, help="of each member, in all rounds")
    parser.add_argument("--most-processes", type=int, default=8, help="skip more than these")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument(
        "--together", type=Path, help="of a worker: where processes wait for each other"
    )
    parser.add_argument("--worker", choices=["together", "sequence", "compile"])
    return parser.parse_args()


def work(task: str, steps: int, way: str, members: int, together: Path | None) -> dict:
    """One measurement, in the process it is made in; with others it waits until all have compiled."""
    import jax
    import record

    import reppo_fx as rx

    config, hyperparameters = rx.preset("cpu", total_steps=steps, num_evals=ROUNDS, num_eval_envs=1)
    train = rx.make_train(rx.envs.make(task), config)
    width = members if way == "together" else 1
    keys = jax.random.split(jax.random.key(0), width)
    settings = rx.grid(hyperparameters, learning_rate=[1e-3] * width)
    init_seconds, state = timed(lambda: jax.jit(jax.vmap(train.init))(keys, settings))
    iterations = jax.jit(jax.vmap(train.iterations, (0, None)))
    count = max(config.iterations_between_evaluations)
    compile_seconds, program = timed(lambda: iterations.lower(state, count).compile())
    if way == "compile":
        to_first_step = time.perf_counter() - STARTED
        return {
            "to_first_step": to_first_step,
            "init_program": init_seconds,
            "training_program": compile_seconds,
            "environment_alone": timed(lambda: compile_environment(train, keys[0]))[0],
        }
    jax.block_until_ready(program(state, count))
    first_result = time.perf_counter() - STARTED
    if together is not None:
        wait_for_others(together)
    cpu_before = time.process_time()
    rounds = []
    for _ in range(members // width):
        run = state
        for _ in range(ROUNDS):
            seconds, (run, _) = timed(lambda run=run: program(run, count))
            rounds.append(seconds)
    per_iteration = statistics.median(rounds) / count
    row = {
        "steps_per_second": config.steps_per_iteration * width / per_iteration,
        "first_result_seconds": first_result,
        "compile_seconds": init_seconds + compile_seconds,
        "cores_busy": (time.process_time() - cpu_before) / sum(rounds),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "machine": record.stamp(),
    }
    if way == "together":
        row["collecting_share"] = collecting_seconds(train, state) / per_iteration
    return row


def wait_for_others(folder: Path) -> None:
    """Until as many processes are here as the folder's name says, so that all measure at the same time."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < int(folder.name):
        time.sleep(0.01)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until a result is there, and the result."""
    import jax

    before = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - before, result


def compile_environment(train: Any, key: Any) -> None:
    """The environment's reset and step alone, as training uses them."""
    import jax

    import reppo_fx as rx

    env = rx.envs.training_environment(train.env, train.episode_length)
    keys = jax.random.split(key, train.config.num_envs)
    state, _ = jax.jit(env.reset).lower(keys).compile()(keys)
    action = jax.numpy.zeros((train.config.num_envs, env.action_size))
    jax.jit(env.step).lower(state, action).compile()


def collecting_seconds(train: Any, state: Any) -> float:
    """Of one iteration's rollouts of all members, in a program of their own; the median of five."""
    import jax

    import reppo_fx as rx

    program = jax.jit(jax.vmap(lambda state: rx.collect(train, train.training_env, state)))
    jax.block_until_ready(program(state))
    return statistics.median(timed(lambda: program(state))[0] for _ in range(5))


def start(
    arguments: argparse.Namespace,
    way: str,
    members: int,
    cache: str | None = None,
    together: Path | None = None,
):
    environment = dict(os.environ)
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = (
        "false"  # peaks, not pools, and room for neighbours
    )
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    command = [sys.executable, __file__, arguments.task, "--worker", way]
    command += ["--members", str(members), "--steps", str(arguments.steps)]
    if together is not None:
        command += ["--together", str(together)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def finish(process) -> dict:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args)} ended with {process.returncode}")
    return json.loads(output.splitlines()[-1])


def side_by_side(arguments: argparse.Namespace, members: int) -> dict:
    """M processes at once: their sums; the slowest first result."""
    with tempfile.TemporaryDirectory() as folder:
        together = Path(folder) / str(members)
        together.mkdir()
        processes = [start(arguments, "together", 1, together=together) for _ in range(members)]
        parts = [finish(process) for process in processes]
    return {
        **parts[0],
        "steps_per_second": sum(part["steps_per_second"] for part in parts),
        "first_result_seconds": max(part["first_result_seconds"] for part in parts),
        "peak_bytes": sum(part["peak_bytes"] for part in parts),
        "cores_busy": sum(part["cores_busy"] for part in parts),
    }


def measure(arguments: argparse.Namespace, path: Path) -> None:
    """What is not in the file yet."""
    import record

    result: dict[str, Any] = {"task": arguments.task, "steps_per_member": arguments.steps}
    if path.exists():
        result = json.loads(path.read_text())
    if "compilation" not in result:
        with tempfile.TemporaryDirectory() as cache:
            result["compilation"] = {
                name: finish(start(arguments, "compile", 1, cache)) for name in ("cold", "cached")
            }
        print(json.dumps(result["compilation"], indent=1), flush=True)
    rows = result.setdefault("rows", [])
    done = {(row["members"], row["way"]) for row in rows}
    for members in arguments.members:
        ways = {
            "together": lambda m=members: finish(start(arguments, "together", m)),
            "sequence": lambda m=members: finish(start(arguments, "sequence", m)),
            "processes": lambda m=members: side_by_side(arguments, m),
        }
        for way, run in ways.items():
            if (members, way) in done or (
                way == "processes" and members > arguments.most_processes
            ):
                continue
            row = {"members": members, "way": way, **run()}
            result.update(row.pop("machine"))
            rows.append(row)
            rows.sort(key=lambda row: (row["members"], WAYS.index(row["way"])))
            record.write(result, path)
            print(
                f"{members:>4} {way:<10} {row['steps_per_second']:>9.0f} steps/s  first result "
                f"{row['first_result_seconds']:5.0f} s  peak {row['peak_bytes'] / 2**30:5.2f} GiB  "
                f"{row['cores_busy']:.2f} cores busy",
                flush=True,
            )


def main() -> None:
    arguments = parse()
    if arguments.worker:
        sizes = (arguments.task, arguments.steps, arguments.worker, *arguments.members)
        print(json.dumps(work(*sizes, arguments.together)))
        return
    measure(arguments, arguments.out / f"sweep_{arguments.task}.json")


if __name__ == "__main__":
    main()
