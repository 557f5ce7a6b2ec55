"""What a diverging simulator gives, from a step or from a reset, and what is let out of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reppo_fx import envs
from reppo_fx.envs import probes
from reppo_fx.envs.base import Environment, TimeStep

NO = jnp.asarray(False)


def showing(observe, reward=lambda count: jnp.ones(()), metrics=lambda count: {}, cheap=False):
    """An endless environment whose step number `count` shows `observe(count)`; resets show `observe(0)`."""

    def reset(key):
        return jnp.zeros((), jnp.int32), observe(jnp.zeros((), jnp.int32))

    def step(count, action):
        count = count + 1
        seen = observe(count)
        return count, TimeStep(seen, seen, reward(count), NO, NO, metrics(count))

    spec = jax.eval_shape(observe, jnp.zeros((), jnp.int32))
    return Environment("showing", reset, step, spec, 1, cheap_reset=cheap)


def play(env, steps, key=0, refresh_every=None):
    """First observation, time steps of one instance stacked, and the last state."""
    state, first = env.reset(jax.random.key(key))
    actions = jnp.zeros((steps, env.action_size))
    rollouts = []
    for rows in np.array_split(actions, refresh_every or 1):
        state, rollout = jax.lax.scan(env.step, env.refresh(state), rows)
        rollouts.append(rollout)
    return first, jax.tree.map(lambda *x: np.concatenate(x), *rollouts), state


def bad_at(count, value, when=2):
    return jnp.where(count == when, value, jnp.ones_like(jnp.asarray(value)))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf, 1e20, -1e7, 3e38])
@pytest.mark.parametrize("where", ["observation", "reward"])
def test_what_is_not_a_number_or_beyond_the_limit_ends_the_episode_and_is_counted(value, where):
    observe = lambda count: jnp.stack([bad_at(count, value), 0.5])
    if where == "observation":
        env = showing(observe)
    else:
        env = showing(lambda count: jnp.ones(2), lambda count: bad_at(count, value))
    _, steps, _ = play(envs.contain_nan(env), 3)
    assert steps.metrics["nonfinite"].tolist() == [0.0, 1.0, 0.0]
    assert steps.terminated.tolist() == [False, True, False]
    assert steps.reward.tolist() == [1.0, 0.0, 1.0]
    np.testing.assert_array_equal(steps.next_observation[1], steps.observation[0])
    assert not steps.truncated.any()


def test_the_limit_is_the_users_and_infinity_believes_everything_finite():
    env = showing(lambda count: jnp.where(count == 2, 5.0, 1.0)[None])
    nonfinite = lambda env: play(env, 3)[1].metrics["nonfinite"].tolist()
    assert nonfinite(envs.contain_nan(env)) == [0.0, 0.0, 0.0]
    assert nonfinite(envs.contain_nan(env, limit=4.9)) == [0.0, 1.0, 0.0]
    assert nonfinite(envs.contain_nan(env, limit=5.0)) == [0.0, 0.0, 0.0]
    absurd = showing(lambda count: jnp.where(count == 2, 3e38, 1.0)[None])
    assert nonfinite(envs.contain_nan(absurd, limit=math.inf)) == [0.0, 0.0, 0.0]
    infinite = showing(lambda count: jnp.where(count == 2, jnp.inf, 1.0)[None])
    assert nonfinite(envs.contain_nan(infinite, limit=math.inf)) == [0.0, 1.0, 0.0]


def test_the_limit_reaches_the_training_stack():
    env = showing(lambda count: jnp.full((1,), 1e8))
    keys = jax.random.split(jax.random.key(0), 3)

    def share(limit):
        stack = envs.training_environment(env, 10, limit=limit)
        _, steps = jax.lax.scan(stack.step, stack.reset(keys)[0], jnp.zeros((5, 3, 1)))
        return float(steps.metrics["nonfinite"].mean())

    assert share(1e6) == 1.0
    assert share(1e9) == 0.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_limit_holds_in_every_precision(dtype):
    # Half precision ends at 65504, below the limit: what is beyond is infinite there.
    observe = lambda count: jnp.where(count == 2, jnp.inf, 60000.0).astype(dtype)[None]
    _, steps, _ = play(envs.contain_nan(showing(observe)), 3)
    assert steps.metrics["nonfinite"].tolist() == [0.0, 1.0, 0.0]
    assert steps.observation.dtype == jnp.dtype(dtype)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "bool"])
def test_integers_and_booleans_are_numbers_unless_beyond_the_limit(dtype):
    largest = 1 if dtype == "bool" else np.iinfo(dtype).max
    env = showing(
        lambda count: jnp.where(count == 2, np.array(largest, dtype), np.array(1, dtype))[None]
    )
    _, steps, _ = play(envs.contain_nan(env), 3)
    # A NaN cast to 32-bit integers is one of their extremes.
    assert steps.metrics["nonfinite"].tolist() == [0.0, float(largest > 1e6), 0.0]
    lowest = 0 if dtype == "bool" else np.iinfo(dtype).min
    env = showing(
        lambda count: jnp.where(count == 2, np.array(lowest, dtype), np.array(1, dtype))[None]
    )
    _, steps, _ = play(envs.contain_nan(env), 3)
    assert steps.metrics["nonfinite"].tolist() == [0.0, float(lowest < -1e6), 0.0]


def test_no_metric_of_a_contained_step_and_none_that_is_not_finite_gets_out():
    values = jnp.array([1.0, 2.0, 3.0, jnp.nan])
    env = showing(
        lambda count: jnp.where(count == 2, jnp.nan, 0.0)[None],
        metrics=lambda count: {"height": values[count], "speed": jnp.float32(7.0)},
    )
    _, steps, _ = play(envs.contain_nan(env), 3)
    assert steps.metrics["height"].tolist() == [2.0, 0.0, 0.0]
    assert steps.metrics["speed"].tolist() == [7.0, 0.0, 7.0]


@pytest.mark.parametrize("value", [jnp.nan, 1e20])
def test_a_bad_reset_is_drawn_again_and_every_bad_draw_is_counted(value):
    env = envs.contain_nan(probes.nan_reset(probes.match_observation(), 0.3, value))
    keys = jax.random.split(jax.random.key(0), 2000)
    state, first = jax.jit(jax.vmap(env.reset))(keys)
    assert (np.abs(first) == 1).all()
    assert not state.failed.any()
    # The mean of a geometric distribution: 0.3/0.7, standard error 0.018.
    counts = np.asarray(state.nonfinite_resets)
    assert abs(counts.mean() - 0.3 / 0.7) < 0.08
    state, once = jax.vmap(env.step)(state, jnp.zeros((2000, 1)))
    np.testing.assert_array_equal(once.metrics["nonfinite_resets"], counts)
    _, twice = jax.vmap(env.step)(state, jnp.zeros((2000, 1)))
    assert not twice.metrics["nonfinite_resets"].any()
    assert once.metrics.keys() == twice.metrics.keys()
    assert not once.metrics["nonfinite"].any()


def test_where_nothing_is_bad_a_reset_is_the_environments_own():
    env = probes.match_observation()
    keys = jax.random.split(jax.random.key(5), 50)
    own, _ = jax.vmap(env.reset)(keys)
    contained, _ = jax.vmap(envs.contain_nan(env).reset)(keys)
    np.testing.assert_array_equal(contained.inner.shown, own.shown)
    assert (jax.random.key_data(contained.inner.key) == jax.random.key_data(own.key)).all()


def test_a_start_that_stays_bad_is_finite_and_ends_at_its_first_step():
    env = envs.contain_nan(probes.nan_reset(probes.constant_reward(), 1.0), tries=4)
    first, steps, _ = play(env, 1)
    assert first.tolist() == [0.0]
    assert steps.metrics["nonfinite"].tolist() == [1.0]
    assert steps.metrics["nonfinite_resets"].tolist() == [4.0]
    assert steps.terminated.all()
    assert steps.reward.tolist() == [0.0]
    assert np.isfinite(steps.next_observation).all()


def test_a_reset_is_traced_once_however_many_tries_it_has():
    traces = []
    inner = probes.match_observation()

    def reset(key):
        traces.append(1)
        return inner.reset(key)

    env = inner._replace(reset=reset)
    jax.jit(envs.contain_nan(env, tries=7).reset).lower(jax.random.key(0))
    assert len(traces) == 1
    traces.clear()
    stack = envs.training_environment(env, 5)
    assert len(traces) == 1
    state = jax.eval_shape(stack.reset, jax.random.split(jax.random.key(0), 2))[0]
    jax.eval_shape(stack.refresh, state)
    jax.eval_shape(stack.step, state, jnp.zeros((2, 1)))
    assert len(traces) == 1


def test_no_loop_is_in_what_a_rollout_runs():
    env = envs.training_environment(probes.match_observation(), 5)
    keys = jax.random.split(jax.random.key(0), 2)
    assert " while[" in str(jax.make_jaxpr(env.reset)(keys))
    state, _ = env.reset(keys)
    for program in (
        jax.make_jaxpr(env.step)(state, jnp.zeros((2, 1))),
        jax.make_jaxpr(env.refresh)(state),
    ):
        assert " while[" not in str(program)


@pytest.mark.parametrize("cheap", [True, False])
def test_a_bad_start_never_replaces_a_good_one_nor_is_used(cheap):
    inner = probes.terminating_reward(2)._replace(cheap_reset=cheap)
    env = envs.auto_reset(envs.contain_nan(probes.nan_reset(inner, 0.5)))
    first, steps, state = play(env, 200, refresh_every=20)
    assert np.isfinite(first).all()
    assert np.isfinite(steps.observation).all()
    assert np.isfinite(steps.next_observation).all()
    assert np.isfinite(state.start_observation).all()
    assert not steps.metrics["nonfinite"].any()
    assert (steps.reward == 1.0).all()
    assert steps.terminated.tolist() == [False, True] * 100
    # Draws: one per step, or one per refresh; half of them bad, and each is counted once.
    draws = 220 if cheap else 20
    counted = steps.metrics["nonfinite_resets"].sum()
    assert abs(counted - 0.5 * draws) < 4 * 0.5 * math.sqrt(draws) + 2


def test_an_instance_that_started_bad_recovers_with_its_next_start():
    # Nothing but bad resets, until the world gets better at the second rollout.
    inner = probes.constant_reward()._replace(cheap_reset=False)
    broken = probes.nan_reset(inner, 1.0)
    ill = envs.auto_reset(envs.contain_nan(broken, tries=3))
    state, _ = ill.reset(jax.random.key(0))
    state, steps = jax.lax.scan(ill.step, ill.refresh(state), jnp.zeros((3, 1)))
    assert np.isfinite(steps.observation).all()
    assert steps.metrics["nonfinite"].tolist() == [1.0] * 3
    assert steps.metrics["nonfinite_resets"].tolist() == [4.0, 0.0, 0.0]
    well = envs.auto_reset(envs.contain_nan(inner))
    keyed = state._replace(inner=state.inner, start=state.start)
    _, steps = jax.lax.scan(well.step, well.refresh(keyed), jnp.zeros((3, 1)))
    assert steps.metrics["nonfinite"].tolist() == [1.0, 0.0, 0.0]
    assert steps.reward.tolist() == [0.0, 1.0, 1.0]


def test_bad_resets_leave_returns_as_they_are():
    env = envs.training_environment(probes.nan_reset(probes.terminating_reward(4), 0.1), 4)
    keys = jax.random.split(jax.random.key(1), 64)
    state, _ = env.reset(keys)
    _, steps = jax.lax.scan(env.step, env.refresh(state), jnp.zeros((400, 64, 1)))
    assert np.isfinite(np.asarray(steps.observation)).all()
    assert (np.asarray(steps.reward) == 1.0).all()
    # Every step draws a start, 25,600 in all.
    share = float(steps.metrics["nonfinite_resets"].sum()) / steps.reward.size
    assert abs(share - 0.1) < 0.01


def test_containment_within_containment_counts_everything_once():
    inner = envs.contain_nan(probes.nan_bomb(probes.nan_reset(probes.constant_reward(), 0.4), 0.3))
    env = envs.auto_reset(envs.contain_nan(inner))
    _, steps, _ = play(env, 300)
    bad = steps.metrics["nonfinite"] > 0
    assert 50 < bad.sum() < 140
    np.testing.assert_array_equal(bad, steps.terminated)
    assert abs(steps.metrics["nonfinite_resets"].sum() - 0.4 * 300) < 40


def test_an_action_has_a_gradient_through_reset_and_step():
    env = envs.training_environment(probes.match_observation(), 10)

    @jax.jit
    @jax.grad
    def slope(action):
        state, shown = env.reset(jax.random.split(jax.random.key(0), 4))
        _, timestep = env.step(env.refresh(state), action)
        return jnp.sum(timestep.reward) + 0.0 * jnp.sum(shown)

    action = jnp.full((4, 1), 0.2)
    _, shown = env.reset(jax.random.split(jax.random.key(0), 4))
    np.testing.assert_allclose(slope(action), -2.0 * (action - 0.5 * shown), rtol=1e-5)


def test_a_reset_under_two_vmaps_draws_for_each_instance_alone():
    env = envs.contain_nan(probes.nan_reset(probes.match_observation(), 0.5))
    keys = jax.random.split(jax.random.key(0), (3, 4))
    together, shown = jax.vmap(jax.vmap(env.reset))(keys)
    for member in range(3):
        for instance in range(4):
            alone, expected = env.reset(keys[member, instance])
            assert shown[member, instance].tolist() == expected.tolist()
            assert together.nonfinite_resets[member, instance] == alone.nonfinite_resets


def test_legacy_keys_work_too():
    env = envs.contain_nan(probes.nan_reset(probes.match_observation(), 0.5))
    state, shown = jax.vmap(env.reset)(jax.random.split(jax.random.PRNGKey(0), 20))
    assert np.isfinite(np.asarray(shown)).all()
    assert state.nonfinite_resets.sum() > 0


def test_limit_and_tries_are_checked():
    env = probes.constant_reward()
    for limit in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"limit is {limit}; it must be positive"):
            envs.contain_nan(env, limit)
    with pytest.raises(ValueError, match="tries is 0"):
        envs.contain_nan(env, tries=0)
