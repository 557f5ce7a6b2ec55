"""Statistics against rliable, and several runs in one report."""

import json

import matplotlib.image
import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

import reppo_fx as rx
from reppo_fx._errors import ReppoWarning
from reppo_fx.run import cli
from reppo_fx.run.curves import Curve, load_curves, split_label
from reppo_fx.run.pictures import _limits
from reppo_fx.run.plan import Plan
from reppo_fx.run.records import VERSION
from reppo_fx.run.report import notes
from reppo_fx.run.scores import (
    Bootstrap,
    estimate,
    interquartile_mean,
    mean_score,
    median_over_tasks,
    performance_profile,
    probability_of_improvement,
)
from reppo_fx.run.summaries import summarize

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


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([np.zeros(6), np.ones(2)], 0.5),
        ([np.ones(2), np.zeros(6)], 0.5),
        ([np.zeros(5), np.ones(1), np.ones(1)], 7 / 9),  # 15 of which 9 are kept: 2 zeros, 7 ones
        ([np.array([3.0])], 3.0),
    ],
)
def test_tasks_weigh_equally_whatever_their_numbers_of_runs(scores, expected):
    scores = [np.asarray(runs, float) for runs in scores]
    by_task = {str(index): runs for index, runs in enumerate(scores)}
    most = np.lcm.reduce([len(runs) for runs in scores])
    repeated = np.concatenate([np.repeat(runs, most // len(runs)) for runs in scores])
    assert interquartile_mean(scores) == pytest.approx(trim_mean(repeated, 0.25))
    assert mean_score(scores) == pytest.approx(repeated.mean())
    assert performance_profile(by_task, [0.5]).value == pytest.approx([(repeated > 0.5).mean()])
    assert median_over_tasks(scores) == np.sort(repeated)[len(repeated) // 2]
    assert estimate(by_task, mean_score).value == pytest.approx(repeated.mean())
    assert interquartile_mean(scores) == pytest.approx(expected)


@pytest.mark.parametrize("runs", range(1, 10))
def test_the_interquartile_mean_is_rliables_formula_where_numbers_are_equal(runs):
    matrix = np.random.default_rng(runs).normal(size=(5, 3, runs))  # leading axis: resamples
    expected = trim_mean(matrix.reshape(5, -1), 0.25, axis=1)
    found = interquartile_mean([matrix[:, task] for task in range(3)])
    np.testing.assert_allclose(found, expected)


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


WORLD = {
    "observation": {"": [[1], "float32"]},
    "actor_part": "state",
    "critic_part": "state",
    "action_size": 1,
    "action_scale": 1.0,
    "num_actions": None,
    "action_mask": None,
    "episode_length": 6,
}


def write_run(folder, task, returns, preset="cpu", steps=None, grid=None):
    """A run's folder with these returns, `[evals, settings, seeds]`."""
    config, hyperparameters = rx.preset("cpu")
    plan = Plan(task, preset, config, hyperparameters, grid or {}, num_seeds=returns.shape[2])
    folder.mkdir(parents=True)
    description = {"version": VERSION, **plan.to_json(), "environment": WORLD}
    (folder / "config.json").write_text(json.dumps(description))
    swept = "".join(f"{name}," for name in plan.grid)
    rows = [f"{'setting,' if swept else ''}{swept}seed,env_steps,seconds,eval_return"]
    for step, settings in zip(steps or range(100, 10_000, 100), returns, strict=False):
        for setting, (label, seeds) in enumerate(zip(plan.labels, settings, strict=True)):
            front = [setting, *label.values()] if swept else []
            for seed, value in enumerate(seeds):
                rows.append(",".join(map(str, [*front, seed, step, 1.0, value])))
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    return folder


def curve(*returns):
    """`[evals, runs]` at steps 100, 200, …"""
    return Curve(100 * np.arange(1, len(returns) + 1), np.array(returns, float))


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


def test_a_threshold_is_a_share_of_the_way_from_a_floor_where_returns_are_negative():
    curves = {"A": {"m": curve([-100.0, -80.0], [-50.0, -19.0], [-10.0, -10.0])}}
    scale = summarize(curves)["m"].scales["A"]
    assert (scale.floor, scale.best) == (-90.0, -10.0)  # the mean at the first evaluation
    assert scale.goal == pytest.approx(-18.0)
    assert summarize(curves)["m"].steps == 300
    assert summarize(curves)["m"].reliable["A"].tolist() == [0.0, 0.0, 1.0]
    given = summarize(curves, floor=-100.0)["m"]
    assert given.scales["A"].goal == pytest.approx(-19.0)
    assert given.reliable["A"].tolist() == [0.0, 0.5, 1.0]


def test_a_threshold_is_a_share_of_the_best_where_returns_are_not_negative():
    scale = summarize({"A": {"m": curve([50.0], [200.0])}}, threshold=0.5)["m"].scales["A"]
    assert (scale.lowest, scale.floor, scale.best, scale.goal) == (0.0, 0.0, 200.0, 100.0)


def test_where_nothing_is_above_the_floor_nothing_is_reached():
    found = summarize({"A": {"m": curve([-5.0, -5.0], [-5.0, -5.0])}})
    assert found["m"].steps == np.inf
    assert found["m"].reliable["A"].tolist() == [0.0, 0.0]
    assert "A: no return is above -5, so nothing counts as reached" in notes(found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_return_that_is_not_finite_counts_as_the_lowest(value):
    curves = {"A": {"good": curve([1.0, 2.0], [850.0, 900.0]), "bad": curve([1.0], [value])}}
    found = summarize(curves)
    assert found["bad"].not_finite == {"A": 1}
    assert found["bad"].mean.value == 0.0  # the floor, which is below the lowest return
    assert found["good"].mean.value == pytest.approx(0.875)
    assert found["bad"].improvement.value == 0.0
    assert found["bad"].profile.value.max() == 0.0
    assert found["bad"].steps == np.inf
    assert found["good"].steps == 200
    text = "bad: 1 of 1 runs of A end with a return that is not finite; it counts as the lowest"
    assert text in notes(found)


def test_only_returns_that_are_not_finite():
    found = summarize({"A": {"m": curve([np.nan], [np.nan])}})["m"]
    assert found.iqm.value == 0.0
    assert found.steps == np.inf


def test_runs_with_returns_that_are_not_finite_are_named(tmp_path):
    returns = np.ones((3, 2, 2))
    returns[1:, 1, 0] = np.nan
    folder = write_run(tmp_path / "s", "A", returns, grid={"discount": (0.5, 0.75)})
    message = r"s, discount 0.75, seed 0: 2 of 3 returns are not finite; they count as the lowest"
    with pytest.warns(ReppoWarning, match=message) as caught:
        load_curves([str(folder)])
    assert len(caught) == 1


def test_negative_scores_are_in_the_picture():
    found = summarize({"A": {"a": curve([-900.0, -500.0]), "b": curve([-300.0, 400.0])}})
    low, high = _limits([summary.iqm for summary in found.values()])
    assert low < -0.9
    assert high > 0.4
    at = found["a"].profile_at
    assert (at[0], at[-1]) == (-0.9, 1.0)
    assert found["a"].profile.value[0] == 0.5
    positive = summarize({"A": {"a": curve([200.0, 300.0])}})["a"]
    assert _limits([positive.iqm]) == (0.0, 1.02)
    assert (positive.profile_at[0], positive.profile_at[-1]) == (0.0, 1.0)


def test_labels_that_lack_a_task_are_named():
    found = summarize(
        {"A": {"a": curve([1.0]), "b": curve([2.0])}, "B": {"b": curve([2.0]), "c": curve([3.0])}}
    )
    assert "a: of 1 of 2 tasks only, A" in notes(found)
    assert found["c"].improvement is None  # no task in common with the first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalizer": 0.0}, "normalizer is 0.0; it must be positive"),
        ({"normalizer": np.nan}, "normalizer is nan; it must be positive"),
        ({"threshold": 0.0}, "threshold is 0.0; it must be above 0 and at most 1"),
        ({"threshold": np.nan}, "threshold is nan; it must be above 0"),
        ({"floor": np.inf}, "floor is inf; it must be a finite return"),
    ],
)
def test_numbers_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        summarize({"A": {"m": curve([1.0])}}, **arguments)


def test_any_folder_is_found_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/lr=3", "runs/a=b=c", "3", "x"):
        (tmp_path / name).mkdir(parents=True)
    found = {
        text: (label, str(folder))
        for text in (
            "runs/lr=3",
            "a=runs/lr=3",
            "lr=1e-3=runs/lr=3",
            "runs/a=b=c",
            "=x",
            "x",
            "here=.",
            "a=b=.",
            "nowhere",
        )
        for label, folder in [split_label(text)]
    }
    assert found == {
        "runs/lr=3": ("", "runs/lr=3"),
        "a=runs/lr=3": ("a", "runs/lr=3"),
        "lr=1e-3=runs/lr=3": ("lr=1e-3", "runs/lr=3"),
        "runs/a=b=c": ("", "runs/a=b=c"),
        "=x": ("", "x"),
        "x": ("", "x"),
        "here=.": ("here", "."),
        "a=b=.": ("a=b", "."),
        "nowhere": ("", "nowhere"),
    }
    for text in ("runs/lr=4", "a=", "a=b="):
        with pytest.raises(ValueError, match=f"runs has '{text}'; neither that nor what follows"):
            split_label(text)


def test_a_folder_given_twice_does_not_count_twice(tmp_path):
    folder = write_run(tmp_path / "a", "A", np.ones((2, 1, 1)))
    with pytest.raises(ValueError, match="a is given twice"):
        load_curves([str(folder), str(tmp_path / "." / "a")])
    assert list(load_curves([f"x={folder}", f"y={folder}"])["A"]) == ["x", "y"]


@pytest.mark.parametrize(
    "label",
    [
        "$x_1$ and $",
        r"\$\frac{1}{$",
        "_hidden",
        "[bold]b[/]",
        "[/]",
        "ünï±名",
        "a\nb",
        "x" * 300,
        "{a}%s",
    ],
)
def test_any_label_can_be_drawn_and_printed(tmp_path, monkeypatch, capsys, label):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", "A_$b$_[red]", np.ones((3, 1, 2)) * np.arange(2))
    write_run(tmp_path / "b", "A_$b$_[red]", np.ones((3, 1, 2)), grid=None)
    assert cli.main(["plot", f"{label}=a", "other=b"]) == 0
    printed = capsys.readouterr().out
    for part in label.split("\n"):
        assert part in printed
    assert "A_$b$_[red]: reached is a return of 0.9, on the way from 0 to the best, 1" in printed
    assert label in json.loads((tmp_path / "plots" / "summary.json").read_text())


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
