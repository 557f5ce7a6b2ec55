"""Every sentence that a person meets on the command line: what was typed, what is said, with which exit code."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from reppo_fx.envs import probes
from reppo_fx.run import cli, durable, session, table, worlds
from reppo_fx.run.durable import only_writer
from reppo_fx.run.pictures import plot_learning_curve
from reppo_fx.run.plan import Plan
from reppo_fx.run.records import describe_run, write_config
from reppo_fx.training.presets import preset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def described():
    """The config of a run, which nothing was trained for."""
    plan = Plan("probe", "cpu", *preset("cpu"), num_seeds=2)
    with pytest.MonkeyPatch.context() as patch:
        make = lambda name, config: probes.match_observation()._replace(episode_length=6)
        patch.setattr(worlds, "make_world", make)
        return describe_run(worlds.bind("probe", plan.config), plan)


@pytest.fixture
def here(described, tmp_path, monkeypatch, capsys):
    """A folder with a run in it, and beside it."""
    for name in ("run", "runs/Mine"):
        (tmp_path / name).mkdir(parents=True)
        write_config(tmp_path / name, described)
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys, *arguments):
    """Exit code, and what is said, in one line, without a traceback."""
    try:
        code = cli.main([*arguments])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return code, " ".join(said.split())


TABLE = {
    # Commands and flags.
    "trian": "unknown command 'trian'; did you mean 'train'",
    "runs": "unknown command 'runs'",
    "train --learning-rat 3": "--learning-rate FLOAT",
    "eval run --bestt": "--best",
    "eval": "Missing from reppo-fx eval",
    "show": "Missing from reppo-fx show",
    # Tasks.
    "train CartpoleBalanc": "unknown task 'CartpoleBalanc'; did you mean 'CartpoleBalance'",
    "train envpool:CheetaRun-v1": "unknown EnvPool task 'CheetaRun-v1'; did you mean 'CheetahRun-v1'",
    "train envpol:CheetahRun-v1": "unknown family of simulators 'envpol'; did you mean 'envpool'",
    "train gymnasium:CartPol-v1": "unknown gymnasium environment 'CartPol-v1'; did you mean",
    "train maniskill:PullCube-v1": "pip install 'reppo_fx[maniskill]'",
    "train :": "unknown family of simulators ''",
    # Values.
    "train --learning-rate abc": "could not convert string to float: 'abc'",
    "train --learning-rate -1": "learning_rate is -1.0; it must be positive.",
    "train --learning-rate nan": "learning_rate is nan; it must be finite.",
    "train --num-envs 1.5": "--num-envs: invalid literal for int()",
    "train --num-envs 0": "num_envs is 0",
    "train --seeds 0": "seeds is 0; at least 1 is needed.",
    "train --seed -1": "seed is -1; it must be from 0 to 4294967295.",
    "train --preset cpuu": "unknown preset 'cpuu'; did you mean 'cpu'?",
    "train --critic foo": "invalid choice 'foo' for argument '--critic'",
    "train --v-min 5 --v-max 1": "v_min",
    "train --discount 2": "discount is 2.0; it must be in [0, 1].",
    "sweep": "grid is empty; give what to sweep",
    "sweep --grid learning_rate=a": "grid is 'learning_rate=a'; it must be NAME=NUMBER",
    "sweep --grid learning_rat=1": "unknown hyperparameter 'learning_rat'; did you mean 'learning_rate'",
    "sweep --grid num_envs=1,2": "num_envs is a field of Config, fixed in a compiled program;",
    "eval run --episodes 0": "episodes is 0; at least 1 is needed.",
    "list --sort foo": "invalid choice 'foo' for argument '--sort'",
    "plot runs/Mine --normalizer 0": "runs/Mine has no evaluation in metrics.csv yet.",
    # Folders.
    "eval runs/Min": "runs/Min is not a run: there is no such folder; did you mean 'runs/Mine'?",
    "show nowhere": "nowhere is not a run: there is no such folder",
    "show runs": "runs is not a run: it has no config.json; of the folders in it, Mine may be.",
    "plot file": "file is not a run: it is a file; give the folder that it is in.",
    "train --resume run/config.json": "run/config.json is not a run: it is a file",
    "eval run": "run has no policy.eqx; the run ended before its first training step.",
    "list file": "folder is 'file', which is not a folder.",
    "list nowhere": "folder is 'nowhere', which is not there.",
    "train --out run": "out is 'run', which already exists and is not empty; a run that is there goes on with",
    "train --out runs": "out is 'runs', which already exists and is not empty.",
    "train --out file": "out is 'file', which is a file; give a folder, new or empty.",
    "train --out file/x": "out is 'file/x', which cannot be created: Not a directory.",
    "train --resume run --out y": "out is 'y', but a resumed run stays in its folder.",
    "train --resume run --learning-rate 1": "run is another run: learning_rate was 0.003 and is 1.0.",
    "train other --resume run": "run is another run: task was probe and is other.",
}
SIMULATED = ("CartpoleBalanc", "envpool", "gymnasium", "maniskill", "envpol", ":")


LONG = "train CartpoleBalanc"  # imports MuJoCo


@pytest.mark.parametrize(
    "line", [pytest.param(x, marks=[pytest.mark.slow] * (x == LONG)) for x in TABLE]
)
def test_what_is_typed_wrong_is_a_sentence(here, capsys, monkeypatch, line):
    arguments = line.split()
    if "train" in line and not any(name in arguments[1] for name in SIMULATED if arguments[1:]):
        make = lambda name, config: probes.match_observation()._replace(episode_length=6)
        monkeypatch.setattr(worlds, "make_world", make)
    before = sorted(here.rglob("*"))
    code, said = answer(capsys, *arguments)
    assert code == 2
    assert TABLE[line] in said
    assert sorted(here.rglob("*")) == before


# What a machine does.


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def compiled(*_):
    raise AssertionError("it went on")


@pytest.mark.parametrize("of", ["config.json", "lock", "metrics.csv"])
def test_a_full_disk_is_named_with_the_file(here, probe_task, capsys, monkeypatch, of):
    def fill(*_):  # once training might begin
        monkeypatch.setattr(durable, "sync", full)
        table.write_whole(here / "new" / "metrics.csv", b"")

    monkeypatch.setattr(session, "compile_programs", fill)
    if of == "config.json":
        monkeypatch.setattr(durable, "sync", full)
    elif of == "lock":
        monkeypatch.setattr(durable.os, "getpid", full)
    code, said = answer(capsys, "train", "probe", "--out", "new")
    where = here / "new" / of if of == "metrics.csv" else f"new/{'.' if of == 'lock' else ''}{of}"
    kept = (
        "; what was done before is kept, and goes on with --resume" if of == "metrics.csv" else ""
    )
    assert (code, said) == (2, f"reppo-fx: {where}: No space left on device{kept}.")
    left = ["config.json"] if of == "metrics.csv" else []
    assert sorted(path.name for path in (here / "new").iterdir()) == left


def test_a_lock_that_cannot_be_written_on_a_full_disk_is_named(tmp_path, monkeypatch):
    """What could not be flushed cannot be when it is closed, either."""

    class Full(io.BytesIO):
        flush = full

        def close(self):
            super().close()
            full()

    monkeypatch.setattr(durable, "_lock", lambda path: Full())
    with pytest.raises(OSError, match="No space left on device") as error, only_writer(tmp_path):
        pass
    assert error.value.filename == str(tmp_path / durable.LOCK)


def test_a_full_disk_while_a_table_or_a_picture_is_written_is_named(
    tmp_path, monkeypatch, unchecked_annotations
):
    columns = {"env_steps": 0.0, "eval_return": 0.0}
    monkeypatch.setattr(table, "flatten_metrics", lambda _: dict(columns))
    plan = Plan("probe", "cpu", *preset("cpu"))
    file = table.MetricsFile(tmp_path / "metrics.csv", plan, columns)
    monkeypatch.setattr(table, "sync", full)
    row = type("Row", (), {"eval_return": []})
    with pytest.raises(OSError, match="No space left on device") as error:
        file.write(1, 0.0, row)
    assert error.value.filename == str(tmp_path / "metrics.csv")
    file.close()
    ones = np.ones((1, 1, 1))
    with pytest.raises(OSError, match="Is a directory") as error:
        plot_learning_curve(tmp_path, "t", np.ones(1), ones)
    assert error.value.filename == str(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_a_sentence(here):
    command = [sys.executable, "-m", "reppo_fx", "list", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as nothing:
        done = subprocess.run(
            command, stdout=nothing, stderr=subprocess.PIPE, text=True, env=environment, check=False
        )
    assert done.returncode == 2
    assert "reppo-fx: No space left on device.\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_read_only_is_a_sentence(here, probe_task, capsys, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        code, said = answer(capsys, "train", "probe")
        assert code == 2
        sentence = "out is 'runs/probe', which cannot be created: Read-only file system."
        assert sentence in said
    monkeypatch.setattr(durable, "_lock", refuse)
    code, said = answer(capsys, "train", "--resume", "run")
    assert (code, said) == (2, "reppo-fx: run cannot be written: Read-only file system.")
    assert answer(capsys, "show", "run") == (0, "")  # nothing is written there


def test_a_device_that_is_not_there_is_a_sentence(here):
    done = subprocess.run(
        [sys.executable, "-m", "reppo_fx", "show", "run"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cuda"},
        check=False,
    )
    if done.returncode == 0:
        pytest.skip("there is one")
    assert done.returncode == 2
    assert "reppo-fx: jax finds no device: JAX_PLATFORMS is 'cuda'" in done.stderr
    assert "Traceback" not in done.stderr


def test_pictures_need_no_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with matplotlib.rc_context({"backend": "tkagg"}):
        plot_learning_curve(tmp_path / "c.png", "t", np.ones(1), np.ones((1, 1, 1)))
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_an_interrupted_compilation_and_what_comes_after_it(here, probe_task, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "compile_programs", interrupted)
        code, said = answer(capsys, "train", "probe", "--out", "new")
    sentence = "reppo-fx: interrupted while compiling, before any training."
    assert (code, said) == (130, sentence)
    capsys.readouterr()
    assert cli.main(["show", "new"]) == 0
    shown = capsys.readouterr().out
    assert "stopped, 0 of 307k steps each" in shown
    assert "reppo-fx train --resume new\n" in shown


def test_two_runs_in_one_folder_are_a_sentence(here, probe_task, capsys, monkeypatch):
    monkeypatch.setattr(session, "compile_programs", compiled)
    with only_writer(here / "run"):
        code, said = answer(capsys, "train", "--resume", "run")
    assert code == 2
    owner = f"(process {os.getpid()}); wait until it has ended, or stop it."
    assert said == f"reppo-fx: run is being written by another run {owner}"
