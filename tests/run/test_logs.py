"""Logs where people look: what is in them, read back; sweeps, resuming, and everything that can fail."""

import json
import shutil
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from reppo_fx._errors import MissingExtraError
from reppo_fx.run import cli, log_tensorboard, session
from reppo_fx.run.logs import LOGS, Listeners, Start, check_logs, members_of, read_logs
from reppo_fx.run.loop import Progress
from reppo_fx.run.plan import Plan
from reppo_fx.run.records import read_config
from reppo_fx.run.table import Evaluation

from .test_run import TINY, rows

tensorboard = pytest.importorskip("tensorboardX")
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.record_writer import masked_crc32c

GRID = ["--grid", "learning_rate=1e-3,1e-2"]
SWEEP = ["sweep", "probe", *TINY, *GRID]
BOTH = ["--log", "tensorboard", "--log", "wandb"]
MEMBERS = [
    f"setting-{setting} learning_rate={rate}/seed-{seed}"
    for setting, rate in enumerate(("0.001", "0.01"))
    for seed in (0, 1)
]


@pytest.fixture(autouse=True)
def without_an_account(monkeypatch, tmp_path):
    """No key, no file of W&B's own; and its processes end with the test."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    yield
    if sys.modules.get("wandb"):
        sys.modules["wandb"].teardown()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two settings, two seeds, logged to TensorBoard; stopped in the middle, and gone on with."""
    from reppo_fx.run import worlds

    from .test_cli import probe

    out = tmp_path_factory.mktemp("runs") / "swept"
    update, calls = session.Display.update, []

    def interrupt(self, env_steps, seconds):
        update(self, env_steps, seconds)
        calls.append(env_steps)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "make_world", probe)
        with pytest.MonkeyPatch.context() as once:
            once.setattr(session.Display, "update", interrupt)
            assert cli.main([*SWEEP, "--log", "tensorboard", "--out", str(out)]) == 130
        stopped = points(out / "tensorboard" / MEMBERS[0])
        assert cli.main(["sweep", "--resume", str(out)]) == 0
    return out, stopped


def events(folder):
    """What is in the event files of a folder, every checksum checked."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            header, body = data[place : place + 8], place + 12
            (length,) = struct.unpack("<Q", header)
            sums = (
                struct.unpack("<I", data[place + 8 : body]),
                struct.unpack_from("<I", data, body + length),
            )
            text = data[body : body + length]
            assert sums == ((masked_crc32c(header),), (masked_crc32c(text),))
            found.append(Event.FromString(text))
            place = body + length + 4
    return found


def points(folder, twice=False):
    """`(name, steps) -> value`; none of them may be there twice, unless that is expected."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                assert twice or (value.tag, event.step) not in found
                found[value.tag, event.step] = value.simple_value
    return found


def table_of(folder, setting, seed):
    return [
        row for row in rows(folder) if (row.get("setting", "0"), row["seed"]) == (setting, seed)
    ]


def expected_points(table, leave_out=("setting", "learning_rate", "seed", "env_steps")):
    return {
        (name, int(row["env_steps"])): np.float32(text)
        for row in table
        for name, text in row.items()
        if name not in leave_out
    }


def test_every_member_has_the_table_as_points_once_after_a_resume(sweep):
    out, stopped = sweep
    folders = {path.parent for path in out.rglob("events.out.tfevents.*")}
    assert folders == {out / "tensorboard" / member for member in MEMBERS}
    for number, member in enumerate(MEMBERS):
        setting, seed = map(str, divmod(number, 2))
        expected = expected_points(table_of(out, setting, seed))
        assert {steps for _, steps in expected} == {64, 128, 192, 256}
        np.testing.assert_equal(points(out / "tensorboard" / member), expected)
        assert len(list((out / "tensorboard" / member).iterdir())) == 1
    # What it was stopped with, out of turn, is in no table any more.
    assert {steps for _, steps in stopped} - {64, 128, 192, 256}


