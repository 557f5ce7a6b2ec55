"""The instruments: tables made from the results that are kept, and what measures operations."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def on_path(monkeypatch):
    """As when a file in the folder is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("record", "table", "compared", "learning", "speed", "peers"):
        sys.modules.pop(name, None)


def test_tables_are_those_of_the_results(on_path):
    import table

    made = table.tables()
    assert {"learning.md"} <= set(made)
    for name, text in made.items():
        assert (FOLDER / "results" / name).read_text() == text, (
            f"python benchmarks/table.py ({name})"
        )


def test_operations_are_counted_through_loops(on_path):
    from speed import matrix_flops

    def program(x):
        once = jax.jit(lambda y: y @ y)(x)
        return jax.lax.scan(lambda carry, _: (carry @ x, None), once, length=5)[0]

    counted = matrix_flops(jax.make_jaxpr(program)(jnp.ones((3, 3))).jaxpr)
    assert counted == 6 * 2 * 27


def test_every_variant_of_the_comparison_is_a_setting(on_path, monkeypatch):
    import compared
    import learning

    for label, changes in compared.VARIANTS.items():
        command = ["learning.py", "T", "--label", label, "--preset", "authors", "--set"]
        monkeypatch.setattr(sys, "argv", [*command, *compared.EQUAL.split(), *changes.split()])
        config, hyperparameters = learning.settings(learning.parse())
        read = {**vars(config), **hyperparameters._asdict()}
        for change in compared.EQUAL.split() + changes.split():
            name, text = change.split("=")
            assert str(read[name]) == text
