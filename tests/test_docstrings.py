"""Everything public says what it does: first line, every argument, what comes back, what is raised, an example."""

import ast
import doctest
import inspect
import re
import textwrap
import types

import pytest

import reppo_fx as rx
from reppo_fx import ops, run

ROOMS = {"ops": ops, "rx": rx, "rx.envs": rx.envs, "rx.hosts": rx.hosts, "rx.run": run}
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Source")

# Functions whose docstring has no example that runs, by the reason.
WITHOUT_EXAMPLE = {
    "needs a train and its state, which compile for seconds; README and the notebooks show it, and are tested": {
        *("rx.collect", "rx.make_batch", "rx.update", "rx.evaluate", "rx.learn"),
        *("rx.train_iteration", "rx.make_policy", "rx.network_inputs", "rx.policy_of"),
        *("rx.value_of", "rx.sampled_value", "rx.expected_value"),
        *("rx.exploit_and_explore", "rx.successive_halving"),
        *("rx.hosts.collect", "rx.hosts.evaluate"),
    },
    "needs a simulator, which an extra brings": {
        *("rx.envs.playground", "rx.envs.brax", "rx.envs.gymnax"),
        *("rx.envs.playground_names", "rx.envs.brax_names", "rx.envs.gymnax_names"),
        *("rx.hosts.envpool", "rx.hosts.gymnasium", "rx.hosts.maniskill", "rx.hosts.isaaclab"),
        *("rx.hosts.envpool_names", "rx.hosts.gymnasium_names", "rx.hosts.maniskill_names"),
        "rx.hosts.make",
    },
    "needs a run on disk": {
        *("rx.run.load_policy", "rx.run.load_policies", "rx.run.read_config"),
        *("rx.run.export_run", "rx.run.read_policy", "rx.run.render"),
    },
    "starts processes": {"rx.hosts.parallel"},
}


def public(is_kind):
    """Everything public of a kind, once, by the first name that it has."""
    found = {}
    for room, module in ROOMS.items():
        for name in module.__all__:
            thing = inspect.unwrap(getattr(module, name))
            if is_kind(thing) and thing not in found.values():
                found[f"{room}.{name}"] = thing
    return found


FUNCTIONS = public(inspect.isfunction)
CLASSES = public(inspect.isclass)


def sections(docstring):
    """`Args` -> its entries, each a name and what is said of it; of the others the text."""
    found, at = {}, None
    for line in docstring.split("\n"):
        if heading := re.match(rf"({'|'.join(SECTIONS)}):", line):
            at = heading[1]
            found[at] = []
        elif line and not line.startswith(" "):
            at = None
        elif at:
            found[at].append(line)
    return {name: textwrap.dedent("\n".join(lines)) for name, lines in found.items()}


def entries(section):
    """The names that a section explains: `low, high: bounds` are two."""
    lines = re.findall(r"^([\w*, `]+):", section, re.MULTILINE)
    return {name.strip(" *`") for line in lines for name in line.split(",")}


def own_nodes(function):
    """The nodes of a function, without those of the functions that are made in it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))


def raised(function, seen=()):
    """Names of what is raised here, or by the private functions that are called here."""
    found = set()
    for node in own_nodes(function):
        call = getattr(node, "exc", node) if isinstance(node, ast.Raise) else node
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            continue
        name = call.func.id
        if isinstance(node, ast.Raise):
            found.add(name)
        elif name.startswith("_") and name not in seen:
            called = inspect.unwrap(function.__globals__.get(name))
            if isinstance(called, types.FunctionType):
                found |= raised(called, (*seen, name))
    return found


def lacking(function):
    """What a docstring lacks, in words; an example is asked for apart."""
    docstring = inspect.getdoc(function) or ""
    said = sections(docstring)
    signature = inspect.signature(function)
    wanted, explained = set(signature.parameters), entries(said.get("Args", ""))
    gives = signature.return_annotation not in (None, "None")
    return [
        *([] if docstring.split("\n")[0].strip() else ["a first line"]),
        *(f"argument {name}" for name in sorted(wanted - explained)),
        *(f"argument {name}, which it does not have" for name in sorted(explained - wanted)),
        *(["Returns"] if gives and not said.get("Returns") else []),
        *(["Raises"] if raised(function) and not said.get("Raises") else []),
    ]


def has_example(thing):
    return bool(doctest.DocTestParser().get_examples(inspect.getdoc(thing) or ""))


def unexplained(cls):
    """Fields that neither the docstring names nor a string below them explains."""
    docstring = cls.__doc__ or ""
    named = entries(sections(inspect.cleandoc(docstring)).get("Attributes", ""))
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    missing = []
    for field, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or field.target.id.startswith("_"):
            continue
        explained = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        name = field.target.id
        if not (explained or name in named or re.search(rf"\b{name}\b", docstring)):
            missing.append(name)
    return missing


def test_there_is_much_to_look_at():
    assert len(FUNCTIONS) > 100
    assert len(CLASSES) > 60


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_all_of_itself(name):
    assert lacking(FUNCTIONS[name]) == []


def test_every_function_has_an_example_or_a_reason():
    exempt = set().union(*WITHOUT_EXAMPLE.values())
    assert {name for name, function in FUNCTIONS.items() if not has_example(function)} == exempt


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_says_what_it_is_and_what_it_holds(name):
    assert (CLASSES[name].__doc__ or "").strip()
    assert unexplained(CLASSES[name]) == []


def incomplete(low, high=1.0, *rest, **others) -> int:
    """Something.

    Args:
        low, heigh: bounds.
        *rest: of them.

    >>> # a comment is no example
    """
    return _refuse(low)


def _refuse(low):
    if low:
        raise ValueError("low")


def test_the_reader_of_docstrings_sees():
    assert lacking(incomplete) == [
        "argument high",
        "argument others",
        "argument heigh, which it does not have",
        "Returns",
        "Raises",
    ]
    assert not has_example(incomplete)


class Holder:
    """Something with a `first`."""

    first: int
    second: int
    third: int
    """Explained."""


def test_the_reader_of_classes_sees():
    assert unexplained(Holder) == ["second"]
