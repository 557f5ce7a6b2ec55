"""From Python and notebooks: a live bar, an interrupt that gives back what there is, objects worth printing."""

import io
import re
import signal
import sys
import types

import jax
import numpy as np
import pytest
from rich.console import Console

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.envs import probes
from reppo_fx.run import Checkpoints, live, load_policy, loop, train_live
from reppo_fx.run.display import Display, NotebookLive

from ..sizes import HP, leaves_close, tiny
from .test_run import rows

QUIET = Console(quiet=True)
GRID = {"learning_rate": [1e-3, 1e-2]}
CONFIG = tiny()


def world():
    return probes.match_observation()._replace(episode_length=6)


@pytest.fixture(scope="module")
def train():
    return rx.make_train(world(), CONFIG)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def trained(train, told, tmp_path_factory):
    def on_evaluation(progress):
        assert progress.metrics.eval_return.shape == (4,)
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(progress.state))
        told.append((progress.env_steps, np.array(progress.metrics.eval_return)))

    out = tmp_path_factory.mktemp("runs") / "run"
    return train_live(
        train,
        hyperparameters=HP,
        grid=GRID,
        num_seeds=2,
        seed=3,
        out=out,
        on_evaluation=on_evaluation,
        console=QUIET,
    )


def test_it_gives_what_a_sweep_gives(trained, train):
    runs = rx.sweep(train, rx.grid(HP, **GRID), num_seeds=2, key=jax.random.key(3))
    leaves_close(trained.runs.metrics, runs.metrics)
    leaves_close(trained.runs.state.tree, runs.state.tree)
    assert jax.tree.structure(trained.runs.metrics) == jax.tree.structure(runs.metrics)
    assert (trained.runs.swept, trained.complete) == (("learning_rate",), True)
    own = rx.make_policy(train, trained.runs.state[1, 0])
    observation = np.array([[-1.0], [1.0]], np.float32)
    for policy in (trained.policies[1, 0], load_policy(trained.folder, setting=1)):
        np.testing.assert_allclose(policy(observation), own(observation), rtol=1e-5)


def test_the_caller_is_told_of_every_evaluation(trained, told):
    assert [steps for steps, _ in told] == [64, 128]
    returns = np.stack([values for _, values in told], 1).reshape(2, 2, 2)
    np.testing.assert_array_equal(returns, trained.runs.metrics.eval_return)
    assert {row["env_steps"] for row in rows(trained.folder)} == {"64", "128"}


@pytest.mark.parametrize("how", ["signal", "exception", "second signal"])
def test_an_interrupt_gives_back_what_there_is(train, tmp_path, monkeypatch, how):
    def interrupt(progress):
        if how == "exception":
            raise KeyboardInterrupt
        for _ in range(2 if how == "second signal" else 1):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    got = train_live(train, out=tmp_path / "run", on_evaluation=interrupt, console=QUIET)
    assert signal.getsignal(signal.SIGINT) is before
    assert not got.complete
    assert got.runs.metrics.eval_return.shape == (1, 1, 1)
    assert got.runs.metrics.env_steps.item() == 64
    assert {p.name for p in got.folder.iterdir()} >= {"policy.eqx", "curve.png", "metrics.csv"}
    with Checkpoints(got.folder / "checkpoints") as checkpoints:
        restored = checkpoints.restore(got.runs.state[0])
    assert restored.step == 2
    assert int(got.runs.state[0, 0].iteration) == 2
    assert got.policies[0, 0](np.ones(1)).shape == (1,)


@pytest.mark.parametrize("saved", [True, False])
def test_an_interrupt_that_took_the_state_falls_back_on_the_last_save(
    train, tmp_path, monkeypatch, saved
):
    """As within a call of a program, which has taken the memory of the state before."""

    def interrupt(self, env_steps, seconds):
        update(self, env_steps, seconds)
        if env_steps == (96 if saved else 32):
            monkeypatch.setattr(live, "_is_gone", lambda state: True)
            raise KeyboardInterrupt

    update = Display.update
    monkeypatch.setattr(Display, "update", interrupt)
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)
    call = lambda: train_live(train, out=tmp_path / "run", console=QUIET)
    if not saved:
        with pytest.raises(KeyboardInterrupt):
            call()
        return
    got = call()
    assert (int(got.runs.state[0, 0].iteration), got.complete) == (2, False)


def test_a_taken_state_is_known():
    state = {"x": jax.numpy.ones(3), "key": jax.random.key(0)}
    assert not live._is_gone(state)
    jax.jit(lambda x: x + 1, donate_argnums=0)(state["x"])
    assert live._is_gone(state)


