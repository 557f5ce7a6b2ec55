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
import math
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
from jax.extend.core import Var
from jax.sharding import Mesh
from peers import authors_config, authors_environment, closure, load_authors
from settings import SIZES, our_settings

import reppo_fx as rx
from reppo_fx.iteration import batch_from_rollout, make_behavior
from reppo_fx.members import lay_over, over_members
from reppo_fx.rollout import rollout
from reppo_fx.targets import flatten_batch
from reppo_fx.update import update

SIDES = ("original", "ours: authors", "ours: cleaner")


def choices_of(side: str) -> str:
    return side.removeprefix("ours: ")


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    before = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - before, result


def original(path: Path, task: str, size: dict[str, int]) -> tuple[Any, Any, Any]:
    """Their start, one iteration, and one environment step, all over one member."""
    authors = load_authors(path)
    config = authors_config(authors, **size)
    env = authors_environment(task)
    train = authors.make_train_fn(config, env)
    learn, collect = closure(train, "learn_step"), closure(train, "collect_rollout")
    env = closure(collect, "env")

    def start(key: Any) -> Any:
        return authors.make_init(config, env)(key)

    def iteration(state: Any, key: Any) -> Any:
        rollout_key, learn_key = jax.random.split(key)
        transitions, state = collect(rollout_key, state)
        state, _ = learn(learn_key, state, transitions)
        return state

    def env_step(env_state: Any, action: Any) -> Any:
        return env.step(jnp.zeros((size["num_envs"], 2), jnp.uint32), env_state, action)[2]

    return start, iteration, (lambda state: state.last_env_state, env_step)


def our_train(task: str, size: dict[str, int], choices: str) -> tuple[Any, Any]:
    """The same setting here, with the original's choices or the cleaner ones."""
    changes = {**size, **(rx.presets.CLEANER if choices == "cleaner" else {})}
    config, hp = our_settings("authors", changes)
    return rx.make_train(rx.envs.make(task), config), hp


def ours(
    task: str, size: dict[str, int], choices: str, mesh: Mesh | None = None
) -> tuple[Any, Any, Any]:
    """Our start, one iteration, and one environment step; a run that is spread over a mesh, if one is given."""
    train, hp = our_train(task, size, choices)
    run = train if mesh is None else rx.spread_environments(train, mesh)

    def start(key: Any) -> Any:
        return run.init(jax.random.wrap_key_data(key), hp)

    def iteration(state: Any, key: Any) -> Any:
        return run.iteration(state)[0]

    def env_step(env_state: Any, action: Any) -> Any:
        return train.training_env.step(env_state, action)[0]

    return start, iteration, (lambda state: state.rollout.env_state, env_step)


class Arranged(NamedTuple):
    """One side's programs and what they are given; `env_state_of` finds the environment's part of a state."""

    begin: Any
    step: Any
    members: Any
    keys: list[Any]
    env_state_of: Any
    env_step: Any
    axis: bool


def arrange(arguments: argparse.Namespace, mesh: Mesh | None) -> Arranged:
    """Members on an axis of the programs; one run of ours has none, unless it is asked for."""
    size, side = SIZES[arguments.size], arguments.side
    axis = side == "original" or arguments.members > 1 or arguments.axis
    if side == "original":
        found = original(arguments.authors, arguments.task, size)
    else:
        found = ours(arguments.task, size, choices_of(side), None if axis else mesh)
    start, iteration, (env_state_of, env_step) = found
    over = (lambda function: over_members(function, mesh)) if axis else (lambda function: function)
    lay = (lambda keys: lay_over(keys, mesh)) if axis else (lambda keys: keys)
    shape = (arguments.members,) if axis else ()
    keys = jax.random.split(jax.random.PRNGKey(1), (arguments.iterations + 1, *shape))
    return Arranged(
        begin=jax.jit(over(start)),
        step=jax.jit(over(iteration), donate_argnums=0),
        members=lay(jax.random.split(jax.random.PRNGKey(0), shape)),
        keys=[lay(key) for key in keys],
        env_state_of=env_state_of,
        env_step=env_step,
        axis=axis,
    )


