"""The command line and what it leaves on disk, on a probe; and, marked slow, on a real task."""

import csv
import io
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
from rich.console import Console

import reppo_fx as rx
from reppo_fx.run import cli, load_policy, session
from reppo_fx.run.display import Display

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
FILES = {
    "config.json",
    "metrics.csv",
    "curve.png",
    "policy.eqx",
    "policy-best.eqx",
    "checkpoints",
}
TINY = [text for name, value in SIZES.items() for text in (f"--{name}", str(value))]


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_train_then_eval(probe_task, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["train", "probe", *TINY, "--kl-target", "0.2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    pattern = r"probe: return [\d.-]+ \(± [\d.]+ over 2 seeds\) after 256 steps each, \d+ s in all"
    assert re.search(pattern, printed)
    assert {p.name for p in out.iterdir()} == FILES

    config = json.loads((out / "config.json").read_text())
    assert config["config"]["num_envs"] == 4
    assert config["hyperparameters"]["kl_target"] == 0.2
    assert set(config["hyperparameters"]) == set(rx.Hyperparameters._fields)
    assert "jax" in config["versions"]
    assert config["device"]["backend"] == "cpu"

    table = rows(out)
    first = ["seed", "env_steps", "seconds", "eval_return", "eval_return_std", "eval_length"]
    assert list(table[0])[: len(first)] == first
    assert {"critic_loss", "temperature"} <= set(table[0])
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


def test_a_run_that_cannot_work_is_told_once_with_the_remedy(probe_task, tmp_path, capsys):
    out = tmp_path / "run"
    wrong = ["--v-min", "-90", "--v-max", "-80"]  # rewards are around 0
    assert cli.main(["train", "probe", *TINY, *wrong, "--out", str(out)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "Warning" in line]
    (line,) = lines
    assert "100% of the targets are outside" in line
    assert "[v_min, v_max] = [-90, -80]" in line
    assert "(in 2 of 2 runs)" in line
    assert 'value_scale="return"' in line
    table = rows(out)
    assert {float(r["outside"]) for r in table} == {1.0}
    assert {"value_bias", "unit", "closed_gate", "clipped_critic_gradients"} <= set(table[0])


def test_sweep_leaves_a_row_per_member_and_a_picture_per_axis(probe_task, tmp_path, capsys):
    out = tmp_path / "run"
    grid = ["--grid", "learning-rate=1e-3,1e-2", "kl_target=0.1,0.2,0.4"]
    assert cli.main(["sweep", "probe", *TINY, *grid, "--out", str(out)]) == 0
    line = (
        r"probe: best of 6 settings \(learning_rate [\d.]+, kl_target [\d.]+\): return [\d.-]+ \(± "
    )
    assert re.search(line, capsys.readouterr().out)
    table = rows(out)
    assert list(table[0])[:6] == [
        "setting",
        "learning_rate",
        "kl_target",
        "seed",
        "env_steps",
        "seconds",
    ]
    assert len(table) == 4 * 6 * 2
    last = table[-1]
    assert (last["setting"], last["seed"], last["env_steps"]) == ("5", "1", "256")
    assert (float(last["learning_rate"]), float(last["kl_target"])) == pytest.approx((1e-2, 0.4))
    for picture in ("curve.png", "sweep_learning_rate.png", "sweep_kl_target.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    observation = jnp.array([[-1.0], [1.0]])
    policies = [load_policy(out, seed=1, setting=setting)(observation) for setting in (0, 5)]
    assert not np.array_equal(*policies)
    with pytest.raises(ValueError, match="setting is 6; this run has settings 0 to 5"):
        load_policy(out, setting=6)
    assert cli.main(["eval", str(out), "--episodes", "2"]) == 0
    assert "probe: learning_rate 0.01, kl_target 0.4, return" in capsys.readouterr().out


def test_a_terminal_shows_settings_best_first():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    labels = [{"kl_target": value} for value in (0.1, 0.2, 0.4)]
    display = Display(console, "probe", 1000, labels, num_seeds=2)
    with display.training():
        display.update(500, 2.0)
        display.evaluated(500, 2.0, np.array([[1.0, 3.0], [np.nan, 9.0], [4.0, 6.0]]))
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue())
    for text in ("500/1k steps", "1.5k steps/s", "best return 5.0 ± 1.0"):
        assert text in shown
    first, second, third = (shown.rindex(f" {value} ") for value in ("5.0", "2.0", "nan"))
    assert first < second < third


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
    # No evaluation that was due has been made, so there is none to be the best.
    assert {p.name for p in out.iterdir()} == FILES - {"policy-best.eqx"}
    assert [int(row["env_steps"]) for row in rows(out)] == [32, 32]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "probe", "--num-minibatches", "7"], "num_minibatches is 7"),
        (["train", "probe", "--discount", "1.5"], "discount is 1.5; it must be in [0, 1]"),
        (["train", "probe", "--seeds", "0"], "seeds is 0; at least 1 is needed"),
        (["sweep", "probe"], "grid is empty; give what to sweep"),
        (["sweep", "probe", "--grid", "kl_target"], "grid is 'kl_target'; it must be NAME=NUMBER"),
        (["sweep", "probe", "--grid", "kl_target=a,b"], "grid is 'kl_target=a,b'; it must be"),
        (
            ["sweep", "probe", "--grid", "kl_targt=0.1"],
            "unknown hyperparameter 'kl_targt'; did you mean 'kl_target'",
        ),
        (["sweep", "probe", "--grid", "discount=0.9,2"], "discount is 2.0; it must be in [0, 1]"),
        (["train", "--resume", "nowhere"], "nowhere is not a run: there is no such folder."),
        (["train", "probe", "--out", "/proc/run"], "out is '/proc/run', which cannot be created"),
        (["train", "probe", "--preset", "cpuu"], "unknown preset 'cpuu'; did you mean 'cpu'"),
        (["eval", "nowhere"], "nowhere is not a run: there is no such folder."),
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
