"""The gymnax adapter, over the real package where it is installed."""

import sys
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reppo_fx import envs

HAS_GYMNAX = find_spec("gymnax") is not None
needs_gymnax = pytest.mark.skipif(
    not HAS_GYMNAX,
    reason="gymnax is not installed: it caps jax below 0.12, and is tested on Python 3.11",
)
# Of which every name is built; MNIST is downloaded, and has a test of its own.
TASKS = [
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "MemoryChain-bsuite",
    "UmbrellaChain-bsuite",
    "DiscountingChain-bsuite",
    "SimpleBandit-bsuite",
    "FourRooms-misc",
    "MetaMaze-misc",
    "PointRobot-misc",
    "BernoulliBandit-misc",
    "GaussianBandit-misc",
    "Reacher-misc",
    "Swimmer-misc",
    "Pong-misc",
    "FrozenLake-misc",
]


def theirs():
    return pytest.importorskip("gymnax")


@needs_gymnax
def test_the_list_is_complete():
    assert {*TASKS, "MNISTBandit-bsuite"} == set(envs.gymnax_names())


@needs_gymnax
@pytest.mark.parametrize("name", TASKS)
def test_every_task_keeps_the_contract(name):
    env = envs.gymnax(name)
    _, params = theirs().make(name)
    assert env.episode_length == params.max_steps_in_episode
    checked = envs.conform(env)
    assert (env.observation.dtype, len(env.observation.shape)) == (jnp.float32, 1)

    def two_steps(key):
        state, observation = checked.reset(key)
        action = jnp.int32(1) if env.num_actions else jnp.full(env.action_size, 0.5)
        state, first = checked.step(state, action)
        return observation, first, checked.step(state, action)[1]

    observation, first, second = jax.eval_shape(two_steps, jax.random.key(0))
    assert observation == first.next_observation == second.observation == checked.observation
    assert first.reward.dtype == jnp.float32


@needs_gymnax
@pytest.mark.parametrize("name", ["CartPole-v1", "Catch-bsuite"])
def test_the_successor_at_an_end_is_the_true_one(name):
    """Beside gymnax by hand, step for step, until an episode ends and once beyond."""
    task, params = theirs().make(name)
    env = envs.gymnax(name)
    state, _ = env.reset(jax.random.key(3))
    step, by_hand = jax.jit(env.step), jax.jit(task.step_env)
    for _ in range(100):
        key = jax.random.split(state.key)[1]
        seen, inner, reward, ended, _ = by_hand(key, state.inner, 1, params)
        *_, info = task.step(key, state.inner, 1, params)
        state, timestep = step(state, jnp.int32(1))
        np.testing.assert_allclose(timestep.next_observation, jnp.ravel(seen), rtol=1e-5)
        assert (float(timestep.reward), bool(timestep.terminated)) == (float(reward), bool(ended))
        assert not timestep.truncated
        if ended:
            break
    assert ended
    assert info["final_observation"].shape == seen.shape
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b), state.inner, inner))


@needs_gymnax
def test_time_cuts_once_and_does_not_terminate():
    env = envs.gymnax("Pendulum-v1", max_steps_in_episode=3)
    assert env.episode_length == 3
    alone = env.reset(jax.random.key(0))[0]
    limited = envs.time_limit(env, env.episode_length)
    state, _ = limited.reset(jax.random.key(0))
    cut = []
    for _ in range(4):
        alone, own = jax.jit(env.step)(alone, jnp.zeros(1))
        assert not (own.terminated | own.truncated)
        state, timestep = jax.jit(limited.step)(state, jnp.zeros(1))
        cut.append((bool(timestep.terminated), bool(timestep.truncated)))
    assert cut[:3] == [(False, False), (False, False), (False, True)]


@needs_gymnax
def test_instances_end_at_times_of_their_own():
    env = envs.training_environment(envs.gymnax("CartPole-v1"), 500)
    keys = jax.random.split(jax.random.key(1), 2)
    state, _ = env.reset(keys)

    def body(state, action):
        state, timestep = env.step(state, action)
        return state, timestep

    actions = jnp.stack([jnp.ones(40, jnp.int32), jnp.arange(40, dtype=jnp.int32) % 2], axis=1)
    _, steps = jax.jit(lambda s: jax.lax.scan(body, s, actions))(state)
    ended = np.asarray(steps.terminated | steps.truncated)
    first = ended.argmax(axis=0)
    assert ended.any(axis=0)[0]
    assert first[0] != first[1]
    fallen = np.abs(np.asarray(steps.next_observation)[first[0], 0])
    assert fallen[2] > 12 * 2 * np.pi / 360
    assert np.abs(np.asarray(steps.observation)[first[0], 0]).max() <= 0.05  # of the new episode


