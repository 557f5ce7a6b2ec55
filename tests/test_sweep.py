"""Grids, and the member axis."""

import jax
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes

from .test_train import HP, TINY, leaves_close


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


def test_sweep_members_are_the_runs_alone():
    train = rx.make_train(probes.match_observation(), TINY)
    settings = rx.grid(HP, learning_rate=[1e-3, 3e-3], discount=[0.5, 0.9])
    key = jax.random.key(0)
    runs = rx.sweep(train, settings, num_seeds=2, key=key)
    assert runs.metrics.eval_return.shape == (4, 2, TINY.num_evals)
    setting = jax.tree.map(lambda leaf: leaf[2], settings)
    alone = jax.jit(train)(jax.random.split(key, 2)[1], setting)
    leaves_close(jax.tree.map(lambda leaf: leaf[2, 1], (runs.state, runs.metrics)), alone)


def test_sweep_wants_a_setting_axis():
    train = rx.make_train(probes.match_observation(), TINY)
    with pytest.raises(ValueError, match="must all be .settings."):
        rx.sweep(train, HP, num_seeds=1, key=jax.random.key(0))
