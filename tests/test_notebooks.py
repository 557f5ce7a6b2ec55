"""Every notebook runs from top to bottom in small sizes, and is kept as it ran in its own."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import matplotlib
import matplotlib.pyplot as plt
import pytest

import reppo_fx as rx
from reppo_fx import run
from reppo_fx.envs import probes

from .sizes import TOY_CONFIG

# Made so small that nothing is learned: what is said of that is right, and tested elsewhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore::reppo_fx.ReppoRunWarning"),
    pytest.mark.timeout(600),
]

matplotlib.use("agg")
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NEVER = float("-inf")


class Small(NamedTuple):
    """How one is made small: names of its cell of parameters, and fields of its config."""

    parameters: dict[str, float]
    config: Mapping[str, int] = MappingProxyType({})


SMALL = {
    "pieces": Small({}),
    "why_pathwise": Small({"ESTIMATES": 1000, "SEEDS": 2, "STEPS": 3}),
    "import_a_loss": Small(
        {
            "ITERATIONS": 2,
            "SEEDS": 2,
            "NUM_ENVS": 4,
            "NUM_STEPS": 8,
            "EXPLAINED": NEVER,
            "GAIN": NEVER,
            "ALIKE": -NEVER,
        }
    ),
    "sweep": Small(
        {"SEEDS": 2, "CANDIDATES": 4, "MEMBERS": 4, "RETURN": NEVER},
        {"num_evals": 7, "total_steps": 7 * 32},
    ),
    "own_environment": Small({"SEEDS": 2, "RETURN": NEVER}),
    "discrete": Small({"SEEDS": 2, "SOLVED": NEVER}),
    "robot": Small({"SEEDS": 2, "RETURN": NEVER}, {"episode_length": 100}),
}
LARGEST = 400_000


def read(path):
    return json.loads(path.read_text())["cells"]


def code_cells(path):
    return [cell for cell in read(path) if cell["cell_type"] == "code"]


@pytest.fixture
def small(monkeypatch, request):
    """Presets in toy sizes, and a probe for Playground's tasks."""
    preset, sizes = rx.preset, TOY_CONFIG | dict(SMALL[request.getfixturevalue("path").stem].config)
    probe = lambda name: probes.match_observation()._replace(episode_length=5)

    def small_preset(name, **changes):
        config, hyperparameters = preset(name, **changes)
        return dataclasses.replace(config, **sizes), hyperparameters

    def short_film(*given, **how):
        return film(*given, **{**how, "seconds": 1})

    film = run.render
    monkeypatch.setattr(run, "render", short_film)
    monkeypatch.setattr(rx.envs, "playground", probe)
    monkeypatch.setattr(rx, "preset", small_preset)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(small, monkeypatch, tmp_path, path):
    monkeypatch.chdir(tmp_path)
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    parameters = SMALL[path.stem].parameters
    scope = {"__name__": "__main__"}
    # As for a reader: the strictness of this test session is for our own code.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for cell in code_cells(path):
            exec("".join(cell["source"]), scope)
            if "parameters" in cell["metadata"].get("tags", ()):
                assert parameters.keys() <= scope.keys()
                scope.update(parameters)
    plt.close("all")
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    assert len(shown) == sum("image/png" in output.get("data", {}) for output in outputs) > 0
    assert all(scope[name] == value for name, value in parameters.items())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_as_it_ran(path):
    cells = code_cells(path)
    counts = [cell["execution_count"] for cell in cells]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert counts == list(range(1, len(counts) + 1))
    assert all(output["output_type"] != "error" for output in outputs)
    for output in outputs:  # what a sweep is told about its runs belongs to it
        assert output.get("name") != "stderr" or "ReppoRunWarning" in "".join(output["text"])
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_first_cell_installs_the_package_where_it_is_missing(path, monkeypatch, tmp_path):
    """The checkout that the notebook is in, where it is in one."""
    first = "".join(code_cells(path)[0]["source"])
    asked = []
    monkeypatch.setattr("subprocess.check_call", asked.append)
    exec(first, {})
    assert not asked
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for folder, source in ((NOTEBOOKS[0].parent, "..["), (tmp_path, "reppo_fx[")):
        monkeypatch.chdir(folder)
        exec(first, {})
        command = asked.pop()
        assert command[1:5] == ["-m", "pip", "install", "-q"]
        assert command[5].startswith(source)
