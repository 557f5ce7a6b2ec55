"""Isaac Lab's step interface, on a stand-in with its shapes; with real tensors where there are some."""

import dataclasses
import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from reppo_fx import hosts
from reppo_fx._errors import ReppoWarning

from .lab import (
    FLAGS,
    IsaacConfig,
    Lab,
    ManagerLab,
    MjlabConfig,
    OldConfig,
    WaitingLab,
    box,
    fake_torch,
)

LENGTHS = [3, 4, 5, 1]  # one of them ends with its first step
SEED, ACTION, STEPS = 7, 0.25, 13
KINDS = {
    "isaac": lambda **more: Lab(IsaacConfig(compute_final_obs=True), LENGTHS, **more),
    "isaac-manager": lambda **more: ManagerLab(
        IsaacConfig(compute_final_obs=True), LENGTHS, **more
    ),
    "mjlab": lambda **more: WaitingLab(MjlabConfig(auto_reset=False), LENGTHS, **more),
    "isaac-waiting": lambda **more: WaitingLab(
        SimpleNamespace(autoreset_mode=SimpleNamespace(name="DISABLED"), compute_final_obs=False),
        LENGTHS,
        **more,
    ),
}
WAITING = ("mjlab", "isaac-waiting")


@pytest.fixture(params=["fake", "fake on a GPU", "torch"])
def tensors(request, monkeypatch):
    """Where the stand-in keeps its numbers."""
    if request.param == "torch":
        if importlib.util.find_spec("torch") is None:
            pytest.skip("torch is not installed")
        return {"make": importlib.import_module("torch").from_numpy}
    monkeypatch.setitem(sys.modules, "torch", fake_torch())
    return {"device": "cuda:0" if request.param.endswith("GPU") else "cpu"}


@pytest.fixture
def torch(monkeypatch):
    """A stand-in for it as well."""
    monkeypatch.setitem(sys.modules, "torch", fake_torch())


def by_hand(waits):
    """(observation, successor, reward, terminated, truncated) of every instance, step by step."""
    age, episode = [0] * len(LENGTHS), [SEED] * len(LENGTHS)
    steps = []
    for _ in range(STEPS):
        rows = []
        for i, length in enumerate(LENGTHS):
            age[i] += 1
            successor = (episode[i], age[i], ACTION, age[i])
            over, reward = age[i] == length, age[i] + ACTION
            if over:
                age[i], episode[i] = 0, episode[i] + 1
            last = 0.0 if over and waits else ACTION
            shown = (episode[i], age[i], last, age[i])
            rows.append((shown, successor, reward, *(flag and over for flag in FLAGS[i % 3])))
        steps.append(rows)
    return steps


def joined(observation):
    return np.concatenate([observation["policy"], observation["critic"]], axis=1)


