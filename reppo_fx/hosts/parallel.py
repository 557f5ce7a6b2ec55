"""Instances in processes of their own: for simulators in Python that keep one core busy."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import pickle
import signal
import traceback
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, PyTree
from numpy.typing import NDArray

from .base import Actions, HostEnvironment, HostTimeStep, SimulatorError, blank
from .gymnasium import gymnasium
from .wrapper import FACTS

SECONDS_TO_LEAVE = 5.0
LARGEST_SEED = 2**31 - 1


def parallel(make: Callable[[], Any], workers: int) -> Parallel:
    """Instances of an environment shared out among spawned processes.

    Processes are spawned, never forked: what runs in them has not been touched by jax. A script that calls this
    needs `if __name__ == "__main__":` around what it does. One exception in a worker ends all of them, with its own
    traceback.

    Args:
        make: makes the environment, in each worker: a `HostEnvironment`, a gymnasium `Env` or a `VectorEnv`. A
            function of a module, or anything else that can be pickled.
        workers: processes.

    Returns:
        An environment of all workers' instances, which can be had in other sizes if theirs can.

    Raises:
        ValueError: if `workers` is less than 1, or `make` cannot be sent to another process.
        SimulatorError: if it raises there.

    >>> # env = parallel(functools.partial(hosts.gymnasium, "Humanoid-v5", 8), workers=2)
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; at least 1 is needed.")
    return Parallel(_Pool(make, workers), None)


class Parallel(HostEnvironment):
    """See `parallel`."""

    def __init__(self, pool: _Pool, num_envs: int | None) -> None:
        self._pool = pool
        count = pool.workers if num_envs is None else min(pool.workers, num_envs)
        shares: list[int | None] = [None] * count
        if num_envs is not None:
            shares = [len(share) for share in np.array_split(np.arange(num_envs), count)]
        self._slot = pool.open(shares)
        facts = pool.call(range(count), "facts", self._slot)
        sizes = [found["num_envs"] for found in facts]
        for fact in FACTS:
            setattr(self, fact, facts[0][fact])
        self.num_envs = sum(sizes)
        self._restarts = bool(facts[0]["can_restart"])
        self._ends = np.cumsum(sizes)[:-1]
        self._workers = range(count)
        weakref.finalize(self, pool.forget, self._slot)

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        seeds: list[int | None] = [None] * len(self._workers)
        if seed is not None:
            drawn = np.random.SeedSequence(seed).generate_state(len(seeds))
            seeds = [int(word) & LARGEST_SEED for word in drawn]
        return _joined(self._call("reset", seeds))

    def step(self, action: Actions) -> HostTimeStep:
        joined: HostTimeStep = _joined(self._call("step", np.split(action, self._ends)))
        return joined

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        return _joined(self._call("restart", np.split(which, self._ends)))

    @property
    def can_restart(self) -> bool:
        return self._restarts

    def sized(self, num_envs: int) -> Parallel:
        return Parallel(self._pool, num_envs)

    def close(self) -> None:
        self._pool.close(self._slot)

    def _call(self, method: str, arguments: Sequence[Any]) -> list[Any]:
        return self._pool.call(self._workers, method, self._slot, arguments)


