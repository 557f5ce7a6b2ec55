"""The command line and what it leaves on disk, on a probe; and, marked slow, on a real task."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.run import cli, load_policy, session
from reppo_fx.run.records import metric_columns

SIZES = {
    "total-steps": 256,
    "num-envs": 4,
    "num-steps": 8,
    "num-epochs": 1,
    "num-minibatches": 2,
    "num-evals": 4,
    "num-eval-envs": 2,
    "actor-width": 8,
    "critic-width": 8,
    "discount": 0.9,
    "seeds": 2,
}
TINY = [text for name, value in SIZES.items() for text in (f"--{name}", str(value))]


@pytest.fixture
def probe_task(monkeypatch):
    """`make("probe")` gives a probe, so that no simulator is compiled."""
    make = lambda name: probes.match_observation()._replace(episode_length=6)
    monkeypatch.setattr(session, "make", make)
    monkeypatch.setattr(cli, "make", make)


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_train_then_eval(probe_task, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["train", "probe", *TINY, "--kl-target", "0.2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    pattern = r"probe: return [\d.-]+ \(± [\d.]+ over 2 seeds\) after 256 steps each, \d+ s in all"
    assert re.search(pattern, printed)
    assert {p.name for p in out.iterdir()} == {
        "config.json",
        "metrics.csv",
        "curve.png",
        "policy.eqx",
    }

    config = json.loads((out / "config.json").read_text())
    assert config["config"]["num_envs"] == 4
    assert config["hyperparameters"]["kl_target"] == 0.2
    assert set(config["hyperparameters"]) == set(rx.Hyperparameters._fields)
    assert "jax" in config["versions"]
    assert config["device"]["backend"] == "cpu"

    table = rows(out)
    assert list(table[0]) == metric_columns()
    assert [(r["seed"], r["env_steps"]) for r in table[:3]] == [
        ("0", "64"),
        ("1", "64"),
        ("0", "128"),
    ]
    assert len(table) == 4 * 2
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")

    policy = load_policy(out, seed=1)
    assert policy(jnp.zeros((5, 1))).shape == (5, 1)
    with pytest.raises(ValueError, match="seed is 2; this run has seeds 0 to 1"):
        load_policy(out, seed=2)
    assert cli.main(["eval", str(out), "--episodes", "3"]) == 0
    assert "over 2 seeds" in capsys.readouterr().out


def test_a_saved_policy_acts_like_the_trained_one(probe_task, tmp_path):
    out = tmp_path / "run"
    assert cli.main(["train", "probe", *TINY, "--out", str(out)]) == 0
    again = tmp_path / "again"
    assert cli.main(["train", "probe", *TINY, "--out", str(again)]) == 0
    observation = jnp.array([[-1.0], [1.0]])
    a, b = load_policy(out)(observation), load_policy(again)(observation)
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, load_policy(out, seed=1)(observation))


def test_ctrl_c_ends_cleanly_with_what_was_measured(probe_task, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    update, sent = session.Display.update, []
    before = signal.getsignal(signal.SIGINT)  # a shell's background job starts with it ignored

    def interrupt(self, env_steps, seconds):
        update(self, env_steps, seconds)
        if not sent:
            sent.append(env_steps)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(session.Display, "update", interrupt)
    code = cli.main(["train", "probe", *TINY, "--total-steps", "25600", "--out", str(out)])
    assert code == 130
    assert "stopped at" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {
        "config.json",
        "metrics.csv",
        "curve.png",
        "policy.eqx",
    }
    assert [int(row["env_steps"]) for row in rows(out)] == [32, 32]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "probe", "--num-minibatches", "7"], "num_minibatches is 7"),
        (["train", "probe", "--discount", "1.5"], "discount is 1.5; it must be in [0, 1]"),
        (["train", "probe", "--seeds", "0"], "seeds is 0; at least 1 is needed"),
        (["train", "probe", "--preset", "cpuu"], "unknown preset 'cpuu'; did you mean 'cpu'"),
        (["eval", "nowhere"], "nowhere is not a run: it has no config.json"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    probe_task, capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_mistyped_flag_gets_the_nearest_one(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["train", "--learning-rte", "1e-3"])
    assert error.value.code == 2
    assert "--learning-rate" in capsys.readouterr().err


def test_a_mistyped_task_gets_the_nearest_names(capsys, tmp_path, monkeypatch):
    pytest.importorskip("mujoco_playground")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "CartpoleBalence"]) == 2
    assert "did you mean 'CartpoleBalance'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_not_overwritten(probe_task, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert cli.main(["train", "probe", *TINY, "--out", str(tmp_path)]) == 2
    assert "already exists and is not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_presets_set_the_defaults_and_flags_win(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--preset", "humanoid", "--help"])
    text = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert re.search(r"--critic-width INT .{0,90}\(default: 1024\)", text)
    assert re.search(r"--v-min FLOAT .{0,90}\(default: -10\.0\)", text)


def test_a_truncated_policy_file_is_refused(probe_task, tmp_path):
    out = tmp_path / "run"
    assert cli.main(["train", "probe", *TINY, "--out", str(out)]) == 0
    data = (out / "policy.eqx").read_bytes()
    (out / "policy.eqx").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="does not fit the settings"):
        load_policy(out)


@pytest.mark.slow
def test_the_command_learns_a_real_task(tmp_path):
    """Balancing starts near 200 and ends near 1000; 500 as the mean of two seeds leaves a wide margin."""
    pytest.importorskip("mujoco_playground")
    command = [sys.executable, "-m", "reppo_fx", "train", "CartpoleBalance", "--seeds", "2"]
    command += ["--num-evals", "4", "--out", str(tmp_path / "run")]
    # A run's programs are worth optimizing, unlike the tests' own.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    root = Path(rx.__file__).parents[1]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    final = [float(r["eval_return"]) for r in rows(tmp_path / "run")[-2:]]
    assert np.mean(final) > 500, rows(tmp_path / "run")