def test_hyperparameters_are_recorded_and_seeds_grouped(sweep):
    out, _ = sweep
    groups = {}
    for member in MEMBERS:
        summaries = [
            value for e in events(out / "tensorboard" / member) for value in e.summary.value
        ]
        content = {
            value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content)
            for value in summaries
            if value.metadata.plugin_data.plugin_name == "hparams"
        }
        start = content["_hparams_/session_start_info"].session_start_info
        assert start.hparams["learning_rate"].number_value == float(member.split("=")[1][:-7])
        assert start.hparams["discount"].number_value == 0.9
        assert start.hparams["num_envs"].number_value == 4
        assert start.hparams["task"].string_value == "probe"
        assert start.hparams["mask_truncated"].HasField("bool_value")
        assert content["_hparams_/session_end_info"].session_end_info.status == 1
        groups.setdefault(start.group_name, []).append(member)
    assert [*groups.values()] == [MEMBERS[:2], MEMBERS[2:]]


def test_kept_reader_of_tensorboard_sees_the_same(sweep):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out, _ = sweep
    reader = reading.EventAccumulator(str(out / "tensorboard" / MEMBERS[3]), {"scalars": 0})
    reader.Reload()
    expected = expected_points(table_of(out, "1", "1"))
    seen = {
        (tag, event.step): np.float32(event.value)
        for tag in reader.Tags()["scalars"]
        for event in reader.Scalars(tag)
    }
    np.testing.assert_equal(seen, expected)


# Weights & Biases.

BLOCK, HEADER = 32768, 7


