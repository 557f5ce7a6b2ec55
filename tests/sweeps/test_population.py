"""Successive halving and population-based training, on a probe whose best setting is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.sweeps.halving import halving_schedule, keep_best
from reppo_fx.sweeps.population import FIXED_IN_A_RUN, MAY_EVOLVE

from ..sizes import HP, TINY, leaves_close, tiny
from .compilations import compiled_programs

# Toys whose learning rates are too high, and whose runs say so.
pytestmark = pytest.mark.filterwarnings("ignore::reppo_fx.ReppoRunWarning")

KEY = jax.random.key(0)
# Whoever learns from the negated reward gets worse at the task: only positive scales can be best.
SCALES = [-1.0, -0.5, -0.1, 1.0]
# Most of these hardly learn within the run.
SPACE = {"learning_rate": rx.log_uniform(1e-7, 1e-2)}
LEARNS = tiny(
    total_steps=32 * 8 * 8,
    num_envs=32,
    num_evals=8,
    num_eval_envs=16,
    num_epochs=12,
    num_minibatches=4,
    actor_depth=3,
    encoder_depth=2,
    head_depth=2,
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


def test_halved_runs_are_a_table_in_a_notebook(train, halved):
    shown = halved.runs._repr_html_()
    each = train.config.total_steps // train.config.num_evals
    assert [shown.count(f"<td>{made * each:,}</td>") for made in (1, 3, 8)] == [2, 1, 1]


@pytest.mark.slow
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
    start, end = (np.asarray(history.hyperparameters.learning_rate)[i] for i in (0, -1))
    assert (start < 1e-4).sum() >= 4
    assert (end < 1e-4).sum() < (start < 1e-4).sum()
    assert np.median(end) > 1.5 * np.median(start)
    assert np.median(state.scores) > 0.9


def test_history_says_who_came_from_whom(evolved):
    _, history = evolved
    rates = np.asarray(history.hyperparameters.learning_rate)
    parents = np.asarray(history.parents)
    returns = np.asarray(history.metrics.eval_return)
    assert parents.shape == rates.shape == returns.shape == (8, 12)
    assert parents[0].tolist() == list(range(12))
    copied = 0
    for now in range(1, 8):
        for member, parent in enumerate(parents[now]):
            if member == parent:
                assert rates[now, member] == rates[now - 1, member]
                continue
            copied += 1
            assert returns[now - 1, parent] > returns[now - 1, member]
            moved = rates[now, member] / rates[now - 1, parent]
            at_bound = np.isclose(rates[now, member], (1e-7, 1e-2), rtol=1e-4, atol=0).any()
            assert at_bound or np.isclose(moved, (0.8, 1.25), rtol=1e-4).any()
        assert (parents[now] != np.arange(12)).sum() <= 3
    assert copied >= 5


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
        (
            {"space": {"v_max": rx.uniform(50.0, 90.0)}},
            "v_max cannot evolve: .*rescale a learned Q",
        ),
        (
            {"space": {"v_min": rx.uniform(-9.0, -1.0)}},
            "v_min cannot evolve: .*rescale a learned Q",
        ),
        ({"space": {"reward_scale": rx.uniform(0.5, 2.0)}}, "reward_scale cannot evolve: Q and"),
        (
            {"space": {"min_std": rx.uniform(0.05, 0.1)}},
            "min_std cannot evolve: it is part of the p",
        ),
        ({"space": {"variance_floor": rx.uniform(0.1, 0.2)}}, "variance_floor cannot evolve"),
        ({"space": {"discount": rx.uniform(0.9, 1.1)}}, "discount is 1.1"),
        ({"space": {}}, "space is empty"),
        ({"num_members": 1}, "num_members is 1"),
        ({"fraction": 0.7}, "fraction is 0.7"),
    ],
)
def test_population_names_what_is_wrong(train, changes, message):
    with pytest.raises(ValueError, match=message):
        rx.make_population(train, **{"space": SPACE, "num_members": 4, **changes})


def test_every_hyperparameter_is_said_to_evolve_or_why_not(train):
    assert sorted((*MAY_EVOLVE, *FIXED_IN_A_RUN)) == sorted(rx.Hyperparameters._fields)
    space = {name: rx.uniform(0.1, 0.2) for name in MAY_EVOLVE}
    rx.make_population(train, space, num_members=4, base=HP._replace(initial_temperature=0.2))


def test_a_copy_is_checked_like_a_population(train):
    states = jax.vmap(train.init)(jax.random.split(KEY, 2), rx.sample(KEY, 2, HP))
    with pytest.raises(ValueError, match="v_max cannot evolve"):
        rx.exploit_and_explore(KEY, states, jnp.arange(2.0), {"v_max": rx.uniform(1.0, 2.0)})
    with pytest.raises(ValueError, match="fraction is 0.6"):
        rx.exploit_and_explore(KEY, states, jnp.arange(2.0), SPACE, 0.6)
    with pytest.raises(ValueError, match="scores has 3 entries, but members have the axes .2."):
        rx.exploit_and_explore(KEY, states, jnp.arange(3.0), SPACE)


def test_a_copy_inherits_when_its_parent_diverged(train):
    states = jax.vmap(train.init)(jax.random.split(KEY, 2), rx.sample(KEY, 2, HP))
    states = states._replace(diverged_at=jnp.array([64, -1]))
    copied, _ = rx.exploit_and_explore(KEY, states, jnp.array([1.0, 0.0]), SPACE)
    assert copied.diverged_at.tolist() == [64, 64]


def test_no_score_that_is_finite_copies_nothing(train):
    states = jax.vmap(train.init)(jax.random.split(KEY, 4), rx.sample(KEY, 4, HP))
    for scores in ([jnp.nan] * 4, [2.0] * 4, [jnp.inf, jnp.nan, -jnp.inf, jnp.nan]):
        _, parents = rx.exploit_and_explore(KEY, states, jnp.array(scores), SPACE, 0.5)
        assert parents.tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_plain_calls_compile_once():
    train = rx.make_train(probes.match_observation(), TINY)
    settings = rx.grid(HP, discount=[0.5, 0.9])
    population = rx.make_population(train, SPACE, num_members=2, base=HP)
    for call in (
        lambda key: rx.successive_halving(
            train, settings, num_seeds=1, key=key, rungs=1, freed="stop"
        ),
        population,
    ):
        call(KEY)
        with compiled_programs() as names:
            call(jax.random.PRNGKey(1))
        assert "jit(program)" not in names
        assert len(names) == 0