def rows_of(timestep):
    return [
        (tuple(shown), tuple(successor), reward, bool(terminated), bool(truncated))
        for shown, successor, reward, terminated, truncated in zip(
            joined(timestep.observation),
            joined(timestep.next_observation),
            timestep.reward,
            timestep.terminated,
            timestep.truncated,
            strict=True,
        )
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_around_an_end_is_the_one_by_hand(kind, tensors):
    env = hosts.isaaclab(KINDS[kind](**tensors))
    assert (env.num_envs, env.action_size, env.episode_length) == (4, 1, 5)
    assert (env.actor_part, env.critic_part) == ("policy", "critic")
    assert {part: leaf.shape for part, leaf in env.observation.items()} == {
        "policy": (2,),
        "critic": (2,),
    }
    start = env.reset(SEED)
    np.testing.assert_array_equal(joined(start), [[SEED, 0, 0, 0]] * 4)
    # All kept until the end: what the simulator's buffers hold by then must not show.
    taken = [env.step(np.full((4, 1), ACTION)) for _ in range(STEPS)]
    assert [rows_of(timestep) for timestep in taken] == by_hand(kind in WAITING)
    np.testing.assert_array_equal(joined(start), [[SEED, 0, 0, 0]] * 4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_holds_while_it_runs(kind, torch):
    env = hosts.conform(hosts.isaaclab(KINDS[kind]()))
    env.reset(SEED)
    flags = [env.step(np.zeros((4, 1))) for _ in range(5)][-1]
    # Where a simulator says both it has ended for good.
    np.testing.assert_array_equal(flags.terminated, [False, False, True, True])
    np.testing.assert_array_equal(flags.truncated, [False, False, False, False])


def test_single_instances_start_anew_where_that_can_be(torch):
    can = {kind: hosts.isaaclab(make()).can_restart for kind, make in KINDS.items()}
    assert can == {"isaac": False, "isaac-manager": True, "mjlab": True, "isaac-waiting": True}
    for kind in ("isaac-manager", "mjlab"):
        lab = KINDS[kind](device="cuda:0")
        env = hosts.isaaclab(lab)
        env.reset(SEED)
        env.step(np.zeros((4, 1)))
        which = np.array([False, True, False, True])
        lab.restarts.clear()
        seen = env.restart(which)
        assert lab.restarts == [[1, 3]]
        np.testing.assert_array_equal(seen["policy"][1], [SEED + 1, 0])
        assert env.restart(np.zeros(4, bool))["policy"].shape == (4, 2)
        assert lab.restarts == [[1, 3]]
    with pytest.raises(NotImplementedError):
        hosts.isaaclab(KINDS["isaac"]()).restart(which)


def test_shorter_limits_and_random_first_ages(torch):
    env = hosts.training_environment(
        hosts.isaaclab(WaitingLab(MjlabConfig(auto_reset=False), [9] * 32)), 4
    )
    env.reset(0)
    ends = np.array([env.step(np.zeros((32, 1))).truncated for _ in range(12)])
    assert ends.any(1).all()
    assert (ends.sum(0) == 3).all()


def test_a_finite_horizon_terminates(torch):
    lab = Lab(IsaacConfig(compute_final_obs=True, is_finite_horizon=True), [2, 2])
    env = hosts.conform(hosts.isaaclab(lab))
    env.reset()
    env.step(np.zeros((2, 1)))
    timestep = env.step(np.zeros((2, 1)))
    assert timestep.terminated.all()
    assert not timestep.truncated.any()


def test_there_is_only_this_one_and_it_is_closed_once(torch):
    lab = KINDS["mjlab"]()
    env = hosts.isaaclab(lab)
    # Not even one as large: it would be the same, and evaluation would move what learning left.
    for size in (3, 4):
        with pytest.raises(NotImplementedError):
            env.sized(size)
    env.close()
    env.close()
    assert lab.closed == 1


def test_numbers_of_every_step_become_metrics(torch):
    lab = KINDS["isaac"](device="cuda:0")
    lab.lengths[:] = [3, 4, 5, 2]
    env = hosts.isaaclab(lab)
    # Not those that it says of ends, which stay in its log until the next end.
    assert set(env.metrics) == {"success", "Metrics/slip"}
    env.reset()
    for _ in range(4):
        timestep = env.step(np.zeros((4, 1)))
    assert timestep.metrics["success"].tolist() == [0, 1, 0, 1]
    assert timestep.metrics["Metrics/slip"].tolist() == [0.5] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_ends_are_metrics_if_asked_for_as_they_were_last_given(kind, torch):
    lab = KINDS[kind]()
    asked = ("Episode_Reward/alive", "nothing")
    env = hosts.isaaclab(lab, metrics=asked)
    # An instance ends in every step: what its log says of steps cannot be told from what it says of ends.
    assert env.metrics == ("success", *asked)
    lab.lengths[:] = [2, 3, 3, 4]
    env.reset()
    metrics = [env.step(np.zeros((4, 1))).metrics for _ in range(4)]
    alive = [step["Episode_Reward/alive"].tolist() for step in metrics]
    # One that waits says it when it is told to start anew, which is after its step.
    assert alive[1:] == ([[0] * 4] if kind in WAITING else [[9] * 4]) + [[9] * 4] * 2
    assert all(step["nothing"].tolist() == [0] * 4 for step in metrics)


def test_a_termination_called_success_is_a_metric(torch):
    lab = KINDS["isaac"]()
    terms = {"success_lift": lab.tensor("success"), "time_out": lab.tensor("success")}
    lab.termination_manager = SimpleNamespace(active_terms=list(terms), get_term=terms.get)
    env = hosts.isaaclab(lab)
    assert env.metrics[0] == "success_lift"
    assert "time_out" not in env.metrics
    env.reset()
    assert env.step(np.zeros((4, 1))).metrics["success_lift"].tolist() == [0, 0, 0, 1]


def test_what_nobody_sees_is_not_brought_over(torch):
    lab = KINDS["isaac"]()
    env = hosts.isaaclab(lab)
    looked = lab.camera.looked
    env.reset()
    env.step(np.zeros((4, 1)))
    assert lab.camera.looked == looked


@pytest.mark.parametrize(
    ("low", "high", "scale", "given", "arrives"),
    [
        (-np.inf, np.inf, 1.0, [0.5, -1.0], [0.5, -1.0]),
        (-np.inf, np.inf, 3.0, [0.5, -1.0], [1.5, -3.0]),
        (-np.inf, np.inf, [2.0, 4.0], [0.5, -1.0], [1.0, -4.0]),
        (0.0, 4.0, 1.0, [0.5, -1.0], [3.0, 0.0]),
        ((-np.inf, 0.0), (np.inf, 2.0), [5.0, 1.0], [0.5, 0.5], [2.5, 1.5]),
    ],
)
def test_actions_are_rescaled_to_their_bounds_or_by_the_scale(
    low, high, scale, given, arrives, torch
):
    lab = KINDS["isaac"](device="cuda:0")
    lab.single_action_space = box(low, high, (2,))
    env = hosts.isaaclab(lab, action_scale=scale)
    env.reset()
    env.step(np.tile(np.array(given, np.float32), (4, 1)))
    np.testing.assert_array_equal(lab.actions[-1], np.tile(np.float32(arrives), (4, 1)))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, [1.0, 2.0]])