def wandb_records(path):
    """The records of a `.wandb` file: LevelDB's log format behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), HEADER, []
    assert data[:4] == b":W&B"
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts.append(data[place + HEADER : place + HEADER + length])
        place += HEADER + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield Record.FromString(b"".join(parts))
            parts = []


def wandb_run(path):
    """Its description, and its history by steps; none of those may be there twice."""
    described, history = None, {}
    for record in wandb_records(path):
        if record.HasField("run"):
            described = record.run
        if record.HasField("history"):
            items = record.history.item
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            assert row["env_steps"] not in history
            history[row["env_steps"]] = row
    return described, history


@pytest.mark.slow
def test_wandb_offline_has_a_run_per_member_and_goes_on(probe_task, tmp_path, capsys):
    pytest.importorskip("wandb")
    out = tmp_path / "run"
    short = ["--total-steps", "128", "--num-evals", "2", "--log", "wandb", "--out", str(out)]
    assert cli.main([*SWEEP, *short]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"W&B: kept offline; upload with: wandb sync {out}/wandb/offline-run-*" in printed
    assert cli.main(["sweep", "--resume", str(out), "--total-steps", "256"]) == 0
    assert "Warning" not in capsys.readouterr().out
    files = sorted(out.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.name)
    assert len(files) == 4
    groups, own_id = set(), read_config(out)["logs"]["wandb"]
    for number, path in enumerate(files):
        described, history = wandb_run(path)
        assert described.run_id == f"{own_id}-{number}"
        assert described.display_name == f"run {MEMBERS[number]}"
        assert (described.project, described.job_type) == ("reppo_fx", "sweep")
        groups.add(described.run_group)
        config = {item.key: json.loads(item.value_json) for item in described.config.update}
        setting, seed = divmod(number, 2)
        assert config["learning_rate"] == [1e-3, 1e-2][setting]
        assert (config["seed"], config["discount"], config["num_envs"]) == (seed, 0.9, 4)
        assert "jax" in config["versions"]
        for row in table_of(out, str(setting), str(seed)):
            made = history.pop(int(row["env_steps"]))
            for name in {*row} - {"setting", "learning_rate", "seed"}:
                np.testing.assert_equal(float(made[name]), float(row[name]))
        assert not history
    assert len(groups) == 1


# What can fail, and does not end a run.


class Broken:
    """A log that fails when it is asked to."""

    def __init__(self, start):
        if "start" in self.moments:
            raise OSError(28, "No space left on device", "events")

    def write(self, evaluation):
        self.written.append(evaluation.env_steps)
        if "write" in self.moments:
            raise RuntimeError("the server is away.\nsecond line")

    def close(self, failed):
        if "close" in self.moments:
            raise ValueError


@pytest.mark.parametrize(
    ("moment", "why", "written"),
    [
        ("start", "OSError: [Errno 28] No space left on device: 'events'", []),
        ("write", "RuntimeError: the server is away", [32]),
        ("close", "ValueError", [32, 64]),
    ],
)
def test_a_log_that_fails_is_a_sentence(monkeypatch, moment, why, written):
    broken = type("Broken", (Broken,), {"moments": [moment], "written": []})
    monkeypatch.setattr(log_tensorboard, "TensorBoardLog", broken)
    warned, start = [], Start(Path("run"), "", [], [], {}, print)
    with Listeners({"tensorboard": "1"}, start, None, warned.append) as listeners:
        for steps in (32, 64):
            listeners.evaluated(progress(steps), Evaluation(steps, []))
    assert warned == [f"Warning: no log to TensorBoard any more: {why}. Training goes on."]
    assert broken.written == written


def progress(steps):
    return Progress(1, steps, 1.0, None, None, True)


def test_a_callers_function_that_fails_is_a_sentence_and_called_again(monkeypatch):
    warned, told, start = [], [], Start(Path("run"), "", [], [], {}, print)

    def on_evaluation(progress):
        told.append(progress.env_steps)
        return 1 / (progress.env_steps - 32)

    with Listeners({}, start, on_evaluation, warned.append) as listeners:
        for steps in (32, 64, 32):
            listeners.evaluated(progress(steps), Evaluation(steps, []))
    assert told == [32, 64, 32]
    (sentence,) = warned
    assert sentence.startswith(
        "Warning: on_evaluation failed at 32 steps: ZeroDivisionError: division by zero ("
        + __file__
    )

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Listeners({}, start, interrupt, print) as listeners:
        listeners.evaluated(progress(32), Evaluation(32, []))


def test_a_file_in_the_way_is_a_sentence_and_mended_by_the_next_resume(
    probe_task, sweep, tmp_path, capsys
):
    out = Path(shutil.copytree(sweep[0], tmp_path / "swept"))
    folder, other = (out / "tensorboard" / MEMBERS[n] for n in (3, 0))
    shutil.rmtree(folder)
    folder.write_text("in the way")
    before = points(other)
    assert cli.main(["sweep", "--resume", str(out), "--total-steps", "320"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Warning" in line]
    assert "no log to TensorBoard any more: FileExistsError" in line
    assert rows(out)[-1]["env_steps"] == "320"
    assert before.items() <= points(other, twice=True).items()  # not lost
    folder.unlink()
    capsys.readouterr()
    assert cli.main(["sweep", "--resume", str(out)]) == 0
    assert "Warning" not in capsys.readouterr().out
    assert {steps for _, steps in points(folder)} == {64, 128, 192, 256, 320}
    np.testing.assert_equal(points(other), expected_points(table_of(out, "0", "0")))


def test_a_log_that_is_missing_is_said_before_anything_is_made(
    probe_task, sweep, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    out = tmp_path / "run"
    assert cli.main([*SWEEP, "--log", "tensorboard", "--out", str(out)]) == 2
    sentence = "tensorboardX is not installed; install it with: pip install 'reppo_fx[tensorboard]'"
    assert sentence in capsys.readouterr().err
    assert not out.exists()
    # A run that goes on where it is missing does go on.
    shutil.copytree(sweep[0], out)
    assert cli.main(["sweep", "--resume", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"no log to TensorBoard any more: {sentence}. Training goes on." in printed


def test_a_mistyped_log(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "probe", "--log", "tensorbord"])
    assert "tensorboard" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown log 'tensorbord'; did you mean 'tensorboard'"):
        check_logs(["tensorbord"])
    with pytest.raises(ValueError, match="the entry 'logs' is"):
        read_logs({"logs": ["tensorboard"]})


@pytest.mark.parametrize("name", LOGS)
def test_each_log_names_its_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, LOGS[name].package, None)
    with pytest.raises(MissingExtraError, match=rf"reppo_fx\[{name}\]"):
        check_logs([name])


def test_names_are_short_enough_for_folders(tmp_path):
    import reppo_fx as rx

    names = [n for n in rx.Hyperparameters._fields if n not in ("v_min", "v_max")][:12]
    swept = {name: (float(getattr(rx.Hyperparameters(), name)),) for name in names}
    plan = Plan("probe", "cpu", rx.Config(), rx.Hyperparameters(), grid=swept, num_seeds=1)
    (member,) = members_of(plan, Path("run"))
    (tmp_path / member.name).mkdir(parents=True)
    assert member.name.startswith("setting-0 ")
