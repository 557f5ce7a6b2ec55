"""ManiSkill's adapter: around the ends of episodes against an instance stepped by hand, and on a fake.

The slow tests need ManiSkill; `benchmarks/environments/maniskill.sh` makes an environment that has it.
"""

import importlib.util
import logging
import sys
import types
from typing import ClassVar

import numpy as np
import pytest

from reppo_fx import hosts
from reppo_fx._errors import MissingExtraError
from reppo_fx.hosts import SimulatorError, conform, training_environment

from .sapien_stub import without_rendering


class FakeTensor:
    """A tensor whose memory the simulator writes to again."""

    def __init__(self, memory):
        self.memory, self.dtype = memory, memory.dtype

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        return self.memory


class FakeTask:
    """ManiSkill's `BaseEnv` by its documented shapes, as nasty as allowed: all its memory is reused.

    An observation is the start's seed, the steps since, and the last action; ends come at the steps of `PLANS`,
    one for each instance in the order in which they are built.
    """

    SUPPORTED_REWARD_MODES = ("normalized_dense", "sparse")
    PLANS: ClassVar = ({},)
    built: ClassVar[list["FakeTask"]]

    def __init__(self, num_envs, **options):
        first = sum(task.num_envs for task in type(self).built)
        type(self).built.append(self)
        plans = [self.PLANS[(first + i) % len(self.PLANS)] for i in range(num_envs)]
        self.num_envs, self.options, self.plans = num_envs, options, plans
        self.device = "cuda:0"
        self.reconfiguration_freq = options.get("reconfiguration_freq", 0)
        low, high = np.array([0.0, -1.0], np.float32), np.array([4.0, 1.0], np.float32)
        self.single_action_space = types.SimpleNamespace(low=low, high=high, dtype=np.float32)
        self.seeds, self.starts, self.closed = [], [], 0
        self.steps = np.zeros(num_envs, np.int32)
        self.observation = np.zeros((num_envs, 4), np.float32)
        self.reward = np.zeros(num_envs, np.float32)
        self.flags = {k: np.zeros(num_envs, bool) for k in ("success", "fail", "fallen")}
        self.far = np.zeros(num_envs, np.float32)
        self.reset([2022] * num_envs, {})
        self.seeds.clear()

    def reset(self, seed, options):
        assert len(seed) == self.num_envs
        which = np.asarray(options.get("env_idx", range(self.num_envs)))
        self.seeds.append(list(seed))
        self.starts.append(which.tolist())
        self.steps[which] = 0
        self.observation[which] = 0
        self.observation[which, 0] = np.asarray(seed)[which] % 1000
        return FakeTensor(self.observation), self.info() | {"reconfigure": False}

    def step(self, action):
        assert action.shape == (self.num_envs, 2)
        assert action.dtype == np.float32
        self.steps += 1
        self.observation[:, 1] = self.steps
        self.observation[:, 2:] = action
        self.reward[:] = self.steps
        self.far[:] = 10 * self.steps
        for key, flag in self.flags.items():
            for i, plan in enumerate(self.plans):
                flag[i] = self.steps[i] in plan.get(key, ())
        info = self.info() | {"from_reward": FakeTensor(self.reward)}
        ended = np.logical_or.reduce(list(self.flags.values()))
        never = FakeTensor(np.zeros(self.num_envs, bool))
        return FakeTensor(self.observation), FakeTensor(self.reward), FakeTensor(ended), never, info

    def info(self):
        own = {k: FakeTensor(self.flags[k]) for k in ("success", "fail")}
        vector = FakeTensor(np.zeros((self.num_envs, 3), np.float32))
        far = FakeTensor(self.far)
        # PullCubeTool has a number of this name, of this step alone.
        own["success_once"] = own["success"]
        return {"elapsed_steps": FakeTensor(self.steps), "far": far, "where": vector, **own}

    def close(self):
        self.closed += 1


def registered(cls, length=5):
    return types.SimpleNamespace(cls=cls, max_episode_steps=length, make=lambda **k: cls(**k))


