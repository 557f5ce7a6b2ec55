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
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(FOLDER)):
            del sys.modules[name]


def test_tables_are_those_of_the_results(on_path):
    import table

    made = table.tables()
    assert {"learning.md"} <= set(made)
    for name, text in made.items():
        assert (FOLDER / "results" / name).read_text() == text, (
            f"python benchmarks/table.py ({name})"
        )


def test_needed_products_are_counted_through_loops(on_path):
    from floor import matrix_flops

    def program(x):
        once = jax.jit(lambda y: y @ y)(x)
        unread = x @ once @ x

        def step(carry, _):
            unread_too = carry @ carry
            del unread_too
            return carry @ x, None

        del unread
        return jax.lax.scan(step, once, length=5)[0]

    counted = matrix_flops(jax.make_jaxpr(program)(jnp.ones((3, 3))).jaxpr)
    assert counted == 6 * 2 * 27


def test_every_variant_of_the_studies_is_a_setting(on_path):
    import ablations
    import compared
    from settings import our_settings, read_our_changes
    from study import variant_changes

    for study in (compared.STUDY, ablations.STUDY):
        for label in study.variants:
            texts = variant_changes(study, label)
            config, hyperparameters = our_settings(
                study.preset, read_our_changes(study.preset, texts)
            )
            read = {**vars(config), **hyperparameters._asdict(), "width": config.actor_width}
            assert config.actor_width == config.critic_width
            for text in texts:
                name, value = text.split("=")
                assert str(read[name]) == value


def test_unknown_settings_are_named(on_path):
    from settings import read_our_changes

    with pytest.raises(SystemExit, match="num_envz.*num_envs"):
        read_our_changes("authors", ["num_envz=3"])


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


def test_the_field_is_compared_at_equal_steps_and_at_equal_seconds(on_path, tmp_path, monkeypatch):
    import field
    import record

    curves = {
        "reppo-cpu": [(10, 1.0, 5.0), (20, 2.0, 9.0), (30, 3.0, 10.0)],
        "early": [(5, 2.0, 2.0)],
        "equal": [(10, 0.5, 3.0), (25, 1.5, 4.0)],
        "instant": [(10, 0.1, 1.0)],
        "longer": [(40, 30.0, 7.0)],
    }
    for label, rows in curves.items():
        evaluations = [
            {"env_steps": steps, "seconds": [seconds] * 2, "eval_return": [value] * 2}
            for steps, seconds, value in rows
        ]
        result = {
            "task": "T",
            "label": label,
            "num_seeds": 2,
            "cores": 1,
            "evaluations": evaluations,
        }
        record.write(result, record.learning_file(tmp_path, label, "T"))
    monkeypatch.setattr(field, "FOLDER", tmp_path)
    lines = [line for line in field.field().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    # Steps, seconds and return; ours at equal steps and its seconds; ours at equal seconds and its steps.
    columns = (3, 4, 5, 6, 7, 9, 10)
    found = {row[0]: [row[i].split(" [")[0] for i in columns] for row in rows[2:]}
    assert found == {
        "early": ["5", "2", "2.0", "none yet", "", "9.0", "20"],
        "equal": ["25", "2", "4.0", "9.0", "2", "5.0", "10"],
        "instant": ["10", "0", "1.0", "5.0", "1", "none yet", ""],
        "longer": ["40", "30", "7.0", "10.0", "3", "10.0", "30"],
    }


def test_the_field_says_who_shared_a_core_and_what_drawn_actions_came_to(
    on_path, tmp_path, monkeypatch
):
    import field
    import record

    for label, share in (("reppo-any", 1.0), ("other", 0.5)):
        row = {"env_steps": 10, "seconds": [2.0] * 2, "core_share": [share] * 2}
        returns = {"eval_return": [4.0] * 2, "sampled_return": [3.0] * 2}
        result = {"task": "T", "label": label, "num_seeds": 2, "cores": 1}
        result["evaluations"] = [row | returns]
        record.write(result, record.learning_file(tmp_path, label, "T"))
    monkeypatch.setattr(field, "FOLDER", tmp_path)
    lines = [line for line in field.field().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    found = [(row[0], row[1], row[-1].split(" [")[0]) for row in rows[1:]]
    assert found == [("reppo-any", "1", "3.0"), ("other", "1, 50%", "3.0")]
    record.learning_file(tmp_path, "reppo-any", "T").unlink()
    with pytest.raises(SystemExit, match="no results of reppo-cpu or reppo-any on T"):
        field.field()


def test_brax_pays_no_compilation(on_path):
    from field import without_compilation

    rows = [{"seconds": seconds} for seconds in (60.0, 70.0, 80.0)]
    assert [row["seconds"] for row in without_compilation(rows)] == [10.0, 20.0, 30.0]


def test_the_outermost_loop_of_a_function_is_found(on_path):
    import types

    from peers import outer_loop

    module = types.ModuleType("module")
    module.jax = jax

    def train(x):
        start = module.jax.numpy.sin(x)
        return module.jax.lax.scan(lambda carry, _: (carry + 1.0, None), start, None, 3)

    body, start = outer_loop(module, train, jnp.zeros(()))
    assert body(start, None)[0] == 1.0
    assert train(jnp.zeros(()))[0] == 3.0


def test_a_suite_is_scored_by_the_published_returns(on_path, tmp_path):
    import json

    import suite

    rows = [
        {"env_steps": 1000 * (i + 1), "eval_return": [[0.0, 2.0 * i], [400.0, 402.2]]}
        for i in range(8)
    ]
    result = {"label": "base", "evaluations": rows, "settings": [{"sigma": 0.01}, {"sigma": 0.02}]}
    for task in ("AcrobotSwingup", "PointMassEasy"):
        (tmp_path / f"base_{task}.json").write_text(json.dumps({**result, "task": task}))
    lines = list(suite.lines(tmp_path))
    assert "PointMassEasy | AcrobotSwingup |" in lines[0]
    # The last quarter of the second seed is 13 on the mean; 402.2 is the published return of the first task.
    assert lines[2] == "| base, sigma 0.01 | 2 | 8 | 0.011 | 0.01 | 6 ± 6 | 6 ± 6 |"
    score = (401.1 / 402.2 + 401.1 / 1000) / 2
    assert lines[3].startswith(f"| base, sigma 0.02 | 2 | 8 | {score:.3f} | 0.40 |")
    suite.draw(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
