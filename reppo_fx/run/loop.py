"""The host loop: compile, train in calls of about a second, evaluate, hand out rows. No files, no display."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..training.train import Metrics, Train

SECONDS_PER_CALL = 0.5


class Programs(NamedTuple):
    """The compiled pieces; all have a leading axis over members."""

    init: Callable[..., TrainState]
    iterations: Callable[..., Any]
    evaluate: Callable[..., Metrics]


class Progress(NamedTuple):
    """Where a run is; `metrics` (axis `[members]`) only where an evaluation has just been made.

    Attributes:
        env_steps: of each member.
        seconds: since training started, in this process.
        state: of all members; its memory is reused for the next one.
        metrics: of the evaluation.
    """

    env_steps: int
    seconds: float
    state: TrainState
    metrics: Metrics | None


def compile_programs(train: Train, keys: jax.Array, hyperparameters: Hyperparameters) -> Programs:
    """Compile everything a run needs, side by side: tracing takes turns, XLA does not."""
    init = jax.jit(jax.vmap(train.init))
    iterations = jax.jit(jax.vmap(train.iterations, in_axes=(0, None)), donate_argnums=0)

    def evaluate_one(state: TrainState, training: Any) -> Metrics:
        return train.metrics(state, training, train.evaluate(state))

    state = jax.eval_shape(init, keys, hyperparameters)
    _, training = jax.eval_shape(iterations, state, 1)
    lowered = [
        iterations.lower(state, 1),
        jax.jit(jax.vmap(evaluate_one)).lower(state, training),
        init.lower(keys, hyperparameters),
    ]
    compiled = _in_threads([program.compile for program in lowered])
    return Programs(init=compiled[2], iterations=compiled[0], evaluate=compiled[1])


def run_loop(
    train: Train,
    programs: Programs,
    state: TrainState,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Yield progress several times between evaluations; the same numbers as `vmap(train)` from the same state.

    A state that has already done some iterations is taken on from there. When `should_stop()` turns true, one
    more evaluation is made of the state as it is, and the loop ends.
    """
    config = train.config
    start = time.perf_counter()
    training, done, per_call = None, int(state.iteration[0]), 1
    total = config.total_iterations
    while done < total and not (should_stop() and training is not None):
        target = next(due for due in config.evaluations if due > done)
        while done < target and not should_stop():
            count = min(per_call, target - done)
            called = time.perf_counter()
            state, training = jax.block_until_ready(programs.iterations(state, count))
            per_iteration = (time.perf_counter() - called) / count
            per_call = max(1, int(SECONDS_PER_CALL / per_iteration))
            done += count
            seconds = time.perf_counter() - start
            yield Progress(done * config.steps_per_iteration, seconds, state, None)
        if training is not None:
            metrics = jax.tree.map(np.asarray, programs.evaluate(state, training))
            seconds = time.perf_counter() - start
            yield Progress(done * config.steps_per_iteration, seconds, state, metrics)


def _in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """Results of all calls. Daemon threads, so that Ctrl-C need not wait for a compilation."""
    results: list[Any] = [None] * len(calls)

    def work(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:  # handed to the caller below
            results[index] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