def work(arguments: argparse.Namespace) -> dict[str, Any]:
    """One side, in a process of its own."""
    size, side, task = SIZES[arguments.size], arguments.side, arguments.task
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    mesh = jax.make_mesh((arguments.devices,), ("devices",)) if arguments.devices > 1 else None
    run = arrange(arguments, mesh)
    seconds_init, state = timed(run.begin, run.members)
    seconds_compile, program = timed(lambda: run.step.lower(state, run.members).compile())
    first, state = timed(program, state, run.keys[0])
    to_first = time.perf_counter() - STARTED
    laps = []
    for key in run.keys[1:]:
        seconds, state = timed(program, state, key)
        laps.append(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    env_state = run.env_state_of(state)
    return {
        "side": side if mesh is None else f"{side}, {arguments.devices} devices",
        "seconds_per_iteration": statistics.median(laps),
        "laps": laps,
        "first_iteration": first,
        "to_first_iteration_done": to_first,
        "init_seconds": seconds_init,
        "compile_seconds": seconds_compile,
        "peak_bytes": peak,
        "program_bytes": program_bytes(program),
        "device_peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "environment_seconds": environment_seconds(env_state, run.env_step, size, task, run.axis),
        **({} if side == "original" else {"floor": floor(size, choices_of(side), task)}),
        "machine": record.stamp(),
    }


def program_bytes(program: Any) -> int:
    """What an iteration holds at once, from XLA's own assignment of buffers; the state counts once."""
    sizes = program.memory_analysis()
    state = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.temp_size_in_bytes + state


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


def floor(size: dict[str, int], choices: str, task: str) -> dict[str, float]:
    """Matrix products of one update, and the rate of this machine at products of their usual size."""
    train, hp = our_train(task, size, choices)
    config = train.config

    def learn(key: Any) -> Any:
        state = train.init(key, hp)
        keys = jax.random.split(key, config.num_steps)
        online = config.statistics == "step"
        behavior = make_behavior(train, state)
        _, collected = rollout(train.training_env, behavior, state.rollout, keys, online)
        return flatten_batch(batch_from_rollout(train, state, collected, keys)), state

    batch, state = jax.eval_shape(learn, jax.random.key(0))
    run = lambda learner, key, batch, hp: update(learner, key, batch, train.learner, hp)
    jaxpr = jax.make_jaxpr(run)(state.learner, jax.random.key(0), batch, state.hyperparameters)
    flops = matrix_flops(jaxpr.jaxpr)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), (state.learner, batch, state.hyperparameters)
    )
    program = jax.jit(run)
    call = lambda: program(zeros[0], jax.random.key(0), zeros[1], zeros[2])
    jax.block_until_ready(call())
    seconds_update = statistics.median(timed(call)[0] for _ in range(3))
    rate = matrix_rate(config.steps_per_iteration // config.num_minibatches, size["width"])
    return {
        "update_flops": flops,
        "matrix_flops_per_second": rate,
        "floor_seconds": flops / rate,
        "update_seconds": seconds_update,
    }


def matrix_flops(jaxpr: Any) -> float:
    """Floating-point operations of the matrix products that a program needs; loops count as often as they run."""
    total = 0.0
    needed = {variable for variable in jaxpr.outvars if isinstance(variable, Var)}
    for equation in reversed(jaxpr.eqns):
        # The compiler drops what nobody reads: self-prediction where only the value is asked for.
        if needed.isdisjoint(equation.outvars):
            continue
        needed.update(variable for variable in equation.invars if isinstance(variable, Var))
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += product_flops(equation) + times * sum(map(matrix_flops, inner_programs(equation)))
    return total


def product_flops(equation: Any) -> float:
    """Two operations for every entry of the result and every entry that is summed over."""
    if equation.primitive.name != "dot_general":
        return 0.0
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2.0 * math.prod(out) * math.prod(left[i] for i in contracted)


def inner_programs(equation: Any) -> list[Any]:
    """Bodies of loops and of called functions."""
    inner = [
        getattr(value, "jaxpr", value) for value in jax.tree.leaves(tuple(equation.params.values()))
    ]
    return [value for value in inner if hasattr(value, "eqns")]


def matrix_rate(rows: int, width: int) -> float:
    """Floating-point operations per second of `[rows, width] @ [width, width]`; the best of five."""
    a = jnp.ones((rows, width))
    b = jnp.ones((width, width)) / width

    @jax.jit
    def products(a: Any, b: Any) -> Any:
        return jax.lax.fori_loop(0, 50, lambda _, x: x @ b, a)

    jax.block_until_ready(products(a, b))
    seconds = min(timed(products, a, b)[0] for _ in range(5))
    return 50 * 2.0 * rows * width * width / seconds


def turn(arguments: argparse.Namespace, side: str, devices: int, cache: str) -> dict[str, Any]:
    environment = dict(os.environ, JAX_COMPILATION_CACHE_DIR=cache)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, __file__, arguments.task]
    if arguments.authors:
        command += ["--authors", str(arguments.authors)]
    command += ["--size", arguments.size, "--iterations", str(arguments.iterations), "--side", side]
    command += ["--members", str(arguments.members), "--devices", str(devices)]
    command += ["--axis"] * arguments.axis
    process = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    return json.loads(process.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace, path: Path) -> None:
    result: dict[str, Any] = {
        "task": arguments.task,
        "size": arguments.size,
        "members": arguments.members,
        "axis": arguments.axis,
        **SIZES[arguments.size],
    }
    result["turns"] = turns = []
    sides = [(side, 1) for side in (SIDES if arguments.authors else SIDES[1:])]
    if arguments.devices > 1:
        sides.append((SIDES[-1], arguments.devices))
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats):
            for side, devices in sides:
                row = turn(arguments, side, devices, f"{folder}/{side} {devices}")
                result.update(row.pop("machine"))
                turns.append({"repeat": repeat, **row})
                record.write(result, path)
                print(
                    f"{repeat} {row['side']:<24} {row['seconds_per_iteration']:7.2f} s per iteration, of which the "
                    f"environment {row['environment_seconds']:.2f}; compiled in "
                    f"{row['compile_seconds']:.0f} s; peak {row['peak_bytes'] / 2**30:.2f} GiB",
                    flush=True,
                )


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
    parser.add_argument("--side", choices=SIDES, help="only this one, as JSON")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(work(arguments)))
        return
    many = f"_{arguments.members}" if arguments.members > 1 else "_axis" if arguments.axis else ""
    many += f"_{arguments.devices}-devices" if arguments.devices > 1 else ""
    measure(arguments, arguments.out / f"speed_{arguments.size}_{arguments.task}{many}.json")


if __name__ == "__main__":
    main()
