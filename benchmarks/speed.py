"""Training throughput, compile time and memory: this package against the original code, and against the floor.

python benchmarks/speed.py --authors PATH                  # 256 x 64, width 128
python benchmarks/speed.py --authors PATH --size large     # 1024 x 128, width 512

PATH: a copy of github.com/cvoelcker/reppo. Both sides get the same task, environment steps, data per update,
widths and gradient steps; evaluation is left out. Sides take turns, each time in a fresh process; the first turn
compiles with an empty cache and gives compile time, later ones reuse it. Ours runs twice: with every choice of the
original ("authors"), and with this package's own ("cleaner": closed-form KL, statistics once per iteration, …).
The floor is the update's matrix products alone, at the rate this machine multiplies matrices of that size.
With --devices N, ours also runs with the host split into N devices: members laid over them, or one run spread.
With --members, as many runs side by side in one program. One run of the original still has an axis of seeds, as
in its own program; one run of ours has none, because it needs none (with --axis it gets one too).
Writes results/speed_SIZE_TASK.json after every turn; `python benchmarks/table.py` makes the tables.
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
from pathlib import Path
from typing import Any, NamedTuple

STARTED = time.perf_counter()

import jax
import jax.numpy as jnp
import record
from floor import floor, timed
from jax.sharding import Mesh
from peers import authors_config, authors_environment, closure, load_authors
from settings import SIZES, our_settings

import reppo_fx as rx
from reppo_fx.sweeps.members import lay_over, measure_memory, over_members
from reppo_fx.training.presets import CLEANER

SIDES = ("original", "ours: authors", "ours: cleaner")


class Side(NamedTuple):
    """One side's functions, over one member; `env_state_of` finds the environment's part of a state."""

    start: Any
    iteration: Any
    env_state_of: Any
    env_step: Any


def original(path: Path, task: str, size: dict[str, int]) -> Side:
    """The code in their copy."""
    authors = load_authors(path)
    config = authors_config(authors, **size)
    env = authors_environment(task)
    train = authors.make_train_fn(config, env)
    learn, collect = closure(train, "learn_step"), closure(train, "collect_rollout")
    env = closure(collect, "env")

    def iteration(state: Any, key: Any) -> Any:
        rollout_key, learn_key = jax.random.split(key)
        transitions, state = collect(rollout_key, state)
        state, _ = learn(learn_key, state, transitions)
        return state

    def env_step(env_state: Any, action: Any) -> Any:
        return env.step(jnp.zeros((size["num_envs"], 2), jnp.uint32), env_state, action)[2]

    return Side(
        start=authors.make_init(config, env),
        iteration=iteration,
        env_state_of=lambda state: state.last_env_state,
        env_step=env_step,
    )


def our_train(task: str, size: dict[str, int], side: str) -> tuple[Any, Any]:
    """The same setting here, with the original's choices or the cleaner ones."""
    changes = {**size, **(CLEANER if side == "ours: cleaner" else {})}
    config, hp = our_settings("authors", changes)
    return rx.make_train(rx.envs.make(task), config), hp


def ours(train: Any, hp: Any, mesh: Mesh | None) -> Side:
    """This package; a run that is spread over a mesh, if one is given."""
    run = train if mesh is None else rx.spread_environments(train, mesh)
    return Side(
        start=lambda key: run.init(jax.random.wrap_key_data(key), hp),
        iteration=lambda state, key: run.iteration(state)[0],
        env_state_of=lambda state: state.rollout.env_state,
        env_step=lambda env_state, action: train.training_env.step(env_state, action)[0],
    )


def work(arguments: argparse.Namespace) -> dict[str, Any]:
    """One side, in a process of its own."""
    size, task, devices = SIZES[arguments.size], arguments.task, arguments.devices
    jax.config.update("jax_num_cpu_devices", devices)
    mesh = jax.make_mesh((devices,), ("devices",)) if devices > 1 else None
    if arguments.side == "original":
        side = original(arguments.authors, task, size)
        return measure_side(side, arguments, mesh, axis=True)
    axis = arguments.members > 1 or arguments.axis
    train, hp = our_train(task, size, arguments.side)
    row = measure_side(ours(train, hp, None if axis else mesh), arguments, mesh, axis)
    bare = arguments.without_floor or arguments.only_compile
    return row if bare else {**row, "floor": floor(train, hp)}


