"""Processes: the same numbers as in this one, tracebacks of those that fail, and nothing left running."""

import functools
import multiprocessing
import time

import jax
import numpy as np
import pytest

from reppo_fx import hosts
from reppo_fx.hosts import SimulatorError

from . import worlds


def stepped(env, steps=9):
    env.reset(3)
    rows = []
    for step in range(steps):
        rows.append(env.step(np.full((env.num_envs, env.action_size), 0.1 * step)))
        rows[-1] = jax.tree.map(np.array, rows[-1])
    return rows


def gone():
    for _ in range(50):
        if not multiprocessing.active_children():
            return True
        time.sleep(0.1)
    return False


def test_numbers_are_those_of_one_process_and_sizes_share_the_processes():
    here = hosts.gymnasium(worlds.Clock, 5)
    with hosts.parallel(worlds.clock, 2) as env:
        assert (env.num_envs, env.metrics) == (4, ("speed", "is_success"))
        five = env.sized(5)
        assert five.num_envs == 5
        for ours, theirs in zip(stepped(five), stepped(here), strict=True):
            jax.tree.map(np.testing.assert_array_equal, ours._asdict(), theirs._asdict())
        one_share = np.array([False, False, False, False, True])
        five.restart(one_share)
        ages = five.step(np.zeros((5, 2))).next_observation[:, 0]
        assert ages[4] == 1
        assert (ages[:4] > 0).all()
        five.close()
        assert len(multiprocessing.active_children()) == 2
        assert env.reset(0).shape == (4, 5)  # the other one is still there
    assert gone()


def test_a_gymnasium_env_and_a_function_without_a_name_will_do():
    with hosts.parallel(functools.partial(worlds.Clock, 3), 2) as env:
        assert env.num_envs == 2
        assert env.sized(3).reset(0).shape == (3, 5)
    assert gone()


def test_one_that_fails_is_reported_with_its_own_traceback():
    with hosts.parallel(worlds.Failing, 2) as env:
        with pytest.raises(
            SimulatorError, match=r"(?s)worker 1 of 2 failed.*worlds\.py.*gearbox is broken"
        ):
            stepped(env)
        assert gone()
        with pytest.raises(SimulatorError, match="have ended"):
            env.reset(0)


def test_one_that_dies_is_reported_with_its_exit_code():
    env = hosts.parallel(worlds.Dying, 2)
    with pytest.raises(SimulatorError, match="worker 1 of 2 died with exit code 9"):
        stepped(env)
    assert gone()


def test_what_cannot_be_sent_and_no_workers_are_sentences():
    with pytest.raises(ValueError, match="workers is 0"):
        hosts.parallel(worlds.clock, 0)
    lock = multiprocessing.Lock()
    with pytest.raises(ValueError, match="which cannot be sent to another process"):
        hosts.parallel(lambda: lock, 1)


def test_a_simulator_of_one_size_stays_so():
    with hosts.parallel(worlds.one_size, 2) as env:
        assert env.num_envs == 6
        with pytest.raises(NotImplementedError):
            env.sized(4)
        assert env.reset(0).shape == (6, 5)
