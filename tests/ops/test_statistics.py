import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reppo_fx import ops
from reppo_fx.ops import RunningStatistics, statistics_init

# Compiled for speed; the conformance table checks that eager calls agree.
statistics_update = jax.jit(ops.statistics_update)
statistics_normalize = jax.jit(ops.statistics_normalize)

# Means and variances of some hundred float32 numbers of order ten.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def rows(count, seed=0, shape=(3,)):
    """Rows whose columns differ in mean and scale, and that drift, so that batches differ."""
    rng = np.random.default_rng(seed)
    drift = np.linspace(0.0, 4.0, count).reshape(-1, *(1 for _ in shape))
    size = int(np.prod(shape))
    scale = np.linspace(0.1, 5.0, size).reshape(shape)
    center = np.linspace(-8.0, 8.0, size).reshape(shape)
    return (center + scale * (rng.normal(size=(count, *shape)) + drift)).astype(np.float32)


def seen(batches, shape=(3,)):
    statistics = statistics_init(np.zeros(shape, np.float32))
    for batch in batches:
        statistics = statistics_update(statistics, batch)
    return statistics


def test_nothing_seen_yet_is_mean_zero_variance_one_count_zero():
    statistics = statistics_init({"a": np.ones((2, 3), np.float32), "b": np.ones((), np.float32)})
    np.testing.assert_array_equal(statistics.mean["a"], np.zeros((2, 3)))
    np.testing.assert_array_equal(statistics.var["b"], 1.0)
    assert statistics.count == 0.0


def test_init_needs_a_shape_and_dtype_only():
    statistics = statistics_init(jax.ShapeDtypeStruct((4,), jnp.float32))
    np.testing.assert_array_equal(statistics.mean, np.zeros(4))


def test_the_first_batch_replaces_the_start():
    statistics = seen([np.float32([[1.0, 2.0, 5.0], [3.0, 2.0, 9.0]])])
    np.testing.assert_array_equal(statistics.mean, [2.0, 2.0, 7.0])
    np.testing.assert_array_equal(statistics.var, [1.0, 0.0, 4.0])
    assert statistics.count == 2.0


def test_the_first_row_alone_has_variance_zero():
    statistics = seen([np.float32([[1.0, 2.0, 5.0]])])
    np.testing.assert_array_equal(statistics.mean, [1.0, 2.0, 5.0])
    np.testing.assert_array_equal(statistics.var, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("sizes", [(100, 50, 150), (1, 299), (299, 1)])
def test_batches_of_any_size_merge_to_numpys_moments_of_all_rows(sizes):
    everything = rows(300)
    statistics = seen(np.split(everything, np.cumsum(sizes)[:-1]))
    np.testing.assert_allclose(statistics.mean, np.float64(everything).mean(0), **CLOSE)
    np.testing.assert_allclose(statistics.var, np.float64(everything).var(0), **CLOSE)
    assert statistics.count == 300.0


def test_the_order_of_batches_does_not_matter():
    batches = np.split(rows(300), [100, 150])
    forward, backward = seen(batches), seen(batches[::-1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), forward, backward)


def test_leading_axes_are_rows():
    everything = rows(24)
    flat, time_major = seen([everything]), seen([everything.reshape(4, 3, 2, 3)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), flat, time_major)
    assert time_major.count == 24.0


def test_a_far_mean_costs_no_more_than_its_own_rounding():
    far = rows(1000) + np.float32(1e4)
    statistics = seen(np.split(far, 10))
    # The naive E[x²] − E[x]² would lose everything: 1e8 · 6e-8 = 6, more than the least variance.
    np.testing.assert_allclose(statistics.var, np.float64(far).var(0), rtol=1e-2)


def test_many_small_batches_do_not_drift():
    everything = rows(2000)
    start = statistics_init(np.zeros(3, np.float32))
    statistics, _ = jax.lax.scan(
        lambda s, batch: (statistics_update(s, batch), None), start, everything.reshape(500, 4, 3)
    )
    # Five hundred merges, each with a rounding or two.
    np.testing.assert_allclose(
        statistics.mean, np.float64(everything).mean(0), rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(statistics.var, np.float64(everything).var(0), rtol=1e-3)


def test_every_leaf_of_a_pytree_has_its_own_statistics():
    state, pixels, level = rows(40), rows(40, 1, (2, 2)), rows(40, 2, ())
    observations = {"state": state, "extra": (pixels, level)}
    example = jax.tree.map(lambda x: x[0], observations)
    statistics = statistics_update(statistics_init(example), observations)
    expected_mean = jax.tree.map(lambda x: np.float64(x).mean(0), observations)
    expected_var = jax.tree.map(lambda x: np.float64(x).var(0), observations)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), statistics.mean, expected_mean
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), statistics.var, expected_var
    )


