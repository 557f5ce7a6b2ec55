"""The Python snippets of README and of the pages on sweeps, and the command lines of README and pages, run as they
stand, on a probe instead of the simulator and in small sizes. Other pages: test_docs.py."""

import dataclasses
import re
import shlex
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.run import cli, worlds
from reppo_fx.run.flags import command_names, commands
from reppo_fx.run.stages import Stage

from .sizes import TOY_CONFIG

# Made so small that nothing is learned: what is said of that is right, and tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore::reppo_fx.ReppoRunWarning")

matplotlib.use("agg")
README = Path(__file__).parents[1] / "README.md"
HOW_TO = README.with_name("docs") / "howto"


def blocks(page, language):
    """The code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


SNIPPETS = blocks(README, "python")
SWEEPS = [code for page in ("sweeps.md", "devices.md") for code in blocks(HOW_TO / page, "python")]


@pytest.fixture
def small(monkeypatch):
    config, preset, preset_for = rx.Config, rx.preset, rx.preset_for
    probe = lambda name: probes.match_observation()._replace(episode_length=5)

    def small_preset(name, **changes):
        changed, hyperparameters = preset(name, **changes)
        return dataclasses.replace(changed, **TOY_CONFIG), hyperparameters

    def fitted(world, *name, **changes):
        return preset_for(world, *name, **{**changes, **TOY_CONFIG})

    monkeypatch.setattr(rx.envs, "playground", probe)
    monkeypatch.setattr(rx, "Config", lambda **changes: config(**{**changes, **TOY_CONFIG}))
    monkeypatch.setattr(rx, "preset", small_preset)
    monkeypatch.setattr(rx, "preset_for", fitted)


def test_readme_is_short_and_has_a_snippet_for_each_of_the_three_users():
    assert len(README.read_text().splitlines()) <= 120
    assert [code.count("reppo_fx as rx") for code in SNIPPETS] == [1, 1, 1]
    assert all(len(code.splitlines()) <= 12 for code in SNIPPETS)


@pytest.mark.parametrize("number", range(3))
def test_snippet_runs(small, number):
    scope = {}
    exec(SNIPPETS[number], scope)
    if "runs" in scope:
        assert scope["runs"].metrics.eval_return.shape == (6, 2, 2)


def test_links_of_readme_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", README.read_text())
    local = {target for target in targets if not target.startswith("http")}
    missing = {target for target in local if not (README.parent / target).exists()}
    assert len(local) > 20
    assert not missing


def test_the_gif_of_readme_is_small_and_moves():
    from PIL import Image

    path = README.with_name("docs") / "images" / "cheetah.gif"
    assert path.stat().st_size <= 2_000_000
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["duration"]) == (100, 40)


@pytest.mark.slow
def test_sweep_snippets_run_one_after_the_other(small, monkeypatch):
    for name, value in {"num_evals": 7, "total_steps": 7 * 32}.items():
        monkeypatch.setitem(TOY_CONFIG, name, value)
    scope = {}
    # As written, but with fewer members.
    for code in SWEEPS:
        exec(code.replace("32,", "4,"), scope)
    assert scope["halved"].evaluations.tolist().count(7) == 1
    assert scope["history"].parents.shape == (7, 16)
    assert scope["runs"].metrics.eval_return.shape == (4, 8, 7)
    assert int(scope["init"](scope["jax"].random.key(0), rx.Hyperparameters()).iteration) == 0


# The command lines.

COMMANDS = [
    line.partition("#")[0].strip()
    for page in (README, HOW_TO / "running.md", HOW_TO / "devices.md")
    for block in blocks(page, "bash")
    for line in block.splitlines()
    if line.partition("#")[0].strip()
]
INSTALL = "pip install uv && uv run "
OTHERS = {
    # This is what runs here.
    "pip install uv && uv run pytest",
    # Scripts of the reader's own; what they begin with runs in tests/sweeps/devices_worker.py.
    "srun --nodes=4 --ntasks-per-node=1 python my_sweep.py",
    "PROCESS=0 python my_sweep.py",
    "PROCESS=1 python my_sweep.py",
}
OURS = [command.removeprefix(INSTALL) for command in COMMANDS if command not in OTHERS]
TOY = {
    "--total-steps": "64",
    "--num-envs": "4",
    "--num-steps": "8",
    "--num-epochs": "1",
    "--num-minibatches": "2",
    "--num-evals": "2",
    "--num-eval-envs": "2",
    "--actor-width": "8",
    "--critic-width": "8",
}


def toy(command):
    """A command as arguments; a training that is not resumed in toy sizes, whatever it says itself."""
    program, *arguments = shlex.split(command)
    assert program == "reppo-fx", f"{command!r} is shown: run it here, or name it in OTHERS"
    if arguments[0] in ("train", "sweep") and "--resume" not in arguments:
        for flag, value in TOY.items():
            if flag in arguments:
                arguments[arguments.index(flag) + 1] = value
            else:
                arguments += [flag, value]
    elif "--total-steps" in arguments:  # a run that goes on for longer than in toy sizes
        arguments[arguments.index("--total-steps") + 1] = "128"
    return arguments


class Painted(Stage):
    """A stage where all is black."""

    def __init__(self, members):
        self.members = members

    def play(self, policies, episodes, how, film):
        for _ in range(how.length):
            alive = np.ones(self.members, bool)
            pictures = film.draw(alive, lambda member: np.zeros((32, 32, 3), np.uint8))
            film.show(pictures, np.zeros(self.members))
        return np.zeros((self.members, episodes))


def test_readme_and_pages_show_every_command():
    known = command_names(commands(*rx.preset("cpu"), "cpu", None))
    assert {toy(command)[0] for command in OURS} == set(known)
    assert set(COMMANDS) >= OTHERS, "named in OTHERS, but shown nowhere"


def test_commands_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    """As written, on a probe; each goes on with what those before it left."""
    names = {*rx.envs.playground_names(), *rx.envs.brax_names()}
    names |= {f"envpool:{name}" for name in rx.hosts.envpool_names()}
    made = []

    def make(name, config):
        assert not names or name in names
        made.append(name)
        return probes.match_observation()._replace(episode_length=5)

    monkeypatch.setattr(worlds, "make_world", make)
    # A probe has no looks; real tasks are filmed in tests/run/test_render.py.
    film = sys.modules["reppo_fx.run.render"]
    monkeypatch.setattr(film, "open_stage", lambda task, members, *how: Painted(members))
    monkeypatch.chdir(tmp_path)
    for command in OURS:
        arguments = toy(command)
        if arguments[0] == "plot":  # of other runs, which it finds by name
            folders = {text.rpartition("=")[2] for text in arguments[1:] if "runs/" in text}
            for folder in folders - {"runs/mine"}:
                shutil.copytree("runs/mine", folder)
        assert cli.main(arguments) == 0, capsys.readouterr().err
    assert {"CartpoleBalance", "hopper"} <= set(made)
    assert (tmp_path / "plots" / "summary.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in OURS if toy(c)[0] in ("train", "sweep")])
def test_command_trains_its_real_task(tmp_path, monkeypatch, capsys, command):
    pytest.importorskip("brax")
    pytest.importorskip("mujoco_playground")
    if "--resume" in command:
        pytest.skip("of a run that another one leaves")
    monkeypatch.chdir(tmp_path)
    assert cli.main(toy(command)) == 0, capsys.readouterr().err
    assert "return " in capsys.readouterr().out


# Names.


def test_every_public_name_is_exported_and_documented():
    for name in rx.__all__:
        assert getattr(rx, name) is not None
        assert name.startswith("__") or name == "PRESETS" or getattr(rx, name).__doc__, name
