"""Successive halving: the worse half of the settings is dropped at each rung, inside one program."""

from __future__ import annotations

import weakref
from typing import NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._ranges import as_count
from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..training.train import Metrics, Train
from .members import (
    Stacked,
    flatten_members,
    keep_program,
    lowest_unless_finite,
    num_settings,
    over_members,
    unflatten_members,
)
from .runs import Runs


class Halving(NamedTuple):
    """Result of successive halving.

    Attributes:
        runs: as from `sweep`; a dropped setting keeps the state it was dropped in, and its metrics are NaN
            (counts of whole numbers −1) from then on.
        evaluations: how many evaluations each setting was trained for, `[settings]`.
    """

    runs: Runs
    evaluations: Int[Array, " settings"]


def halving_schedule(num_evals: int, rungs: int, freed: str) -> list[int]:
    """Evaluations between one drop and the next, `rungs + 1` numbers that sum to `num_evals`.

    With `freed="rest"` each stretch is twice as long as the one before: half the settings for twice the time,
    so that every rung costs the same. With `freed="stop"` all are equally long.

    Raises:
        ValueError: for another word, or when there are too few evaluations.

    >>> halving_schedule(7, 2, "rest"), halving_schedule(9, 2, "stop")
    ([1, 2, 4], [3, 3, 3])
    """
    if freed not in ("rest", "stop"):
        raise ValueError(f"freed is {freed!r}; allowed are 'rest', 'stop'.")
    if rungs < 1:
        raise ValueError(f"rungs is {rungs}; at least 1 is needed.")
    weights = [2**rung if freed == "rest" else 1 for rung in range(rungs + 1)]
    ends = [round(num_evals * sum(weights[: i + 1]) / sum(weights)) for i in range(rungs + 1)]
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    if min(lengths) < 1:
        raise ValueError(
            f"num_evals is {num_evals}; {rungs} rungs with freed={freed!r} need at least {sum(weights)}."
        )
    return lengths


def keep_best(scores: Float[Array, " settings"], keep: int) -> Int[Array, " keep"]:
    """Indices of the best settings, in their old order; what is not finite comes last.

    >>> print(keep_best(jnp.array([1.0, 3.0, jnp.nan, 2.0]), 2))
    [1 3]
    """
    _, best = jax.lax.top_k(lowest_unless_finite(scores), keep)
    return jnp.sort(best)


def successive_halving(
    train: Train,
    settings: Hyperparameters,
    *,
    num_seeds: SupportsIndex,
    key: Array,
    rungs: SupportsIndex = 2,
    freed: str = "rest",
) -> Halving:
    """Train all settings, and drop the worse half at each rung by their mean return over seeds.

    One pure program: can be jitted, and is when called plainly (compiled once for each `train` and number of
    members). The member axis shrinks at each rung, so the compiler sees one training loop per rung. Where scores
    are equal the earlier setting stays; a setting with a score that is not finite goes before all others.

    Random numbers are as in `sweep`: with keys of the kinds `rbg` and `unsafe_rbg` those of a member depend on who
    is beside it, so a survivor is not the run of a plain sweep.

    Args:
        train: from `make_train`; survivors train for its `config.total_steps`.
        settings: leaves `[settings]`, e.g. from `sample`.
        num_seeds: runs per setting, which live and fall together.
        key: a random key of either style; split into one per seed.
        rungs: how often to drop half.
        freed: what becomes of the compute of dropped settings. `"rest"`: drop early, at rungs that double in
            length, so that each costs the same and most of it goes to the survivors. `"stop"`: rungs of equal
            length, so that settings are judged later.

    Returns:
        The runs, and how long each setting lived.

    Raises:
        ValueError: if a setting is out of range, the leaves of `settings` do not share one axis, there are too few
            settings or evaluations, or `key` is no random key.

    Source: Jamieson & Talwalkar (arXiv 1502.07943).
    """
    num_rungs, num_seeds = as_count("rungs", rungs), as_count("num_seeds", num_seeds)
    keys, members = flatten_members(settings, num_seeds, key)
    count = num_settings(settings)
    lengths = tuple(halving_schedule(train.config.num_evals, num_rungs, freed))
    if count < 2**num_rungs:
        raise ValueError(
            f"{count} settings cannot be halved {num_rungs} times; give {2**num_rungs} or more."
        )
    alive = weakref.ref(train)  # traced only while `train` is held here

    def program(keys: Array, members: Hyperparameters) -> _Halved:
        function = alive()
        assert function is not None
        return _halve(function, keys, members, num_seeds, lengths)

    kept = keep_program(train, ("halving", num_seeds, lengths), lambda: jax.jit(program))
    state, metrics, evaluations = kept(keys, members)
    state, metrics = unflatten_members((state, metrics), settings, num_seeds)
    return Halving(Runs(Stacked(state), metrics, settings), evaluations)


_Halved = tuple[TrainState, Metrics, Int[Array, " settings"]]


def _halve(
    train: Train, keys: Array, members: Hyperparameters, num_seeds: int, lengths: tuple[int, ...]
) -> _Halved:
    """States and metrics `[members, ...]`, and how many evaluations each setting was trained for."""
    state = over_members(train.init)(keys, members)
    step = over_members(train.round)
    count = len(keys) // num_seeds
    _, shapes = jax.eval_shape(step, state)
    metrics = _blank(shapes, len(keys), sum(lengths))
    alive, done = jnp.arange(count), 0
    evaluations = jnp.zeros(count, jnp.int32)
    for rung, length in enumerate(lengths):
        rows = (alive[:, None] * num_seeds + jnp.arange(num_seeds)).ravel()
        part, new = jax.lax.scan(
            lambda part, _: step(part),
            jax.tree.map(lambda leaf, rows=rows: leaf[rows], state),
            length=length,
        )
        state = jax.tree.map(lambda all_, some, rows=rows: all_.at[rows].set(some), state, part)
        where = (rows[:, None], done + jnp.arange(length))
        metrics = jax.tree.map(
            lambda all_, some, where=where: all_.at[where].set(
                jnp.moveaxis(some, 0, 1).astype(all_.dtype)
            ),
            metrics,
            new,
        )
        done += length
        evaluations = evaluations.at[alive].set(done)
        if rung < len(lengths) - 1:
            scores = new.eval_return[-1].reshape(-1, num_seeds).mean(1)
            alive = alive[keep_best(scores, -(-len(alive) // 2))]
    return state, metrics, evaluations


def _blank(shapes: Metrics, members: int, num_evals: int) -> Metrics:
    """Metrics of nothing, `[members, num_evals]`: NaN, or −1 where they count; what holds neither is made float."""

    def blank(leaf: jax.ShapeDtypeStruct) -> Array:
        counts = jnp.issubdtype(leaf.dtype, jnp.signedinteger)
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        dtype = leaf.dtype if counts or floating else jnp.result_type(float)
        return jnp.full((members, num_evals, *leaf.shape[1:]), -1 if counts else jnp.nan, dtype)

    nothing: Metrics = jax.tree.map(blank, shapes)
    return nothing