def measure_side(
    side: Side, arguments: argparse.Namespace, mesh: Mesh | None, axis: bool
) -> dict[str, Any]:
    """Compilation, memory and iterations; with an axis, members lie on it, over the mesh if there is one."""
    over = over_members if axis else lambda function, _: function
    lay = lay_over if axis else lambda keys, _: keys
    shape = (arguments.members,) if axis else ()
    members = lay(jax.random.split(jax.random.PRNGKey(0), shape), mesh)
    keys = jax.random.split(jax.random.PRNGKey(1), (arguments.iterations + 1, *shape))
    keys = [lay(key, mesh) for key in keys]
    start = jax.jit(over(side.start, mesh))
    step = jax.jit(over(side.iteration, mesh), donate_argnums=0)
    if arguments.only_compile:
        return {"side": arguments.side, "compile_seconds": compile_unrun(start, step, members)}
    seconds_init, state = timed(start, members)
    seconds_compile, program = timed(lambda: step.lower(state, members).compile())
    first, state = timed(program, state, keys[0])
    to_first = time.perf_counter() - STARTED
    laps = []
    for key in keys[1:]:
        seconds, state = timed(program, state, key)
        laps.append(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    devices = arguments.devices
    return {
        "side": f"{arguments.side}, {devices} devices" if devices > 1 else arguments.side,
        "seconds_per_iteration": statistics.median(laps),
        "laps": laps,
        "first_iteration": first,
        "to_first_iteration_done": to_first,
        "init_seconds": seconds_init,
        "compile_seconds": seconds_compile,
        "peak_bytes": peak,
        "program_bytes": measure_memory(program, 1).total * devices,
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "environment_seconds": environment_seconds(
            side.env_state_of(state), side.env_step, SIZES[arguments.size], arguments.task, axis
        ),
        "machine": record.stamp(),
    }


def compile_unrun(start: Any, step: Any, members: Any) -> float:
    """Seconds; of the device no memory is taken, so that many can do so at once."""
    state = jax.eval_shape(start, members)
    return timed(lambda: (start.lower(members).compile(), step.lower(state, members).compile()))[0]


def environment_seconds(
    env_state: Any, env_step: Any, size: dict[str, int], task: str, axis: bool
) -> float:
    """One rollout's environment steps alone, with random actions; the median of three."""
    members = jax.tree.leaves(env_state)[0].shape[:1] if axis else ()
    shape = (*members, size["num_envs"], rx.envs.make(task).action_size)
    step_all = jax.vmap(env_step) if axis else env_step

    @jax.jit
    def steps(env_state: Any, key: Any) -> Any:
        def one(env_state: Any, key: Any) -> Any:
            action = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
            new = step_all(env_state, action)
            like = lambda x, old: jnp.asarray(x, old.dtype)
            return jax.tree.map(like, new, env_state), None

        return jax.lax.scan(one, env_state, jax.random.split(key, size["num_steps"]))[0]

    env_state = jax.block_until_ready(steps(env_state, jax.random.key(0)))
    return statistics.median(timed(steps, env_state, jax.random.key(i))[0] for i in (1, 2, 3))


def turn(arguments: argparse.Namespace, side: str, devices: int, cache: str) -> dict[str, Any]:
    environment = dict(os.environ, JAX_COMPILATION_CACHE_DIR=cache)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, __file__, arguments.task]
    if arguments.authors:
        command += ["--authors", str(arguments.authors)]
    command += ["--size", arguments.size, "--iterations", str(arguments.iterations), "--side", side]
    command += ["--members", str(arguments.members), "--devices", str(devices)]
    command += ["--axis"] * arguments.axis + ["--without-floor"] * arguments.without_floor
    process = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    return json.loads(process.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace, path: Path) -> None:
    before = record.read(path) if arguments.resume and path.exists() else {}
    result: dict[str, Any] = {
        **before,
        "task": arguments.task,
        "size": arguments.size,
        "members": arguments.members,
        "axis": arguments.axis,
        **SIZES[arguments.size],
    }
    turns = result.setdefault("turns", [])
    done = {(one["repeat"], one["side"]) for one in turns}
    wanted = arguments.sides or (SIDES if arguments.authors else SIDES[1:])
    sides = [(side, 1) for side in wanted]
    if arguments.devices > 1:
        sides.append((SIDES[-1], arguments.devices))
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats):
            for side, devices in sides:
                name = f"{side}, {devices} devices" if devices > 1 else side
                if (repeat, name) in done:
                    continue
                cache = arguments.cache or f"{folder}/{side} {devices}"
                row = turn(arguments, side, devices, str(cache))
                result.update(row.pop("machine"))
                turns.append({"repeat": repeat, **row})
                record.write(result, path)
                print(
                    f"{repeat} {row['side']:<24} {row['seconds_per_iteration']:7.2f} s per iteration, of which the "
                    f"environment {row['environment_seconds']:.2f}; compiled in "
                    f"{row['compile_seconds']:.0f} s; peak {row['peak_bytes'] / 2**30:.2f} GiB",
                    flush=True,
                )


def file_name(
    task: str, size: str, members: int, *, label: str = "", axis: bool = False, devices: int = 1
) -> str:
    """Of a result."""
    many = f"_{members}" if members > 1 else "_axis" if axis else ""
    many += f"_{devices}-devices" if devices > 1 else ""
    return f"{f'{label}_' if label else ''}speed_{size}_{task}{many}.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", nargs="?", default="CartpoleSwingup")
    parser.add_argument("--authors", type=Path, help="without it only ours is measured")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--iterations", type=int, default=5, help="timed ones in each turn")
    parser.add_argument("--members", type=int, default=1, help="runs side by side in one program")
    parser.add_argument("--axis", action="store_true", help="an axis of members for one run, too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    parser.add_argument("--devices", type=int, default=1, help="of the host, for ours once more")
    parser.add_argument(
        "--label", help="keep another machine's figures beside these, as LABEL_speed_*"
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="only these")
    parser.add_argument("--resume", action="store_true", help="keep the turns that are there")
    parser.add_argument("--cache", type=Path, help="of programs, instead of empty ones")
    parser.add_argument("--without-floor", action="store_true", help="leave it out")
    parser.add_argument("--side", choices=SIDES, help="only this one, as JSON")
    parser.add_argument("--only-compile", action="store_true", help="that one, into the cache")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(work(arguments)))
        return
    name = file_name(
        arguments.task,
        arguments.size,
        arguments.members,
        label=arguments.label or "",
        axis=arguments.axis,
        devices=arguments.devices,
    )
    measure(arguments, arguments.out / name)


if __name__ == "__main__":
    main()
