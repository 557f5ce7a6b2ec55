"""The contract: true successors, restarts, flags and numbers around an end, on a simulator known in advance."""

import jax
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.envs import probes
from reppo_fx.hosts import HostEnvironment, HostTimeStep, SimulatorError

from .nasty import Nasty, SelfRestarting, expected

LENGTHS = [3, 4, 5, 1]  # one of them ends with its first step


def rows_of(env, action, steps):
    rows = []
    for _ in range(steps):
        t = env.step(np.full((env.num_envs, 1), action))
        columns = (t.observation["state"], t.next_observation["state"], t.reward)
        flags = (t.terminated, t.truncated, t.metrics["age"])
        rows.append(
            [
                (tuple(o), tuple(n), r, bool(te), bool(tr), int(a))
                for o, n, r, te, tr, a in zip(*columns, *flags, strict=True)
            ]
        )
    return rows


@pytest.mark.parametrize("kind", [Nasty, SelfRestarting])
def test_every_number_around_an_end_is_the_one_by_hand(kind):
    env = hosts.conform(kind(LENGTHS))
    env.reset()
    assert rows_of(env, 0.25, 13) == expected(LENGTHS, 0.25, 13)


def test_a_time_limit_truncates_and_starts_anew_and_an_end_for_good_wins():
    env = hosts.time_limit(hosts.conform(Nasty([2, 9, 3])), 3)
    env.reset()
    limited = rows_of(env, 0.0, 7)
    # The second instance has no end of its own within the limit, the third ends for good at it.
    assert limited == expected([2, 9, 3], 0.0, 0) + expected([2, 3, 3], 0.0, 7)


def test_random_first_ages_are_spread_and_later_episodes_are_whole():
    env = hosts.time_limit(hosts.conform(Nasty([1000] * 64)), 50, random_first_ages=True)
    env.reset(3)
    ends = np.array([env.step(np.zeros((64, 1))).truncated for _ in range(150)])
    first = ends.argmax(0)
    assert ends.any(0).all()
    assert len(set(first.tolist())) > 20
    for index in range(64):
        assert (np.diff(np.flatnonzero(ends[:, index])) == 50).all()


def test_a_longer_limit_than_the_simulators_own_is_refused():
    env = Nasty([5])
    env.episode_length = 5
    with pytest.raises(
        ValueError, match="episode_length is 6, but nasty itself ends an episode after 5"
    ):
        hosts.time_limit(env, 6)


def test_a_limit_that_a_self_restarting_simulator_has_not_is_refused():
    env = SelfRestarting([5])
    env.episode_length = 5
    assert hosts.time_limit(env, 5) is env
    with pytest.raises(ValueError, match="cannot start single instances anew"):
        hosts.time_limit(env, 4)


def test_repeated_actions_add_up_to_the_first_end():
    env = hosts.action_repeat(Nasty([3, 8]), 2)
    env.reset()
    first, second, third = (env.step(np.zeros((2, 1))) for _ in range(3))
    np.testing.assert_array_equal(first.reward, [1 + 2, 1 + 2])
    np.testing.assert_array_equal(second.reward, [3, 3 + 4])  # the first one ended after one step
    np.testing.assert_array_equal(second.terminated, [True, False])
    np.testing.assert_array_equal(second.next_observation["state"][:, 0], [3, 4])
    np.testing.assert_array_equal(second.observation["state"][:, 0], [0, 4])
    np.testing.assert_array_equal(second.metrics["age"], [3.0, 3.5])
    np.testing.assert_array_equal(third.reward, [1 + 2, 5 + 6])


def test_repeated_actions_need_single_restarts():
    with pytest.raises(ValueError, match="n is 2, but nasty cannot start single instances"):
        hosts.action_repeat(SelfRestarting([3]), 2)


class Broken(Nasty):
    """The first instance shows NaN from its second step on, and its first two starts are bad."""

    starts = 0

    def reset(self, seed=None):
        self.starts = 1
        seen = super().reset(seed)
        seen["state"][0] = np.inf
        return seen

    def restart(self, which):
        seen = super().restart(which)
        self.starts += int(which[0])
        if self.starts == 2:
            seen["state"][0] = 1e20
        return seen

    def advance(self, action):
        t = super().advance(action)
        if self.age[0] == 2:
            t.next_observation["state"][0] = np.nan
        return t