@pytest.fixture
def fake(monkeypatch):
    """A fake ManiSkill of one task; gives the task's class, a fresh one."""

    class Task(FakeTask):
        built: ClassVar[list[FakeTask]] = []

    modules = {
        "mani_skill": {"logger": logging.getLogger("fake")},
        "mani_skill.envs": {},
        "mani_skill.utils.registration": {"REGISTERED_ENVS": {"Fake-v1": registered(Task)}},
        "mani_skill.utils.download_asset": {"prompt_yes_no": lambda message: pytest.fail(message)},
        "torch": {
            "cuda": types.SimpleNamespace(device_count=lambda: 1),
            "as_tensor": lambda ids, device: {"cuda:0": ids}[device],
        },
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return Task


def still(env):
    return env.step(np.zeros((env.num_envs, env.action_size)))


def plain(tree):
    return np.asarray(tree).tolist()


def test_what_is_read_of_a_task(fake):
    env = hosts.maniskill("Fake-v1", 3)
    assert (env.name, env.num_envs, env.action_size, env.episode_length) == ("Fake-v1", 3, 2, 5)
    assert env.observation.shape == (4,)
    # Neither vectors nor bookkeeping, but also what comes with the reward alone.
    assert sorted(env.metrics) == ["fail", "far", "from_reward", "success", "success_once"]
    assert fake.built[0].options == {
        "obs_mode": "state",
        "reward_mode": "normalized_dense",
        "sim_backend": "physx_cpu",
    }
    env.reset(0)
    assert plain(still(env).metrics["far"]) == [10, 10, 10]


def test_actions_reach_the_task_in_its_own_range(fake):
    env = hosts.maniskill("Fake-v1", 1)
    env.reset(0)
    assert plain(env.step(np.array([[-1.0, 0.5]])).observation[0, 2:]) == [0, 0.5]
    assert plain(env.step(np.array([[0.5, 3.0]])).observation[0, 2:]) == [3, 1]


@pytest.mark.parametrize("success", ["terminate", "truncate", "continue"])
def test_what_a_success_does(fake, success):
    fake.PLANS = ({"success": [2]}, {})
    env = hosts.maniskill("Fake-v1", 2, success=success)
    starts = env.reset(0)
    first, second = still(env), still(env)
    assert not first.ended.any()
    assert plain(second.terminated) == [success == "terminate", False]
    assert plain(second.truncated) == [success == "truncate", False]
    assert plain(second.metrics["success"]) == plain(second.metrics["success_once"]) == [1, 0]
    assert plain(second.next_observation[:, :2]) == [[starts[0, 0], 2], [starts[1, 0], 2]]
    third = still(env)
    if success == "continue":
        assert plain(second.observation) == plain(second.next_observation)
        assert plain(third.metrics["success"]) == [0, 0]
        assert plain(third.metrics["success_once"]) == [1, 0]
        assert plain(third.next_observation[:, 1]) == [3, 3]
        assert [still(env).truncated.tolist(), still(env).truncated.tolist()] == [
            [False, False],
            [True, True],
        ]
        assert plain(still(env).metrics["success_once"]) == [0, 0]
    else:
        assert second.observation[0, 1] == 0
        assert second.observation[0, 0] != starts[0, 0]
        assert plain(second.observation[1]) == plain(second.next_observation[1])
        assert plain(third.metrics["success_once"]) == [0, 0]
        assert plain(third.next_observation[:, 1]) == [1, 3]
        assert plain(third.next_observation[:, 0]) == [second.observation[0, 0], starts[1, 0]]


def test_a_success_cuts_the_episode_if_nothing_is_said(fake):
    fake.PLANS = ({"success": [1]},)
    env = hosts.maniskill("Fake-v1", 1)
    env.reset(0)
    timestep = still(env)
    assert (plain(timestep.terminated), plain(timestep.truncated)) == ([False], [True])


@pytest.mark.parametrize("success", ["terminate", "truncate", "continue"])
def test_a_failure_terminates_whatever_a_success_does(fake, success):
    fake.PLANS = ({"fail": [1]}, {"fail": [1], "success": [1]}, {"fallen": [1]})
    env = conform(hosts.maniskill("Fake-v1", 3, success=success))
    env.reset(0)
    timestep = still(env)
    assert plain(timestep.terminated) == [True, True, True]
    assert plain(timestep.truncated) == [False, False, False]
    assert plain(timestep.observation[:, 1]) == [0, 0, 0]


def test_an_end_at_the_time_limit_has_both_flags_and_is_for_good(fake):
    fake.PLANS = ({"success": [5]}, {})
    env = hosts.maniskill("Fake-v1", 2, success="terminate")
    env.reset(0)
    timestep = [still(env) for _ in range(5)][-1]
    assert plain(timestep.terminated) == [True, False]
    assert plain(timestep.truncated) == [True, True]
    env.reset(0)
    held = conform(env)
    timestep = [still(held) for _ in range(5)][-1]
    assert plain(timestep.terminated) == [True, False]
    assert plain(timestep.truncated) == [False, True]


def test_an_episode_can_be_longer_or_shorter_than_registered(fake):
    for length in (1, 7):
        env = hosts.maniskill("Fake-v1", 1, episode_length=length)
        env.reset(0)
        ends = [bool(still(env).truncated[0]) for _ in range(2 * length)]
        assert np.flatnonzero(ends).tolist() == [length - 1, 2 * length - 1]
        assert env.episode_length == length


def test_a_task_without_a_time_limit_has_none(fake):
    registry = sys.modules["mani_skill.utils.registration"].REGISTERED_ENVS
    registry["Endless-v1"] = registered(fake, None)
    env = hosts.maniskill("Endless-v1", 1)
    env.reset(0)
    assert env.episode_length is None
    assert not any(still(env).ended[0] for _ in range(20))


def test_nothing_that_is_kept_changes_with_the_next_call(fake):
    env = hosts.maniskill("Fake-v1", 2)
    start = env.reset(0)
    kept = [start]
    for _ in range(6):  # over an end
        timestep = still(env)
        kept += [timestep.observation, timestep.next_observation, timestep.reward]
        kept += [timestep.terminated, timestep.truncated, *timestep.metrics.values()]
    copies = [np.array(array) for array in kept]
    for _ in range(6):
        still(env)
    env.reset(1)
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_seed_fixes_all_starts_of_every_instance_by_itself(fake):
    fake.PLANS = ({"success": [2]}, {}, {"success": [3]})
    env = hosts.maniskill("Fake-v1", 3)

    def starts(seed, plans):
        for simulation, plan in zip(fake.built, plans, strict=True):
            simulation.plans = [plan]
            simulation.seeds.clear()
        env.reset(seed)
        for _ in range(12):
            still(env)
        return [[s for (s,) in simulation.seeds] for simulation in fake.built]

    env.reset(0)
    first, again, other = (starts(seed, fake.PLANS) for seed in (3, 3, 4))
    assert first == again
    everything = [seed for seeds in (*first, *other) for seed in seeds]
    assert len(set(everything)) == len(everything)
    assert len(first[0]) == 7
    assert len(first[1]) == 3
    # When the others end changes nothing.
    assert starts(3, ({}, {}, {}))[1] == first[1]
    assert starts(3, ({"success": [1]}, {}, {}))[0][:7] == first[0]


def test_a_reset_without_a_seed_goes_on(fake):
    env = hosts.maniskill("Fake-v1", 2)
    env.reset(0)
    env.reset()
    seeds = [s for simulation in fake.built for (s,) in simulation.seeds]
    assert len(set(seeds)) == 4
    assert None not in seeds


def test_only_what_ended_starts_anew(fake):
    fake.PLANS = ({"success": [2]}, {})
    env = hosts.maniskill("Fake-v1", 2)
    env.reset(0)
    for simulation in fake.built:
        simulation.starts.clear()
    still(env), still(env)
    assert [len(simulation.starts) for simulation in fake.built] == [1, 0]


def test_instances_are_built_when_they_are_needed_and_closed_once(fake):
    env = hosts.maniskill("Fake-v1", 3)
    assert len(fake.built) == 1
    env.reset(0), env.reset(0)
    assert len(fake.built) == 3
    larger = env.sized(4)
    larger.reset(0)
    assert (larger.num_envs, larger.name, len(fake.built)) == (4, "Fake-v1", 7)
    env.close(), env.close()
    assert [simulation.closed for simulation in fake.built] == [1, 1, 1, 0, 0, 0, 0]
    assert env.reset(0).shape == (3, 4)
    still(larger)


def test_another_size_keeps_what_was_said(fake):
    fake.PLANS = ({"success": [1]},)
    env = hosts.maniskill("Fake-v1", 1, success="terminate", episode_length=3, reward_mode="sparse")
    other = env.sized(2)
    other.reset(0)
    assert fake.built[-1].options["reward_mode"] == "sparse"
    assert other.episode_length == 3
    assert plain(still(other).terminated) == [True, True]


def test_on_cuda_all_instances_are_one_simulation(fake):
    fake.PLANS = ({}, {"success": [2]}, {"success": [2]})
    env = hosts.maniskill("Fake-v1", 3, sim_backend="physx_cuda")
    (simulation,) = fake.built
    assert simulation.num_envs == 3
    starts = env.reset(7)
    timestep = [still(env), still(env)][-1]
    assert simulation.starts[-2:] == [[0, 1, 2], [1, 2]]
    assert plain(timestep.truncated) == [False, True, True]
    assert plain(timestep.next_observation[:, :2]) == [[starts[i, 0], 2] for i in range(3)]
    assert plain(timestep.observation[:, 1]) == [2, 0, 0]
    # Its starts come from the first seed, whichever instances they are of.
    assert len({seed for seeds in simulation.seeds for seed in seeds}) == 6
    before = [list(seeds) for seeds in simulation.seeds]
    simulation.seeds.clear()
    env.reset(7), still(env), still(env)
    assert simulation.seeds == before
    with pytest.raises(ValueError, match="reconfiguration_freq=0"):
        hosts.maniskill("Fake-v1", 2, sim_backend="physx_cuda", reconfiguration_freq=1)


def test_it_holds_in_the_stack_that_training_uses(fake):
    fake.PLANS = ({"success": [3]}, {})
    env = training_environment(hosts.maniskill("Fake-v1", 2), 4)
    env.reset(0)
    ends = np.stack([still(env).ended for _ in range(12)])
    assert ends[:, 0].sum() >= 4
    assert ends[:, 1].sum() == 3


def test_a_simulator_that_fails_is_one_sentence(fake, monkeypatch):
    env = conform(hosts.maniskill("Fake-v1", 2))
    env.reset(0)

    def broken(action):
        raise RuntimeError("PhysX lost its way")

    monkeypatch.setattr(fake.built[1], "step", broken)
    with pytest.raises(SimulatorError, match="Fake-v1 failed in step: RuntimeError: PhysX lost"):
        still(env)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n": 0}, "n is 0"),
        ({"success": "stop"}, "success is 'stop'; it must be 'terminate' or 'truncate' or 'cont"),
        ({"episode_length": 0}, "episode_length is 0"),
        ({"sim_backend": "gpu"}, "sim_backend is 'gpu'; it must be 'physx_cpu' or 'physx_cuda'"),
        ({"sim_backend": "physx_cpu:1"}, "sim_backend is 'physx_cpu:1'"),
        ({"reward_mode": "dense"}, "reward_mode is 'dense', but Fake-v1 has 'normalized_dense' or"),
        ({"name": "fake-v2"}, "unknown ManiSkill task 'fake-v2'; did you mean 'Fake-v1'"),
        ({"obs_mode": "rgb"}, "obs_mode is 'rgb', but it is not to be set here"),
        ({"max_episode_steps": 9}, "max_episode_steps is 9, .* give episode_length"),
        ({"num_envs": 4}, "num_envs is 4, .* give n"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(fake, unchecked_annotations, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        hosts.maniskill(**{"name": "Fake-v1", **arguments})


def test_no_instances_is_no_size(fake):
    with pytest.raises(ValueError, match="num_envs is 0"):
        hosts.maniskill("Fake-v1", 1).sized(0)


def test_discrete_actions_are_refused_and_the_simulation_is_closed(fake, monkeypatch):
    init = fake.__init__

    def discrete(self, **options):
        init(self, **options)
        self.single_action_space = types.SimpleNamespace(n=3)

    monkeypatch.setattr(fake, "__init__", discrete)
    with pytest.raises(ValueError, match="Fake-v1 has discrete actions"):
        hosts.maniskill("Fake-v1", 1)
    assert fake.built[0].closed == 1


def fails_to_build(fake, monkeypatch, error):
    def make(**options):
        raise error

    registry = sys.modules["mani_skill.utils.registration"].REGISTERED_ENVS
    monkeypatch.setattr(registry["Fake-v1"], "make", make)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (whole sentences are compared)
        hosts.maniskill("Fake-v1", 1)
    return str(caught.value)


@pytest.mark.parametrize(
    "message",
    ["failed to find a rendering device", "vk::createInstanceUnique: ErrorIncompatibleDriver"],
)
def test_a_machine_that_cannot_render_is_told_so(fake, monkeypatch, message):
    told = fails_to_build(fake, monkeypatch, RuntimeError(message))
    assert told == (
        "Fake-v1 could not be built: ManiSkill needs a rendering device (a GPU with its Vulkan driver) even where "
        f"only states are observed, and found none here ({message})."
    )


def test_any_other_failure_to_build_is_one_sentence(fake, monkeypatch):
    told = fails_to_build(fake, monkeypatch, TypeError("unexpected keyword\n   argument 'foo'"))
    assert told == "Fake-v1 could not be built: TypeError: unexpected keyword argument 'foo'"


QUESTIONS = {
    "Environment Fake-v1 requires asset(s) ycb which could not be found": "Fake-v1",
    "Robot spot has assets available for download": "spot",
}


@pytest.mark.parametrize("question", QUESTIONS, ids=["task", "robot"])
def test_a_task_that_asks_for_a_download_is_refused_without_a_question(
    fake, monkeypatch, capsys, question
):
    def make(**options):
        print("Could not find something")
        if not assets.prompt_yes_no(f"{question}. Would you like to download them now?"):
            sys.exit()
        return fake(**options)

    assets = sys.modules["mani_skill.utils.download_asset"]
    registry = sys.modules["mani_skill.utils.registration"].REGISTERED_ENVS
    monkeypatch.setattr(registry["Fake-v1"], "make", make)
    own = assets.prompt_yes_no
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole sentence is compared)
        hosts.maniskill("Fake-v1", 1)
    assert str(caught.value) == (
        f"Fake-v1 needs files that are not on this machine ({question}); get them with: "
        f"python -m mani_skill.utils.download_asset {QUESTIONS[question]}"
    )
    assert assets.prompt_yes_no is own
    assert capsys.readouterr().out == ""
    # Who has said yes beforehand, in ManiSkill's own way, is not refused.
    monkeypatch.setattr(assets, "prompt_yes_no", lambda message: question in message)
    monkeypatch.setenv("MS_SKIP_ASSET_DOWNLOAD_PROMPT", "1")
    assert hosts.maniskill("Fake-v1", 1).reset(0).shape == (1, 4)


def test_a_task_that_ends_the_process_is_refused_instead(fake, monkeypatch):
    def make(**options):
        print("Exiting as assets for robot spot are not found.")
        sys.exit()

    registry = sys.modules["mani_skill.utils.registration"].REGISTERED_ENVS
    monkeypatch.setattr(registry["Fake-v1"], "make", make)
    with pytest.raises(ValueError, match="ManiSkill says: Exiting as assets for robot spot are"):
        hosts.maniskill("Fake-v1", 1)


def test_a_reward_that_is_not_implemented_is_named(fake, monkeypatch):
    def step(self, action):
        raise NotImplementedError

    monkeypatch.setattr(fake, "step", step)
    sentence = "reward_mode is 'normalized_dense', but Fake-v1 does not implement it; try 'sparse'"
    with pytest.raises(ValueError, match=sentence):
        hosts.maniskill("Fake-v1", 1)


def test_cuda_is_refused_where_there_is_none(fake, monkeypatch):
    monkeypatch.setattr(sys.modules["torch"].cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="sim_backend is 'physx_cuda:1', but PyTorch sees no CUDA"):
        hosts.maniskill("Fake-v1", 2, sim_backend="physx_cuda:1")


@pytest.mark.parametrize(
    ("missing", "version", "sentence"),
    [
        ("mani_skill", (3, 12, 4), r"ManiSkill is not installed; .*'reppo_fx\[maniskill\]'"),
        ("mani_skill", (3, 13, 1), "runs on Python 3.12 and older, and this is Python 3.13;"),
        ("torch", (3, 12, 4), "ManiSkill needs PyTorch, .*: pip install torch"),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, missing, version, sentence):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr("importlib.import_module", absent)
    monkeypatch.setattr(sys, "version_info", version)
    for call in (lambda: hosts.maniskill("PickCube-v1"), hosts.maniskill_names):
        with pytest.raises(MissingExtraError, match=sentence):
            call()


def test_a_broken_installation_shows_its_own_error(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'mplib'", name="mplib")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="mplib"):
        hosts.maniskill("PickCube-v1")


def test_names_are_those_of_the_registry(fake):
    assert hosts.maniskill_names() == ("Fake-v1",)


# The real one.

INSTALLED = importlib.util.find_spec("mani_skill") is not None
REAL = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not INSTALLED,
        reason="ManiSkill is not installed; benchmarks/environments/maniskill.sh makes an environment that has it.",
    ),
    # Of packages that it brings, while they are imported.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def real(test):
    for mark in REAL:
        test = mark(test)
    return test


@pytest.fixture
def rendering(monkeypatch):
    """As ManiSkill is, where it can render; else without materials and visuals."""
    try:
        hosts.maniskill("PickCube-v1", 1).close()
    except ValueError as error:
        if "needs a rendering device" not in str(error):
            raise
        without_rendering(monkeypatch)


LIMIT = 6


def place_cube(name, simulation):
    """Put the cube where the task wants it, so that the next step is a success."""
    pick = name == "PickCube-v1"
    cube, goal = (
        (simulation.cube, simulation.goal_site)
        if pick
        else (simulation.obj, simulation.goal_region)
    )
    cube.set_pose(goal.pose)
    cube.set_linear_velocity(np.zeros(3))


def by_hand(name, plan, actions, seeds, success):
    """One instance, stepped and restarted as gymnasium's own examples do it."""
    gymnasium = importlib.import_module("gymnasium")
    env = gymnasium.make(
        name,
        num_envs=1,
        obs_mode="state",
        reward_mode="normalized_dense",
        max_episode_steps=LIMIT,
    )
    seeds = iter(seeds)
    rows, once = [], False
    start, _ = env.reset(seed=next(seeds))
    for step, action in enumerate(actions):
        if step in plan:
            place_cube(name, env.unwrapped)
        successor, reward, terminated, truncated, info = env.step(action)
        succeeded = bool(info["success"])
        assert bool(terminated) == succeeded
        once |= succeeded
        flags = {
            "terminate": (succeeded, bool(truncated)),
            "truncate": (False, bool(truncated) or succeeded),
            "continue": (False, bool(truncated)),
        }[success]
        observation = successor
        successor = successor.numpy().copy()
        numbers = {k: float(v) for k, v in info.items() if k != "elapsed_steps"}
        if any(flags):
            observation, _ = env.reset(seed=next(seeds))
        row = (observation.numpy()[0].copy(), successor[0], float(reward), *flags)
        rows.append((*row, numbers | {"success_once": float(once)}))
        once &= not any(flags)
    env.close()
    return start.numpy()[0], rows


@real
@pytest.mark.parametrize("success", ["terminate", "truncate", "continue"])
@pytest.mark.parametrize("name", ["PickCube-v1", "PullCube-v1"])
def test_around_the_ends_it_is_one_instance_stepped_by_hand(rendering, name, success):
    env = hosts.maniskill(name, 2, success=success, episode_length=LIMIT)
    env.reset(5)
    seeds = [[], []]
    for simulation, kept in zip(env._simulations, seeds, strict=True):
        own = simulation.reset
        simulation.reset = lambda seed, options, own=own, kept=kept: (
            kept.append(seed) or own(seed=seed, options=options)
        )
    start = env.reset(6)
    plans = [(3, 9), (4, 5)]  # also at the time limit, and at the first step of an episode
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (15, 2, env.action_size))
    actions[[3, 4, 5, 9]] = 0  # a robot that moves has not yet picked
    given = []
    for step, action in enumerate(actions):
        for simulation, plan in zip(env._simulations, plans, strict=True):
            if step in plan:
                place_cube(name, simulation)
        given.append(env.step(action))
    ends = np.stack([timestep.ended for timestep in given])
    successes = np.stack([timestep.metrics["success"] for timestep in given])
    assert all(successes[step, i] == 1 for i, plan in enumerate(plans) for step in plan)
    expected = [(5, 11), (5, 11)] if success == "continue" else [(3, 9), (4, 5, 11)]
    assert [tuple(np.flatnonzero(ends[:, i])) for i in range(2)] == expected
    for i in range(2):
        first, rows = by_hand(name, plans[i], actions[:, i], [s for (s,) in seeds[i]], success)
        np.testing.assert_array_equal(start[i], first)
        for timestep, row in zip(given, rows, strict=True):
            observation, successor, reward, terminated, truncated, numbers = row
            np.testing.assert_array_equal(timestep.observation[i], observation)
            np.testing.assert_array_equal(timestep.next_observation[i], successor)
            assert timestep.reward[i] == np.float32(reward)
            assert (timestep.terminated[i], timestep.truncated[i]) == (terminated, truncated)
            assert {k: float(v[i]) for k, v in timestep.metrics.items()} == numbers


@real
def test_a_seed_repeats_a_whole_run_and_nothing_kept_changes(rendering):
    env = hosts.maniskill("PickCube-v1", 2, episode_length=4)
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 2, env.action_size))

    def run(seed):
        kept = [env.reset(seed)]
        for action in actions:
            timestep = env.step(action)
            kept += [timestep.observation, timestep.next_observation, timestep.reward]
        return kept

    first = run(3)
    copies = [np.array(array) for array in first]
    importlib.import_module("torch").rand(7)  # whoever else draws changes nothing
    again, other = run(3), run(4)
    for array, copy, repeated in zip(first, copies, again, strict=True):
        np.testing.assert_array_equal(array, copy)
        np.testing.assert_array_equal(array, repeated)
    assert not np.array_equal(first[0][0], first[0][1])
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], first[3 * 4 - 2])  # the second episode's start


