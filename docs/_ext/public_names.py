"""The directive `public`: documents names of a module from their docstrings; and no build without all of them."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from types import ModuleType

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

MODULES = ("reppo_fx", "reppo_fx.ops", "reppo_fx.envs", "reppo_fx.hosts", "reppo_fx.run")


def public_names() -> dict[str, object]:
    """Every public object, by its first full name; modules are pages, not entries."""
    found: dict[str, object] = {}
    callables = set()
    for path in MODULES:
        module = importlib.import_module(path)
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, ModuleType) or id(value) in callables:
                continue
            found[f"{path}.{name}"] = value
            if inspect.isclass(value) or inspect.isroutine(value):
                callables.add(id(value))
    return found


class Public(SphinxDirective):
    """```{public} module``` with one name a line (or several, separated by spaces)."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Entries in the order in which they are named."""
        path = self.arguments[0]
        module = importlib.import_module(path)
        made: list[nodes.Node] = []
        for name in " ".join(self.content).split():
            made += self.parse_text_to_nodes("\n".join(entry(path, module, name)))
        return made


def entry(path: str, module: ModuleType, name: str) -> Iterator[str]:
    """The directive that documents one name, in MyST."""
    value = getattr(module, name)
    yield "```{eval-rst}"
    if inspect.isclass(value) and value.__name__ == name:  # and no alias of one
        yield f".. autoclass:: {path}.{name}"
        yield "   :members:"
        yield "   :special-members: __call__"
        if BaseException in value.__mro__:
            yield "   :show-inheritance:"
    elif inspect.isroutine(value):
        yield f".. autofunction:: {path}.{name}"
    else:
        yield f".. py:data:: {path}.{name}"
        yield ""
        yield from (f"   {line}" for line in data_docstring(value, name))
    yield "```"


def data_docstring(value: object, name: str) -> list[str]:
    """What is written below a constant, where it is made."""
    for path in sorted(sys.modules):
        if not path.startswith("reppo_fx") or not hasattr(sys.modules[path], "__file__"):
            continue
        if getattr(sys.modules[path], name, None) is not value:
            continue
        lines = ModuleAnalyzer.for_module(path).find_attr_docs().get(("", name))
        if lines:
            return lines
    raise ExtensionError(f"{name} has no docstring below it.")


def check_all_documented(app: Sphinx, env: BuildEnvironment) -> None:
    """Raise if a public name has no entry on any page."""
    entries = env.domains["py"].objects
    missing = sorted(name for name in public_names() if name not in entries)
    if missing:
        raise ExtensionError(f"public, but on no page of docs/api: {', '.join(missing)}")


def find_public(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Node | None:
    """A class in a signature is named by where it is written; its entry is where it is public."""
    if node.get("refdomain") != "py":
        return None
    target = node.get("reftarget", "")
    last = target.rpartition(".")[2]
    for path in (*MODULES, *internal_modules(env)):
        name = f"{path}.{last}"
        if name in env.domains["py"].objects:
            found = env.domains["py"].objects[name]
            return env.domains["py"].resolve_xref(
                env, node.get("refdoc", ""), app.builder, found.objtype, name, node, contnode
            )
    return None


def internal_modules(env: BuildEnvironment) -> Iterator[str]:
    """Modules with an entry that is not public: types that signatures name."""
    yield from sorted({name.rpartition(".")[0] for name in env.domains["py"].objects})


def skip_fields(
    app: Sphinx, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Fields are told under Attributes; a dataclass's that holds a function is no method."""
    is_function = inspect.isfunction(value) and value.__qualname__ == value.__name__
    is_field = what == "class" and (is_function or type(value).__name__ == "_tuplegetter")
    return True if is_field else None


def name_functions(
    app: Sphinx,
    what: str,
    name: str,
    value: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """A default that is a function is shown by its name."""
    return signature and re.sub(r"<function (\w+)[^>]*>", r"\1", signature), returns


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect."""
    app.add_directive("public", Public)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-signature", name_functions)
    app.connect("missing-reference", find_public)
    app.connect("env-check-consistency", check_all_documented)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
