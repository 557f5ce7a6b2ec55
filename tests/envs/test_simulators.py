"""Playground and Brax behind the contract: true successors on real tasks. Compiled once per session."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import envs

from ..sizes import tiny

LIMIT, STEPS, INSTANCES = 6, 20, 3


@pytest.fixture(scope="module")
def cartpole():
    pytest.importorskip("mujoco_playground")
    return envs.playground("CartpoleBalance")


@pytest.fixture(scope="module")
def rolled(cartpole):
    """A short rollout with a time limit, and the same actions stepped by the bare simulator."""
    env = envs.training_environment(cartpole, LIMIT)

    def bare_successors(states, actions):
        return jax.vmap(lambda s, a: cartpole.step(s, a)[1].next_observation)(states, actions)

    def both(key):
        reset_key, action_key = jax.random.split(key)
        state, observation = env.reset(jax.random.split(reset_key, INSTANCES))
        actions = jax.random.uniform(action_key, (STEPS, INSTANCES, 1), minval=-1.0)

        def step(carry, action):
            state, observation = carry
            simulator = state.inner.inner.inner  # auto_reset, contain_nan, time_limit
            expected = bare_successors(simulator, action)
            state, timestep = env.step(state, action)
            return (state, timestep.observation), (observation, timestep, expected)

        return jax.lax.scan(step, (env.refresh(state), observation), actions)[1]

    return jax.jit(both)(jax.random.key(0))


def test_every_successor_is_the_simulators_own(rolled):
    _, timesteps, expected = rolled
    np.testing.assert_allclose(timesteps.next_observation, expected, rtol=1e-5, atol=1e-6)


def test_truncation_comes_at_the_limit_and_shows_a_new_start(rolled):
    _, timesteps, _ = rolled
    ends = np.asarray(timesteps.truncated)
    assert not np.asarray(timesteps.terminated).any()
    for instance in range(INSTANCES):
        rows = np.flatnonzero(ends[:, instance])
        assert rows[0] < LIMIT
        assert (np.diff(rows) == LIMIT).all()
    jump = np.abs(np.asarray(timesteps.observation) - np.asarray(timesteps.next_observation)).max(
        -1
    )
    assert (jump[ends] > 1e-3).all()
    assert (jump[~ends] == 0).all()


def test_the_lambda_return_at_a_truncation_uses_the_value_of_the_true_successor(rolled):
    observations, timesteps, _ = rolled
    value = lambda x: 3.0 * x[..., 3] + x[..., 0] + 5.0
    targets = rx.lambda_returns(
        timesteps.reward,
        value(timesteps.next_observation),
        timesteps.terminated,
        timesteps.truncated,
        discount=0.9,
        trace_decay=0.7,
    )
    cut = np.asarray(timesteps.truncated)
    of_successor = timesteps.reward + 0.9 * value(timesteps.next_observation)
    of_new_start = timesteps.reward + 0.9 * value(timesteps.observation)
    np.testing.assert_allclose(np.asarray(targets)[cut], np.asarray(of_successor)[cut], rtol=1e-6)
    assert (np.abs(np.asarray(targets - of_new_start))[cut] > 1e-3).all()
    # Rows before the cut see the truncated row's target through the trace.
    before = np.roll(cut, -1, axis=0) & ~cut
    before[-1] = False
    following = np.roll(np.asarray(targets), -1, axis=0)
    mixed = 0.3 * value(timesteps.next_observation) + 0.7 * following
    expected = np.asarray(timesteps.reward + 0.9 * mixed)
    np.testing.assert_allclose(np.asarray(targets)[before], expected[before], rtol=1e-5)
    np.testing.assert_array_equal(observations[1:], timesteps.observation[:-1])


def test_the_adapter_knows_the_tasks_facts(cartpole):
    assert cartpole.observation.shape == (5,)
    assert cartpole.action_size == 1
    assert cartpole.episode_length == 1000
    assert not cartpole.cheap_reset


def test_impl_and_overrides_are_passed_through(monkeypatch):
    registry = pytest.importorskip("mujoco_playground").registry
    seen = {}
    load = registry.load

    def spy(name, config, config_overrides):
        seen.update(impl=config.impl, overrides=config_overrides)
        return load(name, config=config, config_overrides=config_overrides)

    monkeypatch.setattr(registry, "load", spy)
    env = envs.playground("ReacherEasy", config_overrides={"episode_length": 7})
    assert seen == {"impl": "jax", "overrides": {"episode_length": 7}}
    assert env.observation.shape == (6,)


def test_brax_terminates_and_does_not_call_it_a_time_limit():
    pytest.importorskip("brax")
    env = envs.time_limit(envs.brax("inverted_pendulum"), 1000)

    @jax.jit
    def fall(key):
        state, _ = env.reset(key)
        return jax.lax.scan(env.step, state, jnp.ones((30, 1)))[1]

    timesteps = fall(jax.random.key(0))
    fallen = np.asarray(timesteps.terminated)
    assert fallen.any()
    assert not fallen[0]
    assert not np.asarray(timesteps.truncated).any()
    np.testing.assert_array_equal(np.abs(timesteps.next_observation[:, 1]) > 0.2, fallen)
    assert timesteps.reward.dtype == jnp.float32


@pytest.mark.slow
def test_brax_trains():
    pytest.importorskip("brax")
    config, hyperparameters = rx.preset("cpu", total_steps=4096, num_evals=2, num_eval_envs=4)
    train = rx.make_train(envs.brax("inverted_pendulum"), config)
    _, metrics = jax.jit(train)(jax.random.key(0), hyperparameters)
    assert np.isfinite(metrics.eval_return).all()
    assert (np.asarray(metrics.eval_length) >= 1).all()


@pytest.mark.slow
def test_a_contact_rich_task_runs_under_the_member_axis():
    pytest.importorskip("mujoco_playground")
    config = tiny(
        total_steps=8, num_envs=2, num_steps=4, num_epochs=1, num_evals=1, num_eval_envs=1
    )
    train = rx.make_train(rx.envs.playground("HopperHop"), config)
    settings = rx.grid(learning_rate=[1e-3, 1e-3, 1e-2])
    runs = rx.sweep(train, settings, num_seeds=1, key=jax.random.key(0))
    chex.assert_tree_all_finite((runs.metrics, runs.state.tree.learner.networks))
    weights = jax.tree.leaves(runs.state.tree.learner.networks.actor)[0]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    assert runs.state.tree.iteration.tolist() == [[1]] * 3
