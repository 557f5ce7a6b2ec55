"""The host loop: compile, train in calls of about a second, evaluate, hand out rows. No files, no display."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Lowered, Wrapped

from ..envs import COUNTERS
from ..hosts.train import HostTrain
from ..learner.learn import TrainingMetrics
from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..sweeps.members import over_members
from ..training.evaluate import EpisodeMetric, Episodes
from ..training.train import Metrics
from .worlds import AnyTrain, start_program

T = TypeVar("T")
SECONDS_PER_CALL = 0.5
COMPILING = "reppo_fx-compile"
CACHE_HIT = "/jax/compilation_cache/cache_hits"


class Programs(NamedTuple):
    """The compiled pieces; all arguments and results have a leading axis over members.

    Attributes:
        init: keys and settings to states.
        iterations: a state and a count (of all members) to the next state and its diagnostics.
        evaluate: a state and those diagnostics to a row of metrics.
        metrics: the shape of such a row.
    """

    init: Callable[[jax.Array, Hyperparameters], TrainState]
    iterations: Callable[[TrainState, int], tuple[TrainState, TrainingMetrics]]
    evaluate: Callable[[TrainState, TrainingMetrics], Metrics]
    metrics: Metrics


class Progress(NamedTuple):
    """Where a run is; `metrics` (axis `[members]`) only where an evaluation has just been made.

    Attributes:
        iteration: iterations done.
        env_steps: of each member.
        seconds: since training started, in this process.
        state: of all members; its memory is reused for the next one.
        metrics: of the evaluation.
        due: whether an evaluation is to be made after this iteration. Where it is due and has not been made, the
            state is not one to go on from.
    """

    iteration: int
    env_steps: int
    seconds: float
    state: TrainState
    metrics: Metrics | None
    due: bool


class Built(NamedTuple):
    """How far `compile_programs` is.

    Attributes:
        stage: `"tracing"` (the named program, now), `"compiling"` (all of them, now), or `"compiled"` (the named
            one is done).
        name: of a program; none for all.
        number: which one; of those that are done, how many.
        total: of all programs.
        seconds: so far, of tracing; of compiling, where one is done.
        cached: whether the program came from jax's cache of compiled programs.
    """

    stage: str
    name: str | None
    number: int
    total: int
    seconds: float
    cached: bool = False


Tell = Callable[[Built], None]


def compile_programs(
    train: AnyTrain,
    keys: jax.Array,
    hyperparameters: Hyperparameters,
    tell: Tell = lambda _: None,
) -> Programs:
    """Compile everything a run needs, side by side: tracing takes turns, XLA does not.

    Around a simulator only learning is a program worth waiting for; the rest is compiled when it is first called.

    Args:
        train: from `make_train` or `make_host_train`.
        keys: of all members.
        hyperparameters: of all members.
        tell: called with what is being done, also from other threads.
    """
    if isinstance(train, HostTrain):
        return _host_programs(train, keys, hyperparameters, tell)

    def iterations_of_all(
        state: TrainState, count: int | jax.Array
    ) -> tuple[TrainState, TrainingMetrics]:
        return over_members(lambda one: train.iterations(one, count))(state)

    def evaluate_one(state: TrainState, training: TrainingMetrics) -> Metrics:
        return train.metrics(state, training, train.evaluate(state))

    names = iter(enumerate(("start", "training", "evaluation"), 1))
    began = time.perf_counter()

    def trace(program: Wrapped, *args: Any) -> tuple[Any, Lowered]:
        number, name = next(names)
        tell(Built("tracing", name, number, 3, time.perf_counter() - began))
        return jax.eval_shape(program, *args), program.lower(*args)

    state, start = trace(start_program(train), keys, hyperparameters)
    (_, training), iterations = trace(jax.jit(iterations_of_all, donate_argnums=0), state, 1)
    metrics, evaluate = trace(jax.jit(over_members(evaluate_one)), state, training)
    calls = {
        "training": iterations.compile,
        "evaluation": evaluate.compile,
        "start": start.compile,
    }
    compiled = _compile(calls, tell, time.perf_counter() - began)
    return Programs(compiled["start"], compiled["training"], compiled["evaluation"], metrics)


def _compile(
    calls: Mapping[str, Callable[[], Any]], tell: Tell, tracing: float = 0.0
) -> dict[str, Any]:
    """The results of all calls, side by side, telling when each is done and whether it was kept from before."""
    began, lock, done = time.perf_counter(), threading.Lock(), 0
    tell(Built("compiling", None, 0, len(calls), tracing))
    with _cache_hits() as hits:

        def one(name: str) -> Any:
            nonlocal done
            result = calls[name]()
            with lock:
                done += 1
                seconds, cached = time.perf_counter() - began, threading.get_ident() in hits
                tell(Built("compiled", name, done, len(calls), seconds, cached))
            return result

        results = _in_threads([functools.partial(one, name) for name in calls])
    return dict(zip(calls, results, strict=True))


@contextmanager
def _cache_hits() -> Iterator[set[int]]:
    """The threads that have taken a program from jax's persistent cache meanwhile."""
    hits: set[int] = set()

    def listen(event: str, **_: Any) -> None:
        if event == CACHE_HIT:
            hits.add(threading.get_ident())

    jax.monitoring.register_event_listener(listen)
    try:
        yield hits
    finally:
        jax.monitoring.unregister_event_listener(listen)


