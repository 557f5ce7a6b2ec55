"""The member axis: a grid of hyperparameters × seeds, as one vmapped program."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .envs import unknown_name
from .iteration import TrainState
from .settings import Hyperparameters, check_hyperparameters
from .train import Metrics, Train


class Runs(NamedTuple):
    """Results of a sweep; every leaf has the axes `[settings, seeds, ...]`.

    Attributes:
        state: final states.
        metrics: with `[settings, seeds, num_evals]`.
        settings: the hyperparameters, `[settings]`.
    """

    state: TrainState
    metrics: Metrics
    settings: Hyperparameters


def grid(base: Hyperparameters | None = None, **values: Sequence[float]) -> Hyperparameters:
    """Cross product of the given values; the last name varies fastest.

    Args:
        base: values of everything else; the defaults if none.
        **values: for each hyperparameter, the values it takes.

    Returns:
        `Hyperparameters` with leaves `[settings]`.

    Raises:
        ValueError: for an unknown name (with the nearest ones), an empty list, or a value out of range.

    >>> settings = grid(learning_rate=[1e-4, 3e-4, 1e-3], kl_target=[0.05, 0.1])
    >>> settings.learning_rate.shape, settings.discount.shape
    ((6,), (6,))
    """
    base = Hyperparameters() if base is None else base
    for name, options in values.items():
        if name not in Hyperparameters._fields:
            raise unknown_name("hyperparameter", name, Hyperparameters._fields)
        if not len(options):
            raise ValueError(f"{name} has no values; a grid needs at least one of each.")
    members = [
        base._replace(**dict(zip(values, combination, strict=True)))
        for combination in itertools.product(*values.values())
    ]
    for member in members:
        check_hyperparameters(member)
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves, dtype), *members)


def sweep(train: Train, settings: Hyperparameters, *, num_seeds: int, key: Array) -> Runs:
    """Train every setting with every seed, in one program.

    All settings share the same `num_seeds` keys, so that seed `j` starts alike under each of them. Member
    `[i, j]` is what `train(jax.random.split(key, num_seeds)[j], settings[i])` gives alone, up to the rounding
    of batched matrix products.

    Args:
        train: from `make_train`.
        settings: leaves `[settings]`, e.g. from `grid`.
        num_seeds: runs per setting.
        key: split into one per seed.

    Returns:
        Final states and metrics with the axes `[settings, seeds]` in front.

    Raises:
        ValueError: if the leaves of `settings` do not share one axis, or `num_seeds < 1`.
    """
    lengths = {jnp.shape(leaf) for leaf in settings}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise ValueError(
            f"the leaves of settings have shapes {sorted(lengths)}; they must all be [settings], as from grid."
        )
    if num_seeds < 1:
        raise ValueError(f"num_seeds is {num_seeds}; at least 1 is needed.")
    (num_settings,) = lengths.pop()
    # One flat member axis: simulators are only sure to support a single extra one.
    keys = jnp.tile(jax.random.split(key, num_seeds), num_settings)
    members = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_seeds), settings)
    state, metrics = jax.jit(jax.vmap(train))(keys, members)

    def unflatten(leaf: Array) -> Array:
        return leaf.reshape(num_settings, num_seeds, *leaf.shape[1:])

    return Runs(jax.tree.map(unflatten, state), jax.tree.map(unflatten, metrics), settings)
