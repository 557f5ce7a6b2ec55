"""Runs that are stopped, killed and resumed end with the numbers of runs that were not."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reppo_fx.run import cli, session
from reppo_fx.run.checkpoints import Checkpoints

from .test_run import TINY, rows

ROOT = Path(__file__).parents[2]
SWEEP = ["sweep", "probe", *TINY, "--grid", "learning_rate=1e-3,1e-2"]
TRAIN = ["train", "probe", *TINY]


def numbers(folder):
    """`metrics.csv` without the clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder)]


def final_arrays(folder):
    """All leaves of the last checkpoint."""
    with Checkpoints(folder / "checkpoints") as checkpoints:
        step = checkpoints.steps()[-1]
        _, leaves = checkpoints._read(step)
    return step, leaves


def assert_same_run(a, b):
    assert numbers(a) == numbers(b)
    (step_a, leaves_a), (step_b, leaves_b) = final_arrays(a), final_arrays(b)
    assert step_a == step_b
    assert leaves_a.keys() == leaves_b.keys()
    for path in leaves_a:
        assert leaves_a[path].tobytes() == leaves_b[path].tobytes(), path
    assert (a / "policy.eqx").read_bytes() == (b / "policy.eqx").read_bytes()


@pytest.mark.parametrize(
    ("command", "number"), [(TRAIN, signal.SIGINT), (SWEEP, signal.SIGTERM)], ids=["train", "sweep"]
)
def test_a_stopped_run_saves_and_resumes_exactly(
    probe_task,
    tmp_path,
    capsys,
    monkeypatch,
    command,
    number,
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli.main([*command, "--out", str(whole)]) == 0
    update, calls = session.Display.update, []

    def interrupt(self, env_steps, seconds):
        update(self, env_steps, seconds)
        calls.append(env_steps)
        if len(calls) == 2:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    monkeypatch.setattr(session.Display, "update", interrupt)
    assert cli.main([*command, "--out", str(parts)]) == 128 + number
    assert signal.getsignal(number) is before
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Go on with: reppo-fx {command[0]} --resume {parts}" in printed
    stopped_at = Checkpoints(parts / "checkpoints").steps()[-1]
    assert 0 < stopped_at < 8
    assert cli.main([command[0], "--resume", str(parts)]) == 0
    assert_same_run(whole, parts)
    (parts / "policy.eqx").unlink()  # as if killed between the last checkpoint and this
    assert cli.main([command[0], "--resume", str(parts)]) == 0
    assert_same_run(whole, parts)


def test_settings_that_differ_are_named(probe_task, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main([*TRAIN, "--out", str(out)]) == 0
    before = sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*"))
    assert cli.main(["train", "--resume", str(out), "--out", "elsewhere"]) == 2
    assert "out is 'elsewhere', but a resumed run stays in its folder" in capsys.readouterr().err
    changed = ["--actor-width", "16", "--kl-target", "0.3", "--seeds", "5"]
    assert cli.main(["train", "other", "--resume", str(out), *changed]) == 2
    message = capsys.readouterr().err
    for difference in (
        "task was probe and is other",
        "actor_width was 8 and is 16",
        "kl_target was 0.1 and is 0.3",
        "num_seeds was 2 and is 5",
    ):
        assert difference in message
    assert sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*")) == before


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.run.resume_worker", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()[-3000:]


def wait_for_training(process, metrics, started_after):
    while process.poll() is None:
        if metrics.exists() and metrics.stat().st_mtime_ns > started_after:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_the_same(tmp_path):
    long = [*TRAIN, "--num-evals", "100", "--total-steps", "3200"]
    whole = tmp_path / "whole"
    finish(start("cli", *long, "--out", whole))
    chance, kills, folders = random.Random(0), 0, [tmp_path / "0"]
    process = start("cli", *long, "--out", folders[-1])
    while kills < 20:
        if wait_for_training(process, folders[-1] / "metrics.csv", time.time_ns()):
            time.sleep(chance.uniform(0.0, 0.4))
            process.kill()
            process.communicate()
            kills += 1
            process = start("cli", "train", "--resume", folders[-1])
        else:  # a fast machine finished before the twentieth
            finish(process)
            folders.append(tmp_path / str(len(folders)))
            process = start("cli", *long, "--out", folders[-1])
    finish(process)
    for folder in folders:
        assert len(rows(folder)) == 200
        assert_same_run(whole, folder)


@pytest.mark.slow
def test_a_population_in_two_processes_is_one(tmp_path):
    finish(start("population", tmp_path / "whole", 6))
    finish(start("population", tmp_path / "parts", 3))
    finish(start("population", tmp_path / "parts", 3))
    leaves = []
    for name in ("whole", "parts"):
        with Checkpoints(tmp_path / name) as checkpoints:
            assert checkpoints.steps()[-1] == 6
            leaves.append(checkpoints._read(6)[1])
    assert len({np.unique(x["members.hyperparameters.learning_rate"]).size for x in leaves}) == 1
    for path in leaves[0]:
        assert leaves[0][path].tobytes() == leaves[1][path].tobytes(), path
