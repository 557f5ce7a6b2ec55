"""Successive halving and population-based training, on a probe whose best setting is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.sweeps.population import halving_schedule, keep_best

from ..sizes import HP, leaves_close, tiny

KEY = jax.random.key(0)
# Whoever learns from the negated reward gets worse at the task: only positive scales can be best.
SCALES = [-1.0, -0.5, -0.1, 1.0]
SPACE = {"reward_scale": rx.uniform(-1.0, 1.0)}
LEARNS = tiny(
    total_steps=32 * 8 * 8,
    num_envs=32,
    num_evals=8,
    num_eval_envs=16,
    num_epochs=12,
    num_minibatches=4,
)


@pytest.fixture(scope="module")
def train():
    return rx.make_train(probes.match_observation(), LEARNS)


@pytest.fixture(scope="module")
def halved(train):
    settings = rx.grid(HP, reward_scale=SCALES)
    run = jax.jit(lambda key: rx.successive_halving(train, settings, num_seeds=2, key=key))
    return run(KEY)


def test_halving_finds_the_setting_that_learns(halved):
    assert halved.runs.best().setting == 3
    assert halved.evaluations[3] == 8
    assert sorted(halved.evaluations.tolist()) == [1, 1, 3, 8]


def test_dropped_settings_stop_where_they_were(halved):
    returns = np.asarray(halved.runs.metrics.eval_return)
    for setting, made in enumerate(halved.evaluations.tolist()):
        assert np.isfinite(returns[setting, :, :made]).all()
        assert np.isnan(returns[setting, :, made:]).all()
        assert halved.runs.state.tree.iteration[setting].tolist() == [made] * 2


def test_survivors_are_the_runs_of_a_plain_sweep(train, halved):
    best = rx.grid(HP, reward_scale=SCALES[3:])
    plain = rx.sweep(train, best, num_seeds=2, key=KEY)
    np.testing.assert_allclose(
        halved.runs.metrics.eval_return[3, :, :2],
        plain.metrics.eval_return[0, :, :2],
        rtol=0.02,
        atol=0.05,
    )


def test_halving_schedules():
    assert halving_schedule(8, 2, "rest") == [1, 2, 5]
    assert halving_schedule(14, 2, "rest") == [2, 4, 8]
    assert halving_schedule(6, 1, "stop") == [3, 3]
    with pytest.raises(
        ValueError, match="num_evals is 3; 2 rungs with freed='rest' need at least 7"
    ):
        halving_schedule(3, 2, "rest")
    with pytest.raises(ValueError, match="freed is 'rset'; allowed are 'rest', 'stop'"):
        halving_schedule(8, 2, "rset")


def test_halving_needs_enough_settings(train):
    with pytest.raises(ValueError, match="2 settings cannot be halved 2 times"):
        rx.successive_halving(train, rx.grid(kl_target=[0.1, 0.2]), num_seeds=1, key=KEY)


def test_what_is_not_finite_is_dropped_first():
    scores = jnp.array([jnp.nan, -5.0, jnp.inf, 2.0])
    assert keep_best(scores, 2).tolist() == [1, 3]


@pytest.fixture(scope="module")
def evolved(train):
    population = rx.make_population(train, SPACE, num_members=12, base=HP)
    return jax.jit(population)(jax.random.key(3))


def test_population_moves_to_the_setting_that_learns(evolved):
    state, history = evolved
    start, end = (np.asarray(history.hyperparameters.reward_scale)[i] for i in (0, -1))
    assert (start < 0).sum() >= 4
    assert (end > 0).sum() >= 10
    assert np.median(state.scores) > 0.9


def test_history_says_who_came_from_whom(evolved):
    _, history = evolved
    scales = np.asarray(history.hyperparameters.reward_scale)
    parents = np.asarray(history.parents)
    returns = np.asarray(history.metrics.eval_return)
    assert parents.shape == scales.shape == returns.shape == (8, 12)
    assert parents[0].tolist() == list(range(12))
    copied = 0
    for now in range(1, 8):
        for member, parent in enumerate(parents[now]):
            if member == parent:
                assert scales[now, member] == scales[now - 1, member]
                continue
            copied += 1
            assert returns[now - 1, parent] > returns[now - 1, member]
            moved = scales[now, member] - scales[now - 1, parent]
            at_bound = abs(scales[now, member]) == 1.0
            assert at_bound or np.isclose(abs(moved), 0.2, atol=1e-5)
        assert (parents[now] != np.arange(12)).sum() <= 3
    assert copied >= 5
    assert np.abs(scales).max() <= 1.0


def test_a_copy_takes_what_is_learned_and_keeps_its_own_world(train):
    keys = jax.random.split(KEY, 4)
    settings = rx.sample(KEY, 4, HP, **SPACE)
    before = jax.jit(jax.vmap(train.init))(keys, settings)
    scores = jnp.array([3.0, 1.0, jnp.nan, 2.0])
    after, parents = rx.exploit_and_explore(KEY, before, scores, SPACE)
    assert parents.tolist() == [0, 1, 0, 3]
    take = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)
    leaves_close(take(after.learner, 2), take(before.learner, 0), rtol=0)
    leaves_close(take(after.rollout.env_state, 2), take(before.rollout.env_state, 2), rtol=0)
    leaves_close(after.key, before.key, rtol=0)
    leaves_close(take(after, 1), take(before, 1), rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"learning_rat": rx.uniform(0.1, 0.2)}}, "unknown hyperparameter"),
        ({"space": {"initial_temperature": rx.uniform(0.1, 0.2)}}, "only acts at the start"),
        ({"num_members": 1}, "num_members is 1"),
        ({"fraction": 0.7}, "fraction is 0.7"),
    ],
)
def test_population_names_what_is_wrong(train, changes, message):
    with pytest.raises(ValueError, match=message):
        rx.make_population(train, **{"space": SPACE, "num_members": 4, **changes})