def test_a_task_by_name_and_simulators_that_are_closed_by_whoever_made_them(
    probe_task, tmp_path, monkeypatch
):
    closed = []
    monkeypatch.setattr(hosts.HostEnvironment, "close", lambda self: closed.append(self))
    monkeypatch.setattr(
        "reppo_fx.run.worlds.make_world", lambda task, config: hosts.pure(world(), 4)
    )
    made = train_live("mine", CONFIG, HP, out=tmp_path / "a", console=QUIET)
    assert closed
    closed.clear()
    given = rx.make_host_train(hosts.pure(world(), 4), CONFIG)
    again = train_live(given, hyperparameters=HP, out=tmp_path / "b", console=QUIET)
    assert not closed
    leaves_close(made.runs.metrics.eval_return, again.runs.metrics.eval_return)


@pytest.mark.parametrize(
    ("given", "discount", "limit"),
    [
        ({}, 0.975, 200),
        ({"hyperparameters": HP._replace(discount=0.9)}, 0.9, 200),
        ({"config": CONFIG}, rx.Hyperparameters().discount, None),
        ({"config": CONFIG, "hyperparameters": HP._replace(discount=0.9)}, 0.9, None),
    ],
)
def test_what_is_not_given_is_the_preset_for_any_task_as_it_fits_this_one(
    monkeypatch, tmp_path, given, discount, limit
):
    def note(train, plan, *rest):
        assert train.config == plan.config
        assert plan.hyperparameters.discount == discount
        assert plan.config.training_time_limit == limit
        assert plan.preset == ("own" if "config" in given else "any")
        raise ValueError("seen")

    long = world()._replace(episode_length=400)
    monkeypatch.setattr("reppo_fx.run.worlds.make_world", lambda task, config: long)
    monkeypatch.setattr(live, "new_run", note)
    with pytest.raises(ValueError, match="seen"):
        train_live("mine", out=tmp_path / "run", console=QUIET, **given)