def test_what_is_not_finite_is_ended_counted_and_kept_from_everything():
    env = hosts.contain_nan(hosts.conform(Broken([9, 9])))
    start = env.reset(0)["state"].copy()
    assert np.isfinite(start).all()
    steps = [env.step(np.ones((2, 1))) for _ in range(3)]
    np.testing.assert_array_equal(steps[0].metrics["nonfinite_resets"], [2, 0])
    np.testing.assert_array_equal([t.metrics["nonfinite"] for t in steps], [[0, 0], [1, 0], [0, 0]])
    bad = steps[1]
    assert bad.terminated.tolist() == [True, False]
    assert bad.reward.tolist() == [0.0, 3.0]
    np.testing.assert_array_equal(
        bad.next_observation["state"][0], steps[0].observation["state"][0]
    )
    assert bad.observation["state"][0, 0] == 0  # started anew
    assert steps[2].observation["state"][:, 0].tolist() == [1, 3]
    assert bad.metrics["age"].tolist() == [0.0, 2.0]


def test_what_cannot_be_started_anew_is_still_contained():
    class Sick(SelfRestarting):
        def step(self, action):
            t = super().step(action)
            t.next_observation["state"][0] = t.observation["state"][0] = np.nan
            return t

    env = hosts.contain_nan(hosts.conform(Sick([9, 9])))
    env.reset()
    for _ in range(3):
        t = env.step(np.ones((2, 1)))
        assert np.isfinite(t.observation["state"]).all()
        assert t.metrics["nonfinite"].tolist() == [1, 0]
        assert t.terminated.tolist() == [True, False]


def test_an_exception_says_where_it_came_from():
    env = hosts.conform(Nasty([3], fail_at=2))
    env.reset()
    env.step(np.zeros((1, 1)))
    with pytest.raises(
        SimulatorError, match="nasty failed in step: RuntimeError: the gearbox is broken"
    ):
        env.step(np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t._replace(reward=t.reward[:1]), r"reward has shape \[1\]"),
        (lambda t: t._replace(reward=t.reward.astype(object)), "reward has shape .* dtype object"),
        (lambda t: t._replace(metrics={}), r"metrics of step are \[\]; \['age'\] were declared"),
        (lambda t: t._replace(observation={"other": 0}), "observation has .*other.* was declared"),
        (lambda t: t._replace(next_observation={"state": np.zeros((2, 4))}), r"shape \[2, 4\]"),
        (lambda t: tuple(t), "step gave a tuple; it must be a HostTimeStep"),
    ],
)
def test_what_breaks_the_contract_is_named(change, sentence):
    class Wrong(Nasty):
        def step(self, action):
            return change(super().step(action))

    env = hosts.conform(Wrong([3, 4]))
    env.reset()
    with pytest.raises(ValueError, match=sentence):
        env.step(np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("fact", "value", "sentence"),
    [
        ("num_envs", 0, "num_envs is 0"),
        ("action_size", 1.5, "action_size is 1.5"),
        ("episode_length", 0, "episode_length is 0"),
        ("critic_part", "camera", "critic_part is 'camera', but the observation has no part"),
        ("observation", {}, "observation is declared without a single array"),
    ],
)
def test_facts_that_cannot_be_are_named(fact, value, sentence):
    env = Nasty([3])
    setattr(env, fact, value)
    with pytest.raises(ValueError, match=sentence):
        hosts.conform(env)


def test_reward_of_one_column_float_flags_and_whole_numbers_are_taken():
    class Loose(HostEnvironment):
        name, num_envs, action_size = "loose", 2, 1
        observation = jax.ShapeDtypeStruct((1,), np.int64)

        def reset(self, seed=None):
            return np.zeros((2, 1), np.int32)

        def step(self, action):
            seen, one = np.ones((2, 1), np.int32), np.ones((2, 1), np.float16)
            return HostTimeStep(seen, seen, one, one[:, 0], np.array([0, 1]), {})

    t = hosts.conform(Loose()).step(np.zeros((2, 1)))
    assert t.reward.dtype == np.float32
    assert t.terminated.tolist() == [True, True]
    assert t.truncated.tolist() == [False, False]
    assert rx.hosts.conform(Loose()).observation.dtype == np.int32


def test_a_pure_world_is_stepped_with_actions_in_one_range():
    world = probes.match_observation()
    scaled = rx.envs.action_range(world, 0.0, 0.5)._replace(action_scale=1.0)
    env = hosts.pure(scaled, 3)
    observation = env.reset(0)
    best = 2 * (observation / 2) / 0.5 - 1
    assert env.step(np.asarray(best)).reward.shape == (3,)
