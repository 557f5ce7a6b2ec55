"""EnvPool: true successors around an end against one instance stepped by hand, and sentences for the rest."""

import os
import resource
import sys
import warnings

import numpy as np
import pytest

from reppo_fx import hosts

envpool = pytest.importorskip("envpool")

TASKS = ["CartpoleBalance-v1", "Pendulum-v1", "Hopper-v4"]
SEED = 7


def by_hand(task, seed, actions, restart_before, limit):
    """One instance stepped alone, started anew where it ended and before one given step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = envpool.make_gymnasium(task, num_envs=1, seed=seed, max_episode_steps=limit)
        vector = lambda seen: np.concatenate(
            [np.atleast_2d(v) for v in seen.values()] if isinstance(seen, dict) else [seen], axis=1
        )[0].astype(np.float32)
        env.reset()
        rows = []
        for step, action in enumerate(actions):
            if step == restart_before:
                env.reset()
            seen, reward, terminated, truncated, info = env.step(action[None])
            successor = following = vector(seen)
            if terminated[0] or truncated[0]:
                following = vector(env.reset()[0])
            rows.append((successor, following, reward[0], terminated[0], truncated[0], info))
    return rows


@pytest.mark.parametrize("task", TASKS)
def test_every_number_is_that_of_an_instance_stepped_by_hand(task):
    """Two instances whose episodes of five steps end at different times, as one was started anew after two."""
    env = hosts.conform(hosts.envpool(task, 2, max_episode_steps=5, num_threads=2))
    env.reset(SEED)
    actions = np.random.default_rng(1).uniform(-1, 1, (13, 2, env.action_size))
    steps = []
    for step, action in enumerate(actions):
        if step == 2:
            env.restart(np.array([False, True]))
        t = env.step(action)
        steps.append([np.array(x) for x in t[:5]])
    scale = 2.0 if task == "Pendulum-v1" else 1.0
    dtype = np.float32 if task == "Pendulum-v1" else np.float64
    for index, restarted in enumerate([None, 2]):
        own = (scale * actions[:, index]).astype(dtype)
        rows = by_hand(task, SEED + index, own, restarted, 5)
        ends = 0
        for ours, row in zip(steps, rows, strict=True):
            successor, following, reward, terminated, truncated, _ = row
            np.testing.assert_allclose(ours[1][index], successor, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(ours[0][index], following, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(ours[2][index], reward, rtol=1e-6)
            assert (ours[3][index], ours[4][index]) == (terminated, truncated and not terminated)
            ends += terminated or truncated
        assert ends >= 2


def test_discrete_actions_are_those_of_an_instance_stepped_by_hand():
    env = hosts.conform(hosts.envpool("CartPole-v1", 2))
    assert (env.num_actions, env.action_size, env.episode_length) == (2, 1, 500)
    env.reset(SEED)
    actions = np.random.default_rng(1).integers(2, size=(120, 2)).astype(np.int32)
    for index in range(2):
        env.reset(SEED)
        rows = by_hand("CartPole-v1", SEED + index, actions[:, index], None, 500)
        ends = 0
        for action, row in zip(actions, rows, strict=True):
            ours = env.step(action)
            np.testing.assert_allclose(ours.next_observation[index], row[0], rtol=1e-6)
            np.testing.assert_allclose(ours.observation[index], row[1], rtol=1e-6)
            assert ours.terminated[index] == row[3]
            ends += row[3]
        assert ends >= 1


def test_what_can_be_learned_is_known_by_name():
    from reppo_fx.hosts.envpool import envpool_learnable

    learnable = {"CartPole-v1": True, "Pendulum-v1": True, "Pong-v5": False, "Nothing-v0": False}
    for name, can in learnable.items():
        assert envpool_learnable(name) is can


def test_a_seed_makes_it_anew_and_none_goes_on():
    env = hosts.envpool("CartpoleBalance-v1", 3)
    first, again, further, other = (np.array(env.reset(s)) for s in (4, 4, None, 5))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - further).max() > 1e-4
    assert np.abs(first - other).max() > 1e-4
    assert env.sized(5).reset(4).shape == (5, 5)
    env.close()
    env.close()


def test_observations_are_joined_in_the_tasks_own_order():
    env = hosts.envpool("HumanoidRun-v1", 1)
    assert env.observation.shape == (95,)  # Playground's 67, and the 28 of `position`
    assert env.episode_length == 1000
    raw = hosts.envpool("CheetahRun-v1", 1, flatten=False)
    assert {name: spec.shape for name, spec in raw.observation.items()} == {
        "position": (8,),
        "velocity": (9,),
    }


def test_a_robot_has_a_privileged_critic_and_its_reward_terms_as_metrics():
    env = hosts.envpool("Go1JoystickFlatTerrain-v1", 1)
    assert (env.actor_part, env.critic_part) == ("state", "privileged_state")
    assert {part: spec.shape for part, spec in env.observation.items()} == {
        "state": (48,),
        "privileged_state": (123,),
    }
    assert "reward_tracking_lin_vel" in env.metrics
    assert not {"env_id", "elapsed_step", "terminated"} & set(env.metrics)
    env.reset(0)
    assert env.step(np.zeros((1, 12))).metrics["reward_tracking_lin_vel"].shape == (1,)


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        (
            "CheetahRunn-v1",
            {},
            "unknown EnvPool task 'CheetahRunn-v1'; did you mean 'CheetahRun-v1'",
        ),
        ("CartpoleBalance-v1", {"n": 0}, "n is 0"),
        ("CartpoleBalance-v1", {"wind": 3}, "cannot be made with wind=3"),
        ("CartpoleBalance-v1", {"actor_part": "camera"}, "actor_part is 'camera'"),
    ],
)
def test_what_cannot_be_is_a_sentence(task, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        hosts.envpool(task, **options)


def test_discrete_actions_are_numbers(unchecked_annotations):
    with hosts.envpool("CartPole-v1", 3) as env:
        assert (env.num_actions, env.action_size) == (2, 1)
        world = hosts.conform(env)
        world.reset(0)
        left = world.step(np.zeros(3, np.int32)).observation[:, 1]
        world.reset(0)
        right = world.step(np.ones(3, np.int32)).observation[:, 1]
        assert (right > left).all()  # the cart's velocity
        for wrong in (np.full(3, 2), np.full(3, -1), np.zeros((3, 1)), np.zeros(3)):
            with pytest.raises(ValueError, match="whole numbers from 0 to 1, one for each of 3"):
                world.step(wrong)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"pip install 'reppo_fx\[envpool\]'"):
        hosts.envpool("CartpoleBalance-v1")


def test_by_name_it_gets_the_time_limit_that_is_needed():
    assert hosts.make("envpool:Pendulum-v1").episode_length == 200
    assert hosts.make("envpool:Pendulum-v1", episode_length=100).episode_length == 200
    assert hosts.make("envpool:Pendulum-v1", episode_length=300).episode_length == 300
    with pytest.raises(
        ValueError, match="unknown family of simulators 'envpol'; did you mean 'envpool'"
    ):
        hosts.make("envpol:Pendulum-v1")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_closing_gives_the_memory_back():
    """64 instances of the control suite take most of a gigabyte, which glibc keeps for the next allocation."""

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20

    def made_and_closed():
        env = hosts.envpool("CartpoleBalance-v1", 64)
        env.reset(SEED)
        used = resident()
        env.close()
        return used, resident()

    made_and_closed()
    before = resident()
    used, after = made_and_closed()
    assert used - before > 300.0
    assert after - before < 100.0


def threads_beside():
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are not to be chosen here")
@pytest.mark.parametrize("given", [{}, {"num_threads": 3}])
def test_a_process_with_fewer_cores_than_the_machine_has_as_many_threads(given, monkeypatch):
    """On one core two threads step 64 cheetahs an eighth slower than one does, sixteen by more than a quarter."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5})
    made = {}
    for name, options in (("own", given), ("one", {"num_threads": 1})):
        before = threads_beside()
        env = hosts.envpool("CartpoleBalance-v1", 8, **options)
        env.reset(SEED)
        made[name] = threads_beside() - before
        env.close()
    assert made["own"] - made["one"] == given.get("num_threads", 1) - 1