@pytest.mark.parametrize("given", [None, HP])
def test_a_first_temperature_that_is_given_stays_where_actions_are_discrete(
    monkeypatch, tmp_path, given
):
    def note(train, plan, *rest):
        temperature = 0.8 if given is None else HP.initial_temperature
        assert plan.hyperparameters.initial_temperature == temperature
        raise ValueError("seen")

    discrete = probes.bandit()._replace(episode_length=6)
    monkeypatch.setattr("reppo_fx.run.worlds.make_world", lambda task, config: discrete)
    monkeypatch.setattr(live, "new_run", note)
    with pytest.raises(ValueError, match="seen"):
        train_live("mine", out=tmp_path / "run", console=QUIET, hyperparameters=given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"config": CONFIG}, "config is given, but the train that is given has its own"),
        ({"hyperparameters": rx.grid(v_max=[1.0, 2.0])}, "goes into grid: grid={'"),
        ({"num_seeds": 0}, "seeds is 0; at least 1 is needed"),
        ({"grid": {"kl_targt": [1.0]}}, "did you mean 'kl_target'"),
        ({"logs": ["csv"]}, "unknown log 'csv'"),
    ],
)
def test_what_cannot_be_is_a_sentence_before_anything_is_made(train, tmp_path, given, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        train_live(train, out=tmp_path / "run", console=QUIET, **given)
    assert list(tmp_path.iterdir()) == []


# In a notebook.


class Place:
    """What IPython gives for a display that can be drawn again."""

    def __init__(self, bundle):
        self.shown = [bundle]

    def update(self, bundle, raw):
        assert raw
        self.shown.append(bundle)


@pytest.fixture
def notebook(monkeypatch):
    """IPython's display, as far as it is used here, and all that was shown."""
    places, lines = [], []

    def display(*things, raw=False, display_id=None, **_):
        if not display_id:
            lines.extend(things)
            return None
        places.append(Place(*things))
        return places[-1]

    module = types.ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return places, lines


def test_a_notebook_has_one_bar_that_is_drawn_anew(notebook, monkeypatch):
    places, lines = notebook
    monkeypatch.setattr("reppo_fx.run.display.SECONDS_BETWEEN_DRAWINGS", -1.0)
    console = Console(force_jupyter=True, file=io.StringIO())
    labels = [{"kl_target": value} for value in (0.1, 0.2)]
    display = Display(console, "<probe>", 1000, labels, num_seeds=2)
    with display.training():
        display.update(250, 1.0)
        display.update(500, 2.0)
        display.evaluated(500, 2.0, np.array([[1.0, 3.0], [4.0, 6.0]]))
    (place,) = places
    assert not lines  # nothing is written beside it
    texts = [bundle["text/plain"] for bundle in place.shown]
    assert "250/1k steps" in texts[1]
    assert "500/1k steps" in texts[-1]
    assert "return 5.0 ± 1.0" in texts[-1]
    assert "± over seeds" in texts[-1]
    html = place.shown[-1]["text/html"]
    assert html.startswith("<pre")
    assert "&lt;probe&gt;" in html
    assert "<probe>" not in html


def test_it_is_not_drawn_more_often_than_can_be_seen(notebook):
    places, _ = notebook
    with NotebookLive("text") as bar:
        for _ in range(100):
            bar.refresh()
    assert len(places[0].shown) <= 4


# What is printed.


def test_objects_say_what_they_are_in_a_line(trained, train):
    env = world()
    assert (
        repr(env)
        == "Environment(match_observation: observation [1], action [1] in [-1, 1], 6 steps)"
    )
    assert repr(train) == (
        "Train(match_observation: observation [1], action [1] in [-1, 1], 6 steps; 128 steps in 4 iterations "
        "of 4 × 8, 2 evaluations of 3 × 6)"
    )
    host = hosts.pure(env, 4)
    assert repr(host).startswith(f"{type(host).__name__}(4 × match_observation: observation [1],")
    assert repr(rx.make_host_train(host, CONFIG)).startswith("HostTrain(match_observation: ")
    policy = repr(trained.policies[0, 0])
    assert policy.startswith("Policy(observation [1] -> 2 outputs, ")
    assert repr(trained.policies.tree) == f"{policy[:-1]}, stacked [2, 2])"
    assert repr(trained).startswith("Trained(Runs(2 settings × 2 seeds, 2 evaluations; swept: ")
    for thing in (env, train, host, trained.policies[0, 0], trained.runs):
        assert len(repr(thing).splitlines()) == 1


def test_objects_in_other_shapes_can_be_printed(trained):
    policy = trained.policies[0, 0]
    shapes = jax.eval_shape(lambda p: p, policy)
    assert repr(shapes) == repr(policy)
    assert repr(jax.tree.map(lambda _: None, policy)).startswith("Policy(")
    assert repr(jax.tree.map(lambda _: 0, policy)).startswith("Policy(")
    shown = []
    jax.vmap(lambda p: shown.append(repr(p)) or p.statistics.count)(trained.policies.tree)
    assert len(shown) == 1
    spec = jax.ShapeDtypeStruct((8, 8), np.float32)
    nested = world()._replace(
        observation={"eye": (spec, spec)}, num_actions=5, action_scale=(1.0, 2.0)
    )
    assert "observation eye.0 [8, 8], eye.1 [8, 8], one of 5 actions" in repr(nested)
    assert "in ±(1.0, 2.0)" in repr(nested._replace(num_actions=None))
    assert jax.tree.structure(policy) == jax.tree.structure(jax.tree.map(lambda x: x, policy))


def test_runs_are_a_table_in_a_notebook(trained):
    runs = trained.runs
    returns = np.array([[[9.0, 1.0], [0.0, 3.0]], [[0.0, 5.0], [np.nan, 7.0]]], np.float32)
    runs = runs._replace(metrics=runs.metrics._replace(eval_return=returns))
    html = runs._repr_html_()
    assert html.count("<tr>") == 3
    first, second = (
        html.index("<td>1</td><td>0.01</td><td>6 ± 1</td><td>7</td><td>128</td>"),
        html.index("<td>0</td><td>0.001</td><td>2 ± 1</td><td>9</td><td>128</td>"),
    )
    assert first < second
    assert "mean ± standard error over 2 seeds" in html
    lost = runs._replace(metrics=runs.metrics._replace(eval_return=np.full_like(returns, np.nan)))
    assert "none is finite" in lost._repr_html_()
    one = jax.tree.map(lambda leaf: leaf[:, :1], runs.metrics)
    assert "<td>5</td>" in runs._replace(metrics=one)._repr_html_()
    assert jax.eval_shape(lambda r: r, runs)._repr_html_().startswith("<code>Runs(")
    none_yet = jax.tree.map(lambda leaf: leaf[:, :, :0], runs.metrics)
    assert "none has a finite return" in runs._replace(metrics=none_yet)._repr_html_()


def test_a_table_is_not_endless_and_shows_where_settings_were_dropped(trained):
    many = jax.tree.map(lambda leaf: np.repeat(leaf, 15, 0), trained.runs.metrics)
    steps = np.array(many.env_steps)
    steps[5:, :, 1:] = np.nan  # as successive halving leaves them
    values = np.arange(30.0, dtype=np.float32)
    settings = rx.Hyperparameters(*(np.full(30, leaf) for leaf in HP))._replace(
        learning_rate=values
    )
    runs = trained.runs._replace(metrics=many._replace(env_steps=steps), settings=settings)
    html = runs._repr_html_()
    assert html.count("<tr>") == 22
    assert "… 10 more" in html
    assert "<td>64</td>" in html
