"""The width of HL-Gauss as a share of the support, and a scale that follows the task: its unit must not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.learner.scale_rules import (
    ReturnStatistics,
    TargetStatistics,
    about,
    return_statistics,
    target_statistics,
)

from ..sizes import HP, TINY, leaves_close, tiny

KEY = jax.random.key(0)
RULES = ("return", "spread", "reward", "target", "deviation", "range")
CENTERS = {"deviation": rx.at_mean, "range": rx.at_lowest}


@pytest.mark.parametrize(
    ("num_bins", "sigma"), [(51, 0.015), (151, 0.005), (151, 0.04), (301, 0.01)]
)
def test_sigma_is_a_length_that_bins_do_not_change(num_bins, sigma):
    values = rx.categorical_value_function(num_bins)
    hp = rx.Hyperparameters(v_min=-30.0, v_max=70.0, sigma=sigma)
    labels = values.labels(jnp.asarray(12.3), hp, ())
    centres = np.linspace(-30.0, 70.0, num_bins)
    mean = float((labels * centres).sum())
    spread = float(np.sqrt((np.asarray(labels) * (centres - mean) ** 2).sum()))
    width = 100.0 / (num_bins - 1)
    wanted = max(sigma * 100.0, 0.75 * width)
    assert mean == pytest.approx(12.3, abs=1e-3)
    # Bins add the variance of a uniform number within them.
    assert spread == pytest.approx(np.sqrt(wanted**2 + width**2 / 12), rel=1e-3)


def test_the_published_width_is_the_default():
    hp = rx.Hyperparameters()
    support = rx.hl_gauss_support(hp.v_min, hp.v_max, 151)
    y = jnp.linspace(-10.0, 160.0, 50)
    labels = rx.categorical_value_function(151).labels(y, hp, ())
    np.testing.assert_allclose(labels, rx.hl_gauss_targets(y, support, 0.75), atol=1e-6)


def test_sigma_is_traced():
    labels = rx.categorical_value_function(51).labels
    of = lambda sigma: labels(jnp.asarray(3.0), HP._replace(sigma=sigma), ())
    sigmas = jnp.array([0.01, 0.05, 0.2])
    together = jax.vmap(of)(sigmas)
    np.testing.assert_allclose(together, jnp.stack([of(s) for s in sigmas]), atol=1e-7)
    assert (np.diff(np.asarray(together).max(-1)) < 0).all()


def test_what_the_support_cannot_hold_is_counted():
    values = rx.categorical_value_function(51)
    hp = rx.Hyperparameters(v_min=-1.0, v_max=1.0)
    y = jnp.array([-2.0, -1.02, -1.0, 0.0, 1.0, 1.02, 1.1])
    assert values.outside(y, hp, ()).tolist() == [True, *[False] * 5, True]
    assert not rx.squared_value_function().outside(y, hp, ()).any()


def rollout_rewards(key, t, n):
    reward_key, end_key = jax.random.split(key)
    reward = jax.random.normal(reward_key, (t, n))
    ended = jax.random.bernoulli(end_key, 0.2, (t, n))
    return reward, ended


def transitions(reward, terminated):
    none = jnp.zeros_like(terminated)
    zeros = jnp.zeros((*reward.shape, 1))
    return rx.Transition(zeros, zeros, zeros, reward, terminated, none, none, {})


def test_returns_of_every_instance_go_on_from_one_rollout_to_the_next():
    """Against a loop over the whole stream, cut into rollouts of different lengths."""
    n, gamma = 3, 0.9
    reward, ended = rollout_rewards(KEY, 20, n)
    hp = rx.Hyperparameters(discount=gamma, reward_scale=2.0)
    state = rx.scaled_value_function(rx.squared_value_function()).init(hp, n).statistics
    for start, stop in ((0, 7), (7, 12), (12, 20)):
        state = return_statistics(state, transitions(reward[start:stop], ended[start:stop]), hp)
    returns, carried, over = [], np.zeros(n), np.zeros(n, bool)
    for r, e in zip(np.asarray(reward), np.asarray(ended), strict=True):
        carried = 2.0 * r + gamma * np.where(over, 0.0, carried)
        over = e
        returns.append(carried)
    returns = np.array(returns)
    np.testing.assert_allclose(state.returns, returns[-1], rtol=1e-5)
    np.testing.assert_allclose(state.seen.mean, returns.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.seen.var, returns.var(), rtol=1e-4)
    assert float(state.largest_return) == pytest.approx(np.abs(returns).max(), rel=1e-5)
    assert float(state.largest_reward) == pytest.approx(2.0 * np.abs(reward).max(), rel=1e-5)
    assert float(state.lowest_return) == pytest.approx(returns.min(), rel=1e-5)


def test_the_lowest_return_is_one_that_was_paid():
    """Where all are positive it is not the 0 that nothing had been seen with."""
    state = rx.scaled_value_function(rx.squared_value_function()).init(HP, 2).statistics
    for reward, lowest in ((5.0, 5.0), (3.0, 5.0), (-90.0, -90.0 + 0.9 * (3.0 + 0.9 * 5.0))):
        paid = transitions(jnp.full((1, 2), reward), jnp.zeros((1, 2), bool))
        state = return_statistics(state, paid, HP._replace(discount=0.9, reward_scale=1.0))
        assert float(state.lowest_return) == pytest.approx(lowest)


def test_the_rules_are_their_equations():
    seen = rx.RunningStatistics(jnp.asarray(3.0), jnp.asarray(16.0), jnp.asarray(10.0))
    largest_return, largest_reward, lowest_return = map(jnp.asarray, (50.0, 2.0, 1.0))
    paid = (largest_return, largest_reward, lowest_return)
    statistics = ReturnStatistics(jnp.zeros(2), jnp.zeros(2, bool), seen, *paid)
    hp = rx.Hyperparameters(discount=0.98, v_min=-12.0, v_max=8.0, sigma=1 / 30)  # 12 − 3 · 20 / 30
    none = TargetStatistics(*(jnp.zeros(()) for _ in range(3)))
    assert float(rx.by_return(statistics, none, hp)) == pytest.approx(5.0)
    assert float(rx.by_spread(statistics, none, hp)) == pytest.approx(5.0)
    assert float(rx.by_spread(statistics, none, hp._replace(v_max=88.0))) == pytest.approx(4.0)
    assert float(rx.by_reward(statistics, none, hp)) == pytest.approx(10.0)
    assert float(rx.by_target(statistics, none, hp)) == pytest.approx(5.0)
    seen_twice = target_statistics(
        target_statistics(none, jnp.array([1.0, 3.0])), jnp.array([9.0, 11.0])
    )
    mean, square = (2.0 * 0.95 + 10.0) / 1.95, (5.0 * 0.95 + 101.0) / 1.95
    wanted = (mean + 3.0 * np.sqrt(square - mean**2)) / 10.0
    assert float(rx.by_target(statistics, seen_twice, hp)) == pytest.approx(wanted, rel=1e-5)
    spread = 3.0 * np.sqrt(square - mean**2)
    for center, above in ((rx.at_mean, 0.0), (rx.at_lowest, mean - 1.0)):
        relative = about(seen_twice, center(statistics, seen_twice))
        given = float(rx.by_target(statistics, relative, hp))
        assert given == pytest.approx((above + spread) / 10.0, rel=1e-5)
    assert float(rx.at_mean(statistics, relative)) == pytest.approx(mean - 1.0)
    centers = [float(c(statistics, seen_twice)) for c in (rx.at_zero, rx.at_mean, rx.at_lowest)]
    assert centers == pytest.approx([0.0, mean, 1.0])
    wide = hp._replace(sigma=0.5)  # labels as wide as the support leave half of it
    assert float(rx.by_return(statistics, none, wide)) == pytest.approx(50.0 / 6.0)


@pytest.mark.parametrize("reward", [1.0, -1.0, 1e-3])
@pytest.mark.parametrize("rule", RULES)
def test_values_that_are_all_alike_can_be_learned(rule, reward):
    """The label of the largest of them still has its mean there: no end of the support cuts it."""
    hp = HP._replace(v_min=-100.0, v_max=100.0, sigma=0.02, discount=0.98)
    inner = rx.categorical_value_function(101)
    center = CENTERS.get(rule, rx.at_zero)
    by = rx.by_target if rule in CENTERS else getattr(rx, f"by_{rule}")
    values = rx.scaled_value_function(inner, by, center=center)
    state, target = values.init(hp, 2), jnp.full((8, 2), 50.0 * reward)
    paid = transitions(jnp.full((400, 2), reward), jnp.zeros((400, 2), bool))
    for _ in range(3):
        state = values.observe(state, paid, hp)
        scaled = target / values.unit(state)
        state = values.adopt(state, scaled)
    probabilities = values.labels(target / values.unit(state), hp, state)
    read = values.value(jnp.log(probabilities + 1e-12), hp, state) * values.unit(state)
    np.testing.assert_allclose(read, target, rtol=2e-3)


def test_a_critic_that_was_trained_in_another_unit_is_read_in_the_unit_of_now():
    values = rx.scaled_value_function(rx.squared_value_function())
    hp = rx.Hyperparameters(v_min=-2.0, v_max=12.0, sigma=1 / 21, discount=0.0)  # end = 10
    state = values.init(hp, 2)
    no = jnp.zeros((1, 2), bool)
    outputs = jnp.array([[6.0]])
    none = jnp.zeros((1, 2))
    state = values.adopt(values.observe(state, transitions(jnp.full((1, 2), 20.0), no), hp), none)
    assert float(values.unit(state)) == pytest.approx(2.0)
    assert values.value(outputs, hp, state).tolist() == [6.0]
    state = values.observe(state, transitions(jnp.full((1, 2), -60.0), no), hp)
    assert float(values.unit(state)) == pytest.approx(6.0)
    # 6 in units of 2 is 12, which is 2 in units of 6.
    np.testing.assert_allclose(values.value(outputs, hp, state), [2.0], rtol=1e-6)
    assert values.value(outputs, hp, values.adopt(state, none)).tolist() == [6.0]


def test_a_support_about_the_mean_holds_values_wherever_they_are():
    """Targets of 1000 ± 1 take the whole of it, and are read where they are; what is far from them is outside."""
    hp = HP._replace(v_min=-10.0, v_max=10.0, sigma=1 / 60, discount=0.9)  # end = 9
    values = rx.scaled_value_function(
        rx.categorical_value_function(101), rx.by_target, center=rx.at_mean
    )
    state, targets = values.init(hp, 2), 1000.0 + jnp.array([[-1.0, 1.0]] * 8)
    paid = transitions(jnp.full((2, 2), 100.0), jnp.zeros((2, 2), bool))
    state = values.observe(state, paid, hp)
    state = values.adopt(state, targets / values.unit(state))
    before = values.value(jnp.zeros((1, 101)), hp, state) * values.unit(state)
    np.testing.assert_allclose(before, 0.0, atol=1e-3)  # it was trained about 0 so far
    state = values.observe(state, paid, hp)
    assert float(values.unit(state)) == pytest.approx(3.0 / 9.0, rel=1e-3)
    np.testing.assert_allclose(
        values.value(jnp.zeros((1, 101)), hp, state) * values.unit(state), 0.0, atol=1e-3
    )
    scaled = targets / values.unit(state)
    labels = values.labels(scaled, hp, state)
    assert not values.outside(scaled, hp, state).any()
    assert values.outside(jnp.array([0.0, 3600.0]), hp, state).all()
    state = values.adopt(state, scaled)
    read = values.value(jnp.log(labels + 1e-12), hp, state) * values.unit(state)
    np.testing.assert_allclose(read, targets, atol=0.02)


@pytest.mark.parametrize("common", [0.0, -500.0, 500.0])
def test_from_the_lowest_return_on_a_critic_that_knows_nothing_reads_the_worst(common):
    """Whatever is added to all of them: the same unit, the same labels, and 0 read as the lowest so far."""
    hp = HP._replace(v_min=-10.0, v_max=10.0, sigma=1 / 60, discount=0.0)  # end = 9
    values = rx.scaled_value_function(
        rx.categorical_value_function(101), rx.by_target, center=rx.at_lowest
    )
    state, targets = values.init(hp, 2), common + jnp.array([[0.0, 4.0]] * 8)
    paid = transitions(targets, jnp.zeros_like(targets, bool))
    for _ in range(2):
        state = values.observe(state, paid, hp)
        state = values.adopt(state, targets / values.unit(state))
    state = values.observe(state, paid, hp)
    assert float(values.unit(state)) == pytest.approx((2.0 + 3.0 * 2.0) / 9.0, rel=1e-2)
    scaled = targets / values.unit(state)
    labels = values.labels(scaled, hp, state)
    state = values.adopt(state, scaled)
    read = lambda outputs: values.value(outputs, hp, state) * values.unit(state)
    np.testing.assert_allclose(read(jnp.zeros((1, 101))), common, atol=1e-3)
    np.testing.assert_allclose(read(jnp.log(labels + 1e-12)), targets, atol=0.02)


@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize("rule", RULES)
def test_what_a_critic_says_wrongly_for_a_while_is_forgotten(rule, end):
    """Of states it has not seen it may say the end of its support: the unit and the worst do not stay there."""
    hp = HP._replace(v_min=-100.0, v_max=100.0, sigma=0.02, discount=0.98)
    by = rx.by_target if rule in CENTERS else getattr(rx, f"by_{rule}")
    values = rx.scaled_value_function(
        rx.categorical_value_function(101), by, center=CENTERS.get(rule, rx.at_zero)
    )
    paid = transitions(jnp.full((50, 2), 1.0), jnp.zeros((50, 2), bool))
    wrong = jnp.full((8, 2, 101), -50.0).at[..., end].set(50.0)

    @jax.jit
    def after(state, n, is_wrong):
        def iteration(_, state):
            state = values.observe(state, paid, hp)
            unit = values.unit(state)
            right = jnp.linspace(0.0, 50.0, 16).reshape(8, 2) / unit
            said = 1.0 / unit + hp.discount * values.value(wrong, hp, state)
            return values.adopt(state, jnp.where(is_wrong, right.at[:2].set(said[:2]), right))

        return jax.lax.fori_loop(0, n, iteration, state)

    before = after(values.init(hp, 2), 100, False)
    with_it, without = (after(after(before, 20, said), 400, False) for said in (True, False))
    np.testing.assert_allclose(values.unit(with_it), values.unit(without), rtol=1e-3)
    np.testing.assert_allclose(with_it.center, without.center, atol=1e-3)


def test_without_any_reward_the_unit_stays():
    values = rx.scaled_value_function(rx.categorical_value_function(51))
    state = values.init(HP, 2)
    none = transitions(jnp.zeros((4, 2)), jnp.zeros((4, 2), bool))
    assert float(values.unit(values.observe(state, none, HP))) == 1.0


@pytest.mark.parametrize(
    ("rule", "critic"), [*((rule, "categorical") for rule in RULES), ("return", "squared")]
)
@pytest.mark.once
def test_the_unit_of_rewards_changes_nothing(rule, critic):
    """By a power of two it is exact: the same parameters bit for bit, after several iterations.

    Episodes are cut and not ended, so that what a critic says before it is trained is in the first targets.
    """
    inner = probes.match_observation()

    def step(state, action):
        state, timestep = inner.step(state, action)
        return state, timestep._replace(terminated=jnp.asarray(False))

    config = tiny(value_scale=rule, critic=critic)
    train = rx.make_train(inner._replace(step=step), config)
    iteration, learned = jax.jit(train.iteration), {}
    for factor in (1.0, 128.0, 2.0**-9):
        state = train.init(KEY, HP._replace(reward_scale=factor))
        for _ in range(3):
            state, training = iteration(state)
        learned[factor] = (state.learner.networks, state.learner.duals, float(training.unit))
    for factor in (128.0, 2.0**-9):
        same = jax.tree.map(np.array_equal, learned[1.0], learned[factor])
        assert all(jax.tree.leaves(same))
    assert learned[1.0][2] != 1.0  # it was scaled


def test_collecting_twice_from_a_state_observes_once():
    train = rx.make_train(probes.match_observation(), tiny(value_scale="return"))
    state = train.init(KEY, HP)
    once, rollout = rx.collect(train, train.training_env, state)
    again, _ = rx.collect(train, train.training_env, state)
    leaves_close(once.learner.values, again.learner.values, rtol=0)
    # One unit for the whole iteration, that of the rewards that were just collected.
    batch = rx.make_batch(train, once, rollout)
    unit = float(train.value_function.unit(once.learner.values))
    np.testing.assert_allclose(batch.reward, rollout.transitions.reward / unit, rtol=1e-6)
    after, _ = rx.update(train, once, batch)
    assert float(after.learner.values.trained) == float(once.learner.values.now) == unit


@pytest.mark.once
def test_bias_is_that_of_the_critic_before_it_learns():
    train = rx.make_train(probes.constant_reward(), tiny(value_scale="fixed"))
    state = train.init(KEY, HP)
    state, rollout = rx.collect(train, train.training_env, state)
    _, training = rx.learn(train, state, rollout)
    batch = rx.make_batch(train, state, rollout)
    critic = state.learner.networks.critic
    q = [
        float(
            train.value_function.value(
                critic(batch.critic_observation[0, i], batch.action[0, i]).outputs, HP, ()
            )
        )
        for i in range(TINY.num_envs)
    ]
    wanted = np.mean(np.array(q) - np.asarray(batch.target[0]))
    assert float(training.value_bias) == pytest.approx(wanted, abs=1e-5)
    assert float(training.value_bias) < -2.0  # rewards are 1, and it starts at 0
