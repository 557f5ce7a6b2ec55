"""Evaluation and policies: sampled actions, trajectories, metrics per episode, the actor's part alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.envs.base import Environment, TimeStep

from ..sizes import HP, tiny

LENGTH = 5


def staircase():
    """Ends after as many steps as its start says; its metric is the step, its reward the action."""

    def reset(key):
        last = jax.random.randint(key, (), 1, LENGTH + 1).astype(float)
        return (last, jnp.zeros(())), jnp.stack([last, 0.0])

    def step(state, action):
        last, count = state[0], state[1] + 1.0
        observation = jnp.stack([last, count])
        ended, metrics = count >= last, {"count": count}
        return (last, count), TimeStep(
            observation, observation, action[0], ended, jnp.asarray(False), metrics
        )

    return Environment("staircase", reset, step, jax.ShapeDtypeStruct((2,), jnp.float32), 1)


def always(value):
    return lambda observation: jnp.full((*observation.shape[:-1], 1), value)


def test_metrics_per_episode_count_only_its_own_steps():
    episodes = rx.evaluate_policy(staircase(), always(0.5), jax.random.key(0), 64, LENGTH)
    lengths = np.asarray(episodes.lengths)
    assert set(lengths) == set(range(1, LENGTH + 1))
    np.testing.assert_allclose(episodes.returns, 0.5 * lengths)
    np.testing.assert_allclose(episodes.metrics["count"].last, lengths)
    np.testing.assert_allclose(episodes.metrics["count"].mean, (lengths + 1) / 2, rtol=1e-6)
    assert episodes.trajectory is None


def test_a_trajectory_has_the_simulators_states_from_which_the_episode_can_be_played_again():
    env = staircase()
    episodes = rx.evaluate_policy(env, always(0.5), jax.random.key(0), 16, LENGTH, trajectory=True)
    trajectory = episodes.trajectory
    chex.assert_tree_shape_prefix(trajectory, (LENGTH, 16))
    np.testing.assert_array_equal(trajectory.alive.sum(0), episodes.lengths)
    np.testing.assert_allclose((trajectory.reward * trajectory.alive).sum(0), episodes.returns)
    for t, i in ((0, 3), (2, 7)):
        if not trajectory.alive[t, i]:
            continue
        state = jax.tree.map(lambda x, t=t, i=i: x[t, i], trajectory.state)
        _, timestep = env.step(state, trajectory.action[t, i])
        np.testing.assert_allclose(timestep.reward, trajectory.reward[t, i])
        if t + 1 < LENGTH and trajectory.alive[t + 1, i]:
            np.testing.assert_allclose(timestep.observation, trajectory.observation[t + 1, i])


@pytest.fixture(scope="module")
def trained():
    train = rx.make_train(probes.match_observation(), tiny())
    return train, train.init(jax.random.key(0), HP)


def test_sampled_evaluation_draws_from_the_policy(trained):
    train, state = trained
    policy = rx.make_policy(train, state)
    run = lambda **how: (
        rx.evaluate_policy(
            train.env, policy, jax.random.key(1), 64, 1, trajectory=True, **how
        ).trajectory
    )
    mode, drawn = run(), run(stochastic=True)
    np.testing.assert_array_equal(mode.observation, drawn.observation)
    np.testing.assert_allclose(mode.action[0], policy(mode.observation[0]), rtol=1e-5)
    latent = jnp.arctanh(drawn.action[0])
    parameters = policy.at(drawn.observation[0])
    z = np.asarray((latent - parameters.mean) / parameters.std)
    # 64 standard normals: mean within 4 of their standard errors, spread within a third.
    assert abs(z.mean()) < 0.5
    assert 0.67 < z.std() < 1.33


def test_a_policy_that_cannot_be_sampled_gets_a_sentence():
    with pytest.raises(
        ValueError, match="stochastic is True, but the policy, a function, cannot sample"
    ):
        rx.evaluate_policy(staircase(), always(0.5), jax.random.key(0), 2, 2, stochastic=True)


@pytest.mark.parametrize(("episodes", "length"), [(0, 3), (3, 0)])
def test_numbers_below_one_get_a_sentence(episodes, length):
    with pytest.raises(ValueError, match="is 0; at least 1 is needed"):
        rx.evaluate_policy(staircase(), always(0.5), jax.random.key(0), episodes, length)


def asymmetric():
    inner = probes.match_observation()
    both = lambda x: {"state": x, "privileged_state": jnp.concatenate([x] * 3)}

    def step(state, action):
        state, timestep = inner.step(state, action)
        observed = both(timestep.observation)
        return state, timestep._replace(observation=observed, next_observation=observed)

    def reset(key):
        state, observation = inner.reset(key)
        return state, both(observation)

    spec = jax.eval_shape(lambda: both(jnp.zeros((1,))))
    return Environment("asymmetric", reset, step, spec, 1, critic_part="privileged_state")


@pytest.mark.once
def test_a_policy_needs_the_actors_part_alone():
    train = rx.make_train(asymmetric(), tiny())
    state, _ = jax.jit(train)(jax.random.key(0), HP)
    policy = rx.make_policy(train, state)
    shown = jnp.array([[-1.0], [1.0]])
    whole = policy({"state": shown, "privileged_state": jnp.zeros((2, 3))})
    np.testing.assert_array_equal(policy({"state": shown}), whole)
    np.testing.assert_array_equal(policy(shown), whole)
    assert jax.tree.map(jnp.shape, policy.statistics.mean) == (1,)
    with pytest.raises(ValueError, match="no part 'state'; its parts are 'privileged_state'"):
        policy({"privileged_state": jnp.zeros((2, 3))})


def test_policies_can_be_vmapped_and_made_under_jit(trained):
    train, _ = trained
    keys = jax.random.split(jax.random.key(0), 3)
    policies = jax.vmap(lambda key: rx.make_policy(train, train.init(key, HP)))(keys)
    shown = jnp.array([[-1.0], [1.0]])
    together = jax.vmap(lambda policy: policy(shown))(policies)
    alone = rx.make_policy(train, train.init(keys[1], HP))(shown)
    np.testing.assert_allclose(together[1], alone, rtol=1e-5)
