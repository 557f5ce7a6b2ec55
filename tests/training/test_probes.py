"""Probe environments: learned values and actions against what they are in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from benchmarks.probes import CONFIG, GAMMA, HP
from reppo_fx.envs import probes

from ..sizes import first_quick


def learn(env, **changes):
    train = rx.make_train(env, dataclasses.replace(CONFIG, **changes))
    state, metrics = jax.jit(train)(jax.random.key(0), HP)
    return train, state, metrics


def value(train, state, observation):
    """`V(x)` of a learned critic at raw observations `[n]`, averaged over 64 actions."""
    shown = jnp.asarray(observation)[:, None]
    inputs = rx.network_inputs(train, state.hyperparameters, state.rollout.statistics, shown)
    return np.asarray(rx.value_of(train, state, jax.random.key(1), inputs, num_samples=64).value)


@pytest.mark.parametrize("critic", ["categorical", pytest.param("squared", marks=pytest.mark.once)])
def test_constant_reward_bootstraps_through_the_time_limit(critic):
    train, state, _ = learn(probes.constant_reward(), critic=critic)
    # Without the bootstrap it would be at most the mean over 20-step episodes, 6.0.
    np.testing.assert_allclose(value(train, state, [0.0]), 1.0 / (1.0 - GAMMA), rtol=0.02)


@pytest.mark.once
def test_termination_does_not_bootstrap():
    length = 5
    train, state, _ = learn(probes.terminating_reward(length))
    shown = np.arange(length) / length
    expected = (1.0 - GAMMA ** (length - np.arange(length))) / (1.0 - GAMMA)
    np.testing.assert_allclose(value(train, state, shown), expected, atol=0.15)


@pytest.mark.once
def test_reward_by_observation():
    train, state, _ = learn(probes.reward_by_observation())
    np.testing.assert_allclose(value(train, state, [-1.0, 1.0]), [-1.0, 1.0], atol=0.1)


@pytest.mark.once
def test_two_step_credit():
    train, state, _ = learn(probes.two_step_credit())
    np.testing.assert_allclose(value(train, state, [0.0, 1.0]), [GAMMA, 1.0], atol=0.1)


@pytest.mark.parametrize("gradient", first_quick(["pathwise", "score_gae", "score"], 2))
@pytest.mark.once
def test_the_action_follows_the_observation(gradient):
    train, state, metrics = learn(probes.match_observation(), policy_gradient=gradient)
    action = rx.make_policy(train, state)(jnp.array([[-1.0], [1.0]]))[:, 0]
    np.testing.assert_allclose(action, [-0.5, 0.5], atol=0.12)
    assert float(metrics.eval_return[-1]) > 0.98


SOFT = HP._replace(entropy_share=0.6, initial_temperature=0.3)


def discrete(env, **changes):
    """A run, and what it learned: `(x, mask) -> (π, Q of every action, V)`."""
    train = rx.make_train(env, dataclasses.replace(CONFIG, **changes))
    state, metrics = jax.jit(train)(jax.random.key(0), SOFT)
    hp = state.hyperparameters

    def learned(x, mask=None):
        shown = jnp.array([[x]])
        whole = shown if mask is None else {"state": shown, "action_mask": jnp.array([mask])}
        inputs = rx.network_inputs(train, hp, state.rollout.statistics, whole)
        outputs = state.learner.networks.critic(inputs[1], None).outputs
        logits = rx.make_policy(train, state).at(whole).logits
        value = rx.value_of(train, state, jax.random.key(1), inputs).value
        q = train.value_function.value(outputs, hp, state.learner.values)
        return [np.asarray(a[0]) for a in (jax.nn.softmax(logits), q, value)]

    return learned, float(state.learner.duals.temperature), metrics


def boltzmann(q, alpha):
    weights = np.exp(np.asarray(q) / alpha)
    return weights / weights.sum()


@pytest.mark.parametrize("gradient", first_quick(["pathwise", "score"]))
@pytest.mark.once
def test_a_bandit_is_learned_to_its_values_and_to_the_best_policy_of_its_temperature(gradient):
    learned, alpha, metrics = discrete(probes.bandit(), policy_gradient=gradient)
    near = 0.02 if gradient == "pathwise" else 0.1  # one of them samples
    for x, rewards in ((1.0, [0.0, 0.5, 1.0]), (-1.0, [1.0, 0.5, 0.0])):
        p, q, value = learned(x)
        np.testing.assert_allclose(q, rewards, atol=0.05)
        np.testing.assert_allclose(p, boltzmann(rewards, alpha), atol=near)
        np.testing.assert_allclose(value, p @ rewards, atol=0.05)
    entropy = float(metrics.training.learner.entropy[-1])
    np.testing.assert_allclose(entropy, SOFT.entropy_share * np.log(3), atol=near)
    assert float(metrics.eval_return[-1]) == 1.0


@pytest.mark.once
def test_two_choices_are_learned_to_the_best_values_with_entropy():
    learned, alpha, metrics = discrete(probes.two_step_choice())
    later = {1.0: [0.0, 1.0], -1.0: [0.5, 0.0]}
    soft = {x: alpha * np.log(np.exp(np.array(q) / alpha).sum()) for x, q in later.items()}
    for x, q in {**later, 0.0: [GAMMA * soft[-1.0], GAMMA * soft[1.0]]}.items():
        found = learned(x)
        np.testing.assert_allclose(found[1], q, atol=0.06)
        np.testing.assert_allclose(found[0], boltzmann(q, alpha), atol=0.05)
    assert float(metrics.eval_return[-1]) == 1.0


@pytest.mark.once
def test_what_is_ruled_out_is_not_found_out_however_much_it_pays():
    learned, alpha, metrics = discrete(probes.masked(probes.bandit()))
    assert float(metrics.training.reward[-1]) <= 1.0
    rewards = np.array([0.0, 0.5, 1.0])
    for mask in ([True, True, True], [True, True, False], [False, False, True]):
        p, _, value = learned(1.0, mask)
        best = np.zeros(3)
        best[mask] = boltzmann(rewards[mask], alpha)
        np.testing.assert_allclose(p, best, atol=0.05)
        assert (p[~np.array(mask)] == 0).all()
        np.testing.assert_allclose(value, best @ rewards, atol=0.06)


@pytest.mark.once
def test_a_nan_bomb_does_not_keep_the_value_from_being_learned():
    probability = 0.02
    train, state, metrics = learn(probes.nan_bomb(probes.constant_reward(), probability))
    # A bomb says nothing about the task: it neither pays (where rewards are negative) nor costs.
    np.testing.assert_allclose(value(train, state, [0.0]), 1.0 / (1.0 - GAMMA), rtol=0.02)
    share = float(metrics.training.nonfinite[-1]) / CONFIG.total_steps
    assert abs(share - probability) < 0.005


@pytest.mark.once
def test_a_failure_does_not_pay_where_rewards_are_negative():
    """The best action avoids costs; that a NaN would end them all is nothing to be learned."""
    hp = HP._replace(v_min=-14.0, v_max=2.0)
    train = rx.make_train(probes.tempting_bomb(), CONFIG)
    state, _ = jax.jit(train)(jax.random.key(0), hp)
    action = float(rx.make_policy(train, state)(jnp.zeros((1, 1)))[0, 0])
    # A learner that takes a NaN for an end with reward 0 prefers actions above 0.
    assert -0.75 < action < -0.25
    np.testing.assert_allclose(value(train, state, [0.0]), -1.0 / (1.0 - GAMMA), rtol=0.1)


@pytest.mark.parametrize("bad", first_quick([1e20, float("nan")]))
@pytest.mark.once
def test_bad_resets_leave_what_is_learned_as_it_is(bad):
    env = probes.nan_reset(probes.reward_by_observation(), 0.1, bad)
    train, state, metrics = learn(env)
    np.testing.assert_allclose(value(train, state, [-1.0, 1.0]), [-1.0, 1.0], atol=0.1)
    assert int(metrics.training.nonfinite[-1]) > 0.05 * CONFIG.total_steps
    assert abs(float(state.rollout.statistics.var[0]) - 1.0) < 0.1


@pytest.mark.once
def test_absurd_observations_do_not_blind_the_policy():
    train, state, metrics = learn(probes.outlier(probes.match_observation(), 0.02, 1e20))
    action = rx.make_policy(train, state)(jnp.array([[-1.0], [1.0]]))[:, 0]
    np.testing.assert_allclose(action, [-0.5, 0.5], atol=0.15)
    assert int(metrics.training.nonfinite[-1]) > 0.01 * CONFIG.total_steps
    assert abs(float(state.rollout.statistics.var[0]) - 1.0) < 0.1
