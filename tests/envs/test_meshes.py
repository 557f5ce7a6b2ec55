"""Where a robot's meshes come from, with folders of our own in the place of clone and wheels."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reppo_fx.envs import _meshes


class FakePlayground:
    """What `mjx_env` is: a path that is read at every build, and a function that clones."""

    def __init__(self, folder, failure=None):
        self.MENAGERIE_PATH = folder
        self.failure = failure
        self.clones = 0

    def ensure_menagerie_exists(self):
        self.clones += 1
        if self.failure:
            raise self.failure
        (self.MENAGERIE_PATH / "unitree_g1").mkdir(parents=True)

    def load(self, robot):
        """As a task does: the folder of a robot, then what is in it."""
        return self.MENAGERIE_PATH / robot / "assets"


def install(folder, monkeypatch, **wheels):
    """Wheels of these names with these robots, and no others."""
    for wheel in _meshes.WHEELS:
        monkeypatch.delitem(sys.modules, wheel, raising=False)
    site = folder / "site-packages"
    for wheel, robots in wheels.items():
        for robot in robots:
            (site / wheel / "mujoco/playground/assets/mujoco_menagerie" / robot).mkdir(parents=True)
        (site / wheel / "__init__.py").touch()
    others = [p for p in sys.path if not any((Path(p) / w).exists() for w in _meshes.WHEELS)]
    monkeypatch.setattr(sys, "path", [str(site), *others])


HUMANOID, LARGE = _meshes.WHEELS


def load(playground, robot):
    return _meshes.load_with_meshes(playground, "A task", lambda: playground.load(robot))


def test_a_clone_goes_first(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, **{HUMANOID: ["unitree_g1"]})
    (tmp_path / "clone").mkdir()
    playground = FakePlayground(tmp_path / "clone")
    assert load(playground, "unitree_g1") == tmp_path / "clone" / "unitree_g1" / "assets"
    assert playground.clones == 0


def test_without_a_clone_every_wheel_is_searched(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, **{HUMANOID: ["unitree_g1"], LARGE: ["unitree_go1"]})
    playground = FakePlayground(tmp_path / "clone")
    for wheel, robot in ((HUMANOID, "unitree_g1"), (LARGE, "unitree_go1")):
        found = load(playground, robot)
        assert f"{wheel}/mujoco/playground/assets/mujoco_menagerie/{robot}/assets" in str(found)
    assert playground.clones == 0
    assert tmp_path / "clone" == playground.MENAGERIE_PATH  # as it was


@pytest.mark.parametrize(
    "failure", [subprocess.CalledProcessError(128, ["git", "clone"]), FileNotFoundError("git")]
)
def test_a_robot_that_is_nowhere_is_a_sentence(tmp_path, monkeypatch, failure):
    install(tmp_path, monkeypatch, **{LARGE: ["unitree_go1"]})
    playground = FakePlayground(tmp_path / "clone", failure)
    with pytest.raises(ImportError, match="A task needs the meshes of 'booster_t1'") as caught:
        load(playground, "booster_t1")
    assert "no network" in str(caught.value)
    assert "pip install 'reppo_fx[meshes]'" in str(caught.value)
    assert playground.clones == 1
    assert caught.value.__cause__ is failure
    assert tmp_path / "clone" == playground.MENAGERIE_PATH


def test_with_a_network_what_no_wheel_has_is_cloned(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    playground = FakePlayground(tmp_path / "clone")
    assert load(playground, "unitree_g1") == tmp_path / "clone" / "unitree_g1" / "assets"
    assert playground.clones == 1


def test_a_task_that_needs_no_robot_clones_nothing(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    playground = FakePlayground(tmp_path / "clone", OSError("no network"))
    assert _meshes.load_with_meshes(playground, "A task", lambda: "built") == "built"
    assert playground.clones == 0


def test_threads_that_build_together_do_not_meet(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, **{HUMANOID: ["unitree_g1"]})
    playground = FakePlayground(tmp_path / "clone", OSError("no network"))
    began = threading.Event()

    def build(seconds):
        began.set()
        time.sleep(seconds)
        return playground.load("unitree_g1")

    def start(seconds):
        return _meshes.load_with_meshes(playground, "A task", lambda: build(seconds))

    with ThreadPoolExecutor() as pool:
        early = pool.submit(start, 0.1)
        began.wait()
        late = pool.submit(start, 0.3)  # begins while the first builds, and ends after it
        first, second = early.result(), late.result()
    assert first == second
    assert tmp_path / "clone" == playground.MENAGERIE_PATH


def test_other_errors_of_loading_are_its_own(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    playground = FakePlayground(tmp_path / "clone")
    with pytest.raises(ZeroDivisionError):
        _meshes.load_with_meshes(playground, "A task", lambda: 1 / 0)
    assert tmp_path / "clone" == playground.MENAGERIE_PATH
