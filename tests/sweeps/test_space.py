"""Grids, random draws, and moves within bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import reppo_fx as rx

from ..sizes import HP

KEY = jax.random.key(0)


def test_grid_is_the_cross_product_with_the_last_name_fastest():
    settings = rx.grid(learning_rate=[1e-3, 1e-4], kl_target=[0.1, 0.2, 0.3])
    np.testing.assert_allclose(settings.learning_rate, [1e-3] * 3 + [1e-4] * 3)
    np.testing.assert_allclose(settings.kl_target, [0.1, 0.2, 0.3] * 2)
    np.testing.assert_allclose(settings.discount, [0.99] * 6)


def test_grid_keeps_the_base():
    assert rx.grid(HP, kl_target=[0.1]).discount.tolist() == [np.float32(0.9)]


def test_grid_names_what_is_wrong():
    with pytest.raises(
        ValueError, match="unknown hyperparameter 'learning_rat'; did you mean 'lear"
    ):
        rx.grid(learning_rat=[1.0])
    with pytest.raises(ValueError, match="discount is 2.0"):
        rx.grid(discount=[0.9, 2.0])
    with pytest.raises(ValueError, match="kl_target has no values"):
        rx.grid(kl_target=[])


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (rx.uniform(0.5, 0.9), scipy.stats.uniform(0.5, 0.4)),
        (rx.log_uniform(1e-4, 1e-2), scipy.stats.loguniform(1e-4, 1e-2)),
    ],
)
def test_draws_follow_their_distribution(distribution, expected):
    draws = np.asarray(distribution.sample(KEY, 2000), np.float64)
    assert draws.min() >= distribution.low * (1 - 1e-6)
    assert draws.max() <= distribution.high * (1 + 1e-6)
    assert scipy.stats.kstest(draws, expected.cdf).pvalue > 1e-3


def test_choice_draws_every_option_equally_often():
    draws = np.asarray(rx.choice([0.1, 0.2, 0.4]).sample(KEY, 3000))
    values, counts = np.unique(draws, return_counts=True)
    np.testing.assert_allclose(values, [0.1, 0.2, 0.4])
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_sample_has_one_stream_per_name():
    one = rx.sample(KEY, 6, learning_rate=rx.log_uniform(1e-4, 1e-2))
    two = rx.sample(
        KEY, 6, HP, kl_target=rx.uniform(0.1, 0.2), learning_rate=rx.log_uniform(1e-4, 1e-2)
    )
    np.testing.assert_array_equal(one.learning_rate, two.learning_rate)
    np.testing.assert_allclose(two.discount, [0.9] * 6)
    assert len(set(two.kl_target.tolist())) == 6
    assert {leaf.shape for leaf in two} == {(6,)}


def test_a_number_fixes_a_hyperparameter():
    assert rx.sample(KEY, 3, discount=0.5).discount.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rx.log_uniform(0.0, 1.0), "low 0.0 and high 1.0; it needs 0 < low < high"),
        (lambda: rx.uniform(1.0, 1.0), "low 1.0 and high 1.0; it needs low < high"),
        (lambda: rx.choice([]), "choice got no options"),
        (lambda: rx.sample(KEY, 0), "num is 0"),
        (
            lambda: rx.sample(KEY, 2, discont=0.9),
            "unknown hyperparameter 'discont'; did you mean 'discount'",
        ),
        (lambda: rx.sample(KEY, 2, discount=rx.uniform(0.9, 1.1)), "discount is 1.1"),
        (
            lambda: rx.sample(KEY, 2, learning_rate=rx.choice([1e-3, -1.0])),
            "learning_rate is -1.0",
        ),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_distribution_is_named(unchecked_annotations):
    with pytest.raises(ValueError, match="discount is 'high'; it must be log_uniform, uniform"):
        rx.sample(KEY, 2, discount="high")


def test_moves_stay_inside_the_bounds_and_go_both_ways():
    for distribution, start, neighbours in [
        (rx.log_uniform(1e-3, 1e-1), 1e-2, {0.008, 0.0125}),
        (rx.uniform(0.0, 1.0), 0.5, {0.4, 0.6}),
        (rx.choice([1.0, 2.0, 4.0]), 2.0, {1.0, 4.0}),
    ]:
        moved = distribution.perturb(KEY, jnp.full(50, start))
        assert {round(float(x), 6) for x in moved} == neighbours
    low = rx.log_uniform(1e-3, 1e-1).perturb(KEY, jnp.full(50, 1e-3))
    np.testing.assert_allclose(np.unique(low), [1e-3, 1.25e-3], rtol=1e-5)
