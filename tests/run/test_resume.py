"""Runs that are stopped, killed and resumed end with the numbers of runs that were not."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.run import cli, load_policy, loop, session
from reppo_fx.run.checkpoints import Checkpoints
from reppo_fx.run.plan import Plan
from reppo_fx.run.records import describe_run, read_config, write_config

from ..sizes import leaves_close, tiny
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
    ("command", "number"),
    [
        pytest.param(SWEEP, signal.SIGTERM, id="sweep"),
        pytest.param(TRAIN, signal.SIGINT, id="train", marks=pytest.mark.slow),
    ],
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
    contents = lambda: {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    before = contents()
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
    assert contents() == before


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


class Killed(BaseException):
    """As little can be done after it as after SIGKILL, but in this process."""


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(b"", id="", marks=pytest.mark.slow),
        pytest.param(b"0,128,3.1,99", id="while writing a row"),
    ],
)
@pytest.mark.slow
def test_killed_after_any_save_it_ends_the_same(probe_task, tmp_path, monkeypatch, capsys, torn):
    """Every kind of save: by the timer after each iteration, scored, and the last one."""
    monkeypatch.setattr(session, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)
    command = ["train", "probe", *TINY, "--seeds", "1", "--num-evals", "2", "--total-steps", "128"]
    whole, save = tmp_path / "whole", session.Checkpoints.save
    saves = []

    def count(self, step, state, record, score=None):
        saves.append((step, score is not None))
        save(self, step, state, record, score)

    monkeypatch.setattr(session.Checkpoints, "save", count)
    assert cli.main([*command, "--out", str(whole)]) == 0
    expected, kinds = numbers(whole), list(saves)
    # Of the two evaluations one is due after every second iteration: none of those is saved before it is made.
    assert (2, False) not in kinds[: kinds.index((2, True))]
    assert [step for step, scored in kinds if scored] == [2, 4]
    assert {1, 3} <= {step for step, _ in kinds}
    for last in range(1, len(kinds) + 1):
        folder, done = tmp_path / f"killed-{last}", []

        def die_after(self, step, state, record, score=None, last=last, done=done):
            save(self, step, state, record, score)
            done.append(step)
            if len(done) == last:
                self.wait()
                raise Killed

        monkeypatch.setattr(session.Checkpoints, "save", die_after)
        with pytest.raises(Killed):
            cli.main([*command, "--out", str(folder)])
        monkeypatch.setattr(session.Checkpoints, "save", save)
        with (folder / "metrics.csv").open("ab") as file:
            file.write(torn)
        assert cli.main(["train", "--resume", str(folder)]) == 0, capsys.readouterr().err
        assert numbers(folder) == expected
        assert_same_run(whole, folder)


def test_a_finished_run_is_trained_longer(probe_task, tmp_path, capsys):
    """As one that was to be so long from the start, with the schedule of the shorter one."""
    base = ["train", "probe", *TINY, "--final-learning-rate", "0.1"]
    steps = {"short": "128", "long": "256"}
    short, long = tmp_path / "short", tmp_path / "long"
    assert (
        cli.main([*base, "--total-steps", steps["short"], "--num-evals", "2", "--out", str(short)])
        == 0
    )
    assert cli.main(["train", "--resume", str(short), "--total-steps", "64"]) == 2
    assert "total_steps is 64, but" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(short), "--total-steps", steps["long"]]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "goes on to 256 steps instead of 128" in printed
    assert "stays at its final value once that schedule has ended" in printed
    more = ["--total-steps", steps["long"], "--num-evals", "4", "--schedule-steps", steps["short"]]
    assert cli.main([*base, *more, "--out", str(long)]) == 0
    assert numbers(short) == numbers(long)
    leaves = [final_arrays(folder)[1] for folder in (short, long)]
    for path in leaves[0]:
        assert leaves[0][path].tobytes() == leaves[1][path].tobytes(), path


def test_a_second_process_is_refused(probe_task, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main([*TRAIN, "--out", str(out)]) == 0
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from reppo_fx.run.durable import only_writer\n"
            "with only_writer(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)",
            str(out),
        ],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert holder.stdout.readline() == b"held\n"
    assert cli.main(["train", "--resume", str(out)]) == 2
    message = capsys.readouterr().err
    assert f"is being written by another run (process {holder.pid})" in message
    holder.kill()
    holder.communicate()
    # The lock died with its process.
    assert cli.main(["train", "--resume", str(out)]) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d["config"].update(depth=3), "unknown entry 'config.depth'"),
        (lambda d: d["config"].pop("num_envs"), "the entry 'config.num_envs' is missing"),
        (
            lambda d: d["hyperparameters"].update(discount="high"),
            "hyperparameters.discount is 'high'",
        ),
        (lambda d: d.pop("environment"), "the entry 'environment' is None; it must be an object"),
        (lambda d: d["environment"].update(observation=[]), "environment.observation is []"),
        (lambda d: d["environment"].update(observation={"": [[-1], "float32"]}), "must be a shape"),
        (lambda d: d["environment"].update(observation={"": None}), "must be a shape and a dtype"),
        (
            lambda d: d["environment"].update(action_size="three"),
            "environment.action_size is 'three'",
        ),
        (lambda d: d["environment"].update(action_size=-1), "environment.action_size is -1"),
        (
            lambda d: d["environment"].update(episode_length="x"),
            "environment.episode_length is 'x'",
        ),
        (lambda d: d["environment"].update(action_scale={}), "environment.action_scale is {}"),
        (lambda d: d["environment"].update(action_scale=0.0), "every entry must be positive"),
        (lambda d: d["environment"].update(zoo=1), "unknown entry 'environment.zoo'"),
        (lambda d: d.update(seed=2**70), "seed is 1180591620717411303424; it must be from 0"),
        (lambda d: d.update(version=2), "has version 2; this package reads version 4"),
        (lambda d: d.update(num_seeds=0), "seeds is 0"),
        (lambda d: d.update(grid={"discount": []}), "grid.discount is"),
    ],
)
def test_a_config_that_is_not_as_it_was_written_gets_a_sentence(
    probe_task, tmp_path, capsys, change, sentence
):
    out = tmp_path / "run"
    out.mkdir()
    train = rx.make_train(probes.match_observation(), tiny())
    plan = Plan("probe", "cpu", train.config, rx.Hyperparameters(), num_seeds=1)
    description = describe_run(train, plan)
    write_config(out, description)
    assert read_config(out)["task"] == "probe"
    change(description)
    write_config(out, description)
    assert cli.main(["train", "--resume", str(out)]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert "Traceback" not in message


def test_a_config_cut_short_gets_a_sentence(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"version": 4, "task": ')
    assert cli.main(["train", "--resume", str(tmp_path)]) == 2
    assert "config.json cannot be read" in capsys.readouterr().err


def test_each_members_best_policy_is_kept(probe_task, tmp_path, monkeypatch):
    out = tmp_path / "run"
    returns = iter([[9.0, 1.0], [1.0, 2.0]] + [[0.0, 0.0]] * 20)
    evaluations, record = [], session.Session._record_evaluation

    def scripted(self, progress, metrics, table, checkpoints):
        metrics = metrics._replace(eval_return=np.array(next(returns), np.float32))
        policies = jax.vmap(lambda one: rx.make_policy(self.train, one))(progress.state)
        evaluations.append(jax.tree.map(np.asarray, policies))
        record(self, progress, metrics, table, checkpoints)

    monkeypatch.setattr(session.Session, "_record_evaluation", scripted)
    assert cli.main([*TRAIN, "--out", str(out)]) == 0
    for seed, evaluation in ((0, 0), (1, 1)):
        expected = jax.tree.map(lambda x, seed=seed: x[seed], evaluations[evaluation])
        found = load_policy(out, seed=seed, best=True)
        jax.tree.map(np.testing.assert_array_equal, expected.actor, found.actor)
    last = load_policy(out, seed=0)
    jax.tree.map(
        np.testing.assert_array_equal,
        last.actor,
        jax.tree.map(lambda x: x[0], evaluations[-1].actor),
    )


def test_a_run_in_single_precision_loads_in_double(probe_task, tmp_path):
    out = tmp_path / "run"
    assert cli.main([*TRAIN, "--out", str(out)]) == 0
    shown = np.array([[-1.0], [1.0]])
    single = load_policy(out)(shown.astype(np.float32))
    with jax.enable_x64(True):
        policy = load_policy(out)
        assert jax.tree.leaves(policy.actor)[0].dtype == np.float64
        np.testing.assert_allclose(policy(shown), single, rtol=1e-5)


def test_a_loop_that_is_to_stop_at_once_ends():
    train = rx.make_train(probes.match_observation(), tiny())
    keys, settings = jax.random.split(jax.random.key(0), 1), rx.grid(discount=[0.9])
    programs = loop.compile_programs(train, keys, settings)
    assert list(loop.run_loop(train, programs, programs.init(keys, settings), lambda: True)) == []


def test_one_member_without_its_axis_is_the_member_of_the_axis():
    train = rx.make_train(probes.match_observation(), tiny())
    keys, settings = jax.random.split(jax.random.key(0), 1), rx.grid(discount=[0.9])
    programs = loop.compile_programs(train, keys, settings)
    rows = list(loop.run_loop(train, programs, programs.init(keys, settings)))
    state, metrics = jax.jit(jax.vmap(train))(keys, settings)
    shape = lambda tree: jax.tree.map(np.shape, tree)
    assert shape(rows[-1].state) == shape(state)
    leaves_close(rows[-1].metrics.eval_return, metrics.eval_return[:, -1])
    leaves_close(rows[-1].state.learner.networks, state.learner.networks)


def test_interrupted_while_compiling_it_ends_at_once_with_a_sentence(tmp_path):
    process = start("slow", *TRAIN, "--out", tmp_path / "run")
    for line in process.stdout:
        if b"compiling now" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted while compiling, before any training" in output
    assert b"FATAL" not in output
    assert b"Traceback" not in output


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_the_same(tmp_path):
    long = [*TRAIN, "--num-evals", "100", "--total-steps", "3200"]
    whole = tmp_path / "whole"
    finish(start("cli", *long, "--out", whole))
    chance, kills, folders = random.Random(0), 0, [tmp_path / "0"]
    process = start("timer", *long, "--out", folders[-1])
    while kills < 20:
        if wait_for_training(process, folders[-1] / "metrics.csv", time.time_ns()):
            time.sleep(chance.uniform(0.0, 0.4))
            process.kill()
            process.communicate()
            kills += 1
            process = start("timer", "train", "--resume", folders[-1])
        else:  # a fast machine finished before the twentieth
            finish(process)
            folders.append(tmp_path / str(len(folders)))
            process = start("timer", *long, "--out", folders[-1])
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
