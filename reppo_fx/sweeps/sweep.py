"""Sweeps: settings × seeds as one vmapped program, in chunks that fit, over as many devices as there are."""

from __future__ import annotations

import weakref
from typing import Protocol, SupportsIndex, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from .._ranges import as_bytes, as_count
from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..training.diagnosis import warn_of_findings
from ..training.train import Metrics, Train
from .members import (
    Stacked,
    available_memory,
    expose_keys,
    flatten_members,
    keep_program,
    key_kinds,
    lay_over,
    measure_memory,
    over_members,
    pad_members,
    restore_keys,
    unflatten_members,
)
from .runs import Runs

Inputs = tuple[Array, Hyperparameters]
Results = tuple[TrainState, Metrics]
"""What training gives."""


@runtime_checkable
class MembersTrain(Protocol):
    """Trains an axis of members by itself, for a simulator cannot be vmapped: `hosts.HostTrain`."""

    worlds: object

    def __call__(self, key: Array, hyperparameters: Hyperparameters | None = None) -> Results: ...


def sweep(
    train: Train | MembersTrain,
    settings: Hyperparameters,
    *,
    num_seeds: SupportsIndex,
    key: Array,
    members_per_chunk: SupportsIndex | None = None,
    memory_limit: float | int | None = None,
    mesh: Mesh | None = None,
) -> Runs:
    """Train every setting with every seed, in one program.

    All settings share the same `num_seeds` keys, so that seed `j` starts alike under each of them. Member
    `[i, j]` is what `train(jax.random.split(key, num_seeds)[j], settings[i])` gives alone, up to the rounding
    of batched matrix products; a single member is exactly that.

    That holds for keys of jax's default kind, threefry. Under `vmap` the kinds `rbg` and `unsafe_rbg` draw the
    numbers of all members from the first one's key (see the docs of `jax.random`): members are independent, but
    seed `j` does not start alike under each setting, and numbers change with the chunks.

    Members that do not fit into memory together are trained in equal chunks, one after the other, by the same
    compiled program; an uneven rest is padded, and the padding dropped. How much a member takes is read from
    the compiled program. With several chunks, or several processes, results are NumPy arrays on the host.
    The program is kept while `train` lives: another call with as many members does not compile again.

    Args:
        train: from `make_train`, or `make_host_train`, whose members then share one simulator.
        settings: leaves `[settings]`, e.g. from `grid` or `sample`.
        num_seeds: runs per setting.
        key: a random key of either style (typed, or raw of the default kind); split into one per seed.
        members_per_chunk: members trained at a time, over all devices; by memory if not given.
        memory_limit: bytes to use on each device; what is available if not given.
        mesh: devices to lay the members over. It may span processes: all of them must make the same call, and
            all of them get the whole result.

    Warns:
        ReppoRunWarning: for what kept runs from working, see `diagnose`.

    Returns:
        Final states and metrics with the axes `[settings, seeds]` in front. Their keys are typed ones.

    Raises:
        ValueError: if a setting is out of range, the leaves of `settings` do not share one axis, a number of
            something is below 1, `key` is no random key, a single member does not fit, or the call is itself
            within `jit` or `vmap`.

    >>> from reppo_fx import Config, Hyperparameters, grid, make_train
    >>> from reppo_fx.envs import probes
    >>> config = Config(total_steps=64, num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2,
    ...                 num_evals=2, num_eval_envs=2, episode_length=8, actor_width=8, critic_width=8)
    >>> train = make_train(probes.constant_reward(), config)
    >>> runs = sweep(train, grid(discount=[0.8, 0.9]), num_seeds=3, key=jax.random.key(0))
    >>> runs.metrics.eval_return.shape, runs.swept
    ((2, 3, 2), ('discount',))
    """
    keys, members = flatten_members(settings, num_seeds, key)
    if not isinstance(train, Train):
        if mesh is not None or memory_limit is not None:
            given = "mesh" if mesh is not None else "memory_limit"
            raise ValueError(
                f"{given} is for pure environments; around a simulator only members_per_chunk can be set."
            )
        state, metrics = _side_by_side(train, (keys, members), members_per_chunk)
        return _runs(state, metrics, settings, num_seeds)
    inputs = jax.random.key_data(keys), members
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(inputs)):
        raise ValueError(
            "sweep compiles programs of its own and cannot be part of one; call it outside jit and vmap, "
            "or use jax.vmap(train)."
        )
    program = _program(train, jax.random.key_impl(keys), mesh)
    compiled, size = _compile(program, inputs, members_per_chunk, memory_limit, mesh)
    whole = size >= len(keys) and jax.process_count() == 1
    chunks = []
    for start in range(0, len(keys), size):
        part = jax.tree.map(lambda leaf, start=start: leaf[start : start + size], inputs)
        result = compiled(*_prepare(part, size, mesh))
        kinds = key_kinds(result)
        result = result if whole else _to_host(result)
        kept = len(part[0])
        if kept < size:
            result = jax.tree.map(lambda leaf, kept=kept: leaf[:kept], result)
        chunks.append(result)
    if not whole:
        chunks = [restore_keys(jax.tree.map(lambda *parts: np.concatenate(parts), *chunks), kinds)]
    state, metrics = chunks[0]
    return _runs(state, metrics, settings, num_seeds)


