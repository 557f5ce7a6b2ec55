"""Running mean and variance of PyTrees of observations."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from ._checks import match_dtype
from ._numerics import Dtype, weighted, wide_dtype


class RunningStatistics(NamedTuple):
    """Mean and (population) variance of everything seen so far, and how many rows that was.

    Numbers are of float32 at least, whatever the observations are. float32 holds no integer beyond 2²⁴
    exactly, and 2²⁴ + 1 is 2²⁴ again: what the last sum could not hold waits in `count_rest` for the next one
    (Kahan), so that no row is lost. Without a `count_rest`, which is never so after
    `statistics_init`, the count is a plain sum.

    Attributes:
        mean: as one observation.
        var: as one observation; 0 for what never changed.
        count: rows.
        count_rest: what the last sum of them could not hold.
    """

    mean: PyTree[Float[Array, "..."]]
    var: PyTree[Float[Array, "..."]]
    count: Float[Array, ""]  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    count_rest: Float[Array, ""] | None = None


def statistics_init(example: PyTree) -> RunningStatistics:
    """Nothing seen yet: mean 0, variance 1, count 0, in the structure of one observation.

    Args:
        example: one observation (arrays or anything with shape and dtype).

    Returns:
        Statistics that normalize to the identity (up to the variance floor), of float32 at least.

    >>> print(statistics_init({"state": jnp.ones(3)}).mean["state"])
    [0. 0. 0.]
    """
    mean = jax.tree.map(lambda x: jnp.zeros(x.shape, _float_dtype(x)), example)
    var = jax.tree.map(lambda x: jnp.ones(x.shape, _float_dtype(x)), example)
    dtype = jnp.result_type(float)
    return RunningStatistics(mean, var, jnp.zeros((), dtype), jnp.zeros((), dtype))


def statistics_update(statistics: RunningStatistics, batch: PyTree) -> RunningStatistics:
    r"""Merge a batch, exactly as if its rows had been seen one by one.

    With counts `n` and `m`, means `μ` and `b`, variances `v` and `s`:
    `μ' = μ + (b − μ) m/(n+m)`, `v' = (n v + m s)/(n+m) + (b − μ)² n m/(n+m)²`.

    Give it batches rather than rows: a change of the mean below 6e-8 of it is lost to float32, and a single
    row among millions changes it by less.

    Args:
        statistics: seen so far.
        batch: observations with any leading axes in front of the example's own shape; half precision,
            integers and bools are summed up in the statistics' own dtype.

    Returns:
        Statistics of everything, same structure; unchanged by a batch without rows.

    Raises:
        ValueError: if the structure of `batch` is not that of the example, a leaf does not end in the
            example's shape, or leaves hold different numbers of rows.

    Source: Chan, Golub & LeVeque (1983), eq. 2.1; the count as Kahan (1965).

    >>> stats = statistics_update(statistics_init(jnp.zeros(1)), jnp.array([[1.0], [3.0]]))
    >>> print(stats.mean, stats.var, stats.count)
    [2.] [1.] 2.0
    """
    sizes = _rows_by_leaf(batch, statistics.mean)
    if len(sizes) != 1:
        raise ValueError(
            f"the leaves of batch hold {sorted(sizes)} rows; they must hold the same number."
        )
    rows = sizes.pop()
    if rows == 0:
        return statistics
    count, rest = _counted(statistics, rows)
    share = float(rows) / count

    def mean_of(x: Array, mean: Array) -> Array:
        mean = _wide(mean)
        return mean + (_batch_mean(x, mean) - mean) * match_dtype(share, mean)

    def var_of(x: Array, mean: Array, var: Array) -> Array:
        mean, var = _wide(mean), _wide(var)
        weight = match_dtype(share, mean)
        shift = _batch_mean(x, mean) - mean
        spread = jnp.var(x.astype(mean.dtype), axis=_leading(x, mean))
        between = jnp.square(shift) * weight * (1.0 - weight)
        return weighted(1.0 - weight, var) + weight * spread + between

    mean = jax.tree.map(mean_of, batch, statistics.mean)
    var = jax.tree.map(var_of, batch, statistics.mean, statistics.var)
    return RunningStatistics(mean, var, count, rest)


def statistics_normalize(
    statistics: RunningStatistics, batch: PyTree, variance_floor: ScalarLike = 1e-2
) -> PyTree:
    r"""`(x − mean) / sqrt(var + floor)`, leaf by leaf.

    Args:
        statistics: from `statistics_update`.
        batch: observations with any leading axes.
        variance_floor: added to the variance, in squared observation units.

    Returns:
        Normalized observations, same structure and shapes: floating-point observations in their own dtype,
        though computed in the statistics' one; integers and bools in that of the statistics.

    Raises:
        ValueError: if the structure of `batch` is not that of the statistics, or a leaf does not end in theirs.

    >>> stats = statistics_update(statistics_init(jnp.zeros(1)), jnp.array([[1.0], [3.0]]))
    >>> print(statistics_normalize(stats, jnp.array([4.0]), variance_floor=0.0))
    [2.]
    """

    _rows_by_leaf(batch, statistics.mean)

    def normalize(x: Array, mean: Array, var: Array) -> Array:
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        given = x.dtype if is_float else mean.dtype
        wide = max(wide_dtype(given), wide_dtype(mean.dtype), key=lambda dtype: dtype.itemsize)
        x, mean, var = x.astype(wide), mean.astype(wide), var.astype(wide)
        mean, std = (
            jnp.broadcast_to(y, x.shape)
            for y in (mean, jnp.sqrt(var + match_dtype(variance_floor, var)))
        )
        return ((x - mean) / std).astype(given)

    return jax.tree.map(normalize, batch, statistics.mean, statistics.var)


def _counted(statistics: RunningStatistics, rows: int) -> tuple[Array, Array | None]:
    """The count with `rows` more, and what rounding left out of it."""
    count = _wide(statistics.count)
    if statistics.count_rest is None:
        return count + float(rows), None
    # Two parts, because float32 may not hold the whole number either; each of these it does.
    low = rows % 2**20
    count, left_out = _exact_sum(count, jnp.asarray(float(rows - low), count.dtype))
    return _exact_sum(count, match_dtype(statistics.count_rest, count) + left_out + float(low))


def _exact_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """`a + b` as rounded, and what the rounding left out (Knuth's two-sum)."""
    total = a + b
    taken = total - a
    return total, (a - (total - taken)) + (b - taken)


def _float_dtype(x: Any) -> Dtype:
    """Statistics are of float32 at least; those of integers and bools have the default precision."""
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    return wide_dtype(x.dtype) if floats else jnp.dtype(jnp.result_type(float))


def _wide(x: Array) -> Array:
    return x.astype(wide_dtype(x.dtype))


def _leading(x: Array, mean: Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - mean.ndim))


def _batch_mean(x: Array, mean: Array) -> Array:
    return jnp.mean(x.astype(mean.dtype), axis=_leading(x, mean))


def _rows_by_leaf(batch: PyTree, mean: PyTree) -> set[int]:
    given: Any = jax.tree.structure(batch)
    held: Any = jax.tree.structure(mean)
    if given != held:
        raise ValueError(f"batch has the structure {given} but the statistics hold {held}.")
    return set(map(_rows, jax.tree.leaves(batch), jax.tree.leaves(mean)))


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
