"""Who may know whom, read from the source; and what `import reppo_fx` leaves out."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "reppo_fx"

GROUND = {"ops", "settings", "_errors", "_keys", "_members", "_programs", "_ranges", "_trees"}
BELOW_RUN = GROUND | {"envs", "learner", "training", "hosts", "sweeps"}

# For each room (a folder of reppo_fx, or a module on the ground floor), the rooms that it may import. Another
# room must be placed here before it passes.
MAY_IMPORT = {
    "ops": {"ops"},
    "_errors": {"ops"},
    "_trees": set(),
    "_keys": set(),
    "_members": set(),
    "_programs": set(),
    "_ranges": set(),
    "settings": GROUND,
    "envs": GROUND | {"envs"},
    "learner": GROUND | {"learner"},
    "training": GROUND | {"envs", "learner", "training"},
    "hosts": GROUND | {"envs", "learner", "training", "hosts"},
    "sweeps": GROUND | {"envs", "learner", "training", "sweeps"},
    "__init__": BELOW_RUN,
    "run": BELOW_RUN | {"run", "__init__"},
    "__main__": {"run"},
}
OPS_MAY_IMPORT = {"jax", "chex", "jaxtyping", "optax", *sys.stdlib_module_names}

HEAVY = [
    "imageio_ffmpeg",
    "tensorboardX",
    "wandb",
    "onnx",
    "mujoco",
    "mujoco_playground",
    "brax",
    "gymnax",
    "orbax",
    "matplotlib",
    "rich",
    "tyro",
    "pandas",
    "envpool",
    "gymnasium",
    "mani_skill",
    "sapien",
    "torch",
    "mjlab",
    "onnx",
    "warp",
]
HOST_MODULES = {"time", "datetime", "threading", "subprocess", "logging"}
MAY_LOCK = {"envs/_replaced.py": {"threading"}}  # while a simulator's object is built or traced
HOST_CALLS = {"print", "open", "input", "breakpoint"}
HOST_ATTRIBUTES = {"io_callback", "pure_callback", "debug_callback", "debug", "host_callback"}

SOURCES = {path.relative_to(ROOT): path.read_text() for path in sorted(ROOT.rglob("*.py"))}


def part_of(path):
    """`envs/base.py` -> `envs`, `settings.py` -> `settings`."""
    return path.parts[0].removesuffix(".py")


def of_parts(*parts):
    return [path for path in SOURCES if part_of(path) in parts]


def imported_modules(path, source):
    """Absolute names of all modules and members that a file imports, also inside functions."""
    package = ["reppo_fx", *path.parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def imported_parts(path, source):
    """The parts of reppo_fx that a file imports; a name of the package itself counts as `__init__`."""
    parts = set()
    for name in imported_modules(path, source):
        if name.split(".")[0] == "reppo_fx":
            second = [*name.split("."), "__init__"][1]
            parts.add(second if second in MAY_IMPORT else "__init__")
    return parts


def host_effects(source):
    """Calls and imports that touch the world outside the compiled program, with their lines."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names} & HOST_MODULES
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if not node.level else []
            names = ({*module[:1]} & HOST_MODULES) | (
                {*module[1:], *(alias.name for alias in node.names)} & HOST_ATTRIBUTES
            )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names = {node.func.id} & HOST_CALLS
        elif isinstance(node, ast.Attribute):
            names = {node.attr} & (HOST_ATTRIBUTES | {"open", "write_text", "write_bytes"})
        else:
            names = set()
        found |= {(node.lineno, name) for name in names}
    return sorted(found)


def test_every_part_has_its_place():
    assert {part_of(path) for path in SOURCES} <= set(MAY_IMPORT)


def test_the_picture_in_contributing_is_these_rules():
    text = ROOT.parent.joinpath("CONTRIBUTING.md").read_text()
    picture = re.search(r"```mermaid\nflowchart TD\n(.*?)```", text, re.DOTALL)[1]
    below = {}
    for room, lower in re.findall(r"^ +(\w+)(?:\[.*?\])? --> (\w+)", picture, re.MULTILINE):
        below.setdefault(room, set()).add(lower)

    def reached(room):
        rooms = below.get(room, set())
        return rooms.union(*map(reached, rooms))

    def drawn(room):
        files = reached(room) | {room}
        return files - {"ground"} | (GROUND if "ground" in files else set())

    assert set(below) == BELOW_RUN - GROUND | {"run", "ground"}
    for room in set(below) - {"ground"}:
        assert drawn(room) == MAY_IMPORT[room] - {"__init__"}, room


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_file_imports_only_the_parts_it_may_know(path):
    allowed = MAY_IMPORT[part_of(path)]
    assert imported_parts(path, SOURCES[path]) <= allowed


@pytest.mark.parametrize("path", of_parts("ops"), ids=str)
def test_ops_import_nothing_but_jax_and_its_small_neighbours(path):
    inside = "reppo_fx.ops."
    others = {n for n in imported_modules(path, SOURCES[path]) if not n.startswith(inside)}
    assert {name.split(".")[0] for name in others} <= OPS_MAY_IMPORT


@pytest.mark.parametrize("path", of_parts("ops"), ids=str)
def test_ops_import_each_other_relatively_so_that_the_folder_can_be_renamed(path):
    assert "reppo_fx" not in SOURCES[path]


@pytest.mark.parametrize("path", of_parts("__init__", *BELOW_RUN - {"hosts"}), ids=str)
def test_no_host_effect_below_run(path):
    found = {name for _, name in host_effects(SOURCES[path])}
    assert found == MAY_LOCK.get(path.as_posix(), set())


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("from ..training.train import make_train", "training"),
        ("from .. import training", "training"),
        ("from reppo_fx.run import loop", "run"),
        ("import reppo_fx.sweeps", "sweeps"),
        ("def f():\n    from ..run.loop import go", "run"),
        ("import reppo_fx as rx", "__init__"),
        ("from .. import make_train", "__init__"),
        ("from .base import TimeStep", "envs"),
    ],
)
def test_the_reader_of_imports_sees(source, part):
    assert imported_parts(Path("envs/somewhere.py"), source) == {part}


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "with open('x'): pass",
        "path.open('w')",
        "import time",
        "from time import perf_counter",
        "jax.debug.print('x')",
        "from jax import debug",
        "from jax.experimental import io_callback",
        "import jax\njax.pure_callback(f, x)",
        "from jax.debug import callback",
    ],
)
def test_the_reader_of_host_effects_sees(source):
    assert host_effects(source)


def test_the_reader_of_host_effects_ignores_docstrings():
    assert host_effects('"""\n>>> print(open(time.time()))\n"""') == []


def test_import_leaves_the_heavy_packages_out():
    code = "import json, sys, reppo_fx; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "jax" in loaded
    assert loaded & set(HEAVY) == set()
