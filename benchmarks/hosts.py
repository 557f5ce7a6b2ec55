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
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import record
from settings import our_settings, read_our_changes

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.hosts.collect import gather
from reppo_fx.run import load_policies
from reppo_fx.run.loop import compile_programs, run_loop
from reppo_fx.run.worlds import AnyTrain

HERE = record.RESULTS / "hosts"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "command", choices=("learn", "speed", "shares", "threads", "overlap", "policy")
    )
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


def value_of(text: str) -> Any:
    """A whole number, a number, or a word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def make_train(arguments: argparse.Namespace, task: str) -> tuple[AnyTrain, rx.Hyperparameters]:
    """For a pure world's name, or `FAMILY:NAME`."""
    changes = read_our_changes(arguments.preset, arguments.set)
    config, hyperparameters = our_settings(arguments.preset, changes)
    if not hosts.is_host_task(task):
        return rx.make_train(rx.envs.make(task), config), hyperparameters
    family, _, name = task.partition(":")
    options = {k: value_of(v) for k, _, v in (text.partition("=") for text in arguments.env)}
    env = hosts.FAMILIES[family].make(name, **options)
    return rx.make_host_train(env, config), hyperparameters


def members(arguments: argparse.Namespace, hp: rx.Hyperparameters) -> tuple[Any, Any]:
    keys = jax.random.split(jax.random.key(arguments.seed), arguments.seeds)
    return keys, jax.tree.map(lambda x: np.full(arguments.seeds, x, np.float32), hp)


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
        "evaluations": rows,
    }


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Whole training to so many steps of each seed, evaluations left out: EnvPool, then MJX."""
    found = {}
    for simulator, task in (("envpool", f"envpool:{arguments.task}-v1"), ("mjx", arguments.task)):
        train, hp = make_train(arguments, task)
        keys, settings = members(arguments, hp)
        started = time.perf_counter()
        programs = compile_programs(train, keys, settings)
        state = programs.init(keys, settings)
        state, training = programs.iterations(state, 1)
        jax.block_until_ready(training)
        first = time.perf_counter()
        wanted = -(-arguments.steps // train.config.steps_per_iteration)
        done = 0
        while done < wanted and time.perf_counter() - first < arguments.seconds:
            state, training = programs.iterations(state, 1)
            jax.block_until_ready(training)
            done += 1
        seconds = time.perf_counter() - first
        steps = done * train.config.steps_per_iteration
        found[simulator] = {
            "until_first_iteration_seconds": round(first - started, 1),
            "env_steps_of_each_seed": steps,
            "seconds": round(seconds, 2),
            "steps_per_second": round(arguments.seeds * steps / seconds),
        }
        print(arguments.task, simulator, found[simulator], flush=True)
    ratio = found["envpool"]["steps_per_second"] / found["mjx"]["steps_per_second"]
    print(f"{arguments.task}: ratio {ratio:.1f}")
    return {
        "task": arguments.task,
        "seeds": arguments.seeds,
        "preset": arguments.preset,
        **found,
        "ratio": round(ratio, 2),
    }


class Stopwatch:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        return timed


class TimedPool:
    """EnvPool's own calls, with a stopwatch."""

    def __init__(self, pool: Any, watch: Stopwatch) -> None:
        self._pool = pool
        self.step = watch.around("simulation", pool.step)
        self.reset = watch.around("simulation", pool.reset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def shares(arguments: argparse.Namespace) -> dict[str, Any]:
    """Acting, simulation, learning, and what is left: hand-over and Python."""
    train, hp = make_train(arguments, f"envpool:{arguments.task}")
    assert isinstance(train, rx.HostTrain)
    state = train.init(*members(arguments, hp))
    for _ in range(3):
        state, training = train.iteration(state)
    jax.block_until_ready(training)
    world, programs = train.worlds.training((arguments.seeds,)), train.programs(state)
    inner: Any = world
    while hasattr(inner, "env"):
        inner = inner.env
    watch = Stopwatch()
    actor: Any = programs.actor
    inner._pool = TimedPool(inner._pool, watch)
    programs.actor = lambda s: watch.around("acting", actor(s))  # type: ignore[method-assign]
    learned = watch.around("learning", lambda *a: jax.block_until_ready(programs.learn(*a)))
    runs = []
    for _ in range(arguments.repeats):
        watch.seconds.clear()
        start = time.perf_counter()
        for _ in range(10):
            transitions, observation = gather(train, world, state)
            state, _ = learned(state, transitions, observation)
        total = time.perf_counter() - start
        parts = {name: seconds / total for name, seconds in watch.seconds.items()}
        parts["hand-over and Python"] = 1 - sum(parts.values())
        steps = 10 * arguments.seeds * train.config.steps_per_iteration / total
        runs.append({**parts, "steps_per_second": steps})
    medians = {name: round(statistics.median(run[name] for run in runs), 4) for name in runs[0]}
    print(arguments.task, medians)
    return {"task": arguments.task, "seeds": arguments.seeds, "medians": medians, "runs": runs}


def threads(arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of whole iterations by EnvPool's number of threads, in alternating turns."""
    counts = [0, 1, 2, 4]
    trains = {}
    for count in counts:
        changed = argparse.Namespace(**{**vars(arguments), "env": [f"num_threads={count}"]})
        train, hp = make_train(changed, f"envpool:{arguments.task}")
        state = train.init(*members(arguments, hp))
        trains[count] = [train, jax.block_until_ready(train.iteration(state))[0]]
    found: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(arguments.repeats):
        for count, (train, state) in trains.items():
            start = time.perf_counter()
            for _ in range(10):
                state, _ = train.iteration(state)
            jax.block_until_ready(state.iteration)
            trains[count][1] = state
            steps = 10 * arguments.seeds * train.config.steps_per_iteration
            found[count].append(steps / (time.perf_counter() - start))
    medians = {str(count): round(statistics.median(runs)) for count, runs in found.items()}
    print(arguments.task, medians)
    return {"task": arguments.task, "seeds": arguments.seeds, "steps_per_second": medians}


def overlap(arguments: argparse.Namespace) -> dict[str, Any]:
    """Collecting with all instances at once, and with two halves in turn: one acts while the other is simulated.

    The policy is frozen while a rollout is collected, so no data is stale either way. EnvPool's own calls are used
    for both, without what the adapter does.
    """
    train, hp = make_train(arguments, f"envpool:{arguments.task}")
    assert isinstance(train, rx.HostTrain)
    state = train.init(*members(arguments, hp))
    act, steps = train.programs(state).actor(state), 10 * train.config.num_steps

    def started(n: int) -> Any:
        env: Any = hosts.envpool(arguments.task, n * arguments.seeds)
        env.reset(0)
        return env._pool

    def action(pool: Any, result: Any, step: int) -> Any:
        parts = result[0].values() if isinstance(result[0], dict) else [result[0]]
        seen = np.concatenate([np.reshape(x, (len(x), -1)) for x in parts], 1, dtype=np.float32)
        given = act(
            step % train.config.num_steps, seen.reshape(arguments.seeds, -1, seen.shape[-1])
        )
        return given.reshape(len(seen), -1).astype(pool.action_space.dtype)

    def at_once(pool: Any) -> None:
        result = pool.reset()
        for step in range(steps):
            result = pool.step(action(pool, result, step))

    def in_turn(first: Any, second: Any) -> None:
        first.send(action(first, first.reset(), 0))
        waiting, acting = first, second
        result = second.reset()
        for step in range(2 * steps - 1):
            # The one that waits is simulated while the other one acts.
            acting.send(action(acting, result, step // 2))
            result = waiting.recv()
            waiting, acting = acting, waiting
        waiting.recv()

    size = train.config.num_envs
    whole, halves = started(size), (started(size // 2), started(size // 2))
    found: dict[str, list[float]] = {"at once": [], "two halves in turn": []}
    for _ in range(arguments.repeats + 1):  # the first one compiles
        for name, run in (
            ("at once", lambda: at_once(whole)),
            ("two halves in turn", lambda: in_turn(*halves)),
        ):
            start = time.perf_counter()
            run()
            found[name].append(arguments.seeds * size * steps / (time.perf_counter() - start))
    medians = {name: round(statistics.median(runs[1:])) for name, runs in found.items()}
    print(arguments.task, medians)
    return {"task": arguments.task, "seeds": arguments.seeds, "steps_per_second": medians}


def policy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns of the same policies in EnvPool and in Playground's MJX."""
    policies = load_policies(arguments.folder)
    task, episodes = arguments.task, 32
    env = rx.envs.playground(task)
    evaluate = lambda one: rx.evaluate_policy(env, one, jax.random.key(0), episodes, 1000).returns
    pure = np.asarray(jax.jit(jax.vmap(evaluate))(policies))
    with hosts.envpool(f"{task}-v1", episodes * len(pure)) as simulator:
        host = np.asarray(hosts.evaluate_policy(simulator, policies, 1000, seed=0).returns)
    found = {
        name: {
            "mean": float(x.mean()),
            "std_over_episodes": float(x.std()),
            "by_policy": x.mean(1).round(2).tolist(),
        }
        for name, x in (("mjx", pure), ("envpool", host))
    }
    print(task, arguments.folder, found)
    return {"task": task, "folder": Path(arguments.folder).name, "episodes": episodes, **found}


def main() -> None:
    arguments = parse()
    if arguments.without_rendering:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        import pytest

        from tests.hosts.sapien_stub import without_rendering

        without_rendering(pytest.MonkeyPatch())
    result = globals()[arguments.command](arguments)
    name = arguments.task.replace(":", "-")
    label = f"_{arguments.label}" if arguments.label else ""
    path = arguments.out / f"{arguments.command}{label}_{name}_{arguments.seed}.json"
    record.write({**record.stamp(), **result}, path)


if __name__ == "__main__":
    main()
