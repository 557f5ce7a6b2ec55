"""The host loop: compile, train in calls of about a second, evaluate, hand out rows. No files, no display."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..envs import COUNTERS
from ..hosts.train import HostTrain
from ..learner.learn import TrainingMetrics
from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..sweeps.members import over_members
from ..training.evaluate import EpisodeMetric, Episodes
from ..training.train import Metrics
from .worlds import AnyTrain

T = TypeVar("T")
SECONDS_PER_CALL = 0.5
COMPILING = "reppo_fx-compile"


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


def compile_programs(
    train: AnyTrain, keys: jax.Array, hyperparameters: Hyperparameters
) -> Programs:
    """Compile everything a run needs, side by side: tracing takes turns, XLA does not.

    Around a simulator only learning is a program worth waiting for; the rest is compiled when it is first called.
    """
    if isinstance(train, HostTrain):
        return _host_programs(train, keys, hyperparameters)

    def iterations_of_all(
        state: TrainState, count: int | jax.Array
    ) -> tuple[TrainState, TrainingMetrics]:
        return over_members(lambda one: train.iterations(one, count))(state)

    def evaluate_one(state: TrainState, training: TrainingMetrics) -> Metrics:
        return train.metrics(state, training, train.evaluate(state))

    init = jax.jit(over_members(train.init))
    iterations = jax.jit(iterations_of_all, donate_argnums=0)
    evaluate = jax.jit(over_members(evaluate_one))
    state = jax.eval_shape(init, keys, hyperparameters)
    _, training = jax.eval_shape(iterations, state, 1)
    lowered = [
        iterations.lower(state, 1),
        evaluate.lower(state, training),
        init.lower(keys, hyperparameters),
    ]
    compiled = _in_threads([program.compile for program in lowered])
    return Programs(
        init=compiled[2],
        iterations=compiled[0],
        evaluate=compiled[1],
        metrics=jax.eval_shape(evaluate, state, training),
    )


def _host_programs(train: HostTrain, keys: jax.Array, hyperparameters: Hyperparameters) -> Programs:
    """The same calls around a simulator, which is started by the first of them."""
    state = train.init_shapes(keys, hyperparameters)
    (training,) = _in_threads([lambda: train.compile(state)])
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