@real
def test_a_robot_can_be_controlled_in_another_way(rendering):
    env = hosts.maniskill("PickCube-v1", 1, control_mode="pd_ee_delta_pos", success="continue")
    env.reset(0)
    assert env.action_size == 4
    assert np.isfinite(still(env).observation).all()


@real
def test_without_a_rendering_device_there_is_one_sentence():
    try:
        hosts.maniskill("PullCube-v1", 1).close()
    except ValueError as error:
        told = str(error)
    else:
        pytest.skip("this machine has a rendering device")
    assert told.startswith("PullCube-v1 could not be built: ManiSkill needs a rendering device")


@real
def test_a_task_that_needs_a_download_says_how_to_get_it(monkeypatch, tmp_path):
    assets = importlib.import_module("mani_skill.utils.assets.data")
    for source in assets.DATA_SOURCES.values():
        monkeypatch.setattr(source, "output_dir", tmp_path)
    with pytest.raises(ValueError, match="download_asset PickSingleYCB-v1") as caught:
        hosts.maniskill("PickSingleYCB-v1", 1)
    assert "requires asset(s) ycb" in str(caught.value)


@real
def test_what_is_registered_is_listed():
    names = hosts.maniskill_names()
    assert {"PickCube-v1", "PullCube-v1", "UnitreeG1TransportBox-v1"} <= set(names)
