"""The instruments: tables made from the results that are kept, and what measures operations."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
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
        for label in (*study.variants, *study.presets):
            preset = label if label in study.presets else study.preset
            texts = variant_changes(study, label)
            config, hyperparameters = our_settings(preset, read_our_changes(preset, texts))
            read = {**vars(config), **hyperparameters._asdict(), "width": config.actor_width}
            assert config.actor_width == config.critic_width
            for text in texts:
                name, value = text.split("=")
                assert str(read[name]) == value


def test_unknown_settings_are_named(on_path):
    from settings import read_our_changes

    with pytest.raises(SystemExit, match="num_envz.*num_envs"):
        read_our_changes("authors", ["num_envz=3"])
    with pytest.raises(SystemExit, match="num_envs must be a whole number"):
        read_our_changes("authors", ["num_envs=many"])
    with pytest.raises(SystemExit, match="'num_envs'; it must be NAME=VALUE"):
        read_our_changes("authors", ["num_envs"])


def test_what_the_original_needs_is_looked_for_in_its_interpreter(on_path, monkeypatch):
    import peers

    monkeypatch.setattr(peers, "NEEDED", ("json", "no_such_package"))
    assert peers.missing_for_authors(sys.executable) == ["no_such_package"]


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


def write_results(folder, label, task, returns, **more):
    """As `suite.py` writes them: `returns` are `[evals, settings, seeds]`, 1 M steps in all."""
    import record

    steps = [round(1e6 * (i + 1) / len(returns)) for i in range(len(returns))]
    rows = [
        {"env_steps": step, "seconds": 6.0 * (i + 1), "eval_return": value, "kl": value}
        for i, (step, value) in enumerate(zip(steps, returns, strict=True))
    ]
    machine = {"cpu_count": 2, "processor": "P", "versions": {"jax": "0"}, "commit": "c"}
    result = {"label": label, "task": task, "settings": [{}], **more}
    path = folder / f"{label}_{task.replace(':', '-')}.json"
    record.write({**machine, **result, **record.thinned(rows)}, path)
    return path


def test_a_suite_is_scored_by_the_published_returns(on_path, tmp_path):
    import suite_pictures
    import suite_tables

    returns = [[[0.0, 2.0 * i], [400.0, 402.2]] for i in range(8)]
    settings = [{"sigma": 0.01}, {"sigma": 0.02}]
    for task in ("AcrobotSwingup", "PointMassEasy"):
        write_results(tmp_path, "base", task, returns, settings=settings)
    lines = list(suite_tables.lines(tmp_path))
    assert "PointMassEasy | AcrobotSwingup |" in lines[0]
    # The last quarter of the second seed is 13 on the mean; 402.2 is the published return of the first task.
    assert lines[2] == "| base, sigma 0.01 | 2 | 1000 | 0.011 | 0.01 | 6 ± 6 | 6 ± 6 |"
    score = (401.1 / 402.2 + 401.1 / 1000) / 2
    assert lines[3].startswith(f"| base, sigma 0.02 | 2 | 1000 | {score:.3f} | 0.40 |")
    suite_pictures.draw(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_results_are_read_as_they_were_and_keep_three_diagnostics(on_path, tmp_path):
    import json

    import record

    path = write_results(tmp_path, "base", "T", [[[float(i), 2.0]] for i in range(6)])
    kept = json.loads(path.read_text())
    assert kept["evaluations"]["eval_return"][2] == [[2.0, 2.0]]
    assert kept["diagnostics"] == [
        {"env_steps": round(1e6 * (i + 1) / 6), "kl": [(i + 2.0) / 2]} for i in (0, 3, 5)
    ]
    rows = record.read(path)["evaluations"]
    assert [row["eval_return"] for row in rows] == [[[float(i), 2.0]] for i in range(6)]
    assert not list(tmp_path.glob("*.new"))
    with pytest.raises(ValueError, match="do not all have"):
        record.as_text({"evaluations": [{"a": 1}, {"a": 1, "b": 2}]})


def table_of(page, head):
    """The rows of the table that has a head, by its first column (by two where the first is the task)."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    start = next(i for i, cells in enumerate(lines) if head in cells)
    found = {}
    for cells in lines[start + 2 :]:
        if not cells:
            break
        names = cells[:2] if lines[start][0] == "task" else cells[:1]
        found[tuple(names)] = dict(zip(lines[start], cells, strict=True))
    return found


