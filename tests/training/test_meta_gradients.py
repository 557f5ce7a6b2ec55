"""Gradients through a whole `train`, by every hyperparameter, against finite differences in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes

from ..sizes import HP, first_quick, tiny

# Of discrete actions, of instances that act with a wider policy, and a bound that nothing is at.
ELSEWHERE = {
    *("entropy_share", "exploration_noise_min", "exploration_noise_max", "exploration_base"),
    *("min_trace_weight", "noise_correlation", "exploration_density", "min_temperature"),
    "min_temperature_spread",
}
SETTINGS = {
    "cleaner": {},
    "authors": {
        "kl_estimator": "sampled_clipped",
        "statistics": "step",
        "dual_optimizer": "actor",
        "noise": "reused",
        "mask_truncated": True,
    },
    "squared": {"critic": "squared", "kl_constraint": "penalty"},
}


def outcome(train, hyperparameters):
    """Numbers that everything before them has a part in: learned values, actions, multipliers."""
    state, metrics = train(jax.random.key(0), hyperparameters)
    shown = jnp.array([[0.25], [0.5]])
    policy = rx.make_policy(train, state)
    inputs = rx.network_inputs(train, state.hyperparameters, state.rollout.statistics, shown)
    value = rx.value_of(train, state, jax.random.key(1), inputs).value
    duals = state.learner.duals
    return (
        value.sum()
        + policy(shown)[1, 0]
        + jnp.log(duals.temperature)
        + jnp.log(duals.multiplier)
        + metrics.training.target[-1]
    )


@pytest.mark.parametrize("name", first_quick(SETTINGS))
@pytest.mark.once
def test_gradients_through_training_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        config = tiny(total_steps=2 * 32, num_evals=1, norm="layer", **SETTINGS[name])
        train = rx.make_train(probes.terminating_reward(4), config)
        hp = HP._replace(learning_rate=1e-3, reward_scale=1.3, final_learning_rate=0.5, min_std=0.2)
        hp = hp._replace(sigma=0.08)
        hp = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), hp)
        f = jax.jit(lambda hp: outcome(train, hp))
        gradient = jax.jit(jax.grad(f))(hp)
        found, expected = {}, {}
        for field in rx.Hyperparameters._fields:
            step = 1e-6 * max(abs(float(getattr(hp, field))), 1e-2)
            shifted = [
                float(f(hp._replace(**{field: getattr(hp, field) + sign * step})))
                for sign in (1, -1)
            ]
            expected[field] = (shifted[0] - shifted[1]) / (2 * step)
            found[field] = float(getattr(gradient, field))
        unused = {"v_min", "v_max", "sigma"} if name == "squared" else set()
        unused |= ELSEWHERE
        for field in rx.Hyperparameters._fields:
            assert np.isclose(found[field], expected[field], rtol=2e-3, atol=1e-5), (
                field,
                found[field],
                expected[field],
            )
            assert (found[field] != 0.0) or field in unused, field


@pytest.mark.slow
def test_gradients_in_single_precision_are_finite():
    train = rx.make_train(probes.match_observation(), tiny(total_steps=64, num_evals=1))
    gradient = jax.jit(jax.grad(lambda hp: outcome(train, hp)))(rx.Hyperparameters(*map(float, HP)))
    assert all(np.isfinite(x) for x in gradient)


@pytest.mark.once
def test_rounds_of_different_lengths_refuse_to_be_differentiated():
    """A loop whose length is traced has no reverse mode; jax says so, and nothing is silently zero."""
    config = dataclasses.replace(tiny(total_steps=3 * 32), num_evals=2)
    train = rx.make_train(probes.match_observation(), config)
    with pytest.raises(ValueError, match="[Rr]everse-mode differentiation"):
        jax.grad(lambda hp: outcome(train, hp))(rx.Hyperparameters(*map(float, HP)))
