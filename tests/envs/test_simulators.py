"""Playground and Brax behind the contract: true successors on real tasks. Compiled once per session."""

import inspect

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


def test_the_tasks_own_terms_are_its_metrics(rolled, cartpole):
    _, timesteps, _ = rolled
    own = {"upright", "centered", "small_control", "small_velocity"}
    terms = {f"reward/{name}" for name in (*own, "cart_in_bounds", "angle_in_bounds")}
    assert set(timesteps.metrics) == {*terms, "nonfinite", "nonfinite_resets"}
    product = np.prod([timesteps.metrics[f"reward/{name}"] for name in sorted(own)], axis=0)
    np.testing.assert_allclose(timesteps.reward, product, rtol=1e-5)
    assert np.ptp(timesteps.metrics["reward/small_control"]) > 0.01


def test_a_step_leaves_its_callers_state_as_it_was(cartpole):
    state, _ = jax.jit(cartpole.reset)(jax.random.key(0))
    metrics, info = dict(state.metrics), dict(state.info)
    jax.eval_shape(cartpole.step, state, jnp.ones(1))
    assert state.metrics == metrics
    assert state.info.keys() == info.keys()
    assert all(state.info[name] is value for name, value in info.items())


def test_impl_and_overrides_are_passed_through(monkeypatch):
    registry = pytest.importorskip("mujoco_playground").registry
    seen = []
    load = registry.load

    def spy(name, config):
        seen.append(config)
        return load(name, config=config)

    monkeypatch.setattr(registry, "load", spy)
    overrides = {"episode_length": 7, "impl": "jax", "vision_config": {"nworld": 4}}
    env = envs.playground("CartpoleBalance", config_overrides=overrides)
    (config,) = seen
    assert (config.impl, config.episode_length, config.vision_config.nworld) == ("jax", 7, 4)
    assert config.vision_config.cam_res == (64, 64)  # what was not named stays
    assert env.observation.shape == (5,)
    assert env.episode_length == 7
    envs.playground("CartpoleBalance", config_overrides={"vision_config.nworld": 8})
    assert seen[-1].vision_config.nworld == 8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"config_overrides": {"sim_td": 1}},
            "'sim_td', which the config of CartpoleBalance has not; did you mean 'sim_dt'",
        ),
        (
            {"config_overrides": {"vision_config": {"nworlds": 1}}},
            "'vision_config.nworlds', which the .* mean 'vision_config.nworld'",
        ),
        (
            {"config_overrides": {"sim_dt.x": 1}},
            "'sim_dt.x', which the config of CartpoleBalance has not",
        ),
        (
            {"config_overrides": {"sim_dt": "fast"}},
            "sim_dt='fast', but the config of CartpoleBalance has 0.01 there",
        ),
        ({"config_overrides": {"impl": "warp"}}, "has impl='warp', but impl='jax' is what is used"),
        ({"impl": "cuda"}, "impl is 'cuda'; it must be 'jax' or 'warp'"),
        ({"randomize": True}, "has no randomizer for CartpoleBalance; give a function"),
        (
            {"config_overrides": {"vision": True}},
            "vision=True cannot be rendered here .*it needs impl='warp'",
        ),
    ],
)
def test_what_playground_cannot_do_is_a_short_sentence(changes, sentence):
    pytest.importorskip("mujoco_playground")
    with pytest.raises(ValueError, match=sentence) as caught:
        envs.playground("CartpoleBalance", **changes)
    assert len(str(caught.value)) < 500


def test_tasks_that_a_user_registers_are_known(monkeypatch):
    playground = pytest.importorskip("mujoco_playground")
    suite = playground.dm_control_suite
    monkeypatch.setattr(suite, "_envs", dict(suite._envs))
    monkeypatch.setattr(suite, "_cfgs", dict(suite._cfgs))
    suite.register_environment(
        "MyPendulum", suite._envs["PendulumSwingup"], suite._cfgs["PendulumSwingup"]
    )
    assert "MyPendulum" in envs.playground_names()
    env = envs.make("MyPendulum")
    assert env.name == "MyPendulum"
    with pytest.raises(ValueError, match="did you mean 'MyPendulum'"):
        envs.make("MyPendulun")


def test_a_task_object_is_taken_as_well_as_its_name():
    registry = pytest.importorskip("mujoco_playground").registry
    config = registry.get_default_config("PendulumSwingup")
    config.impl, config.episode_length = "jax", 50
    task = registry.load("PendulumSwingup", config=config)
    named = envs.playground("PendulumSwingup")
    for env in (envs.make(task), envs.playground(task)):
        assert env.name == "SwingUp"
        assert env.observation == named.observation
        assert env.episode_length == 50


def test_a_brax_object_is_taken_as_well_as_its_name():
    brax = pytest.importorskip("brax.envs")
    env = envs.make(brax.get_environment("fast", obs_mode="dict_pixels_state", asymmetric_obs=True))
    assert env.name == "Fast"
    assert env.observation["pixels/view_0"].shape == (4, 4, 3)
    assert (env.actor_part, env.critic_part) == ("state", "privileged_state")
    wrapped = brax.create("fast", episode_length=5)
    with pytest.raises(ValueError, match="wrapped in AutoResetWrapper"):
        envs.make(wrapped)


def test_brax_that_jax_has_left_behind_says_so():
    brax = pytest.importorskip("brax.fluid")
    if "a_min=" not in inspect.getsource(brax):
        pytest.skip("this Brax calls clip as jax wants it")
    with pytest.raises(
        ValueError, match="swimmer cannot run here: brax.fluid calls jax.numpy.clip"
    ):
        envs.make("swimmer")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"healthy_rewrd": 1.0}, "takes no argument 'healthy_rewrd'"),
        ({"backend": "mujoco"}, "backend is 'mujoco'; it must be 'generalized'"),
    ],
)
def test_what_brax_does_not_take_is_a_sentence(changes, sentence):
    pytest.importorskip("brax")
    with pytest.raises(ValueError, match=sentence):
        envs.brax("hopper", **changes)


def test_brax_terminates_and_does_not_call_it_a_time_limit():
    pytest.importorskip("brax")
    env = envs.time_limit(envs.brax("inverted_pendulum"), 1000)

    @jax.jit
    def fall(key):
        state, _ = env.reset(key)
        return jax.lax.scan(env.step, state, jnp.ones((30, 1)))[1]

    timesteps = fall(jax.random.key(0))
    assert timesteps.metrics == {}
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
