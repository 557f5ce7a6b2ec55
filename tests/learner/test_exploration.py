"""Instances that act with a wider policy: how wide, and how far their returns are trusted as the policy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.envs import probes
from reppo_fx.learner.exploration import noise_scales
from reppo_fx.learner.targets import trace_weights

from ..sizes import HP, leaves_close, tiny

KEY = jax.random.key(0)
WIDE = HP._replace(exploration_noise_min=1.0, exploration_noise_max=3.0, exploration_base=0.5)


def test_scales_grow_over_the_instances_that_are_not_the_base():
    np.testing.assert_allclose(noise_scales(WIDE, 8), [1, 1, 1, 1, 1.5, 2, 2.5, 3])
    np.testing.assert_allclose(noise_scales(HP, 5), np.ones(5))
    narrow = HP._replace(exploration_noise_min=0.5, exploration_noise_max=0.5, exploration_base=1.0)
    np.testing.assert_allclose(noise_scales(narrow, 3), [0.5, 0.5, 0.5])


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_a_wider_policy_has_more_spread_in_its_instances(kind):
    if kind == "continuous":
        distribution = rx.tanh_normal(2)
        policy = distribution.policy(jnp.full((4, 4), -1.0), HP)
    else:
        distribution = rx.categorical(3)
        policy = distribution.policy(jnp.tile(jnp.array([2.0, 0.0, -1.0]), (4, 1)), HP)
    wide = distribution.widen(policy, lambda n: noise_scales(WIDE, n))
    entropy = lambda p: distribution.entropy(KEY, p, 4096)
    assert (entropy(wide)[2:] > entropy(policy)[2:] + 0.05).all()
    leaves_close(
        jax.tree.map(lambda x: x[:2], (wide, policy))[0],
        jax.tree.map(lambda x: x[:2], policy),
        rtol=1e-6,
    )


def test_returns_are_trusted_by_the_clipped_ratio():
    """Against scipy's densities, one number at a time."""
    from scipy.stats import norm

    distribution = rx.tanh_normal(1)
    policy = distribution.policy(jnp.zeros((2, 4, 2)), HP._replace(min_std=0.0))
    u = jax.random.normal(KEY, (2, 4, 1)) * 3.0
    weights = rx.NOISE.weights(
        distribution, policy, jnp.tanh(u), WIDE._replace(min_trace_weight=0.3)
    )
    scale = np.broadcast_to(np.asarray(noise_scales(WIDE, 4)), (2, 4))
    ratio = norm.pdf(np.asarray(u[..., 0])) / norm.pdf(np.asarray(u[..., 0]), scale=scale)
    np.testing.assert_allclose(weights, np.clip(ratio, 0.3, 1.0), rtol=2e-3)
    assert 0 < int((np.asarray(weights) < 1).sum()) < weights.size
    np.testing.assert_allclose(weights[:, :2], 1.0, atol=1e-5)


@pytest.fixture(scope="module")
def noisy():
    return rx.make_train(probes.match_observation(), tiny(exploration="noise", num_envs=8))


def test_factors_of_one_change_nothing(noisy):
    plain = rx.make_train(probes.match_observation(), tiny(num_envs=8))
    states = [jax.jit(train.iteration)(train.init(KEY, HP))[0] for train in (noisy, plain)]
    leaves_close(*(state.learner for state in states), rtol=1e-5)


def test_the_same_noise_acts_in_pure_worlds_and_in_simulators(noisy):
    state = noisy.init(KEY, WIDE)
    _, rollout = rx.collect(noisy, noisy.training_env, state)
    _, plain = rx.collect(noisy, noisy.training_env, noisy.init(KEY, HP))
    first = lambda rollout: np.asarray(rollout.transitions.action[0])
    np.testing.assert_allclose(first(rollout)[:4], first(plain)[:4], atol=1e-6)
    assert (np.abs(first(rollout)[4:] - first(plain)[4:]) > 1e-4).all()
    with hosts.pure(probes.match_observation(), 8) as env:
        train = rx.make_host_train(env, tiny(exploration="noise", num_envs=8))
        host_state = train.init(KEY, WIDE)
        world = train.worlds.training(())
        _, host = hosts.collect(train, world, host_state)
        calm_train = rx.make_host_train(env, tiny(num_envs=8))
        calm_state = calm_train.init(KEY, WIDE)
        _, calm = hosts.collect(calm_train, calm_train.worlds.training(()), calm_state)
    np.testing.assert_allclose(first(host)[:4], first(calm)[:4], atol=1e-6)
    assert (np.abs(first(host)[4:] - first(calm)[4:]) > 1e-4).all()


def test_trust_cuts_the_trace_of_the_step_before_and_a_failure_cuts_it_whole():
    noisy = rx.make_train(probes.constant_reward(), tiny(exploration="noise", num_envs=8))
    state = noisy.init(KEY, WIDE)
    _, rollout = rx.collect(noisy, noisy.training_env, state)
    trust = jnp.full_like(rollout.transitions.reward, 0.7)
    rows = rollout.transitions._replace(nonfinite=rollout.transitions.nonfinite.at[2, 1].set(True))
    weights = np.asarray(trace_weights(rows, trust))
    assert weights[2, 1] == 0.0
    assert (np.delete(weights.ravel(), 2 * 8 + 1) == np.float32(0.7)).all()
    targets = [
        rx.make_batch(
            noisy, state._replace(hyperparameters=WIDE._replace(min_trace_weight=w)), rollout
        ).target
        for w in (0.0, 1.0)
    ]
    assert np.abs(targets[0] - targets[1]).max() > 1e-3  # wide actions are trusted less
    np.testing.assert_allclose(targets[0][:, :4], targets[1][:, :4], atol=1e-4)


def test_what_cannot_be_widened_says_so():
    distribution = rx.tanh_normal(1)._replace(widen=None)
    with pytest.raises(ValueError, match="cannot be widened"):
        rx.make_train(
            probes.match_observation(), tiny(exploration="noise"), distribution=distribution
        )
    with pytest.raises(ValueError, match="exploration is 'noise' and policy_gradient 'score_gae'"):
        rx.make_train(
            probes.match_observation(), tiny(exploration="noise", policy_gradient="score_gae")
        )
    with pytest.raises(ValueError, match="exploration_noise_max is 0.0"):
        rx.make_train(probes.match_observation(), tiny()).init(
            KEY, HP._replace(exploration_noise_max=0.0)
        )
