"""Statistics against rliable, and several runs in one report."""

import json

import matplotlib.image
import numpy as np
import pytest
from scipy.stats import mannwhitneyu

import reppo_fx as rx
from reppo_fx.run import cli
from reppo_fx.run.plan import Plan
from reppo_fx.run.records import VERSION
from reppo_fx.run.report import load_curves, summarize
from reppo_fx.run.scores import (
    Bootstrap,
    estimate,
    interquartile_mean,
    mean_score,
    performance_profile,
    probability_of_improvement,
)

RUNS, TASKS = 12, ("a", "b", "c")
MANY = Bootstrap(20_000)


@pytest.fixture(scope="module")
def matrices():
    """Scores `[runs, tasks]` of two methods, some of them equal."""
    random = np.random.default_rng(0)
    return [np.round(random.beta(2, 2, size=(RUNS, len(TASKS))), 1) + shift for shift in (0.0, 0.1)]


def by_task(matrix):
    return dict(zip(TASKS, matrix.T, strict=True))


# What rliable 1.2.0 gives for the matrices above with 20,000 resamples. It is not installed here: what it needs
# (arch 7.2) cannot be imported beside pandas 3.
RLIABLE = {
    "iqm": (0.45, 0.3722, 0.55),
    "mean": (0.475, 0.4056, 0.5444),
    "improvement": (0.69676, 0.56597, 0.81829),
    "profile": ([1.0, 0.63889, 0.25], [1.0, 0.5, 0.11111], [1.0, 0.77778, 0.38889]),
}


def assert_as_rliable(found, name):
    """Values are equal; ends of intervals up to the noise of two bootstraps (and the grid of such scores)."""
    expected = [np.array(part) for part in RLIABLE[name]]
    np.testing.assert_allclose(found.value, expected[0], rtol=1e-4)
    np.testing.assert_allclose(found.low, expected[1], atol=0.015)
    np.testing.assert_allclose(found.high, expected[2], atol=0.015)


@pytest.mark.parametrize(("statistic", "name"), [(interquartile_mean, "iqm"), (mean_score, "mean")])
def test_estimates_are_those_of_rliable(matrices, statistic, name):
    assert_as_rliable(estimate(by_task(matrices[0]), statistic, MANY), name)


def test_probability_of_improvement_is_that_of_rliable_and_of_a_rank_test(matrices):
    found = probability_of_improvement(by_task(matrices[1]), by_task(matrices[0]), MANY)
    assert_as_rliable(found, "improvement")
    ranks = [mannwhitneyu(matrices[1][:, i], matrices[0][:, i]).statistic for i in range(3)]
    assert found.value == pytest.approx(np.mean(ranks) / RUNS**2)


def test_profile_is_that_of_rliable(matrices):
    found = performance_profile(by_task(matrices[0]), [0.05, 0.35, 0.65], MANY)
    assert_as_rliable(found, "profile")


def test_intervals_cover_the_truth():
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        scores = {task: random.normal(i, 1.0, size=10) for i, task in enumerate(TASKS)}
        found = estimate(scores, mean_score, Bootstrap(500, seed=seed))
        covered += found.low <= 1.0 <= found.high
    assert 85 <= covered <= 99


def test_tasks_may_have_different_numbers_of_runs():
    found = estimate({"a": [1.0], "b": [0.0, 0.0, 0.0]}, mean_score)
    assert found.value == 0.5


@pytest.mark.parametrize(
    ("scores", "message"),
    [({}, "scores is empty"), ({"a": []}, r"the scores of a are \[0\]; they must be \[runs\]")],
)
def test_scores_without_runs_are_named(scores, message):
    with pytest.raises(ValueError, match=message):
        estimate(scores)


def test_methods_without_a_shared_task_are_named():
    with pytest.raises(ValueError, match="no shared task"):
        probability_of_improvement({"a": [1.0]}, {"b": [1.0]})


