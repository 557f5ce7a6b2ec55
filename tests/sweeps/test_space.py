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
        (lambda: rx.choice([]), "choice has no values"),
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


NUMBERS = [float, np.float64, np.float32, jnp.float32, np.array]


@pytest.mark.parametrize("make", NUMBERS)
def test_bounds_of_any_number_type(make, unchecked_annotations):
    assert rx.uniform(make(0.5), make(1.0)) == rx.uniform(0.5, 1.0)
    assert rx.log_uniform(make(0.5), make(1.0)) == rx.log_uniform(0.5, 1.0)
    assert rx.choice([make(0.5), make(1.0)]) == rx.choice(jnp.array([0.5, 1.0]))
    assert rx.grid(discount=[make(0.5)]).discount.tolist() == [0.5]
    assert rx.sample(KEY, 2, discount=make(0.5)).discount.tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="discount is 2.0"):
        rx.grid(discount=[make(2.0)])
    with pytest.raises(ValueError, match="discount is 2.0"):
        rx.sample(KEY, 2, discount=make(2.0))


@pytest.mark.parametrize(
    ("distributions", "message"),
    [
        (
            {"v_min": rx.uniform(-10.0, 50.0), "v_max": rx.uniform(20.0, 100.0)},
            "v_min Uniform.*v_max Uni",
        ),
        (
            {"v_min": rx.choice([0.0, 30.0]), "v_max": rx.log_uniform(30.0, 99.0)},
            "v_min is 30.0 and v_max",
        ),
        ({"v_min": rx.uniform(-10.0, 200.0)}, "v_max 150.0 cannot go together"),
        ({"v_min": 0.0, "v_max": rx.uniform(-1.0, 1.0)}, "v_min is 0.0 and v_max is -1.0"),
        ({"v_min": 5.0, "v_max": 5.0}, "v_min must be below v_max"),
        (
            {"initial_temperature": rx.log_uniform(0.001, 0.1), "min_temperature": 0.05},
            "min_temperature must be at most initial_temperature",
        ),
    ],
)
def test_no_draw_can_have_its_ends_the_wrong_way_round(distributions, message):
    with pytest.raises(ValueError, match=message):
        rx.sample(KEY, 2, **distributions)


def test_ends_that_can_go_together_are_drawn():
    drawn = rx.sample(KEY, 50, v_min=rx.uniform(200.0, 300.0), v_max=rx.uniform(301.0, 400.0))
    assert (drawn.v_min < drawn.v_max).all()
    drawn = rx.sample(KEY, 5, min_temperature=0.1, initial_temperature=0.1)
    assert (drawn.min_temperature == drawn.initial_temperature).all()
    base = rx.sample(KEY, 3, v_min=rx.uniform(-2.0, -1.0))
    assert rx.sample(KEY, 3, base, discount=0.5).v_min.tolist() == base.v_min.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rx.grid(v_min=[0.0, 50.0], v_max=[20.0, 100.0]),
            r"v_min\[2\] is 50.0 and v_max\[2\] is",
        ),
        (lambda: rx.grid(discount=0.9), "discount is 0.9; it must be a list of values"),
        (lambda: rx.grid(discount="0.9"), "discount is '0.9'; it must be a list"),
        (lambda: rx.grid(discount=["0.9"]), "discount is '0.9'; it must be a number"),
        (lambda: rx.grid(discount=[True]), "discount is True; it must be a number"),
        (lambda: rx.grid(discount=np.ones((1, 2))), r"discount has shape \[1, 2\]"),
        (lambda: rx.grid(discount=[0.5, 0.9, 0.5]), "discount has 0.5 twice"),
        (lambda: rx.grid(discount=[0.5, 0.5 + 1e-12]), "twice; give every value once"),
        (
            lambda: rx.grid(rx.sample(KEY, 2)),
            r"learning_rate of base has shape \[2\]; it must be a single",
        ),
        (
            lambda: rx.sample(KEY, 3, rx.sample(KEY, 2)),
            r"of base has shape \[2\]; it must be a single number, or 3",
        ),
        (lambda: rx.grid(rx.Hyperparameters(discount=np.float32(2))), "discount is 2.0"),
        (lambda: rx.choice([1.0, 2.0, 1]), "choice has 1.0 twice"),
        (
            lambda: (
                rx.choice([1.0, np.nan]).options
                and rx.sample(KEY, 2, kl_target=rx.choice([np.nan]))
            ),
            "kl_target is nan",
        ),
        (lambda: rx.uniform(-3e38, 3e38), "finite difference"),
        (lambda: rx.uniform(np.nan, 1.0), "needs low < high"),
        (lambda: rx.uniform(False, True), "low of uniform is False; it must be a number"),
        (
            lambda: rx.sample(KEY, 2, discount=rx.uniform(0.5, 1.0)._replace(low=2.0)),
            "uniform got low 2.0",
        ),
        (lambda: rx.sample(KEY, True), "num is True; it must be a whole number"),
        (lambda: rx.sample(0, 2), "key is 0; it must be a random key"),
        (lambda: rx.sample(KEY, 2, discount=np.array([0.5, 0.9])), r"discount has shape \[2\]"),
    ],
)
def test_what_cannot_be_tried_is_named(call, message, unchecked_annotations):
    with pytest.raises(ValueError, match=message):
        call()
