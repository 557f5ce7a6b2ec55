"""Building ManiSkill's tasks: what is missing, what needs a download or a device, each in a sentence."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import NDArray

from .._errors import MissingExtraError, require_extra
from ..envs._replaced import replaced

NEWEST_PYTHON = (3, 12)


@runtime_checkable
class Simulation(Protocol):
    """ManiSkill's `BaseEnv`, as far as it is used: tensors in and out, no restarts of its own."""

    single_action_space: Any
    device: Any

    def reset(self, seed: list[int], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]: ...

    def step(self, action: NDArray[Any]) -> tuple[Any, Any, Any, Any, dict[str, Any]]: ...

    def close(self) -> None: ...


class Task(NamedTuple):
    """What is built: a registered task with its options, and what the adapter makes of it."""

    name: str
    spec: Any
    package: ModuleType
    success: str
    episode_length: int | None
    options: Mapping[str, Any]


def package() -> ModuleType:
    """ManiSkill with its tasks registered."""
    try:
        with warnings.catch_warnings():
            # SAPIEN has its own where the system has none.
            warnings.filterwarnings("ignore", "Failed to find system libvulkan")
            importlib.import_module("mani_skill.envs")
    except ModuleNotFoundError as error:
        sentence = _missing((error.name or "").partition(".")[0])
        if sentence is None:
            raise
        raise sentence from error
    return importlib.import_module("mani_skill")


def _missing(package: str) -> MissingExtraError | None:
    if package == "torch":
        return MissingExtraError(
            "ManiSkill needs PyTorch, which is not installed; install it with: pip install torch"
        )
    if package != "mani_skill":
        return None
    if sys.version_info[:2] > NEWEST_PYTHON:
        newest, running = (".".join(map(str, v[:2])) for v in (NEWEST_PYTHON, sys.version_info))
        return MissingExtraError(
            f"ManiSkill runs on Python {newest} and older, and this is Python {running}; in an older one, install "
            "it with: pip install 'reppo_fx[maniskill]'"
        )
    return require_extra("ManiSkill", "maniskill")


def registered() -> dict[str, Any]:
    """ManiSkill's own registry: name -> `EnvSpec`."""
    registry: dict[str, Any] = importlib.import_module(
        "mani_skill.utils.registration"
    ).REGISTERED_ENVS
    return registry


def built(task: Task, num_envs: int, quiet: bool = False) -> Simulation:
    """One simulation without wrappers; quietly, if the same has been said of another one."""
    if "cuda" in task.options["sim_backend"]:
        _require_cuda(task.options["sim_backend"])
    with _faults(task.name), replaced(task.package.logger, "disabled", lambda own: own or quiet):
        simulation: Simulation = task.spec.make(num_envs=num_envs, obs_mode="state", **task.options)
        return simulation


def _require_cuda(sim_backend: str) -> None:
    count = importlib.import_module("torch").cuda.device_count()
    if not count:
        raise ValueError(
            f"sim_backend is {sim_backend!r}, but PyTorch sees no CUDA device here; 'physx_cpu' needs none."
        )


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """What goes wrong while a task is built, in one sentence; nobody is asked whether to download something."""
    assets = importlib.import_module("mani_skill.utils.download_asset")
    said = io.StringIO()
    try:
        asking = replaced(assets, "prompt_yes_no", lambda ask: _asked(name, ask))
        with asking, contextlib.redirect_stdout(said):
            yield
    except _DownloadNeededError as error:
        raise ValueError(str(error)) from None
    except SystemExit as error:
        raise ValueError(
            f"{name} could not be built; ManiSkill says: {' '.join(said.getvalue().split())}"
        ) from error
    except Exception as error:
        raise ValueError(_sentence(name, error)) from error


def _sentence(name: str, error: Exception) -> str:
    told = " ".join(str(error).split())
    if re.search(r"rendering device|\bvk::|vulkan|RenderSystem", told, re.IGNORECASE):
        return (
            f"{name} could not be built: ManiSkill needs a rendering device (a GPU with its Vulkan driver) even "
            f"where only states are observed, and found none here ({told})."
        )
    return f"{name} could not be built: {type(error).__name__}: {told}"


class _DownloadNeededError(Exception):
    """A task or a robot whose files are not on this machine."""


def _asked(name: str, ask: Any) -> Any:
    """In place of ManiSkill's question, which a training that nobody watches would wait at for ever."""

    def answer(question: str) -> bool:
        if os.environ.get("MS_SKIP_ASSET_DOWNLOAD_PROMPT") == "1":
            agreed: bool = ask(question)
            return agreed
        # "Environment PickSingleYCB-v1 requires asset(s) ycb which could not be found. Would you like to …"
        missing, owner = question.partition(" Would")[0], (*question.split(), "", "")[1]
        raise _DownloadNeededError(
            f"{name} needs files that are not on this machine ({missing.rstrip('.')}); get them with: "
            f"python -m mani_skill.utils.download_asset {owner}"
        )

    return answer