def test_a_wrong_action_scale_is_refused(scale, torch):
    with pytest.raises(
        ValueError, match="action_scale is .*; it must be a positive number, or one"
    ):
        hosts.isaaclab(KINDS["isaac"](), action_scale=scale)


def test_an_action_scale_for_bounded_actions_is_refused(torch):
    lab = KINDS["isaac"]()
    lab.single_action_space = box(-2.0, 2.0, (1,))
    with pytest.raises(ValueError, match="has bounds of its own, from"):
        hosts.isaaclab(lab, action_scale=2.0)


def test_discrete_actions_are_refused(torch):
    lab = KINDS["isaac"]()
    lab.single_action_space = SimpleNamespace(n=3, shape=(), dtype=np.int64)
    with pytest.raises(ValueError, match="Lab has discrete actions"):
        hosts.isaaclab(lab)


class Renamed(Lab):
    """With other groups of observations."""

    groups = ("actor", "privileged")

    def observed(self, action=0.0):
        seen = super().observed(action)
        return dict(zip(self.groups, (seen["policy"], seen["critic"]), strict=False))


@pytest.mark.parametrize(
    ("groups", "named", "parts"),
    [
        (("actor", "privileged"), {}, ("actor", "privileged")),
        (("actor", "critic"), {}, ("actor", "critic")),
        (("policy",), {}, ("policy", "policy")),
        (("proprioception",), {}, ("proprioception", "proprioception")),
        (("policy", "teacher"), {"critic_part": "teacher"}, ("policy", "teacher")),
        (("policy", "critic"), {"critic_part": "policy"}, ("policy", "policy")),
        (("left", "right"), {"actor_part": "left"}, ("left", "left")),
        (("policy", "critic"), {"critic_part": "critic.ages"}, ("policy", "critic.ages")),
    ],
)
def test_groups_are_the_parts_of_actor_and_critic(groups, named, parts, torch):
    lab = Renamed(IsaacConfig(compute_final_obs=True), [5, 6])
    lab.groups = groups
    env = hosts.isaaclab(lab, **named)
    assert (env.actor_part, env.critic_part) == parts
    assert set(env.reset()) == set(parts)


def test_groups_of_no_known_name_must_be_named(torch):
    lab = Renamed(IsaacConfig(compute_final_obs=True), [5])
    lab.groups = ("left", "right")
    with pytest.raises(ValueError, match="observes the groups 'left', 'right', .* with actor_part"):
        hosts.isaaclab(lab)


def test_unflattened_groups_keep_their_terms(torch):
    env = hosts.isaaclab(Renamed(IsaacConfig(compute_final_obs=True), [1, 5]), flatten=False)
    env.reset(3)
    timestep = env.step(np.zeros((2, 1)))
    assert timestep.next_observation["privileged"]["ages"].tolist() == [[1], [1]]
    assert timestep.observation["privileged"]["ages"].tolist() == [[0], [1]]


@pytest.mark.parametrize(
    ("cfg", "remedy"),
    [
        (IsaacConfig(), r"set cfg.compute_final_obs = True\."),
        (MjlabConfig(), r"set cfg.auto_reset = False\."),
        (OldConfig(), "a version is needed that has cfg.compute_final_obs"),
    ],
)
def test_one_that_loses_the_successor_is_told_which_setting_keeps_it(cfg, remedy, torch):
    with pytest.raises(ValueError, match=f"the true successor is lost: {remedy}"):
        hosts.isaaclab(WaitingLab(cfg))


@pytest.mark.parametrize(
    ("cfg", "setting", "value"),
    [
        (IsaacConfig(), "auto_reset", False),
        (MjlabConfig(), "compute_final_obs", True),
        (OldConfig(), "compute_final_obs", True),
        (OldConfig(), "autoreset_mode", SimpleNamespace(name="DISABLED")),
    ],
)
def test_a_setting_that_a_version_does_not_know_keeps_nothing(cfg, setting, value, torch):
    setattr(cfg, setting, value)
    with pytest.raises(ValueError, match=f"cfg.{setting} is .* does not know that setting"):
        hosts.isaaclab(WaitingLab(cfg))


def test_one_that_waits_but_cannot_start_single_instances_is_refused(torch):
    with pytest.raises(ValueError, match="reset of Lab takes no env_ids"):
        hosts.isaaclab(Lab(MjlabConfig(auto_reset=False)))