def _runs(
    state: TrainState, metrics: Metrics, settings: Hyperparameters, num_seeds: SupportsIndex
) -> Runs:
    state, metrics = unflatten_members((state, metrics), settings, num_seeds)
    warn_of_findings(metrics, settings, stacklevel=4)
    dtype = jnp.result_type(float)
    settings = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), settings)
    return Runs(Stacked(state), metrics, settings)


def _side_by_side(
    train: MembersTrain, inputs: Inputs, members_per_chunk: SupportsIndex | None
) -> Results:
    """Members that share a simulator, in chunks if asked for."""
    total = len(inputs[0])
    size = total
    if members_per_chunk is not None:
        size = min(as_count("members_per_chunk", members_per_chunk), total)
    chunks = []
    for start in range(0, total, size):
        part = jax.tree.map(lambda leaf, start=start: leaf[start : start + size], inputs)
        chunks.append(train(*part))
    joined: Results = jax.tree.map(lambda *parts: jnp.concatenate(parts), *chunks)
    return joined


def _program(train: Train, kind: object, mesh: Mesh | None) -> jax.stages.Wrapped:
    """`train` over members, jitted once for each kind of keys and each mesh."""
    alive = weakref.ref(train)

    def train_member(key_data: Array, hyperparameters: Hyperparameters) -> Results:
        # Plain numbers in: typed keys cannot be laid over processes. Only traced while `sweep` holds `train`.
        function = alive()
        assert function is not None
        return function(jax.random.wrap_key_data(key_data, impl=kind), hyperparameters)

    return keep_program(
        train, ("sweep", kind, mesh), lambda: jax.jit(over_members(train_member, mesh))
    )


def _prepare(inputs: Inputs, size: int, mesh: Mesh | None) -> Inputs:
    """As many members as the program takes, where it takes them."""
    return lay_over(pad_members(inputs, size), mesh)


def _compile(
    program: jax.stages.Wrapped,
    inputs: Inputs,
    members_per_chunk: SupportsIndex | None,
    memory_limit: float | int | None,
    mesh: Mesh | None,
) -> tuple[jax.stages.Compiled, int]:
    """The program compiled, and for how many members: all of them if they fit."""
    devices = mesh.size if mesh is not None else 1
    total = len(inputs[0])

    def compile_for(members: int) -> tuple[jax.stages.Compiled, int]:
        size = -(-members // devices) * devices
        # The same program for the same shapes is traced, lowered and compiled once: jax remembers all three.
        return program.lower(*_prepare(inputs, size, mesh)).compile(), size

    if members_per_chunk is not None:
        return compile_for(min(as_count("members_per_chunk", members_per_chunk), total))
    if memory_limit is None:
        local = [jax.local_devices()[0]] if mesh is None else list(mesh.local_devices)
        limit = available_memory(local[0], len(local))
    else:
        limit = as_bytes("memory_limit", memory_limit)
    compiled, size = compile_for(total)
    while (memory := measure_memory(compiled, size // devices)).total > limit:
        fit = min(limit // memory.per_member, size // devices - 1) * devices
        if fit < devices:
            raise ValueError(
                f"one member needs {memory.per_member:,} bytes and memory_limit is {limit:,}; "
                "use a smaller num_envs, num_steps or width."
            )
        compiled, size = compile_for(-(-total // -(-total // fit)))
    return compiled, size


def _to_host(tree: PyTree) -> PyTree:
    exposed = expose_keys(tree)
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(exposed, tiled=True)
    return jax.tree.map(np.asarray, exposed)