def test_the_control_suite_beside_what_is_published_and_the_original(on_path, tmp_path):
    import suite_tables
    from published import RETURNS

    best = RETURNS["BallInCupCatch"]["best"]
    folder = tmp_path / "dmc"
    # Of four runs two are at 90 % on the mean of the last quarter, and one of these always.
    runs = [[0.5 * best, best, 0.95 * best, 0.0]] * 6
    runs += [[0.5 * best, best, best, 0.0], [0.5 * best, best, 0.85 * best, 0.0]]
    write_results(folder, "any", "BallInCupCatch", [[run] for run in runs])
    write_results(folder, "any", "WalkerRun", [[[1.0, 1.0, 1.0, 1.0]]] * 8)
    path = write_results(folder, "original-any", "BallInCup", [[0.6 * best] * 2] * 8, settings={})
    path.rename(folder / "learning_original-any_BallInCup_0.json")
    page = suite_tables.suite_table(folder)
    row = table_of(page, "REPPO")["BallInCupCatch", "any"]
    assert (row["REPPO"], row["SAC"]) == ("926", "971")
    mean = (0.5 + 1.0 + 0.925 + 0.0) / 4
    assert (row["of the best"], row["reached"], row["stayed"]) == (f"{mean:.2f}", "50%", "25%")
    # 48 seconds of four runs of a million steps.
    assert (row["minutes (runs)"], row["s per M steps"]) == ("0.8 (4)", "12")
    assert row["better than the original"].startswith("0.50 [")
    assert table_of(page, "REPPO")["WalkerRun", "any"]["L40S: s per M"] == "16.4"
    overall = table_of(page, "at zero")
    assert overall[("any",)]["tasks"] == "2 of 23"
    assert overall[("any",)]["mean"] == f"{(mean + 1.0 / RETURNS['WalkerRun']['best']) / 2:.2f}"
    assert overall[("any",)]["at zero"] == "WalkerRun"
    assert overall[("tuned PPO, published",)]["tasks"] == "20 of 23"
    steps = table_of(page, "2.5")
    assert steps[("REPPO, published",)]["5"] == "0.48"
    # After half a million steps the first three evaluations of this task have one run at its best.
    assert steps[("any, 2 of 23 tasks",)]["0.5"] == f"{(2.45 / 4 + 1 / 900.6) / 2:.2f}"
    assert steps[("any, 2 of 23 tasks",)]["2.5"] == ""


def test_joystick_tasks_are_beside_their_published_returns(on_path, tmp_path):
    import suite_tables

    folder = tmp_path / "humanoid"
    write_results(folder, "any", "playground:G1JoystickFlatTerrain", [[[1.5]]] * 4)
    write_results(folder, "any", "envpool:Humanoid-v5", [[[150.0]]] * 4)
    found = table_of(suite_tables.suite_table(folder), "REPPO")
    assert found["playground:G1JoystickFlatTerrain", "any"]["REPPO"] == "33.9"
    assert found["playground:G1JoystickFlatTerrain", "any"]["return"] == "1.50"
    row = found["envpool:Humanoid-v5", "any"]
    assert (row["return"], row["minutes (runs)"], row["s per M steps"]) == ("150", "0.4 (1)", "24")
    assert row["REPPO"] == ""


def test_variants_on_a_suite_are_compared_with_the_baseline_and_the_published_order(
    on_path, tmp_path
):
    import suite_pictures
    import suite_tables

    folder = tmp_path / "figure7"
    for task in ("CheetahRun", "FingerSpin"):
        for label, value in (("no-kl", 200.0), ("baseline", 400.0), ("no-norm", 500.0)):
            returns = [[[value + i, value, value - i]] for i in range(4)]
            write_results(folder, label, task, returns)
    page = suite_tables.suite_table(folder)
    found = table_of(page, "better")
    assert list(found) == [("baseline",), ("no-kl",), ("no-norm",)]
    assert found[("no-kl",)]["better"].startswith("0.00")
    assert found[("no-norm",)]["better"].startswith("1.00")
    published = table_of(page[page.index("Published") :], "CheetahRun")
    assert published[("no-kl",)] == {"variant": "no-kl", "CheetahRun": "834", "FingerSpin": "736"}
    suite_pictures.draw(folder, tmp_path / "figure7.png")
    assert (tmp_path / "figure7.png").stat().st_size > 10_000


