"""Runs on simulators from the command line: their files, resuming, failures, kills, and what can be listed."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.run import cli, load_policy, worlds
from reppo_fx.run.warned import read_warnings

from ..hosts import worlds as simulators
from ..hosts.nasty import Nasty
from ..sizes import first_quick
from .test_run import TINY, rows

ROOT = Path(__file__).parents[2]
PENDULUM = "gymnasium:Pendulum-v1"
TOY = [*TINY, "--v-min", "-100", "--v-max", "0"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What a policy sees, and what it gives of five.
TASKS = {
    "envpool:Pendulum-v1": (3, (5, 1)),
    "gymnasium:CartPole-v1": (4, (5,)),
    PENDULUM: (3, (5, 1)),
}


@pytest.mark.parametrize("task", first_quick(TASKS, 2))
def test_it_trains_is_evaluated_goes_on_and_says_that_episodes_start_anew(folder, capsys, task):
    assert cli.main(["train", task, *TOY]) == 0
    out = Path("runs") / task.replace(":", "-")
    assert {"curve.png", "policy.eqx", "policy-best.eqx", "config.json"} <= {
        p.name for p in out.iterdir()
    }
    before = rows(out)
    capsys.readouterr()
    assert cli.main(["eval", str(out), "--episodes", "2"]) == 0
    assert "over 2 episodes" in capsys.readouterr().out
    assert cli.main(["eval", str(out), "--episodes", "2", "--stochastic", "--best"]) == 0
    capsys.readouterr()
    more = str(2 * int(before[-1]["env_steps"]))
    assert cli.main(["train", "--resume", str(out), "--total-steps", more]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"{task} is a simulator whose own state is not saved: its episodes start anew." in printed
    )
    after = rows(out)
    assert after[: len(before)] == before
    assert after[-1]["env_steps"] == more
    seen, given = TASKS[task]
    assert load_policy(out)(np.zeros((5, seen))).shape == given


def test_a_sweep_over_settings_and_seeds_shares_one_simulator(folder):
    command = ["sweep", PENDULUM, *TOY, "--seeds", "2", "--grid", "learning_rate=1e-3,1e-2"]
    assert cli.main(command) == 0
    out = Path("runs/gymnasium-Pendulum-v1")
    last = [row for row in rows(out) if row["env_steps"] == rows(out)[-1]["env_steps"]]
    assert [(row["setting"], row["seed"]) for row in last] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    assert (out / "sweep_learning_rate.png").exists()


NASTY = [*TINY, "--seeds", "1", "--episode-length", "6"]


def nasty(fail_at=None):
    return lambda task, config: Nasty([3, 4, 5, 2], fail_at)


def test_a_simulator_that_fails_leaves_a_run_that_can_go_on(folder, capsys, monkeypatch):
    command = ["train", "nasty", *NASTY, "--out", "run"]
    monkeypatch.setattr(worlds, "make_world", nasty())
    assert cli.main([*command[:-1], "whole"]) == 0
    monkeypatch.setattr(
        worlds, "make_world", nasty(fail_at=45)
    )  # training has done five iterations
    capsys.readouterr()
    assert cli.main(command) == 1
    printed, told = capsys.readouterr()
    assert "nasty failed in step: RuntimeError: the gearbox is broken" in told
    assert 'raise RuntimeError("the gearbox is broken")' in told  # its own traceback
    assert "Go on with: reppo-fx train --resume run" in printed
    assert "the gearbox is broken" in read_warnings(Path("run"))[-1].sentence
    assert 0 < len(rows(Path("run"))) < len(rows(Path("whole")))
    monkeypatch.setattr(worlds, "make_world", nasty())
    assert cli.main(["train", "--resume", "run"]) == 0
    steps = lambda name: [row["env_steps"] for row in rows(Path(name))]
    assert steps("run") == steps("whole")


def test_one_that_fails_at_once_can_begin_again(folder, capsys, monkeypatch):
    monkeypatch.setattr(worlds, "make_world", nasty(fail_at=1))
    assert cli.main(["train", "nasty", *NASTY, "--out", "run"]) == 1
    monkeypatch.setattr(worlds, "make_world", nasty())
    assert cli.main(["train", "--resume", "run"]) == 0
    assert len(rows(Path("run"))) == 4


def processes_of(group):
    """Command lines of all processes in a group, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(stat.parent.name)
    return found


