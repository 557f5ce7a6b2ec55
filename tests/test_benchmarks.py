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
    for name in ("record", "settings", "table", "compared", "learning", "speed", "peers"):
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


def test_every_variant_of_the_comparison_is_a_setting(on_path):
    import compared
    from settings import our_settings, write_changes

    for changes in compared.VARIANTS.values():
        equal = {name: value for name, value in compared.EQUAL.items() if name != "width"}
        texts = write_changes(equal) + changes.split()
        config, hyperparameters = our_settings("authors", [*texts, "width=64"])
        read = {**vars(config), **hyperparameters._asdict()}
        assert read["actor_width"] == read["critic_width"] == 64
        for text in texts:
            name, value = text.split("=")
            assert str(read[name]) == value


def test_unknown_settings_are_named(on_path):
    from settings import our_settings

    with pytest.raises(SystemExit, match="num_environments.*must be one of.*num_envs"):
        our_settings("authors", ["num_environments=3"])


def test_the_original_takes_our_names(on_path):
    import compared
    from peers import AUTHORS_SETTINGS, authors_settings

    settings = authors_settings(**compared.EQUAL)
    assert set(settings) == {*AUTHORS_SETTINGS, "actor_hidden_dim", "critic_hidden_dim"}
    assert settings["num_mini_batches"] == 16
    assert settings["total_time_steps"] == 1_048_576


def test_curves_are_read_with_the_original_first_and_seeds_of_several_files_together(
    on_path, tmp_path
):
    import record

    for label, seed in (("authors", 0), ("authors", 1), ("original", 0)):
        evaluations = [{"env_steps": steps, "eval_return": [seed, steps]} for steps in (10, 20)]
        result = {"task": "T", "label": label, "evaluations": evaluations}
        record.write(result, record.learning_file(tmp_path, label, "T", seed))
    curves = record.read_curves(tmp_path)
    assert list(curves["T"]) == ["original", "authors"]
    assert curves["T"]["authors"].returns.tolist() == [[0, 10, 1, 10], [0, 20, 1, 20]]
