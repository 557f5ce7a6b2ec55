"""How fast training on simulators is, and where its time goes; `hosts.py` calls these."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from host_trains import make_train, members

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.hosts.collect import gather
from reppo_fx.run.loop import compile_programs


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


class TimedActor:
    """An actor whose time is taken."""

    def __init__(self, watch: Any, actor: Any) -> None:
        self._actor, self._timed = actor, watch.around("acting", actor)

    @property
    def noise(self) -> Any:
        return self._actor.noise

    def __call__(self, step: int, observation: Any) -> Any:
        return self._timed(step, observation)


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
    programs.actor = lambda s: TimedActor(watch, actor(s))  # type: ignore[method-assign]
    learned = watch.around("learning", lambda *a: jax.block_until_ready(programs.learn(*a)))
    runs = []
    for _ in range(arguments.repeats):
        watch.seconds.clear()
        start = time.perf_counter()
        for _ in range(10):
            state, _ = learned(state, *gather(train, world, state))
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