def write_run(folder, task, returns, preset="cpu", steps=None, grid=None):
    """A run's folder with these returns, `[evals, settings, seeds]`."""
    config, hyperparameters = rx.preset("cpu")
    plan = Plan(task, preset, config, hyperparameters, grid or {}, num_seeds=returns.shape[2])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"version": VERSION, **plan.to_json()}))
    rows = ["env_steps,eval_return"]
    for step, members in zip(steps or range(100, 10_000, 100), returns, strict=False):
        rows += [f"{step},{value}" for value in members.ravel()]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two methods on two tasks; the second one is better, and one of its tasks is spread over two folders."""
    rise = np.linspace(0.0, 1.0, 5)[:, None, None]
    seeds = lambda n, top: rise * (top + np.arange(n))
    write_run(tmp_path / "a1", "A", seeds(3, 500.0))
    write_run(tmp_path / "b1", "B", seeds(3, 100.0))
    write_run(tmp_path / "a2", "A", seeds(2, 900.0))
    write_run(tmp_path / "a3", "A", seeds(2, 910.0))
    write_run(tmp_path / "b2", "B", seeds(3, 950.0))
    labelled = ["old=a1", "old=b1", "new=a2", "new=a3", "new=b2"]
    return [text.replace("=", f"={tmp_path}/") for text in labelled]


def test_runs_are_grouped_by_task_and_label(runs):
    curves = load_curves(runs)
    assert {task: list(labels) for task, labels in curves.items()} == {
        "A": ["old", "new"],
        "B": ["old", "new"],
    }
    assert curves["A"]["new"].returns.shape == (5, 4)
    summaries = summarize(curves)
    assert summaries["old"].improvement is None
    assert summaries["new"].improvement.value == 1.0
    assert summaries["new"].mean.value == pytest.approx((0.9055 + 0.951) / 2)
    assert summaries["old"].steps == np.inf
    assert summaries["new"].steps == 500
    assert summaries["new"].reliable["A"].tolist() == [0, 0, 0, 0, 1]


def test_scores_may_be_means_of_the_last_evaluations(runs):
    summaries = summarize(load_curves(runs), last=2)
    assert summaries["new"].mean.value == pytest.approx((0.9055 + 0.951) / 2 * (1.0 + 0.75) / 2)
    with pytest.raises(ValueError, match="last is 6; it must be from 1 to the number of .*, 5"):
        summarize(load_curves(runs), last=6)


def test_a_sweeps_settings_are_labels(tmp_path):
    returns = np.ones((2, 2, 3)) * np.array([1.0, 2.0])[:, None]
    folder = write_run(tmp_path / "s", "A", returns, grid={"discount": (0.5, 0.75)})
    assert list(load_curves([str(folder)])["A"]) == ["discount 0.5", "discount 0.75"]
    curves = load_curves([f"mine={folder}"])["A"]
    assert curves["mine: discount 0.75"].returns.tolist() == [[2.0] * 3] * 2


def test_the_command_draws_and_prints(runs, tmp_path, capsys):
    out = tmp_path / "plots"
    assert cli.main(["plot", *runs, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "0.928 [" in printed
    assert "never" in printed
    for name in ("curves.png", "summary.png"):
        image = matplotlib.image.imread(out / name)
        assert image[..., :3].std() > 0.01
    written = json.loads((out / "summary.json").read_text())
    assert written["old"]["steps"] is None
    assert written["new"]["improvement"]["value"] == 1.0


def test_what_cannot_be_compared_is_named(runs, tmp_path, capsys):
    other = write_run(tmp_path / "other", "A", np.ones((5, 1, 1)), steps=[1, 2, 3, 4, 5])
    assert cli.main(["plot", *runs, f"new={other}"]) == 2
    assert "was evaluated at other steps" in capsys.readouterr().err
    assert cli.main(["plot", str(tmp_path)]) == 2
    assert "is not a run: it has no config.json" in capsys.readouterr().err
    assert cli.main(["plot"]) == 2
    assert "give at least one folder" in capsys.readouterr().err