def test_one_that_says_that_it_waits_and_does_not_is_found_out(torch):
    class Liar(WaitingLab):
        end = Lab.end

    env = hosts.isaaclab(Liar(MjlabConfig(auto_reset=False), [2, 5]))
    env.reset()
    env.step(np.zeros((2, 1)))
    with pytest.raises(ValueError, match="started instances anew by itself"):
        env.step(np.zeros((2, 1)))


def test_an_end_without_its_successor_is_found_out(torch):
    lab = Lab(SimpleNamespace(compute_final_obs=True), [2, 3])
    env = hosts.isaaclab(lab)
    env.reset()
    for _ in range(2):
        env.step(np.zeros((2, 1)))
    # A version that keeps only the first: what is left of it must not be taken for the second.
    lab.cfg.compute_final_obs = False
    with pytest.raises(ValueError, match=r"instances \[1\] ended, but extras has no 'final_obs'"):
        env.step(np.zeros((2, 1)))


@pytest.mark.parametrize("spoil", ["rows", "group", "objects"])
def test_a_successor_of_another_shape_is_refused(spoil, torch):
    class Spoiled(Lab):
        def end(self, over, action):
            super().end(over, action)
            final = self.extras["final_obs"]
            if spoil == "rows":  # only of those that ended
                final["policy"] = self.make(np.zeros((int(over.sum()), 2), np.float32))
            elif spoil == "group":
                del final["critic"]
            else:
                self.extras["final_obs"] = np.array([None, {"policy": np.zeros(2)}], object)

    env = hosts.isaaclab(Spoiled(IsaacConfig(compute_final_obs=True), [2, 3]))
    env.reset()
    env.step(np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"extras\['final_obs'\]"):
        env.step(np.zeros((2, 1)))


class RslRlVecEnvWrapper:
    """As Isaac Lab and mjlab wrap an environment for a training library."""

    def __init__(self, env):
        self.unwrapped, self.cfg, self.num_envs = env, env.cfg, env.num_envs


def test_a_training_librarys_wrapper_is_refused(torch):
    with pytest.raises(
        ValueError, match="env is a RslRlVecEnvWrapper of .*give the environment inside it"
    ):
        hosts.isaaclab(RslRlVecEnvWrapper(KINDS["mjlab"]()))


def test_another_interface_is_refused(torch):
    with pytest.raises(ValueError, match="env is a SimpleNamespace without reset, step, close"):
        hosts.isaaclab(SimpleNamespace(num_envs=3))
    lab = KINDS["isaac"]()
    lab.possible_agents = ["left", "right"]
    with pytest.raises(ValueError, match="Lab has several agents"):
        hosts.isaaclab(lab)

    class Four(Lab):
        def step(self, action):
            observation, reward, terminated, _, extras = super().step(action)
            return observation, reward, terminated, extras

    with pytest.raises(ValueError, match="Four: step gave 4 things, not the five"):
        hosts.isaaclab(Four(IsaacConfig(compute_final_obs=True)))


def test_gymnasiums_wrappers_are_stepped_through(torch):
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")

    class GymLab(ManagerLab, gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (4, 2))
        action_space = gymnasium.spaces.Box(-1, 1, (4, 1))

    class Doubled(gymnasium.Wrapper):
        def step(self, action):
            observation, reward, *rest = self.env.step(action)
            return observation, np.asarray(reward) * 2, *rest

    lab = GymLab(IsaacConfig(compute_final_obs=True), LENGTHS)
    lab.spec = gymnasium.envs.registration.EnvSpec("Isaac-Stub-v0", "nowhere:Lab")
    env = hosts.isaaclab(gymnasium.wrappers.OrderEnforcing(Doubled(lab)))
    assert env.name == "Isaac-Stub-v0"
    env.reset(SEED)
    assert env.step(np.zeros((4, 1))).reward.tolist() == [2, 2, 2, 2]
    assert env.can_restart
    assert env.restart(np.array([True, False, False, False]))["policy"][0].tolist() == [SEED + 1, 0]


@dataclasses.dataclass
class Term:
    history_length: int = 0


@pytest.mark.parametrize("where", ["group", "term"])
def test_histories_in_a_self_restarting_one_are_warned_of(where, torch):
    group = SimpleNamespace(history_length=3 if where == "group" else None, joints=Term())
    group.joints.history_length = 5 if where == "term" else 0
    cfg = IsaacConfig(compute_final_obs=True, observations=SimpleNamespace(policy=group))
    with pytest.warns(ReppoWarning, match="observes a history"):
        env = hosts.isaaclab(ManagerLab(cfg))
    assert not env.can_restart
    group.history_length = group.joints.history_length = 0
    assert hosts.isaaclab(ManagerLab(cfg)).can_restart