def test_variants_of_hyperparameters_ride_along_and_others_are_programs(on_path):
    import suite
    from settings import our_settings, read_our_changes
    from suite_runs import labels_of, settings_of

    arguments = suite.parse(
        ["--variants", "choices", "--vary", "sigma=0.01,0.02", "--tasks", "brax:hopper"]
    )
    first, *others = suite.programs(arguments)
    assert first.beside == [{"aux_weight": 0.5}, {"min_std": 0.1}]
    assert [one.label for one in others][-2:] == ["four-values", "layer-norm"]
    hp = our_settings("cpu", read_our_changes("cpu", first.changes))[1]
    settings = settings_of(first, hp)
    assert labels_of(arguments, first)[::2] == [
        {"sigma": pytest.approx(0.01)},
        {"aux_weight": 0.5, "sigma": pytest.approx(0.01)},
        {"min_std": pytest.approx(0.1), "sigma": pytest.approx(0.01)},
    ]
    assert settings.min_std[4:].tolist() == pytest.approx([0.1, 0.1])
    assert settings.aux_weight.tolist() == [1.0, 1.0, 0.5, 0.5, 1.0, 1.0]
    assert arguments.out.name == "choices"
    assert arguments.label == "baseline"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["--tasks", "mujoco:Ant"], "families are playground, brax, gymnax, envpool"),
        (["--tasks", "CheetahRunn"], "did you mean 'CheetahRun-v1'"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--vary", "sigma=a"], "--vary has 'sigma=a'"),
        (["--env", "backend"], "--env has 'backend'"),
        (["--vary", "sigmo=0.1"], "sigmo"),
        (["--original", "nowhere"], "--original is nowhere"),
        (["--seeds", "1000000"], "1000000 members at once of 72 instances, which take 984375 GiB"),
        (["--at-once", "0"], "--at-once is 0; it must be at least 1"),
    ],
)
def test_a_suite_says_what_is_wrong_before_it_trains(on_path, texts, said):
    import suite

    with pytest.raises(ValueError, match=said):
        suite.check(suite.parse(texts))


def test_a_suite_whose_simulator_is_missing_ends_with_a_sentence(on_path, monkeypatch, capsys):
    import suite

    from reppo_fx import hosts
    from reppo_fx._errors import MissingExtraError

    def names():
        raise MissingExtraError("ManiSkill is not installed.")

    family = hosts.FAMILIES["maniskill"]._replace(names=names)
    monkeypatch.setitem(hosts.FAMILIES, "maniskill", family)
    monkeypatch.setattr(sys, "argv", ["suite.py", "--suite", "maniskill"])
    assert suite.main() == 2
    assert capsys.readouterr().err == "ManiSkill is not installed.\n"


def test_every_suite_knows_where_its_tasks_are(on_path):
    from suites import SUITES, check_tasks, full_name, options_of

    for name in ("cheap", "six", "dmc"):
        check_tasks(SUITES[name])
    assert full_name("CheetahRun") == "envpool:CheetahRun-v1"
    assert options_of("brax:ant", None) == {"backend": "spring"}
    assert options_of("brax:ant", ["backend=mjx"]) == {"backend": "mjx"}
    assert options_of("CheetahRun", None) == {}


@pytest.mark.slow
def test_the_simulators_of_pure_suites_have_their_tasks(on_path):
    from suites import SUITES, check_tasks, full_name, options_of, playground_name

    import reppo_fx as rx
    from reppo_fx.run.worlds import make_world

    check_tasks([*SUITES["humanoid"], *SUITES["brax"]])
    # The original code can be run beside all of them.
    assert all(playground_name(task) for task in SUITES["dmc"])
    assert playground_name("brax:hopper") is None
    for task in SUITES["brax"]:
        world = make_world(full_name(task), rx.preset("any")[0], **options_of(task, None))
        assert isinstance(world, rx.envs.Environment)


@pytest.mark.parametrize(
    "name", ["engines", "published", "record", "suite", "suite_results", "suites"]
)
def test_examples_of_the_instruments_are_right(on_path, name):
    import doctest
    import importlib

    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed


@pytest.mark.parametrize("kind", ["pure", "program"])
def test_a_shift_is_added_to_every_reward_and_to_nothing_else(on_path, kind):
    from suite_runs import paying_more

    from reppo_fx import hosts
    from reppo_fx.envs import probes

    plain, key = probes.constant_reward(), jax.random.key(0)
    if kind == "program":
        world = paying_more(hosts.pure(plain, 2), -3.0).sized(4)
        world.reset(0)
        timestep = world.step(np.zeros((4, 1)))
    else:
        world = paying_more(plain, -3.0)
        state, _ = world.reset(key)
        _, timestep = world.step(state, jnp.zeros(1))
    _, wanted = plain.step(plain.reset(key)[0], jnp.zeros(1))
    np.testing.assert_allclose(timestep.reward, wanted.reward - 3.0)
    np.testing.assert_array_equal(timestep.terminated, False)
    assert paying_more(plain, 0.0) is plain


