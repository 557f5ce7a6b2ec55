"""The tanh-normal as a bundle: with a range of actions it is the same policy in other units."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx

HP = rx.Hyperparameters(min_std=0.05)
SCALE = (0.5, 3.0)


def policies(seed, distribution, rows=6):
    # Not so wide that float32 actions saturate, whose density only the latent knows.
    outputs = 0.4 * jax.random.normal(jax.random.key(seed), (rows, distribution.num_outputs))
    return distribution.policy(outputs, HP)


def test_samples_and_densities_are_those_of_the_scaled_bijection():
    scaled = rx.tanh_normal(2, SCALE)
    policy = policies(0, scaled)
    oracle = distrax.Transformed(
        distrax.MultivariateNormalDiag(policy.mean, policy.std),
        distrax.Block(
            distrax.Chain([distrax.ScalarAffine(0.0, jnp.array(SCALE)), distrax.Tanh()]), 1
        ),
    )
    draw = scaled.sample(jax.random.key(1), policy)
    np.testing.assert_allclose(draw.log_prob, oracle.log_prob(draw.action), rtol=2e-4)
    np.testing.assert_allclose(scaled.log_prob(policy, draw.action), draw.log_prob, rtol=2e-4)
    exact = scaled.log_prob(policy, draw.action, draw.latent)
    np.testing.assert_allclose(exact, draw.log_prob, rtol=1e-5)


def test_a_range_changes_actions_and_entropy_and_nothing_else():
    unit, scaled = rx.tanh_normal(2), rx.tanh_normal(2, SCALE)
    policy, other = policies(0, unit), policies(1, unit)
    key, volume = jax.random.key(2), np.log(SCALE).sum()
    one, two = unit.sample(key, policy), scaled.sample(key, policy)
    np.testing.assert_allclose(two.action, one.action * jnp.array(SCALE), rtol=1e-6)
    np.testing.assert_allclose(two.log_prob, one.log_prob - volume, rtol=1e-5)
    np.testing.assert_allclose(scaled.kl(policy, other), unit.kl(policy, other))
    sampled = [d.kl_sampled(key, policy, other, num_samples=8) for d in (unit, scaled)]
    np.testing.assert_allclose(*sampled)
    entropies = [d.entropy(key, policy, 16) for d in (unit, scaled)]
    np.testing.assert_allclose(entropies[1], entropies[0] + volume, rtol=1e-5)
    # The constraint asks for the same policy in either unit.
    assert np.isclose(scaled.target_entropy(HP, policy), unit.target_entropy(HP, policy) + volume)
    assert float(unit.target_entropy(HP, policy)) == -2 * HP.entropy_target == -1.0
    np.testing.assert_allclose(scaled.mode(policy), unit.mode(policy) * jnp.array(SCALE), rtol=1e-6)


def test_the_environment_gets_actions_inside_the_limit():
    scaled = rx.tanh_normal(2, SCALE, limit=0.9)
    got = scaled.to_environment(jnp.array([[9.0, -9.0], [0.1, 1.0]]))
    np.testing.assert_allclose(got, [[0.45, -2.7], [0.1, 1.0]], rtol=1e-6)


def test_the_same_range_gives_the_same_bundle_so_that_programs_are_found_again():
    assert rx.tanh_normal(2, SCALE) is rx.tanh_normal(2, SCALE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0,), "action_size is 0"),
        ((2, (1.0, 1.0, 1.0)), "scale has 3 entries; an action has 2"),
        ((2, (1.0, 0.0)), "every entry must be positive and finite"),
        ((1, float("inf")), "every entry must be positive and finite"),
        ((1, 1.0, 0.0), "action_limit is 0.0"),
    ],
)
def test_what_is_no_range_gets_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        rx.tanh_normal(*arguments)
