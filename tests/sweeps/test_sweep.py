"""The member axis: sweeps equal to single runs, chunks, memory, results with their labels."""

import jax
import jax.numpy as jnp
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.sweeps import members as members_module
from reppo_fx.sweeps.members import measure_memory
from reppo_fx.sweeps.sweep import flatten_metrics

from ..sizes import HP, TINY, leaves_close, tiny

KEY = jax.random.key(0)
SETTINGS = rx.grid(HP, learning_rate=[1e-3, 3e-3], discount=[0.5, 0.9])


@pytest.fixture(scope="module")
def train():
    return rx.make_train(probes.match_observation(), TINY)


@pytest.fixture(scope="module")
def runs(train):
    return rx.sweep(train, SETTINGS, num_seeds=2, key=KEY)


@pytest.fixture(scope="module")
def alone(train):
    setting = jax.tree.map(lambda leaf: leaf[2], SETTINGS)
    return jax.jit(train)(jax.random.split(KEY, 2)[1], setting)


def test_sweep_members_are_the_runs_alone(runs, alone):
    assert runs.metrics.eval_return.shape == (4, 2, TINY.num_evals)
    metrics = jax.tree.map(lambda leaf: leaf[2, 1], runs.metrics)
    leaves_close((runs.state[2, 1], metrics), alone)


def test_a_member_can_be_evaluated_and_trained_further(train, runs):
    state = runs.state[2, 1]
    assert isinstance(state, rx.TrainState)
    episodes = jax.jit(train.evaluate)(state)
    assert episodes.returns.shape == (TINY.num_eval_envs,)
    further, metrics = jax.jit(train.round)(state)
    assert int(metrics.env_steps) == 192
    assert int(further.iteration) == 6


def test_results_carry_labels(runs):
    assert runs.swept == ("learning_rate", "discount")
    expected = [(1e-3, 0.5), (1e-3, 0.9), (3e-3, 0.5), (3e-3, 0.9)]
    for label, (learning_rate, discount) in zip(runs.labels, expected, strict=True):
        assert label == pytest.approx({"learning_rate": learning_rate, "discount": discount})


def with_returns(runs, returns):
    return runs._replace(metrics=runs.metrics._replace(eval_return=jnp.array(returns)))


def test_best_is_by_mean_over_seeds(runs):
    nan = jnp.nan
    returns = [
        [[0.0, 9.0], [9.0, 1.0]],  # mean 5 at the end, 4.75 over both
        [[8.0, 4.0], [8.0, 5.0]],  # 4.5 at the end, 6.25 over both
        [[9.0, nan], [1.0, nan]],  # stopped early: 5.0 in its last evaluation
        [[nan, nan], [99.0, 99.0]],  # one seed was never finite
    ]
    best = with_returns(runs, returns).best(last=2)
    assert (best.setting, best.seed) == (1, 1)
    assert best.score == 6.25
    assert best.hyperparameters.discount == pytest.approx(0.9)
    assert with_returns(runs, returns).scores().tolist()[2] == [9.0, 1.0]
    with pytest.raises(ValueError, match="last is 3; it must be between 1 and 2"):
        runs.best(last=3)


def test_dataframe_is_tidy(runs):
    frame = runs.to_dataframe()
    assert len(frame) == 4 * 2 * TINY.num_evals
    assert {
        "setting",
        "seed",
        "learning_rate",
        "discount",
        "env_steps",
        "eval_return",
        "kl",
    } <= set(frame.columns)
    assert not frame.duplicated(["setting", "seed", "env_steps"]).any()
    row = frame.query("setting == 3 and seed == 1").iloc[-1]
    assert row.eval_return == pytest.approx(float(runs.metrics.eval_return[3, 1, -1]))
    assert (row.learning_rate, row.discount) == pytest.approx((3e-3, 0.9))


def count_compilations(monkeypatch):
    sizes = []
    compile_ = jax.stages.Lowered.compile

    def counted(self, *args, **kwargs):
        sizes.append(jax.tree.leaves(self.in_avals)[0].shape[0])
        return compile_(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", counted)
    return sizes


def same(a, b):
    leaves_close((a.state.tree, a.metrics), (b.state.tree, b.metrics))


def test_chunks_share_one_compilation_and_give_the_same_results(train, runs, monkeypatch):
    sizes = count_compilations(monkeypatch)
    chunked = rx.sweep(train, SETTINGS, num_seeds=2, key=KEY, members_per_chunk=3)
    assert sizes == [3]  # 8 members: 3 + 3 + 2 and one of padding
    same(chunked, runs)
    episodes = jax.jit(train.evaluate)(chunked.state[0, 0])  # from the host, with its random key
    assert episodes.returns.shape == (TINY.num_eval_envs,)


def test_chunks_follow_from_memory(train, runs, monkeypatch):
    program = jax.jit(jax.vmap(train))
    keys, members = members_module.flatten_members(SETTINGS, 2, KEY)
    memory = measure_memory(program.lower(keys, members).compile(), 8)
    sizes = count_compilations(monkeypatch)
    limited = rx.sweep(
        train, SETTINGS, num_seeds=2, key=KEY, memory_limit=int(memory.per_member * 4.5)
    )
    assert sizes == [8, 4]  # measured with all, then as many as fit
    same(limited, runs)
    with pytest.raises(ValueError, match=r"one member needs [\d,]+ bytes and memory_limit is 10"):
        rx.sweep(train, SETTINGS, num_seeds=2, key=KEY, memory_limit=10)


def member_bytes(**changes):
    train = rx.make_train(probes.match_observation(), tiny(**changes))
    keys, members = members_module.flatten_members(SETTINGS, 1, KEY)
    return measure_memory(jax.jit(jax.vmap(train)).lower(keys, members).compile(), 4).per_member


@pytest.mark.parametrize("width", [TINY.actor_width, 256])
def test_a_member_holds_no_more_than_the_update_needs(width):
    """More rollout rows cost what a row of transition and batch costs; hidden layers and epochs cost nothing."""
    sizes = {"num_envs": 256, "num_minibatches": 64, "total_steps": 1, "actor_width": width}
    short, long = member_bytes(**sizes, num_steps=64), member_bytes(**sizes, num_steps=128)
    # observation, next observation, action, reward, two flags, target, mean, std, order; normalized copies
    # of the observations; next embedding; label.
    floats_per_row = 12 + 2 + TINY.critic_width + TINY.num_bins
    row = (long - short) / (256 * 64)
    assert row < 2.5 * 4 * floats_per_row
    more_epochs = member_bytes(**sizes, num_steps=64, num_epochs=8, num_evals=4)
    assert more_epochs < 1.05 * short


def test_a_sweep_wants_members():
    train = rx.make_train(probes.match_observation(), TINY)
    with pytest.raises(ValueError, match="must all be .settings."):
        rx.sweep(train, HP, num_seeds=1, key=KEY)
    with pytest.raises(ValueError, match="num_seeds is 0"):
        rx.sweep(train, SETTINGS, num_seeds=0, key=KEY)
    with pytest.raises(ValueError, match="members_per_chunk is 0"):
        rx.sweep(train, SETTINGS, num_seeds=1, key=KEY, members_per_chunk=0)


def test_metrics_have_one_name_each(runs):
    assert set(flatten_metrics(runs.metrics)) >= {"eval_return", "kl", "nonfinite", "temperature"}
