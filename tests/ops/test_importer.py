"""reppo_fx/ops works as a folder in somebody else's project, and an agent of theirs learns with it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OPS = HERE.parents[1] / "reppo_fx" / "ops"

# Isolated (-I) from the repository and from PYTHONPATH; where reppo_fx is installed it is blocked.
DRIVER = """
import runpy, sys
sys.modules["reppo_fx"] = None
sys.path.insert(0, {folder!r})
runpy.run_path("borrowing_agent.py", run_name="__main__")
assert sys.modules["borrowed"].__file__.startswith({folder!r}), sys.modules["borrowed"]
ours = [name for name in sys.modules if name.split(".")[0] == "reppo_fx"]
assert ours == ["reppo_fx"] and sys.modules["reppo_fx"] is None, ours
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(OPS, folder / "borrowed", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "borrowing_agent.py", folder)
    command = [sys.executable, "-I", "-c", DRIVER.format(folder=str(folder))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_borrowing_agent_learns_to_use_its_context(report):
    blind = 1 - 0.6**2
    assert report["first_reward"] < blind
    # Sampled actions lose their variance; the mode must come close to the perfect 1.
    assert report["last_reward"] > 0.9
    assert report["greedy_reward"] > 0.95


def test_the_borrowing_agent_learns_its_value(report):
    # Steps end with probability 0.2 and are otherwise alike: V = r + 0.9 · 0.8 · V. It lags a little.
    expected = report["last_reward"] / (1 - 0.9 * 0.8)
    assert report["last_value"] == pytest.approx(expected, rel=0.1)


def test_the_borrowed_multipliers_moved_and_stayed_positive(report):
    for name, start in (("temperature", 0.01), ("multiplier", 1.0)):
        assert report[name] > 0
        assert abs(report[name] / start - 1) > 0.1
