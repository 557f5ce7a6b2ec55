"""Sweeps: settings × seeds as one vmapped program, in chunks that fit, over as many devices as there are."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from .._errors import require_extra
from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..training.train import Metrics, Train
from .members import (
    Stacked,
    available_memory,
    expose_keys,
    flatten_members,
    key_kinds,
    label_settings,
    lay_over,
    lowest_unless_finite,
    measure_memory,
    over_members,
    pad_members,
    restore_keys,
    unflatten_members,
)


class Best(NamedTuple):
    """The index of the best setting, its values, its mean score, and the index of its best seed."""

    setting: int
    hyperparameters: Hyperparameters
    score: float
    seed: int


class Runs(NamedTuple):
    """Results of a sweep; every leaf has the axes `[settings, seeds, ...]`.

    Attributes:
        state: final states; `runs.state[i, j]` is one, to evaluate or train further.
        metrics: with `[settings, seeds, num_evals]`.
        settings: the hyperparameters, `[settings]`.
    """

    state: Stacked[TrainState]
    metrics: Metrics
    settings: Hyperparameters

    @property
    def swept(self) -> tuple[str, ...]:
        """The names of the hyperparameters that differ between settings."""
        values = self.settings._asdict().items()
        return tuple(name for name, leaf in values if len(np.unique(np.asarray(leaf))) > 1)

    @property
    def labels(self) -> list[dict[str, float]]:
        """For each setting, the values of what is swept."""
        return label_settings(self.settings, self.swept)

    def scores(self, last: int = 1) -> np.ndarray:
        """`[settings, seeds]`: the mean return of the last evaluations that were made.

        Args:
            last: how many evaluations to average; more of them lessen the luck of a single one.

        Raises:
            ValueError: unless `1 ≤ last ≤ num_evals`.
        """
        returns = np.asarray(self.metrics.eval_return)
        if not 1 <= last <= returns.shape[-1]:
            raise ValueError(f"last is {last}; it must be between 1 and {returns.shape[-1]}.")
        made = np.maximum(np.isfinite(returns).sum(-1), 1)
        position = np.arange(returns.shape[-1])
        counted = (position < made[..., None]) & (position >= made[..., None] - last)
        return np.where(counted, returns, 0.0).sum(-1) / counted.sum(-1)

    def best(self, last: int = 1) -> Best:
        """The setting with the highest mean score over seeds; settings that were not finite come last."""
        scores = lowest_unless_finite(self.scores(last))
        index = int(scores.mean(-1).argmax())
        setting = jax.tree.map(lambda leaf: float(leaf[index]), self.settings)
        return Best(index, setting, float(scores[index].mean()), int(scores[index].argmax()))

    def to_dataframe(self) -> Any:
        """One row per member and evaluation: setting, seed, what is swept, and every metric (needs pandas)."""
        try:
            import pandas
        except ImportError as error:
            raise require_extra("pandas", "dataframe") from error
        shape = np.shape(self.metrics.eval_return)
        setting, seed, _ = (index.ravel() for index in np.indices(shape))
        columns: dict[str, Any] = {"setting": setting, "seed": seed}
        for name in self.swept:
            columns[name] = np.asarray(getattr(self.settings, name))[setting]
        for name, values in flatten_metrics(self.metrics).items():
            columns[name] = np.asarray(values).ravel()
        return pandas.DataFrame(columns)


def flatten_metrics(metrics: Metrics) -> dict[str, Any]:
    """All metrics by their own names, without nesting."""
    top = {name: leaf for name, leaf in metrics._asdict().items() if name != "training"}
    training = metrics.training._asdict()
    return {**top, **training.pop("learner")._asdict(), **training}


def sweep(
    train: Train,
    settings: Hyperparameters,
    *,
    num_seeds: int,
    key: Array,
    members_per_chunk: int | None = None,
    memory_limit: int | None = None,
    mesh: Mesh | None = None,
) -> Runs:
    """Train every setting with every seed, in one program.

    All settings share the same `num_seeds` keys, so that seed `j` starts alike under each of them. Member
    `[i, j]` is what `train(jax.random.split(key, num_seeds)[j], settings[i])` gives alone, up to the rounding
    of batched matrix products.

    Members that do not fit into memory together are trained in equal chunks, one after the other, by the same
    compiled program; an uneven rest is padded, and the padding dropped. How much a member takes is read from
    the compiled program. With several chunks, or several processes, results are NumPy arrays on the host.

    Args:
        train: from `make_train`.
        settings: leaves `[settings]`, e.g. from `grid` or `sample`.
        num_seeds: runs per setting.
        key: split into one per seed.
        members_per_chunk: members trained at a time, over all devices; by memory if not given.
        memory_limit: bytes to use on each device; what is available if not given.
        mesh: devices to lay the members over. It may span processes: all of them must make the same call, and
            all of them get the whole result.

    Returns:
        Final states and metrics with the axes `[settings, seeds]` in front.

    Raises:
        ValueError: if the leaves of `settings` do not share one axis, `num_seeds < 1`, `members_per_chunk < 1`,
            or a single member does not fit.

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
    inputs = jax.random.key_data(keys), members
    program, size = _compile(train, key, inputs, members_per_chunk, memory_limit, mesh)
    whole = size >= len(keys) and jax.process_count() == 1
    chunks = []
    for start in range(0, len(keys), size):
        part = jax.tree.map(lambda leaf, start=start: leaf[start : start + size], inputs)
        result = program(*_prepare(part, size, mesh))
        kinds = key_kinds(result)
        result = result if whole else _to_host(result)
        kept = len(part[0])
        if kept < size:
            result = jax.tree.map(lambda leaf, kept=kept: leaf[:kept], result)
        chunks.append(result)
    if not whole:
        chunks = [restore_keys(jax.tree.map(lambda *parts: np.concatenate(parts), *chunks), kinds)]
    state, metrics = unflatten_members(chunks[0], settings, num_seeds)
    return Runs(Stacked(state), metrics, settings)


