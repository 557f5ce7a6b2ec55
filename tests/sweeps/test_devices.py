"""Members and environments over 8 virtual devices, and over 2 processes: the results of one device."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes

from ..sizes import TINY, tiny

ROOT = Path(__file__).parents[2]


def start(*arguments):
    command = [sys.executable, "-m", "tests.sweeps.devices_worker", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(*processes):
    for process in processes:
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output.decode()[-3000:]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "result.npz"
    finish(start(path, 1))
    return dict(np.load(path))


def assert_same(path, expected):
    found = np.load(path)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_eight_devices_give_the_results_of_one(one_device, tmp_path):
    finish(start(tmp_path / "result.npz", 8))
    assert_same(tmp_path / "result.npz", one_device)


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(one_device, tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    finish(*(start(tmp_path / "result.npz", 2, rank, 2, port) for rank in range(2)))
    assert_same(tmp_path / "result.npz", one_device)


class FakeMesh:
    """Only its size matters before anything is placed."""

    size = 3


def test_devices_that_do_not_divide_are_named(unchecked_annotations):
    train = rx.make_train(probes.match_observation(), TINY)
    with pytest.raises(ValueError, match="num_envs is 4; the 3 devices must divide it evenly"):
        rx.spread_environments(train, FakeMesh())
    space = {"discount": rx.uniform(0.8, 0.9)}
    with pytest.raises(ValueError, match="num_members is 4; the 3 devices must divide it evenly"):
        rx.make_population(train, space, num_members=4, mesh=FakeMesh())
    train = rx.make_train(probes.match_observation(), tiny(num_envs=6, num_minibatches=3))
    with pytest.raises(ValueError, match="the minibatch is 16; the 3 devices"):
        rx.spread_environments(train, FakeMesh())


def test_a_spread_run_on_one_device_is_the_run():
    train = rx.make_train(probes.match_observation(), TINY)
    run = rx.spread_environments(train, jax.make_mesh((1,), ("devices",)))
    key, settings = jax.random.key(0), rx.Hyperparameters(discount=0.9)
    _, spread = run.round(run.init(key, settings))
    state = jax.jit(train.init)(key, settings)
    _, alone = jax.jit(train.round)(state)
    np.testing.assert_allclose(spread.eval_return, alone.eval_return, rtol=1e-4)
    _, once = run.iteration(run.init(key, settings))
    _, alone_once = jax.jit(train.iteration)(state)
    np.testing.assert_allclose(once.learner.q_value, alone_once.learner.q_value, rtol=1e-4)
