"""Drawing without a screen: what works is tried in processes of their own, as a failure ends the process."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

INSTALL = "on Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri, or libosmesa6"
VARIABLE = "MUJOCO_GL"
SECONDS_TO_TRY = 120.0
_DRAW = (
    "import mujoco; model = mujoco.MjModel.from_xml_string('<mujoco/>'); "
    "renderer = mujoco.Renderer(model, 16, 16); renderer.update_scene(mujoco.MjData(model)); "
    "renderer.render(); renderer.close()"
)


def use_headless_gl() -> None:
    """Let MuJoCo draw into memory: by EGL or OSMesa, whichever works, or what `MUJOCO_GL` says.

    Raises:
        ValueError: if none works, with the packages to install.
    """
    chosen = _working(os.environ.get(VARIABLE, ""))
    if not chosen or os.environ.get(VARIABLE) == chosen:
        return
    os.environ[VARIABLE] = chosen
    mujoco = sys.modules.get("mujoco")
    renderer = getattr(mujoco, "Renderer", None)
    if renderer is not None:
        # MuJoCo has read the variable when it was imported, and reads it again.
        importlib.reload(vars(sys.modules[renderer.__module__])["gl_context"])


def attempt(
    program: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> tuple[bool, str]:
    """Run a program of Python in a process of its own: whether it ended well, and what it said (its last line)."""
    command = [sys.executable, "-P", "-c", program, *arguments]
    # The same packages as here, and nobody's folder for what a simulator writes of its failures.
    same = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    try:
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS_TO_TRY,
                env={**same, **(environment or {})},
                cwd=folder,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    told = ended.stdout if ended.returncode == 0 else f"{ended.stdout}\n{ended.stderr}"
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return ended.returncode == 0, lines[-1] if lines else f"exit code {ended.returncode}"


@functools.cache
def _working(asked: str) -> str:
    """The value of `MUJOCO_GL` that draws; empty where MuJoCo's own choice does."""
    on_linux = ("egl", "osmesa") if sys.platform == "linux" else ("",)
    faults = []
    for choice in (asked,) if asked else on_linux:
        works, said = attempt(_DRAW, environment={VARIABLE: choice} if choice else None)
        if works:
            return choice
        faults.append(f"{choice or 'the system'}: {said.removesuffix('.')}")
    tried = f"{VARIABLE} is {asked!r}, which cannot" if asked else "neither EGL nor OSMesa can"
    raise ValueError(
        f"{tried} draw without a screen here ({'; '.join(faults)}). Install what is missing, {INSTALL}."
    )
