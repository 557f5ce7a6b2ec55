"""mjlab on Warp's CPU device: the contract, against environments that are stepped by hand."""

import importlib
import importlib.util

import numpy as np
import pytest

from reppo_fx import hosts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("mjlab") is None,
        reason="mjlab is not installed; benchmarks/environments/mjlab.sh makes an environment with it",
    ),
]
TASK = "Mjlab-Cartpole-Balance"
LIMIT, ENDS = (
    5,
    [3, 4, 5, 99],
)  # the third ends for good when its time is over, the last by time alone
STEPS, SEED = 12, 3


def made(auto_reset=False, ends=ENDS, limit=LIMIT):
    import torch

    registry = importlib.import_module("mjlab.tasks.registry")
    importlib.import_module("mjlab.tasks")
    envs = importlib.import_module("mjlab.envs")
    terms = importlib.import_module("mjlab.managers.termination_manager")
    cfg = registry.load_env_cfg(TASK)
    cfg.scene.num_envs, cfg.seed, cfg.auto_reset = len(ends), 0, auto_reset
    cfg.episode_length_s = limit * cfg.decimation * cfg.sim.mujoco.timestep
    cfg.terminations["success"] = terms.TerminationTermCfg(
        func=lambda env: env.episode_length_buf >= torch.tensor(ends)
    )
    return envs.ManagerBasedRlEnv(cfg, device="cpu")


def actions():
    return np.random.default_rng(0).uniform(-1, 1, (STEPS, len(ENDS), 1)).astype(np.float32)


def by_hand(env):
    """Start, and (successor, observation, reward, terminated, truncated) of every step."""
    import torch

    copied = lambda seen: {group: tensor.clone().numpy() for group, tensor in seen.items()}
    start, steps = copied(env.reset(seed=SEED)[0]), []
    for action in actions():
        seen, reward, terminated, truncated, _ = env.step(torch.tensor(action))
        successor, flags = copied(seen), (terminated.clone().numpy(), truncated.clone().numpy())
        reward, observation = reward.clone().numpy(), {k: v.copy() for k, v in successor.items()}
        ended = flags[0] | flags[1]
        if ended.any():
            fresh = copied(env.reset(env_ids=torch.tensor(np.flatnonzero(ended)))[0])
            for group in observation:
                observation[group][ended] = fresh[group][ended]
        steps.append((successor, observation, reward, *flags))
    return start, steps


@pytest.fixture(scope="module")
def rollout():
    env = hosts.isaaclab(made())
    start = env.reset(SEED)
    return env, start, [env.step(action) for action in actions()]


def test_facts_are_those_of_the_task(rollout):
    env, start, _ = rollout
    assert (env.num_envs, env.action_size, env.episode_length) == (4, 1, LIMIT)
    assert (env.actor_part, env.critic_part) == ("actor", "critic")
    assert env.observation["actor"].shape == start["actor"].shape[1:] == (5,)
    assert env.metrics == ("success",)
    assert env.can_restart


def test_every_number_around_an_end_is_the_one_by_hand(rollout):
    _, start, taken = rollout
    hand_start, hand = by_hand(made())
    for group in start:
        np.testing.assert_array_equal(start[group], hand_start[group])
    for mine, (successor, observation, reward, terminated, truncated) in zip(
        taken, hand, strict=True
    ):
        for group in start:
            np.testing.assert_array_equal(mine.next_observation[group], successor[group])
            np.testing.assert_array_equal(mine.observation[group], observation[group])
        np.testing.assert_array_equal(mine.reward, reward)
        np.testing.assert_array_equal(mine.terminated, terminated)
        np.testing.assert_array_equal(mine.truncated, truncated)
        np.testing.assert_array_equal(mine.metrics["success"], terminated)


def test_instances_end_at_their_own_times_and_both_flags_come_as_they_are(rollout):
    _, _, taken = rollout
    terminated = np.array([step.terminated for step in taken])
    truncated = np.array([step.truncated for step in taken])
    for index, end in enumerate(ENDS):
        length = min(end, LIMIT)
        over = np.arange(1, STEPS + 1) % length == 0
        np.testing.assert_array_equal(terminated[:, index], over & (end <= LIMIT))
        np.testing.assert_array_equal(truncated[:, index], over & (end >= LIMIT))


def test_the_successor_is_what_one_that_does_not_end_shows(rollout):
    _, start, taken = rollout
    endless = hosts.isaaclab(made(ends=[99] * 4, limit=1000))
    np.testing.assert_array_equal(endless.reset(SEED)["actor"], start["actor"])
    going_on = [endless.step(action) for action in actions()[:LIMIT]]
    for index, end in enumerate(ENDS):
        last = min(end, LIMIT) - 1
        successor = taken[last].next_observation["actor"][index]
        np.testing.assert_array_equal(successor, going_on[last].observation["actor"][index])
        assert (taken[last].observation["actor"][index] != successor).any()


def test_one_that_restarts_by_itself_and_the_wrapper_of_a_library_are_refused():
    env = made(auto_reset=True)
    with pytest.raises(ValueError, match=r"set cfg.auto_reset = False\."):
        hosts.isaaclab(env)
    env.cfg.auto_reset = False
    wrapper = importlib.import_module("mjlab.rl").RslRlVecEnvWrapper(env)
    with pytest.raises(ValueError, match="env is a RslRlVecEnvWrapper of mjlab"):
        hosts.isaaclab(wrapper)


def test_limits_of_ours_and_containment_work_with_it():
    env = hosts.training_environment(hosts.isaaclab(made(ends=[99] * 8, limit=20)), 4)
    env.reset(SEED)
    ends = np.array([env.step(np.zeros((8, 1))).truncated for _ in range(12)])
    assert (ends.sum(0) == 3).all()
    assert len(set(ends.argmax(0).tolist())) > 1
