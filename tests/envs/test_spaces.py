"""Transforms of observations, actions and rewards; actions repeated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reppo_fx import envs
from reppo_fx.envs import probes
from reppo_fx.envs.base import Environment, TimeStep

NO = jnp.asarray(False)
KEY = jax.random.key(0)


def echo(size=3, **changes):
    """Shows the action it was given."""
    spec = jax.ShapeDtypeStruct((size,), jnp.float32)

    def step(state, action):
        return state, TimeStep(action, action, action[0], NO, NO, {})

    reset = lambda key: (jnp.zeros(()), jnp.zeros(size))
    return Environment("echo", reset, step, spec, size)._replace(**changes)


def received(env, action):
    state, _ = env.reset(KEY)
    return np.asarray(env.step(state, jnp.asarray(action, jnp.float32))[1].observation)


def test_clipping_respects_the_scale_of_actions():
    action = [-9.0, 0.5, 9.0]
    np.testing.assert_allclose(received(envs.clip_action(echo(), 0.9), action), [-0.9, 0.5, 0.9])
    scaled = envs.clip_action(echo(action_scale=2.0), 0.9)
    np.testing.assert_allclose(received(scaled, action), [-1.8, 0.5, 1.8], rtol=1e-6)
    each = envs.clip_action(echo(action_scale=(1.0, 0.1, 4.0)), 0.5)
    np.testing.assert_allclose(received(each, action), [-0.5, 0.05, 2.0], rtol=1e-6)
    with pytest.raises(ValueError, match="limit is 0"):
        envs.clip_action(echo(), 0)


@pytest.mark.parametrize("container", [tuple, list, np.array, jnp.array])
def test_the_agents_box_becomes_the_environments_range(container):
    low, high = [0.0, -2.0, 5.0], [1.0, 2.0, 6.0]
    env = envs.action_range(echo(), container(low), container(high))
    np.testing.assert_allclose(received(env, [-1.0] * 3), low)
    np.testing.assert_allclose(received(env, [0.0] * 3), [0.5, 0.0, 5.5])
    np.testing.assert_allclose(received(env, [1.0] * 3), high)
    np.testing.assert_allclose(received(envs.action_range(echo(), 0, 40), [-0.5] * 3), [10.0] * 3)


def test_a_range_starts_from_the_scale_of_actions():
    env = envs.action_range(echo(action_scale=(1.0, 2.0, 0.5)), 0.0, 40.0)
    np.testing.assert_allclose(received(env, [1.0, 2.0, 0.5]), [40.0] * 3)
    np.testing.assert_allclose(received(env, [0.0, 0.0, -0.5]), [20.0, 20.0, 0.0])
    same = envs.action_range(echo(action_scale=2.0), -2.0, 2.0)
    np.testing.assert_allclose(received(same, [-2.0, 0.3, 2.0]), [-2.0, 0.3, 2.0], rtol=1e-6)
    assert same.action_scale == 2.0


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (1.0, 1.0, "low is 1.0 and high is 1.0; low must be below high"),
        ([0.0, 0.0, 3.0], 2.0, "low must be below high"),
        ([0.0, 0.0], 2.0, r"low has shape \[2\]; actions of echo have 3 entries"),
        (0.0, np.inf, "high is inf; it must be finite"),
        (np.nan, 1.0, "low is nan; it must be finite"),
    ],
)
def test_a_range_that_is_none_is_refused(low, high, sentence):
    with pytest.raises(ValueError, match=sentence):
        envs.action_range(echo(), low, high)


def test_a_scaled_reward_and_a_clipped_action_meet():
    env = envs.scale_reward(envs.clip_action(echo(1), 0.9), 2.0)
    np.testing.assert_allclose(env.step(*[jnp.zeros(()), jnp.full(1, 5.0)])[1].reward, 1.8)


def test_flattening_joins_the_leaves_of_each_part():
    def observe(x):
        return {
            "state": {"b": x, "a": jnp.array([[1, 2], [3, 4]], jnp.int8)},
            "privileged_state": (x > 0, jnp.full((2, 1, 2), 7.0, jnp.float16)),
            "unseen": x,
        }

    def step(state, action):
        seen = observe(action[0])
        return state, TimeStep(seen, observe(2 * action[0]), action[0], NO, NO, {})

    spec = jax.eval_shape(observe, jnp.zeros(()))
    reset = lambda key: (jnp.zeros(()), observe(jnp.zeros(())))
    env = Environment("rich", reset, step, spec, 1, critic_part="privileged_state")
    flat = envs.conform(envs.flatten_observation(env))
    assert {k: (s.shape, s.dtype) for k, s in flat.observation.items()} == {
        "state": ((5,), jnp.float32),
        "privileged_state": ((5,), jnp.float32),
    }
    state, observation = flat.reset(KEY)
    assert observation["state"].tolist() == [1, 2, 3, 4, 0]
    _, timestep = flat.step(state, jnp.full(1, 0.5))
    assert timestep.observation["state"].tolist() == [1, 2, 3, 4, 0.5]
    assert timestep.next_observation["state"].tolist() == [1, 2, 3, 4, 1.0]
    assert timestep.observation["privileged_state"].tolist() == [1, 7, 7, 7, 7]
    deep = envs.flatten_observation(env._replace(actor_part="state.a", critic_part="state.a"))
    assert deep.reset(KEY)[1]["state.a"].tolist() == [1, 2, 3, 4]
    assert envs.select_part(deep.observation, deep.actor_part).shape == (4,)


def test_what_is_no_mapping_is_flattened_to_the_vector_itself():
    spec = (jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((2, 2), jnp.float32))
    observation = (jnp.int32(9), jnp.ones((2, 2)))
    env = echo()._replace(observation=spec, reset=lambda key: (0.0, observation))
    flat = envs.flatten_observation(env)
    assert flat.observation.shape == (5,)
    assert flat.reset(KEY)[1].tolist() == [9, 1, 1, 1, 1]
    scalar = envs.flatten_observation(env._replace(observation=spec[0], reset=lambda key: (0, 3)))
    assert scalar.reset(KEY)[1].tolist() == [3.0]


def climb(end=None, cut=None, bomb=None):
    """Counts; pays the count; `height` is the count."""

    def reset(key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(count, action):
        count = count + 1.0
        seen = count[None]
        terminated = NO if end is None else count == end
        truncated = NO if cut is None else count == cut
        reward = count if bomb is None else jnp.where(count == bomb, jnp.nan, count)
        return count, TimeStep(seen, seen, reward, terminated, truncated, {"height": count})

    spec = jax.ShapeDtypeStruct((1,), jnp.float32)
    return Environment("climb", reset, step, spec, 1, episode_length=10)


def repeated(env, n, steps):
    env = envs.action_repeat(env, n)
    state, timesteps = jax.lax.scan(env.step, env.reset(KEY)[0], jnp.zeros((steps, 1)))
    return state, jax.tree.map(np.asarray, timesteps)


def test_a_repeated_action_adds_rewards_and_averages_metrics():
    state, steps = repeated(climb(), 4, 2)
    assert steps.reward.tolist() == [1 + 2 + 3 + 4, 5 + 6 + 7 + 8]
    assert steps.metrics["height"].tolist() == [2.5, 6.5]
    assert steps.observation[:, 0].tolist() == [4.0, 8.0]
    assert steps.next_observation[:, 0].tolist() == [4.0, 8.0]
    assert float(state) == 8.0


@pytest.mark.parametrize("kind", ["end", "cut"])
def test_repeating_stops_at_the_first_end(kind):
    state, steps = repeated(climb(**{kind: 2}), 4, 1)
    assert steps.reward.tolist() == [3.0]
    assert steps.metrics["height"].tolist() == [1.5]
    assert steps.next_observation.tolist() == [[2.0]]
    assert float(state) == 2.0
    assert steps.terminated.tolist() == [kind == "end"]
    assert steps.truncated.tolist() == [kind == "cut"]


def test_contained_steps_add_up_under_a_repeated_action():
    _, steps = repeated(envs.contain_nan(climb(bomb=2)), 4, 1)
    assert steps.metrics["nonfinite"].tolist() == [1.0]
    assert steps.reward.tolist() == [1.0]
    assert steps.terminated.tolist() == [True]
    bad = envs.contain_nan(probes.nan_reset(climb(), 1.0), tries=3)
    state, _ = envs.action_repeat(bad, 2).reset(KEY)
    _, timestep = envs.action_repeat(bad, 2).step(state, jnp.zeros(1))
    assert float(timestep.metrics["nonfinite_resets"]) == 3.0
    outside = envs.training_environment(envs.action_repeat(climb(bomb=2), 4), 5)
    state, _ = outside.reset(jax.random.split(KEY, 2))
    _, timestep = outside.step(state, jnp.zeros((2, 1)))
    assert timestep.metrics["nonfinite"].tolist() == [1.0, 1.0]
    assert timestep.reward.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("n", "length"), [(1, 10), (2, 5), (3, 4), (4, 3), (10, 1), (11, 1)])
def test_an_episode_has_fewer_steps_by_the_repeats(n, length):
    assert envs.action_repeat(climb(), n).episode_length == length
    assert envs.action_repeat(climb()._replace(episode_length=None), n).episode_length is None


def test_a_repeat_traces_the_step_once_and_must_be_positive():
    traces = []
    env = climb()

    def step(state, action):
        traces.append(1)
        return env.step(state, action)

    jax.jit(envs.action_repeat(env._replace(step=step), 5).step).lower(jnp.zeros(()), jnp.zeros(1))
    assert len(traces) == 1
    with pytest.raises(ValueError, match="n is 0"):
        envs.action_repeat(env, 0)


def test_transforms_take_environments_as_people_write_them():
    inner = probes.containers(probes.terminating_reward(3))
    for env in (
        envs.time_limit(inner, 2),
        envs.contain_nan(inner),
        envs.auto_reset(inner),
        envs.action_repeat(inner, 2),
    ):
        state, _ = env.reset(KEY)
        _, timestep = env.step(state, jnp.zeros(1))
        assert timestep.reward.dtype == jnp.float32


def test_probes_say_what_they_do():
    state, _ = probes.constant_cost().reset(KEY)
    assert float(probes.constant_cost().step(state, jnp.zeros(1))[1].reward) == -1.0
    env = envs.training_environment(probes.tempting_bomb(), 100)
    keys = jax.random.split(KEY, 200)

    def mean(action):
        actions = jnp.full((50, 200, 1), action)
        _, steps = jax.lax.scan(env.step, env.reset(keys)[0], actions)
        good = steps.metrics["nonfinite"] == 0
        return float((~good).mean()), float(jnp.mean(steps.reward, where=good))

    # 10,000 draws: standard error 0.005 at most.
    for action, chance in ((-1.0, 0.0), (0.0, 0.2), (1.0, 0.4)):
        share, reward = mean(action)
        assert abs(share - chance) < 0.02
        np.testing.assert_allclose(reward, -1.0 - (action + 0.5) ** 2, rtol=1e-5)
    env = envs.training_environment(probes.outlier(probes.match_observation(), 0.1), 100)
    _, steps = jax.lax.scan(env.step, env.reset(keys)[0], jnp.zeros((50, 200, 1)))
    assert abs(float(steps.metrics["nonfinite"].mean()) - 0.1) < 0.02
    assert (np.abs(steps.observation) <= 1).all()