def _host_programs(
    train: HostTrain, keys: jax.Array, hyperparameters: Hyperparameters, tell: Tell
) -> Programs:
    """The same calls around a simulator, which is started by the first of them."""
    state = train.init_shapes(keys, hyperparameters)
    training = _compile({"learning": lambda: train.compile(state)}, tell)["learning"]
    episodes = jnp.zeros((*keys.shape, train.config.num_eval_envs))
    names = [name for name in train.env.metrics if name not in COUNTERS]
    own = {name: EpisodeMetric(episodes, episodes) for name in names}
    return Programs(
        init=train.init,
        iterations=train.iterations,
        evaluate=lambda state, training: train.metrics(state, training, train.evaluate(state)),
        metrics=jax.eval_shape(train.metrics, state, training, Episodes(episodes, episodes, own)),
    )


def run_loop(
    train: AnyTrain,
    programs: Programs,
    state: TrainState,
    should_stop: Callable[[], bool] = lambda: False,
    evaluations: Sequence[int] | None = None,
) -> Iterator[Progress]:
    """Yield progress several times between evaluations; the same numbers as `vmap(train)` from the same state.

    A state that has already done some iterations is taken on from there. When `should_stop()` turns true, one
    more evaluation is made of the state as it is, unless nothing was done since the last one, and the loop ends.

    Args:
        train: from `make_train` or `make_host_train`.
        programs: from `compile_programs`.
        state: where to go on.
        should_stop: asked before every call of a program.
        evaluations: iterations after which one is due, ascending; the last is the end. Those of the config if not
            given.
    """
    steps, start = train.config.steps_per_iteration, time.perf_counter()
    done, per_call = int(state.iteration[0]), 1

    def progress(metrics: Metrics | None) -> Progress:
        seconds = time.perf_counter() - start
        return Progress(done, done * steps, seconds, state, metrics, done == target)

    for target in train.config.evaluations if evaluations is None else evaluations:
        training = None
        while done < target and not should_stop():
            count = min(per_call, target - done)
            called = time.perf_counter()
            state, training = programs.iterations(state, count)
            jax.tree.map(lambda leaf: leaf.block_until_ready(), training)
            per_iteration = max(time.perf_counter() - called, 1e-9) / count
            per_call = max(1, int(SECONDS_PER_CALL / per_iteration))
            done += count
            yield progress(None)
        if training is not None:
            yield progress(jax.tree.map(np.asarray, programs.evaluate(state, training)))
        if done < target:
            return


def leave(code: int) -> int:
    """An exit code to end the process with. While XLA is still compiling this ends it at once instead.

    A compilation cannot be called off, and an interpreter that ends under it aborts the process.
    """
    if any(thread.name == COMPILING for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    return code


def _in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """Results of all calls, in threads, so that Ctrl-C need not wait for a compilation; see `leave`."""
    results: list[Any] = [None] * len(calls)

    def work(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:  # handed to the caller below
            results[index] = error

    threads = [threading.Thread(target=work, args=(i,), name=COMPILING) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
