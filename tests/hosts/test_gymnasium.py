"""gymnasium's environments: true successors in both modes, numbers by hand, and sentences for the rest."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from reppo_fx import hosts

from .worlds import Clock, clocks, vector

STEPS = 13


def by_hand(make, actions):
    """One instance stepped alone: observation, successor, reward, flags, speed and success of every step."""
    env, rows = make(), []
    seen, _ = env.reset()
    for action in actions:
        successor, reward, terminated, truncated, info = env.step(action)
        following = successor
        if terminated or truncated:
            following, _ = env.reset()
        rows.append((seen, successor, following, reward, terminated, truncated, info))
        seen = following
    return rows


def flat(seen):
    """As the adapter joins it: numbers, then one of three kinds."""
    return [*seen["clock"], *np.eye(3)[seen["kind"] - 1]]


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.SAME_STEP])
def test_every_number_is_that_of_an_instance_stepped_by_hand(mode):
    env = hosts.conform(hosts.gymnasium(vector(mode)))
    for one in env.env._vector.envs:
        one.unwrapped.episode = -1
    env.reset(0)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 3, 2)).astype(np.float32)
    steps = []
    for action in actions:
        t = env.step(action)
        steps.append(
            [np.array(x) for x in (t.next_observation, t.observation, t.reward)]
            + [
                t.terminated.copy(),
                t.truncated.copy(),
                t.metrics["speed"].copy(),
                t.metrics["is_success"].copy(),
            ]
        )
    for index, make in enumerate(clocks(3)):
        own = [
            [2 + 4 * a[index, 0], a[index, 1]] for a in actions
        ]  # [-2, 6], and one without bounds
        for t, row in zip(steps, by_hand(make, own), strict=True):
            _, successor, following, reward, terminated, truncated, info = row
            np.testing.assert_allclose(t[0][index], flat(successor))
            np.testing.assert_allclose(t[1][index], flat(following))
            np.testing.assert_allclose(t[2][index], reward, rtol=1e-6)
            assert (t[3][index], t[4][index]) == (terminated, truncated and not terminated)
            assert (t[5][index], t[6][index]) == (info["speed"], info["is_success"])


def test_next_step_mode_is_refused_with_the_setting_that_would_do():
    with pytest.raises(ValueError, match="AutoresetMode.SAME_STEP or AutoresetMode.DISABLED"):
        hosts.gymnasium(vector(AutoresetMode.NEXT_STEP))


def test_a_vector_env_that_loses_the_successor_is_refused_when_it_does():
    class Lossy(gymnasium.vector.SyncVectorEnv):
        def step(self, actions):
            *rest, info = super().step(actions)
            info.pop("final_obs", None)
            return (*rest, info)

    env = hosts.gymnasium(Lossy(clocks(2), autoreset_mode=AutoresetMode.SAME_STEP))
    env.reset(0)
    for _ in range(2):
        env.step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="instance 0 ended, but info has no 'final_obs'"):
        env.step(np.zeros((2, 2)))


def test_parts_and_metrics_can_be_named_and_containers_kept():
    env = hosts.gymnasium(Clock, 2, actor_part="clock", critic_part="kind", metrics=("late",))
    assert {name: spec.shape for name, spec in env.observation.items()} == {
        "clock": (2,),
        "kind": (3,),
    }
    assert (env.actor_part, env.critic_part) == ("clock", "kind")
    env.reset(1)
    t = env.step(np.zeros((2, 2)))
    assert t.metrics["late"].tolist() == [0, 0]
    assert set(t.metrics) == {"speed", "is_success", "late"}
    raw = hosts.gymnasium(Clock, 2, flatten=False)
    assert raw.observation["kind"].dtype == np.int32
    with pytest.raises(
        ValueError, match="critic_part is 'camera', but the observation has no part 'camera'"
    ):
        hosts.gymnasium(Clock, 2, critic_part="camera")


def test_a_size_of_its_own_and_a_seed_of_its_own():
    env = hosts.gymnasium("Pendulum-v1", 2)
    assert (env.num_envs, env.episode_length, env.action_size) == (2, 200, 1)
    first, again, other = (env.reset(seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert np.abs(first[0] - first[1]).max() > 0.01
    larger = env.sized(5)
    assert larger.reset(4).shape == (5, 3)
    env.close()
    env.close()
    assert env.reset(4).shape == (2, 3)  # closed is not the end


def test_how_long_an_action_lasts_and_its_own_units():
    env = hosts.gymnasium("Pendulum-v1", 2)
    assert (env.action_seconds, env.action_bounds) == (0.05, ((-2.0,), (2.0,)))
    again = hosts.action_repeat(hosts.conform(env), 3)
    assert (again.action_seconds, again.action_bounds) == (pytest.approx(0.15), ((-2.0,), (2.0,)))
    silent = hosts.gymnasium(Clock, 1)
    assert silent.action_seconds is None


def test_single_instances_start_anew_and_others_go_on():
    env = hosts.gymnasium(Clock, 3)
    env.reset(0)
    env.step(np.zeros((3, 2)))
    env.restart(np.array([False, True, False]))
    assert env.step(np.zeros((3, 2))).next_observation[:, 0].tolist() == [2, 1, 2]


def test_time_limits_come_from_the_registration_or_the_wrapper():
    assert hosts.gymnasium("Pendulum-v1", 1, max_episode_steps=7).episode_length == 7
    wrapped = lambda: gymnasium.wrappers.TimeLimit(Clock(99), 8)
    assert hosts.gymnasium(wrapped, 1).episode_length == 8
    assert hosts.gymnasium(Clock, 1).episode_length is None


class Pixels(Clock):
    observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)

    def shown(self):
        return np.full((4, 4, 3), self.age, np.uint8)


class Wordy(Clock):
    observation_space = gymnasium.spaces.Text(5)

    def shown(self):
        return "abc"


class Switches(Clock):
    action_space = gymnasium.spaces.MultiBinary(3)


class Dials(Clock):
    action_space = gymnasium.spaces.MultiDiscrete([2, 3])


class Single(Clock):
    action_space = gymnasium.spaces.Discrete(1)


class Choosing(gymnasium.Env):
    """Actions 5, 6 and 7; pays the one taken, and rules out the one that was."""

    action_space = gymnasium.spaces.Discrete(3, start=5)
    observation_space = gymnasium.spaces.Dict(
        {
            "age": gymnasium.spaces.Box(0, 9, (1,), np.float32),
            "allowed": gymnasium.spaces.MultiBinary(3),
        }
    )

    def shown(self, taken=None):
        return {"age": np.float32([self.age]), "allowed": np.int8(np.arange(5, 8) != taken)}

    def reset(self, *, seed=None, options=None):
        self.age = 0
        return self.shown(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.age += 1
        return self.shown(action), float(action), self.age == 4, False, {}


def test_discrete_actions_begin_with_0_whatever_the_simulators_do():
    env = hosts.conform(hosts.gymnasium(Choosing, 3, action_mask="allowed"))
    assert (env.num_actions, env.action_size, env.action_mask) == (3, 1, "allowed")
    assert env.observation["allowed"].dtype == bool
    assert env.observation["state"].shape == (4,)  # the mask as numbers, too
    assert env.reset(0)["allowed"].all()
    timestep = env.step(np.array([0, 2, 1]))
    assert timestep.reward.tolist() == [5.0, 7.0, 6.0]
    np.testing.assert_array_equal(~timestep.observation["allowed"], np.eye(3)[[0, 2, 1]])
    # One part alone is seen where it is named.
    own = hosts.gymnasium(Choosing, 3, actor_part="age", action_mask="allowed")
    assert {name: spec.shape for name, spec in own.observation.items()} == {
        "age": (1,),
        "allowed": (3,),
    }


@pytest.mark.parametrize(
    "action", [np.array([0, 1, 3]), np.array([0, -1, 0]), np.zeros((3, 1), int), np.zeros(3)]
)
def test_numbers_of_no_action_are_named(action, unchecked_annotations):
    env = hosts.conform(hosts.gymnasium(Choosing, 3, action_mask="allowed"))
    env.reset(0)
    with pytest.raises(ValueError, match=r"Choosing: actions .* whole numbers from 0 to 2"):
        env.step(action)


def test_what_can_be_learned_is_known_by_name():
    from reppo_fx.hosts.gymnasium import gymnasium_learnable

    learnable = {"CartPole-v1": True, "Pendulum-v1": True, "Acrobot-v1": True, "Nothing-v0": False}
    for name, can in learnable.items():
        assert gymnasium_learnable(name) is can


@pytest.mark.parametrize(
    ("make", "arguments", "sentence"),
    [
        (
            "Pendulum-v9",
            {},
            "unknown gymnasium environment 'Pendulum-v9'; did you mean 'Pendulum-v1'",
        ),
        (Switches, {}, r"Switches has discrete actions in MultiBinary\(3\)"),
        (Dials, {}, r"Dials has actions in MultiDiscrete"),
        (Single, {}, r"Single has a single action \(Discrete\(1\)\)"),
        (
            "CartPole-v1",
            {"action_mask": "mask"},
            "action_mask is 'mask', but the observation has no",
        ),
        (
            Choosing,
            {"action_mask": "mask"},
            "action_mask is 'mask', but the observation has no part",
        ),
        (
            Pixels,
            {},
            r"the observation has shape \[4, 4, 3\], which is no vector; give flatten=False",
        ),
        (Wordy, {}, "it must be of real numbers"),
        (3, {}, "make is 3; it must be the name of an environment"),
        (Clock, {"g": 9.81}, "g is for an environment by name"),
        (Clock, {"n": 0}, "n is 0"),
        (Clock(), {"n": 2}, "one environment object cannot be 2 instances"),
    ],
    ids=str,
)
def test_what_cannot_be_is_a_sentence(make, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        hosts.gymnasium(make, **arguments)


def test_pixels_stay_as_they_are_for_own_networks():
    env = hosts.gymnasium(Pixels, 2, flatten=False)
    assert env.observation.shape == (4, 4, 3)
    assert env.reset(0).dtype == np.uint8


def test_a_single_environment_object_is_one_instance():
    env = hosts.gymnasium(Clock(3))
    assert env.num_envs == 1
    env.reset(0)
    assert [bool(env.step(np.zeros((1, 2))).terminated[0]) for _ in range(3)] == [
        False,
        False,
        True,
    ]
    with pytest.raises(NotImplementedError):
        env.sized(2)


def test_what_is_missing_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"pip install 'reppo_fx\[gymnasium\]'"):
        hosts.gymnasium("Pendulum-v1")