def _prepare(inputs: PyTree, size: int, mesh: Mesh | None) -> PyTree:
    """As many members as the program takes, where it takes them."""
    return lay_over(pad_members(inputs, size), mesh)


def _compile(
    train: Train,
    key: Array,
    inputs: tuple[Array, Hyperparameters],
    members_per_chunk: int | None,
    memory_limit: int | None,
    mesh: Mesh | None,
) -> tuple[jax.stages.Compiled, int]:
    """The program, and for how many members: all of them if they fit."""
    if members_per_chunk is not None and members_per_chunk < 1:
        raise ValueError(f"members_per_chunk is {members_per_chunk}; at least 1 is needed.")
    impl = jax.random.key_impl(key)
    devices = mesh.size if mesh is not None else 1
    total = len(inputs[0])

    def train_member(key_data: Array, hyperparameters: Hyperparameters) -> PyTree:
        # Plain numbers in: typed keys cannot be laid over processes.
        return train(jax.random.wrap_key_data(key_data, impl=impl), hyperparameters)

    program = jax.jit(over_members(train_member, mesh))

    def compile_for(members: int) -> tuple[jax.stages.Compiled, int]:
        size = -(-members // devices) * devices
        return program.lower(*_prepare(inputs, size, mesh)).compile(), size

    compiled, size = compile_for(min(members_per_chunk or total, total))
    if members_per_chunk is not None:
        return compiled, size
    device = jax.local_devices()[0] if mesh is None else mesh.local_devices[0]
    limit = available_memory(device) if memory_limit is None else memory_limit
    memory = measure_memory(compiled, size // devices)
    if memory.total <= limit:
        return compiled, size
    fit = limit // memory.per_member * devices
    if fit < devices:
        raise ValueError(
            f"one member needs {memory.per_member:,} bytes and memory_limit is {limit:,}; "
            "use a smaller num_envs, num_steps or width."
        )
    return compile_for(-(-total // -(-total // fit)))


def _to_host(tree: PyTree) -> PyTree:
    exposed = expose_keys(tree)
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(exposed, tiled=True)
    return jax.tree.map(np.asarray, exposed)