@needs_gymnax
def test_actions_of_a_box_become_its_bounds():
    task, params = theirs().make("Pendulum-v1")
    env = envs.gymnax("Pendulum-v1")
    assert (env.num_actions, env.action_size, env.action_scale) == (None, 1, 1.0)
    state, _ = env.reset(jax.random.key(0))
    after, timestep = env.step(state, jnp.array([0.5]))
    assert float(after.inner.last_u) == 1.0  # of 2
    expected = task.step_env(state.key, state.inner, jnp.array([1.0]), params)
    np.testing.assert_allclose(timestep.reward, expected[2], rtol=1e-6)


@needs_gymnax
def test_parameters_by_keyword_or_as_an_object():
    task, params = theirs().make("Pendulum-v1")
    strong = envs.gymnax("Pendulum-v1", params.replace(max_torque=4.0), max_steps_in_episode=50)
    assert strong.episode_length == 50
    state, _ = strong.reset(jax.random.key(0))
    assert float(strong.step(state, jnp.ones(1))[0].inner.last_u) == 4.0
    assert envs.gymnax(task, max_torque=1.0).name == "Pendulum-v1"
    assert envs.make(task).episode_length == 200
    assert envs.gymnax("DeepSea-bsuite", size=5).observation.shape == (25,)


@needs_gymnax
def test_observations_as_they_are():
    assert envs.gymnax("Breakout-MinAtar", flatten=False).observation.shape == (10, 10, 4)
    lake = envs.gymnax("FrozenLake-misc", flatten=False)
    assert (lake.observation.shape, lake.observation.dtype) == ((), jnp.int32)
    _, observation = envs.gymnax("FrozenLake-misc").reset(jax.random.key(0))
    assert observation.sum() == observation[0] == 1.0  # one-hot


@needs_gymnax
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: envs.gymnax("CartPol-v1"), "unknown gymnax environment 'CartPol-v1'; .*'CartPole-v1'"),
        (lambda: envs.make("gymnax:Acrobat-v1"), "environment 'Acrobat-v1'; .*'Acrobot-v1'"),
        (lambda: envs.gymnax("CartPole-v1", masspol=1.0), "parameter of CartPole-v1 'masspol'; .*'masspole'"),
        (lambda: envs.gymnax("DeepSea-bsuite", sise=4), "parameter of DeepSea-bsuite 'sise'; .*'size'"),
        (lambda: envs.gymnax("CartPole-v1", {"gravity": 1}), "env_params is .*CartPole-v1 has a .*EnvParams"),
        (lambda: envs.gymnax("CartPole-v1", max_steps_in_episode=0), "max_steps_in_episode of CartPole-v1 is 0"),
        (lambda: envs.gymnax(3), "task must be a name or an environment object.* it is 3"),
    ],
)  # fmt: skip
def test_what_it_does_not_take_is_a_sentence(unchecked_annotations, make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@needs_gymnax
def test_files_that_cannot_be_loaded_are_a_sentence(monkeypatch):
    def factory(fraction=1.0):
        raise OSError("no route")

    monkeypatch.setitem(theirs().registration._registry, "MNISTBandit-bsuite", factory)
    with pytest.raises(ValueError, match="MNISTBandit-bsuite cannot be built here .*no route"):
        envs.gymnax("MNISTBandit-bsuite")


@needs_gymnax
def test_the_command_line_knows_the_family():
    from reppo_fx.run.tasks import tasks_by_family
    from reppo_fx.run.worlds import make_world
    from reppo_fx.settings import Config

    for name in ("CartPole-v1", "gymnax:CartPole-v1"):
        assert make_world(name, Config()).num_actions == 2
    (family,) = [f for f in tasks_by_family("cartpole-v1") if f.title == "gymnax"]
    assert family.tasks == ("CartPole-v1",)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    for make in (lambda: envs.gymnax("CartPole-v1"), lambda: envs.make("gymnax:CartPole-v1")):
        with pytest.raises(ImportError, match=r"pip install 'reppo_fx\[gymnax\]'"):
            make()