class _Pool:
    """The processes; each may hold several environments, one for every slot. Gone with the last slot."""

    def __init__(self, make: Callable[[], Any], workers: int) -> None:
        try:
            self._make = _pickled(make)
        except Exception as error:
            raise ValueError(
                f"make is {make!r}, which cannot be sent to another process ({error}); give a function of a module."
            ) from error
        self.workers = workers
        self._slots: set[int] = set()
        self._forgotten: list[int] = []
        self._next = 0
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._end = weakref.finalize(self, _leave, self._processes, self._pipes)

    def open(self, shares: Sequence[int | None]) -> int:
        """A slot with an environment of so many instances in each of the first workers."""
        slot, self._next = self._next, self._next + 1
        self._slots.add(slot)
        while len(self._pipes) < len(shares):
            self._start()
        try:
            self.call(range(len(shares)), "open", slot, shares)
        except NotImplementedError:
            self.close(slot)
            raise
        return slot

    def close(self, slot: int) -> None:
        """Let go of a slot, and of the processes with the last one."""
        self.forget(slot)
        if self._pipes:
            self._close_forgotten()

    def forget(self, slot: int) -> None:
        """As `close`, at any moment: where processes stay, they hear of it with the next call."""
        if slot not in self._slots:
            return
        self._slots.discard(slot)
        self._forgotten.append(slot)
        if not self._slots:
            _leave(self._processes, self._pipes)

    def _close_forgotten(self) -> None:
        while self._forgotten:
            self._call(range(len(self._pipes)), "close", self._forgotten.pop(), None)

    def call(
        self, workers: range, method: str, slot: int, arguments: Sequence[Any] | None = None
    ) -> list[Any]:
        """The same method in several workers at once, each with its own argument."""
        if len(self._pipes) < len(workers):
            raise SimulatorError("the processes of this simulator have ended.")
        self._close_forgotten()
        return self._call(workers, method, slot, arguments)

    def _call(
        self, workers: range, method: str, slot: int, arguments: Sequence[Any] | None
    ) -> list[Any]:
        failure: Exception | None = None
        for worker in workers:
            with contextlib.suppress(OSError):  # it has died: its answer says so
                self._pipes[worker].send((method, slot, arguments[worker] if arguments else None))
        results = []
        for worker in workers:
            try:
                results.append(self._answer(worker))
            except (SimulatorError, NotImplementedError) as error:
                failure = failure or error
        if failure is not None:
            if isinstance(failure, SimulatorError):
                _leave(self._processes, self._pipes)
            raise failure
        return results

    def _answer(self, worker: int) -> Any:
        try:
            kind, result = self._pipes[worker].recv()
        except (EOFError, OSError):
            process = self._processes[worker]
            process.join(SECONDS_TO_LEAVE)
            raise SimulatorError(
                f"worker {worker + 1} of {self.workers} died with exit code {process.exitcode}."
            ) from None
        if kind == "not implemented":
            raise NotImplementedError(result)
        if kind == "error":
            raise SimulatorError(f"worker {worker + 1} of {self.workers} failed:\n{result}")
        return result

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._make, _has_x64()), daemon=True)
        process.start()
        theirs.close()
        self._processes.append(process)
        self._pipes.append(ours)


def _pickled(make: Callable[[], Any]) -> bytes:
    """By cloudpickle where it is, which comes with gymnasium and takes functions of notebooks, too."""
    try:
        pickler = importlib.import_module("cloudpickle")
    except ImportError:
        pickler = pickle
    pickled: bytes = pickler.dumps(make)
    return pickled


def _has_x64() -> bool:
    return bool(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)


def _leave(processes: list[Any], pipes: list[Connection]) -> None:
    """End the processes: a closed pipe tells them, and those that do not listen are ended."""
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.join(SECONDS_TO_LEAVE)
        if process.is_alive():
            process.kill()
            process.join()
    processes.clear()
    pipes.clear()


def _joined(parts: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _work(pipe: Connection, make: bytes, x64: bool) -> None:
    """A worker's life: until the pipe closes, which it does when the parent ends, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", x64)
    environments: dict[int, HostEnvironment] = {}
    with contextlib.suppress(EOFError, OSError):
        while True:
            method, slot, argument = pipe.recv()
            try:
                answer = "ok", _do(environments, make, method, slot, argument)
            except NotImplementedError as error:
                answer = "not implemented", str(error)
            except BaseException:
                answer = "error", traceback.format_exc()
            pipe.send(answer)
    for env in environments.values():
        env.close()


def _do(
    environments: dict[int, HostEnvironment], make: bytes, method: str, slot: int, argument: Any
) -> Any:
    if method == "open":
        environments[slot] = _made(environments, pickle.loads(make), argument)
        return None
    if method == "close":
        if slot in environments:
            environments.pop(slot).close()
        return None
    env = environments[slot]
    if method == "facts":
        return {fact: getattr(env, fact) for fact in (*FACTS, "can_restart")}
    return _restart(env, argument) if method == "restart" else getattr(env, method)(argument)


def _restart(env: HostEnvironment, which: NDArray[Any]) -> PyTree[NDArray[Any]]:
    """Of a share: there may be nothing to start in it."""
    if which.any():
        return env.restart(which)
    return blank(env)


def _of_gymnasium(make: Callable[[], Any], made: Any) -> HostEnvironment:
    if hasattr(made, "single_action_space"):
        return gymnasium(made)
    made.close()
    return gymnasium(make, 1)  # which can be had in any size


def _made(
    environments: dict[int, HostEnvironment], make: Callable[[], Any], size: int | None
) -> HostEnvironment:
    """The environment itself, or one like it of another size."""
    first = next(iter(environments.values()), None)
    made: Any = make() if first is None or size is None else first
    env: HostEnvironment = made if isinstance(made, HostEnvironment) else _of_gymnasium(make, made)
    if size is None or (first is None and env.num_envs == size):
        return env
    return env.sized(size)