def killed_in_training(arguments, out):
    """Start a run in a process group of its own, and kill its first process once two evaluations are there."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    table = out / "metrics.csv"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if len(list(csv.reader(table.open()))) >= 3:
                break
        time.sleep(0.02)
    assert process.poll() is None, process.stdout.read().decode()[-3000:]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):
        left = processes_of(process.pid)
        if not left:
            break
        time.sleep(0.1)
    return left


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize(
    ("module", "task"), [("reppo_fx", "envpool:Pendulum-v1"), ("tests.run.host_worker", "clocks")]
)
def test_a_killed_run_leaves_no_process_and_ends_with_the_same_rows(tmp_path, module, task):
    out = tmp_path / "run"
    length = ["--episode-length", "6", "--num-evals", "40", "--total-steps", str(40 * 5 * 32)]
    command = ["train", task, *TOY, "--seeds", "1", *length]
    assert killed_in_training([module, *command, "--out", str(out)], out) == []
    done = subprocess.run(
        [sys.executable, "-m", module, "train", "--resume", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [int(row["env_steps"]) for row in rows(out)] == [160 * (k + 1) for k in range(40)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "envpool:CheetahRunn-v1"], "did you mean 'CheetahRun-v1'"),
        (["train", "isaacsim:Ant"], "unknown family of simulators 'isaacsim'"),
        (
            ["tasks", "nothing-like-it"],
            "pattern is 'nothing-like-it', which no task has in its name",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(folder, capsys, arguments, sentence):
    assert cli.main(arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("runs").exists()


def test_tasks_are_listed_by_family(capsys):
    assert cli.main(["tasks", "cheetah"]) == 0
    lines = capsys.readouterr().out.splitlines()
    tasks = {line.strip() for line in lines if line.startswith("  ")}
    assert tasks >= {
        "CheetahRun",
        "halfcheetah",
        "envpool:CheetahRun-v1",
        "gymnasium:HalfCheetah-v5",
    }
    titles = {line.partition(":")[0] for line in lines if not line.startswith("  ")}
    assert titles == {*("MuJoCo Playground", "Brax", "gymnax", "EnvPool", "gymnasium", "ManiSkill")}


class Reaching(Nasty):
    """Says at the end of an episode whether it succeeded."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.metrics = ("success",)

    def advance(self, action):
        t = super().advance(action)
        return t._replace(metrics={"success": (self.age >= self.lengths).astype(float)})


def test_success_rates_are_shown_while_it_trains_and_kept(folder, capsys, monkeypatch):
    monkeypatch.setattr(worlds, "make_world", lambda task, config: Reaching([3, 4, 5, 2]))
    assert cli.main(["train", "reaching", *NASTY, "--out", "run"]) == 0
    assert "success 100%" in capsys.readouterr().out
    assert {row["eval_metrics/success/last"] for row in rows(Path("run"))} == {"1"}


# Learning, within seconds.


def test_pendulum_swings_up():
    config, hp = rx.preset("cpu", num_envs=16, total_steps=41_000, num_evals=1, num_eval_envs=16)
    hp = hp._replace(v_min=-100.0, v_max=0.0, reward_scale=0.1)
    with rx.make_host_train(hosts.gymnasium("Pendulum-v1"), config) as train:
        _, metrics = train(keys(1), hp)
    assert (np.asarray(metrics.eval_return[:, -1]) > -300).all()


@pytest.mark.slow
def test_cartpole_balances_in_envpool():
    config, hp = rx.preset("cpu", total_steps=150_000, num_evals=1)
    with rx.make_host_train(hosts.envpool("CartpoleBalance-v1"), config) as train:
        _, metrics = train(keys(1), hp)
    assert (np.asarray(metrics.eval_return[:, -1]) > 900).all()


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def test_a_world_in_processes_is_learned():
    config = rx.Config(
        total_steps=4096,
        num_envs=16,
        num_steps=8,
        num_epochs=2,
        num_minibatches=4,
        num_evals=1,
        num_eval_envs=16,
        episode_length=3,
        actor_width=32,
        critic_width=32,
        num_bins=21,
    )
    hp = rx.Hyperparameters(learning_rate=3e-3, v_min=-10.0, v_max=20.0, discount=0.9)
    with rx.make_host_train(hosts.parallel(simulators.rewarding, 2), config) as train:
        _, metrics = train(keys(1), hp)
    assert metrics.eval_return[0, -1] > 0.9 * 3 * 6.0
