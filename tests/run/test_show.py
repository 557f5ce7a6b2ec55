"""`show` and `list` on toy runs, what a run keeps of its warnings, curves in characters, what explains a curve."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings

import matplotlib.image
import numpy as np
import pytest

from reppo_fx._errors import ReppoWarning
from reppo_fx.run import cli, worlds
from reppo_fx.run.chart import BLOCKS, chart
from reppo_fx.run.durable import only_writer
from reppo_fx.run.facts import read_facts
from reppo_fx.run.flags import command_names
from reppo_fx.run.flags import commands as commands_of
from reppo_fx.run.pictures import EXPLAINING, plot_learning_curve
from reppo_fx.run.plan import Plan
from reppo_fx.run.records import read_config
from reppo_fx.run.table import read_metrics
from reppo_fx.run.warned import Told, Warned, listening, read_warnings
from reppo_fx.training.presets import PRESETS, preset

from .test_cli import probe
from .test_run import TINY, rows

ODD = "a run, of $x"
# Values that the support cannot hold: a finding, and more evaluations than iterations: a warning beforehand.
SICK = ["--v-min", "-90", "--v-max", "-80", "--num-evals", "9"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A sweep in which something is wrong, in a folder of runs."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "make_world", probe)
        arguments = ["--grid", "learning_rate=1e-3,1e-2", "--out", str(folder / ODD)]
        assert cli.main(["sweep", "probe", *TINY, *SICK, *arguments]) == 0
    return folder


@pytest.fixture
def run(runs, tmp_path):
    return shutil.copytree(runs / ODD, tmp_path / "copied" / ODD)


def shown(capsys, *arguments):
    assert cli.main([*map(str, arguments)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


# Warnings are kept.


def test_what_was_told_is_kept_with_the_run_and_shown(runs, capsys):
    warned = read_warnings(runs / ODD)
    assert [(one.name, one.env_steps) for one in warned] == [(None, None), ("outside", 64)]
    text = shown(capsys, "show", runs / ODD)
    assert "Warning: num_evals is 9, but total_steps = 256 are only 8 iterations" in text
    assert re.search(r"Warning at 64 steps: \d+% of the targets are outside of what", text)


def test_a_run_without_warnings_has_no_file_of_them(tmp_path):
    told = Told()
    told.keep_in(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
    assert read_warnings(tmp_path) == []


def test_a_run_that_goes_on_keeps_what_came_before_it_and_nothing_twice(tmp_path):
    before = [Warned("sizes"), Warned("first", 10, "gate"), Warned("later", 30, "outside")]
    told = Told()
    told.keep_in(tmp_path, 0)
    for one in before:
        told.add(one)
    again = Told()
    again.add(Warned("sizes"))
    again.keep_in(tmp_path, 20)  # what was after that is to come again
    again.add(Warned("first, in other words", 40, "gate"))
    again.add(Warned("new", 50, "outside"))
    assert read_warnings(tmp_path) == [*before[:2], Warned("new", 50, "outside")]


def test_warnings_of_others_are_not_kept_and_ours_are_shown_as_before():
    shown_before = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: shown_before.append(str(message))
        with listening() as told:
            warnings.warn("ours", ReppoWarning, stacklevel=1)
            warnings.warn("theirs", UserWarning, stacklevel=1)
    assert shown_before == ["ours", "theirs"]
    assert told._warned == [Warned("ours")]


@pytest.mark.parametrize("text", ["{}", "nonsense", '[{"sentence": 3}]', "[3]"])
def test_a_file_of_warnings_that_is_none_is_a_sentence(run, capsys, text):
    (run / "warnings.json").write_text(text)
    assert cli.main(["show", str(run)]) == 2
    assert "warnings.json is not as a run writes it" in capsys.readouterr().err


# What a run is.


def test_one_screen_says_what_a_run_is(runs, capsys):
    text = shown(capsys, "show", runs / ODD)
    lines = text.splitlines()
    assert lines[0].startswith("probe, preset any, 2 settings × 2 seeds: done, 256 steps each, ")
    assert lines[0].endswith(" on cpu")
    assert re.search("^  num_envs +4 instead of 128$", text, re.MULTILINE)
    # What was fitted to the task's episodes of 6 steps.
    assert re.search(
        "^  training_time_limit +6 instead of none$", text, re.MULTILINE | re.IGNORECASE
    )
    assert "Swept: learning_rate 0.001, 0.01" in lines
    assert not re.search("^  learning_rate", text, re.MULTILINE)
    assert "  metrics.csv      8 evaluations of 4 member(s)" in lines
    facts = read_facts(runs / ODD)
    table = np.array([float(row["eval_return"]) for row in rows(runs / ODD)]).reshape(8, 2, 2)
    setting = table[-1].mean(1).argmax()
    means = table[:, setting].mean(1)
    assert facts.setting == setting
    assert facts.last[0] == pytest.approx(means[-1])
    assert (facts.best.mean, facts.best.env_steps) == (means.max(), 32 * (means.argmax() + 1))
    assert f"Last {facts.last.text} at 256 steps; best {facts.best.text} at " in text
    assert len(lines) < 60


def test_a_run_of_the_preset_alone_says_so(run, capsys):
    config = json.loads((run / "config.json").read_text())
    chosen = PRESETS["cpu"]
    plan = Plan("probe", "cpu", *chosen, num_seeds=2)
    (run / "config.json").write_text(json.dumps({**config, **plan.to_json()}))
    (run / "metrics.csv").unlink()
    shutil.rmtree(run / "checkpoints")
    text = shown(capsys, "show", run)
    assert "All settings are those of the preset cpu." in text
    assert "probe, preset cpu, 2 seeds: stopped, 0 of 307k steps each on cpu" in text
    assert "No evaluation has been made yet." in text
    (run / "config.json").write_text(json.dumps({**config, "preset": "mine"}))
    assert "preset, 'mine', is none that this package has" in shown(capsys, "show", run)


def test_the_commands_that_are_shown_do_what_they_say(
    probe_task, run, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path / "copied")
    printed = shown(capsys, "show", ODD).partition("\nGo on\n")[2]
    commands = [line[line.index("reppo-fx ") :] for line in printed.splitlines()]
    shell = "\n".join(['reppo-fx() { printf "%s\\0" "$@" "next"; }', *commands])
    pasted = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    split = [line.split("\0") for line in pasted.stdout.split("\0next\0")[:-1]]
    verbs = {line[0]: line for line in split}
    assert set(verbs) >= {"sweep", "eval", "plot"}
    assert set(verbs) <= set(command_names(commands_of(*preset("cpu"), "cpu", None)))
    assert all(ODD in line for line in split)
    assert cli.main(verbs["eval"]) == 0
    assert cli.main(verbs["plot"]) == 0
    assert verbs["sweep"][-2:] == ["--total-steps", "512"]
    with (run / "metrics.csv").open() as file:
        lines = file.readlines()
    (run / "metrics.csv").write_text("".join(lines[:-4]))
    shutil.rmtree(run / "checkpoints" / "8")
    text = shown(capsys, "show", ODD)
    assert "stopped, 224 of 256 steps each" in text
    assert re.search(r"^  resume +reppo-fx sweep --resume 'a run, of \$x'$", text, re.MULTILINE)


def test_a_run_that_is_being_written_is_running(run, capsys):
    with only_writer(run):
        text = shown(capsys, "show", run)
        assert "2 seeds: running, 256 of 256 steps each" in text
        assert "--resume" not in text
    assert "2 seeds: done" in shown(capsys, "show", run)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_is_shown_in_the_characters_that_there_are(runs, monkeypatch, encoding):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert cli.main(["show", str(runs / ODD)]) == 0
    stdout.flush()
    text = stdout.buffer.getvalue().decode(encoding)
    assert ("█" in text) == (encoding == "utf-8")
    assert ("#####" in text) == (encoding == "ascii")
    assert "?" not in text


# A curve in characters.


def cells(lines):
    """Eighths of a row in each column, from lines with labels of their own."""
    drawn = [line.partition("┤" if "┤" in line else "│")[2] for line in lines[:-2]]
    width = lines[-2].count("─")
    return [sum(BLOCKS.index(row.ljust(width)[i]) for row in drawn) for i in range(width)]


def test_columns_are_as_high_as_the_curve():
    x = np.arange(1, 11)
    heights = cells(chart(x, 0.5 * x, ("0", "10"), width=10))
    assert heights == [round(56 * i / 10) for i in range(1, 11)]
    below = cells(chart(x, np.linspace(-3.0, -1.0, 10), ("0", "10"), width=10))
    assert (below[0], below[-1]) == (1, 56)  # from its lowest value, which is seen


def test_what_is_not_finite_leaves_its_columns_empty():
    y = np.array([1.0, np.nan, 3.0, np.inf, 5.0])
    assert cells(chart(np.arange(1, 6), y, ("0", "5"), width=5)) == [11, 0, 34, 0, 56]
    assert cells(chart(np.arange(1, 3), np.full(2, np.nan), ("0", "2"), width=4)) == [0] * 4


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0, 1e30])
def test_a_curve_that_stays_where_it_is(value):
    lines = chart(np.array([10, 20]), np.full(2, value), ("0", "20"))
    assert len(lines) == 9
    assert cells(lines)[-1] > 0


# Many runs.


@pytest.fixture
def folder(runs, tmp_path):
    """Runs of several tasks and ages, one inside another folder, and what is no run or a broken one."""
    place = tmp_path / "many"
    for age, (name, task, last) in enumerate(
        [("new", "beta", 1.0), ("deep/er", "alpha", 3.0), ("old", "beta", float("nan"))]
    ):
        copied = shutil.copytree(runs / ODD, place / name)
        config = read_config(copied)
        (copied / "config.json").write_text(json.dumps({**config, "task": task}))
        lines = (copied / "metrics.csv").read_text().splitlines()
        column = lines[0].split(",").index("eval_return")
        for number in range(1, len(lines)):
            row = lines[number].split(",")
            row[column] = f"{last:g}"
            lines[number] = ",".join(row)
        kept = lines[: -4 * age] if age else lines
        (copied / "metrics.csv").write_text("\n".join(kept) + "\n")
        if age:
            shutil.rmtree(copied / "checkpoints")
        for path in (copied / "metrics.csv", copied / "config.json"):
            os.utime(path, (1e9 - 1e6 * age,) * 2)
    (place / "broken").mkdir()
    (place / "broken" / "config.json").write_text("{")
    shutil.copytree(runs / ODD, place / "damaged")
    (place / "damaged" / "metrics.csv").write_text("a,b\n1,2\n")
    (place / "pictures" / "of mine").mkdir(parents=True)
    (place / ".hidden").mkdir()
    (place / "notes.txt").write_text("")
    return place


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("date", ["new", "deep/er", "old"]),
        ("return", ["deep/er", "new", "old"]),
        ("steps", ["new", "deep/er", "old"]),
        ("task", ["deep/er", "new", "old"]),
    ],
)
def test_runs_are_listed_in_order_and_what_is_none_is_told(folder, capsys, sort, order):
    text = shown(capsys, "list", folder, "--sort", sort)
    table, _, told = text.partition(f"{folder}/broken")
    names = [line.split()[0] for line in table.splitlines()[1:]]
    assert names == order
    row = next(line.split() for line in table.splitlines() if " beta " in line and "new" in line)
    assert row[:10] == ["new", "beta", "any", "2", "×", "2", "256", "1.00", "±", "0.00"]
    assert "done" in row
    assert re.search(r"deep/er .* 224/256 .* stopped +2 ", table)
    assert "/config.json cannot be read: " in told
    assert "damaged/metrics.csv is not a table of this run: it has no column" in told
    assert "Without a config.json, and so no runs: pictures." in told
    assert "hidden" not in text
    assert "notes" not in text


def test_a_folder_that_is_a_run_is_listed_and_an_empty_one_says_so(runs, tmp_path, capsys):
    assert ODD in shown(capsys, "list", runs / ODD)
    assert shown(capsys, "list", tmp_path) == f"There are no runs in {tmp_path}.\n"
    assert cli.main(["list", str(tmp_path / "no")]) == 2
    assert f"folder is '{tmp_path / 'no'}', which is not there." in capsys.readouterr().err


# What explains a curve.


def test_the_picture_explains_the_curve(runs, run, tmp_path):
    """Each metric has its place in it."""
    plan = Plan.from_json(read_config(run))
    steps, metrics = read_metrics(run / "metrics.csv", plan, ("eval_return", *EXPLAINING))
    assert set(metrics) == {"eval_return", *EXPLAINING}
    assert metrics["outside"][0, 0, 0] == float(rows(run)[0]["outside"])
    returns = metrics.pop("eval_return")

    def picture(found):
        plot_learning_curve(tmp_path / "c.png", "t", steps, returns, ["a", "b"], found)
        return matplotlib.image.imread(tmp_path / "c.png")

    whole = picture(metrics)
    assert np.array_equal(picture(metrics), whole)
    assert picture({}).shape[0] < whole.shape[0]
    for name in EXPLAINING:
        changed = picture(
            {**metrics, name: metrics[name] * np.linspace(1.0, 0.3, 8)[:, None, None]}
        )
        assert not np.array_equal(changed, whole), name


def test_the_picture_of_a_run_is_the_one_that_explains(runs):
    height, width = matplotlib.image.imread(runs / ODD / "curve.png").shape[:2]
    assert (width, height) == (1275, 885)


def test_metrics_that_are_not_finite_or_missing_leave_the_rest(tmp_path):
    returns = np.ones((2, 1, 1))
    found = {"kl": np.full((2, 1, 1), np.nan), "multiplier": np.array([[[1e-3]], [[np.inf]]])}
    plot_learning_curve(tmp_path / "c.png", "t", np.array([1, 2]), returns, None, found)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
