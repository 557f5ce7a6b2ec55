"""Running mean and variance of PyTrees of observations."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from ._checks import match_dtype


class RunningStatistics(NamedTuple):
    """Mean and (population) variance of everything seen so far, and how many rows that was."""

    mean: PyTree[Float[Array, "..."]]
    var: PyTree[Float[Array, "..."]]
    count: Float[Array, ""]  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


def statistics_init(example: PyTree) -> RunningStatistics:
    """Nothing seen yet: mean 0, variance 1, count 0, in the structure of one observation.

    Args:
        example: one observation (arrays or anything with shape and dtype).

    Returns:
        Statistics that normalize to the identity (up to the variance floor).

    >>> print(statistics_init({"state": jnp.ones(3)}).mean["state"])
    [0. 0. 0.]
    """
    mean = jax.tree.map(lambda x: jnp.zeros(x.shape, _float_dtype(x)), example)
    var = jax.tree.map(lambda x: jnp.ones(x.shape, _float_dtype(x)), example)
    return RunningStatistics(mean, var, jnp.zeros((), jnp.result_type(float)))


def statistics_update(statistics: RunningStatistics, batch: PyTree) -> RunningStatistics:
    r"""Merge a batch, exactly as if its rows had been seen one by one.

    With counts `n` and `m`, means `μ` and `b`, variances `v` and `s`:
    `μ' = μ + (b − μ) m/(n+m)`, `v' = (n v + m s)/(n+m) + (b − μ)² n m/(n+m)²`.

    Args:
        statistics: seen so far.
        batch: observations with any leading axes in front of the example's own shape.

    Returns:
        Statistics of everything, same structure.

    Raises:
        ValueError: if a leaf of `batch` does not end in the shape of the example.

    Source: Chan, Golub & LeVeque (1983), eq. 2.1.

    >>> stats = statistics_update(statistics_init(jnp.zeros(1)), jnp.array([[1.0], [3.0]]))
    >>> print(stats.mean, stats.var, stats.count)
    [2.] [1.] 2.0
    """
    sizes = {_rows(x, mean) for x, mean in _leaf_pairs(batch, statistics.mean)}
    if len(sizes) != 1:
        raise ValueError(
            f"the leaves of batch hold {sorted(sizes)} rows; they must hold the same number."
        )
    added = jnp.asarray(sizes.pop(), statistics.count.dtype)
    total = statistics.count + added
    share = added / total

    def mean_of(x, mean):
        return mean + (_batch_mean(x, mean) - mean) * match_dtype(share, mean)

    def var_of(x, mean, var):
        weight = match_dtype(share, mean)
        shift = _batch_mean(x, mean) - mean
        spread = jnp.var(x, axis=_leading(x, mean))
        return (1.0 - weight) * var + weight * spread + jnp.square(shift) * weight * (1.0 - weight)

    mean = jax.tree.map(mean_of, batch, statistics.mean)
    var = jax.tree.map(var_of, batch, statistics.mean, statistics.var)
    return RunningStatistics(mean, var, total)


def statistics_normalize(
    statistics: RunningStatistics, batch: PyTree, variance_floor: ScalarLike = 1e-2
) -> PyTree:
    r"""`(x − mean) / sqrt(var + floor)`, leaf by leaf.

    Args:
        statistics: from `statistics_update`.
        batch: observations with any leading axes.
        variance_floor: added to the variance, in squared observation units.

    Returns:
        Normalized observations, same structure, shapes and dtypes.

    >>> stats = statistics_update(statistics_init(jnp.zeros(1)), jnp.array([[1.0], [3.0]]))
    >>> print(statistics_normalize(stats, jnp.array([4.0]), variance_floor=0.0))
    [2.]
    """

    def normalize(x, mean, var):
        return (x - mean) / jnp.sqrt(var + match_dtype(variance_floor, var))

    return jax.tree.map(normalize, batch, statistics.mean, statistics.var)


def _float_dtype(x: Any) -> jnp.dtype:
    """Statistics of integer observations are floating-point too."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)


def _leading(x: Array, mean: Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - mean.ndim))


def _batch_mean(x: Array, mean: Array) -> Array:
    return jnp.mean(x, axis=_leading(x, mean))


def _leaf_pairs(batch: PyTree, mean: PyTree) -> list[tuple[Array, Array]]:
    return list(zip(jax.tree.leaves(batch), jax.tree.leaves(mean), strict=True))


def _rows(x: Array, mean: Array) -> int:
    if x.ndim < mean.ndim or x.shape[x.ndim - mean.ndim :] != mean.shape:
        raise ValueError(
            f"a leaf of batch is {list(x.shape)} but the statistics hold {list(mean.shape)}; "
            "the batch must end in that shape."
        )
    rows = 1
    for size in x.shape[: x.ndim - mean.ndim]:
        rows *= size
    return rows