def test_normalize_by_hand():
    statistics = RunningStatistics(jnp.array([1.0, 2.0]), jnp.array([3.0, 0.0]), jnp.ones(()))
    normalized = statistics_normalize(statistics, np.float32([[5.0, 2.0], [1.0, 4.0]]), 1.0)
    np.testing.assert_allclose(normalized, [[2.0, 0.0], [0.0, 2.0]], rtol=1e-6)


def test_the_default_variance_floor_is_one_hundredth():
    statistics = RunningStatistics(jnp.zeros(1), jnp.array([0.03]), jnp.ones(()))
    np.testing.assert_allclose(
        statistics_normalize(statistics, np.ones(1, np.float32)), [5.0], rtol=1e-6
    )


def test_normalizing_what_was_seen_gives_mean_zero_and_variance_one():
    everything = rows(300)
    normalized = statistics_normalize(seen([everything]), everything, variance_floor=0.0)
    np.testing.assert_allclose(np.mean(normalized, 0), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(np.var(normalized, 0), np.ones(3), rtol=1e-4)


def test_a_constant_observation_normalizes_to_zero_through_the_floor():
    constant = np.full((5, 3), 7.0, np.float32)
    normalized = statistics_normalize(seen([constant]), constant)
    np.testing.assert_array_equal(normalized, np.zeros((5, 3)))


def test_integer_observations_have_fractional_statistics():
    statistics = statistics_init(np.zeros(2, np.int32))
    statistics = statistics_update(statistics, np.int32([[1, 10], [2, 10]]))
    np.testing.assert_array_equal(statistics.mean, [1.5, 10.0])
    np.testing.assert_array_equal(statistics.var, [0.25, 0.0])


@pytest.mark.parametrize("shape", [(5, 4), (3, 5), ()])
def test_a_batch_that_does_not_end_in_the_examples_shape_is_refused(shape):
    text = str(list(shape)).replace("[", r"\[").replace("]", r"\]")
    message = rf"a leaf of batch is {text} but the statistics hold \[3\]"
    with pytest.raises(ValueError, match=message):
        statistics_update(statistics_init(np.zeros(3, np.float32)), np.zeros(shape, np.float32))


def test_leaves_with_different_numbers_of_rows_are_refused():
    statistics = statistics_init({"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)})
    batch = {"a": np.zeros((5, 3), np.float32), "b": np.zeros((4, 2), np.float32)}
    with pytest.raises(ValueError, match=r"the leaves of batch hold \[4, 5\] rows"):
        statistics_update(statistics, batch)


@pytest.mark.parametrize("function", [statistics_update, statistics_normalize])
def test_another_structure_is_refused(function):
    statistics = statistics_init({"state": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"batch has the structure .*'pixels'.* but .*'state'"):
        function(statistics, {"pixels": np.zeros((5, 3), np.float32)})


def test_a_leaf_that_would_only_broadcast_is_not_normalized():
    statistics = statistics_init(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"a leaf of batch is \[5, 1\] but the statistics hold"):
        statistics_normalize(statistics, np.zeros((5, 1), np.float32))


def test_a_batch_without_rows_changes_nothing():
    before = seen([rows(10)])
    after = statistics_update(before, np.zeros((0, 3), np.float32))
    jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_statistics_of_half_precision_are_kept_in_float32(dtype):
    everything = jnp.asarray(100.0 + 5.0 * np.random.default_rng(0).normal(size=(4096, 3)), dtype)
    statistics = ops.statistics_init(everything[0])
    for batch in jnp.split(everything, 64):
        statistics = statistics_update(statistics, batch)
    assert {x.dtype for x in jax.tree.leaves(statistics)} == {jnp.dtype("float32")}
    exact = np.float64(everything)
    np.testing.assert_allclose(statistics.mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(statistics.var), exact.std(0), rtol=1e-4)

    normalized = statistics_normalize(statistics, everything)
    assert normalized.dtype == dtype
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-2)
    np.testing.assert_allclose(
        np.float64(normalized), expected, rtol=float(jnp.finfo(dtype).eps), atol=1e-4
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_statistics_that_were_kept_in_half_precision_become_float32(dtype):
    half = RunningStatistics(jnp.zeros(1, dtype), jnp.ones(1, dtype), jnp.asarray(0.0, dtype))
    statistics = statistics_update(half, jnp.asarray([[1.0], [2.0]], dtype))
    assert {x.dtype for x in jax.tree.leaves(statistics)} == {jnp.dtype("float32")}
    assert (statistics.mean[0], statistics.var[0], statistics.count) == (1.5, 0.25, 2.0)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int32])
def test_whole_numbers_are_summed_up_and_normalized_as_floats(dtype):
    top = {"bool": 2, "int8": 100}.get(np.dtype(dtype).name, 200)
    everything = np.random.default_rng(0).integers(0, top, size=(1000, 3)).astype(dtype)
    statistics = statistics_update(statistics_init(everything[0]), everything)
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.var, everything.var(0), rtol=1e-4)
    normalized = statistics_normalize(statistics, everything, 0.0)
    assert normalized.dtype == jnp.float32
    np.testing.assert_allclose(np.std(normalized, 0), np.ones(3), rtol=1e-4)


def test_a_wider_observation_is_normalized_in_its_own_dtype():
    with jax.enable_x64(True):
        statistics = ops.statistics_init(np.zeros(1, np.float32))
        assert (
            ops.statistics_normalize(statistics, jnp.zeros((2, 1), jnp.float64)).dtype
            == jnp.float64
        )
        whole = ops.statistics_init(np.zeros(1, np.int32))
        assert ops.statistics_normalize(whole, jnp.zeros((2, 1), jnp.int32)).dtype == jnp.float64
        assert ops.statistics_normalize(whole, jnp.zeros((2, 1), jnp.float16)).dtype == jnp.float16


@pytest.mark.parametrize(
    ("start", "batch", "updates"), [(2**24, 1, 1000), (2**24 - 3, 1, 10), (2**30, 33, 500)]
)
def test_no_row_is_lost_from_a_count_that_float32_cannot_hold(start, batch, updates):
    before = statistics_init(np.zeros(1, np.float32))._replace(count=jnp.float32(start))
    rows = jnp.zeros((batch, 1))
    after, _ = jax.jit(
        lambda s: jax.lax.scan(
            lambda s, _: (ops.statistics_update(s, rows), None), s, length=updates
        )
    )(before)
    assert after.count.dtype == jnp.float32
    # Exact with its rest, and the count alone to float32's half step.
    assert float(after.count) + float(after.count_rest) == start + batch * updates
    assert float(after.count) == np.float32(start + batch * updates)


def test_a_batch_of_more_rows_than_float32_can_count_leaves_its_rest():
    statistics = statistics_init(np.zeros((), np.int8))
    statistics = statistics_update(statistics, np.zeros(2**24 + 1, np.int8))
    assert int(statistics.count) + int(statistics.count_rest) == 2**24 + 1


def test_statistics_of_three_fields_still_work():
    three = RunningStatistics(jnp.zeros(1), jnp.ones(1), jnp.zeros(()))
    after = statistics_update(three, jnp.array([[1.0], [3.0]]))
    assert jax.tree.structure(after) == jax.tree.structure(three)
    assert after.count == 2.0


def test_nothing_seen_yet_hides_no_infinite_variance():
    start = RunningStatistics(jnp.zeros(1), jnp.full(1, jnp.inf), jnp.zeros(()))
    np.testing.assert_array_equal(statistics_update(start, jnp.array([[1.0], [3.0]])).var, [1.0])