def work(what):
    """What a job does in a process of its own."""
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    wait, path = what.startswith("wait "), Path(what.removeprefix("wait "))
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    if wait:
        time.sleep(120)


def test_a_job_that_is_killed_takes_nothing_else_with_it(on_path, tmp_path):
    import suite

    suite.run_apart(partial(work, str(tmp_path / "pid")), None)
    assert int((tmp_path / "pid").read_text()) != os.getpid()
    with pytest.raises(BrokenProcessPool):
        suite.run_apart(partial(work, "die"), None)


PARENT = """
import sys
from functools import partial
from tests.test_benchmarks import work
if __name__ == "__main__":
    import suite
    suite.run_apart(partial(work, sys.argv[1]), None)
"""


def test_a_job_ends_with_the_process_that_asked_for_it(tmp_path):
    script, told = tmp_path / "parent.py", tmp_path / "told"
    script.write_text(PARENT)
    path = os.pathsep.join([str(FOLDER.parent), str(FOLDER)])
    parent = subprocess.Popen(
        [sys.executable, str(script), f"wait {told}"], env={**os.environ, "PYTHONPATH": path}
    )
    within(60, told.exists)
    parent.kill()
    parent.wait()
    within(20, lambda: not alive(int(told.read_text())))


def within(seconds, holds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_missing_is_trained_in_order_and_a_failure_stops_nothing(
    on_path, tmp_path, monkeypatch, capsys
):
    import suite

    changes = ["total_steps=1000000", "num_evals=20", "num_eval_envs=8"]
    as_asked = {"preset": "cpu", "seeds": 8, "changes": changes}
    write_results(tmp_path, "base", "CheetahRun", [[[1.0]]], **as_asked)
    trained = []

    def run_task(arguments, task, program):
        trained.append(task)
        if task == "FingerSpin":
            raise RuntimeError("a fault of a simulator")
        return {"task": task, **as_asked, "evaluations": []}

    monkeypatch.setattr(suite, "run_task", run_task)
    monkeypatch.setattr(suite, "run_apart", lambda job, prepare: job())
    tasks = ["FingerSpin", "CheetahRun", "WalkerRun"]
    monkeypatch.setattr(sys, "argv", ["suite.py", "--out", str(tmp_path), "--tasks", *tasks])
    assert suite.main() == 1
    assert trained == ["FingerSpin", "WalkerRun"]
    assert "failed: base on FingerSpin" in capsys.readouterr().err
    assert (tmp_path / "base_WalkerRun.json").is_file()
    assert not (tmp_path / "base_FingerSpin.json").exists()
    # What is there under the label must be the same run.
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--steps", "2000000"])
    assert suite.main() == 2
    assert "base_CheetahRun.json is of another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "at_once", "stopped_after"),
    [
        ("envpool:Pendulum-v1", 2, 3),
        ("gymnasium:Pendulum-v1", 2, 3),
        ("envpool:Pendulum-v1", 1, 3),  # evaluations of the first seed
        ("envpool:Pendulum-v1", 1, 7),  # of the second
    ],
)
def test_a_task_that_was_stopped_goes_on_from_its_last_evaluation(
    on_path, tmp_path, monkeypatch, capsys, task, at_once, stopped_after
):
    pytest.importorskip(task.partition(":")[0])
    import record
    import suite
    import suite_results
    import suite_runs

    from reppo_fx.run.checkpoints import Checkpoints

    small = ["num_envs=4", "num_steps=8", "num_minibatches=2", "width=16", "episode_length=20"]
    texts = ["--preset", "any", "--steps", "128", "--evals", "4", "--seeds", "2"]
    texts += ["--out", str(tmp_path), "--tasks", task, "--set", *small]
    texts += ["--at-once", str(at_once)]
    arguments = suite.parse(texts)
    (program,) = suite.check(arguments)
    path, folders = (f(arguments, task, program) for f in (suite.file_of, suite.folders))
    assert len(folders) == 2 // at_once
    show, shown = suite_runs.show, []

    def show_until_stopped(task, label, row):
        shown.append(row)
        if len(shown) == stopped_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(suite_runs, "show", show_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        suite.keep(path, arguments, task, program)
    assert folders[0].is_dir()
    assert not path.exists()

    with pytest.raises(ValueError, match="unfinished.* is of another run: seeds is 2, and not 3"):
        suite.check(suite.parse([*texts[:7], "3", *texts[8:]]))

    monkeypatch.setattr(suite_runs, "show", show)
    compile_programs, compiled = suite_runs.compile_programs, []

    def compile_and_count(*own):
        compiled.append(own)
        return compile_programs(*own)

    monkeypatch.setattr(suite_runs, "compile_programs", compile_and_count)
    with Checkpoints(folders[stopped_after > 4]) as others:
        others.hold()
        with pytest.raises(ValueError, match="is being written by another run"):
            suite.keep(path, arguments, task, program)
    assert not compiled
    first = record.made_on(record.stamp())
    monkeypatch.setattr(record, "made_on", lambda stamped: "another machine")
    suite.keep(path, arguments, task, program)
    # Seeds that were done are not begun again.
    assert len(compiled) == len(folders) - (stopped_after > 4)
    assert "going on after 64 steps" in capsys.readouterr().out
    assert not any(folder.exists() for folder in folders)
    rows = record.read(path)["evaluations"]
    assert [row["env_steps"] for row in rows] == [32, 64, 96, 128]
    assert np.shape([row["eval_return"] for row in rows]) == (4, 1, 2)
    # What was evaluated before it was stopped is in the result as it was.
    assert [[row["eval_return"][0][:at_once]] for row in rows[:2]] == record.brief(
        [row["eval_return"] for row in shown[:2]]
    )
    assert rows[1]["seconds"] <= rows[2]["seconds"] <= rows[3]["seconds"]
    # Of two machines the table names both, and no seconds.
    assert suite_results.machines(tmp_path) == [f"- {first}, then another machine: 1 file"]
    assert np.isnan(suite_results.read(tmp_path)["base"][task].seconds)


def test_programs_for_a_gpu_are_compiled_together_and_measured_apart(
    on_path, tmp_path, monkeypatch
):
    import argparse
    import json

    import gpu

    class Speed(list):
        """A command that does as `speed.py` does: JSON of one program, or a turn more in the result."""

        def __init__(self, arguments, members):
            name = gpu.result_of(arguments, members).name
            program = f"""
import json, pathlib, sys
def value(name): return sys.argv[sys.argv.index(name) + 1]
if "--only-compile" in sys.argv:
    print("compiling")
    print(json.dumps({{"compile_seconds": {members} + 0.25}}))
else:
    path = pathlib.Path(value("--out")) / "{name}"
    result = json.loads(path.read_text()) if path.exists() else {{"turns": []}}
    result["turns"].append({{"side": value("--sides")}})
    path.write_text(json.dumps(result))
"""
            super().__init__(["-c", program])

    monkeypatch.setattr(gpu, "speed_command", Speed)
    monkeypatch.setattr(gpu, "full_command", lambda *_: [])
    arguments = argparse.Namespace(out=tmp_path, toy=True, seeds=2, authors=tmp_path)
    until = time.monotonic() + 120
    gpu.compile_all(arguments, until)
    for members, side in gpu.wanted(arguments):
        gpu.throughput(arguments, members, side, until)
    assert not gpu.wanted(arguments)
    results = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("gpu_*.json")}
    one, many = (
        results[f"gpu_speed_tiny_CartpoleSwingup{members}.json"] for members in ("", "_64")
    )
    assert [turn["side"] for turn in one["turns"]] == [gpu.OURS, gpu.ORIGINAL]
    assert one[gpu.TOGETHER] == {gpu.OURS: 1.2, gpu.ORIGINAL: 1.2}
    assert many[gpu.TOGETHER] == {gpu.OURS: 64.2}


def test_a_full_run_that_was_stopped_is_not_taken_for_done(on_path, tmp_path):
    import argparse

    import gpu
    import record

    arguments = argparse.Namespace(out=tmp_path, toy=False, seeds=2)
    result = record.learning_file(tmp_path, "dmc", "CheetahRun")
    begin = gpu.full_command(arguments, "CheetahRun")
    assert begin[2:4] == ["train", "CheetahRun"]
    record.write({"task": "CheetahRun", gpu.STOPPED: 100}, result)
    assert gpu.full_command(arguments, "CheetahRun") == begin
    (tmp_path / "runs" / "CheetahRun" / "checkpoints").mkdir(parents=True)
    assert "--resume" in gpu.full_command(arguments, "CheetahRun")
    record.write({"task": "CheetahRun"}, result)
    assert gpu.full_command(arguments, "CheetahRun") == []
