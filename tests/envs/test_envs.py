"""The contract's transforms, on environments whose every step is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reppo_fx import envs
from reppo_fx.envs import probes
from reppo_fx.envs.base import Environment, TimeStep


def counter(length=None):
    """Shows the number of steps since reset plus 100 times a start drawn by reset; ends after `length`."""

    def reset(key):
        start = jax.random.randint(key, (), 1, 1000).astype(float)
        return (start, jnp.zeros(())), jnp.stack([start, jnp.zeros(())])

    def step(state, action):
        start, count = state
        count = count + 1.0
        observation = jnp.stack([start, count])
        ended = jnp.asarray(False) if length is None else count >= length
        timestep = TimeStep(
            observation, observation, action[0], ended, jnp.asarray(False), metrics={}
        )
        return (start, count), timestep

    return Environment("counter", reset, step, jax.ShapeDtypeStruct((2,), jnp.float32), 1)


def play(env, steps, key=0, action=0.0):
    """Time steps of one instance, stacked; refreshed once, like a rollout."""
    state, first = env.reset(jax.random.key(key))
    state = env.refresh(state)
    actions = jnp.full((steps, env.action_size), action)
    _, timesteps = jax.lax.scan(env.step, state, actions)
    return first, timesteps


def test_time_limit_truncates_and_never_terminates():
    _, steps = play(envs.time_limit(counter(), 3), 3)
    assert steps.truncated.tolist() == [False, False, True]
    assert not steps.terminated.any()


def test_a_step_that_terminates_at_the_limit_is_terminated_not_truncated():
    _, steps = play(envs.time_limit(counter(length=3), 3), 3)
    assert steps.terminated.tolist() == [False, False, True]
    assert not steps.truncated.any()


def test_auto_reset_keeps_the_true_successor_and_shows_the_new_start():
    first, steps = play(envs.auto_reset(envs.time_limit(counter(), 3)), 5)
    start = first[0]
    np.testing.assert_allclose(steps.next_observation[2], [start, 3.0])
    new_start = steps.observation[2, 0]
    assert new_start != start
    np.testing.assert_allclose(steps.observation[2:, 1], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(steps.observation[2:, 0], new_start)
    assert steps.truncated.tolist() == [False, False, True, False, False]


def test_auto_reset_draws_a_fresh_start_at_every_refresh():
    env = envs.auto_reset(envs.time_limit(counter(), 2))
    state, _ = env.reset(jax.random.key(3))
    starts = []
    for _ in range(4):
        state = env.refresh(state)
        starts.append(float(state.start_observation[0]))
    assert len(set(starts)) == 4


def test_where_reset_is_cheap_every_episode_has_its_own_start():
    _, steps = play(envs.auto_reset(probes.reward_by_observation()), 100)
    # 100 draws of -1 or 1, not 100 times the same: mean 0, standard error 0.1.
    assert abs(np.asarray(steps.observation).mean()) < 0.4


def test_random_start_age_moves_only_the_first_episode():
    env = envs.random_start_age(envs.auto_reset(envs.time_limit(counter(), 10)), 10)
    batch = envs.batch(env)
    state, _ = batch.reset(jax.random.split(jax.random.key(0), 400))
    ages = np.asarray(state.inner.age)
    assert ages.min() == 0
    assert ages.max() == 9
    # Uniform on 0..9: mean 4.5, standard error 0.14.
    assert abs(ages.mean() - 4.5) < 0.7
    assert not np.asarray(state.start.age).any()
    _, steps = play(env, 40)
    ends = np.flatnonzero(np.asarray(steps.truncated))
    assert (np.diff(ends) == 10).all()


def test_random_start_age_without_a_clock_says_so():
    env = envs.random_start_age(counter(), 10)
    with pytest.raises(ValueError, match="needs a time_limit"):
        env.reset(jax.random.key(0))


def test_contain_nan_ends_the_episode_and_lets_nothing_out():
    env = envs.auto_reset(envs.contain_nan(probes.nan_bomb(counter(), probability=0.3)))
    first, steps = play(env, 60)
    bad = np.asarray(steps.metrics["nonfinite"]) > 0
    assert 5 < bad.sum() < 40
    assert np.isfinite(np.asarray(steps.next_observation)).all()
    assert np.isfinite(np.asarray(steps.observation)).all()
    assert (np.asarray(steps.reward)[bad] == 0).all()
    assert (np.asarray(steps.terminated) == bad).all()
    # The successor of a bad step is the last finite observation.
    before = np.concatenate([np.asarray(first)[None], np.asarray(steps.observation)[:-1]])
    np.testing.assert_array_equal(np.asarray(steps.next_observation)[bad], before[bad])


def test_nan_in_one_instance_leaves_the_others_alone():
    bombed = envs.training_environment(probes.nan_bomb(counter(), 0.2), 50)
    keys = jax.random.split(jax.random.key(1), 8)
    actions = jnp.full((30, 8, 1), 0.5)
    _, steps = jax.lax.scan(bombed.step, bombed.reset(keys)[0], actions)
    bad = np.asarray(steps.metrics["nonfinite"]) > 0
    assert bad.any(axis=0).sum() > 1
    assert (np.asarray(steps.reward)[~bad] == 0.5).all()


def test_scale_reward_and_clip_action():
    _, steps = play(envs.scale_reward(envs.clip_action(counter(), 0.9), 2.0), 1, action=5.0)
    np.testing.assert_allclose(steps.reward, [1.8], rtol=1e-6)


def test_time_limit_must_be_positive():
    with pytest.raises(ValueError, match="length is 0"):
        envs.time_limit(counter(), 0)


def test_missing_observation_part_is_named():
    with pytest.raises(ValueError, match="no part 'privileged_state'; its parts are 'state'"):
        envs.select_part({"state": 1}, "privileged_state")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("CartpoleBalence", "CartpoleBalance"), ("walkerrun", "WalkerRun"), ("hoper", "hopper")],
)
def test_mistyped_task_gets_the_nearest_names(typed, expected):
    pytest.importorskip("mujoco_playground")
    with pytest.raises(ValueError, match=f"unknown task '{typed}'; did you mean .*'{expected}'"):
        envs.make(typed)


@pytest.mark.parametrize(
    ("name", "module"), [("playground", "mujoco_playground"), ("brax", "brax")]
)
def test_a_missing_extra_is_named(monkeypatch, name, module):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'reppo_fx\[{name}\]'"):
        getattr(envs, name)("anything")
