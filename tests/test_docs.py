"""The pages of docs/ run as they stand, on a probe instead of the simulator and in small sizes; what a block below
`<!-- needs ... -->` names is there at least; every public name has an entry."""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

import reppo_fx as rx

from .test_readme import small  # noqa: F401

# Made so small that nothing is learned: what is said of that is right, and tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore::reppo_fx.ReppoRunWarning")

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"(?:<!-- (needs|slow)[^\n]*-->\n)?```(\w+)\n(.*?)```", re.DOTALL)
PAGES = sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text())


def blocks(page, marks):
    """The Python blocks of a page with one of these marks above them; none is a mark, too."""
    found = BLOCK.findall(page.read_text())
    return [code for mark, language, code in found if language == "python" and mark in marks]


def run(page, marks):
    """The blocks one after the other, as a reader would."""
    scope = {}
    for number, code in enumerate(blocks(page, marks)):
        exec(compile(code, f"{page.name}, block {number + 1}", "exec"), scope)
    return scope


RUN = [page for page in PAGES if blocks(page, [""])]
# Those on sweeps and devices, with fewer members: test_readme.py.
SLOW = [page for page in PAGES if blocks(page, ["slow"]) and page.stem not in ("sweeps", "devices")]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_page_runs_from_top_to_bottom(small, page):  # noqa: F811
    scope = run(page, [""])
    if page.stem == "gymnasium":
        assert scope["act"](scope["policy"], scope["jax"].numpy.zeros(3)).shape == (1,)


def test_the_step_in_flax_takes_the_network_in_haiku():
    pytest.importorskip("haiku")
    page = DOCS / "howto" / "borrow.md"
    flax, step = blocks(page, [""])
    (haiku,) = blocks(page, ["needs"])
    scope = {}
    for code in (flax, haiku, step):
        exec(code, scope)
    assert set(scope["params"]) >= {"~", "linear"}
    assert scope["duals"].temperature != 0.01


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=lambda page: page.stem)
def test_page_with_its_long_blocks_runs(small, page, capsys):  # noqa: F811
    run(page, ["", "slow"])
    if page.stem == "debug":
        assert "of the targets are outside of what the critic can hold" in capsys.readouterr().out


def resolve(node):
    """What `rx.envs.make`, as written, is; an AttributeError if it is nothing."""
    if isinstance(node, ast.Name):
        return rx
    return getattr(resolve(node.value), node.attr)


def chain(node):
    """The first name of `a.b.c`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_in_all_blocks_are_there(page):
    for code in blocks(page, ["", "needs", "slow"]):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and chain(node) == "rx":
                assert resolve(node) is not None
            if isinstance(node, ast.ImportFrom) and node.module.startswith("reppo_fx"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_public_name_has_an_entry():
    """The strict build of the site says so, too; this takes no Sphinx."""
    listed = {}
    for page in (DOCS / "api").glob("*.md"):
        for module, names in re.findall(
            r"```\{public\} ([\w.]+)\n(.*?)```", page.read_text(), re.S
        ):
            listed.setdefault(module, []).extend(names.split())
    assert all(len(set(names)) == len(names) for names in listed.values())
    entries = {
        id(getattr(importlib.import_module(module), name))
        for module, names in listed.items()
        for name in names
    }
    for module in (rx, rx.ops, rx.envs, rx.hosts, importlib.import_module("reppo_fx.run")):
        values = {name: getattr(module, name) for name in module.__all__}
        missing = {name for name, value in values.items() if id(value) not in entries}
        assert missing <= {name for name, value in values.items() if isinstance(value, ModuleType)}


def test_tables_of_measurements_are_included_not_copied():
    results = DOCS.parent / "benchmarks" / "results"
    included = {
        name
        for page in (DOCS / "results").glob("*.md")
        for name in re.findall(
            r"\{include\} \.\./\.\./benchmarks/results/(\w+\.md)", page.read_text()
        )
    }
    assert included == {page.name for page in results.glob("*.md")}
