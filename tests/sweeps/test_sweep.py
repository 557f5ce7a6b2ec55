"""The member axis: sweeps equal to single runs, chunks, memory, results with their labels."""

import gc
import sys
import types
import weakref
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import _programs
from reppo_fx.envs import probes
from reppo_fx.sweeps import members as members_module
from reppo_fx.sweeps.members import measure_memory
from reppo_fx.sweeps.runs import flatten_metrics

from ..sizes import HP, TINY, leaves_close, tiny
from .compilations import compiled_programs

# Toys whose learning rates are too high, and whose runs say so.
pytestmark = pytest.mark.filterwarnings("ignore::reppo_fx.ReppoRunWarning")

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


@pytest.mark.once
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


def stopped_early(runs, setting, made):
    """As successive halving leaves a setting that it drops."""
    steps = np.array(runs.metrics.env_steps)
    steps[setting, :, made:] = -1
    return runs._replace(metrics=runs.metrics._replace(env_steps=steps))


def test_best_is_by_mean_over_seeds(runs):
    nan = jnp.nan
    returns = [
        [[0.0, 9.0], [9.0, 1.0]],  # mean 5 at the end, 4.75 over both
        [[8.0, 4.0], [8.0, 5.0]],  # 4.5 at the end, 6.25 over both
        [[9.0, nan], [1.0, nan]],  # stopped early: 5.0 in its last evaluation
        [[nan, nan], [99.0, 99.0]],  # one seed was never finite
    ]
    runs = stopped_early(with_returns(runs, returns), 2, 1)
    best = runs.best(last=2)
    assert (best.setting, best.seed) == (1, 1)
    assert best.score == 6.25
    assert best.hyperparameters.discount == pytest.approx(0.9)
    assert runs.scores().tolist()[2] == [9.0, 1.0]
    assert runs.evaluations.tolist() == [[2, 2], [2, 2], [1, 1], [2, 2]]
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


def same(a, b):
    leaves_close((a.state.tree, a.metrics), (b.state.tree, b.metrics))


def programs_of(names):
    return [name for name in names if "mapped" in name]


@pytest.mark.once
def test_chunks_share_one_compilation_and_give_the_same_results(train, runs):
    with compiled_programs() as names:
        chunked = rx.sweep(train, SETTINGS, num_seeds=2, key=KEY, members_per_chunk=3)
    assert len(programs_of(names)) == 1  # 8 members: 3 + 3 + 2 and one of padding
    same(chunked, runs)
    episodes = jax.jit(train.evaluate)(chunked.state[0, 0])  # from the host, with its random key
    assert episodes.returns.shape == (TINY.num_eval_envs,)


@pytest.mark.once
def test_chunks_follow_from_memory(train, runs):
    program = jax.jit(jax.vmap(train))
    keys, members = members_module.flatten_members(SETTINGS, 2, KEY)
    memory = measure_memory(program.lower(keys, members).compile(), 8)
    for expected in (1, 0):  # that for all 8 is known from before; then for 4, as many as fit
        with compiled_programs() as names:
            limited = rx.sweep(
                train, SETTINGS, num_seeds=2, key=KEY, memory_limit=memory.per_member * 4.5
            )
        assert len(programs_of(names)) == expected
        assert isinstance(limited.metrics.eval_return, np.ndarray)  # in chunks
        same(limited, runs)
    whole = rx.sweep(train, SETTINGS, num_seeds=2, key=KEY, memory_limit=2**40)
    assert isinstance(whole.metrics.eval_return, jax.Array)
    with pytest.raises(ValueError, match=r"one member needs [\d,]+ bytes and memory_limit is 10"):
        rx.sweep(train, SETTINGS, num_seeds=2, key=KEY, memory_limit=10)


def member_bytes(**changes):
    train = rx.make_train(probes.match_observation(), tiny(**changes))
    keys, members = members_module.flatten_members(SETTINGS, 1, KEY)
    return measure_memory(jax.jit(jax.vmap(train)).lower(keys, members).compile(), 4).per_member


@pytest.mark.slow
@pytest.mark.parametrize("width", [TINY.actor_width, 256])
def test_a_member_holds_no_more_than_the_update_needs(width):
    """More rollout rows cost what a row of transition and batch costs; hidden layers and epochs cost nothing."""
    sizes = {
        "num_envs": 256,
        "num_minibatches": 64,
        "total_steps": 4 * 256 * 128,
        "actor_width": width,
    }
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


def test_a_hole_in_the_returns_is_no_early_stop(runs):
    nan = jnp.nan
    returns = [[[nan, 7.0]] * 2, [[1.0, 3.0]] * 2, [[9.0, nan]] * 2, [[2.0, 4.0]] * 2]
    found = with_returns(runs, returns)
    np.testing.assert_array_equal(found.scores(), [[7.0] * 2, [3.0] * 2, [nan] * 2, [4.0] * 2])
    assert found.best().setting == 0
    assert found.best(last=2).setting == 3


def test_what_was_dropped_is_not_best_unless_nothing_else_is_finite(runs):
    nan = jnp.nan
    returns = [[[5.0, nan]] * 2, [[1.0, 3.0]] * 2, [[nan, nan]] * 2, [[2.0, 4.0]] * 2]
    assert stopped_early(with_returns(runs, returns), 0, 1).best().setting == 3
    returns = [[[5.0, nan]] * 2, [[nan, nan]] * 2, [[nan, nan]] * 2, [[nan, nan]] * 2]
    assert stopped_early(with_returns(runs, returns), 0, 1).best().setting == 0
    nothing = with_returns(runs, [[[nan, nan]] * 2] * 4)
    with pytest.raises(ValueError, match="no setting has a finite return"):
        nothing.best()
    assert "none has a finite return" in repr(nothing)


def test_runs_say_what_they_are(runs):
    text = repr(with_returns(runs, [[[0.0, float(i)]] * 2 for i in range(4)]))
    assert text == (
        "Runs(4 settings × 2 seeds, 2 evaluations; swept: learning_rate, discount; "
        "best: setting 3 (learning_rate=0.003, discount=0.9) with a mean return of 3)"
    )
    assert repr(jax.eval_shape(lambda r: r, runs)).startswith("Runs(")


def test_an_index_that_is_not_there_is_no_run(runs):
    for index in (4, (0, 2), (0, -3), (np.int64(9), 0)):
        with pytest.raises(IndexError, match="the runs have the axes"):
            runs.state[index]
    assert len(list(runs.state)) == 4
    assert int(runs.state[-1, -1].iteration) == 4


@pytest.mark.once
def test_equal_calls_compile_once_and_the_program_goes_with_train():
    train = rx.make_train(probes.match_observation(), TINY)
    with compiled_programs() as names:
        for seed, rates in enumerate(([1e-3, 2e-3], np.array([1e-4, 1e-2]), (1, 2))):
            settings = rx.grid(HP, learning_rate=rates)
            rx.sweep(train, settings, num_seeds=1, key=jax.random.key(seed))
    assert len(programs_of(names)) == 1
    with compiled_programs() as names, jax.default_matmul_precision("float32"):
        rx.sweep(train, settings, num_seeds=1, key=KEY)
    assert len(programs_of(names)) == 1  # another program, not the one from before
    gone = weakref.ref(train)
    del train
    gc.collect()
    assert gone() is None
    assert all(owner is not None for owner in _programs._PROGRAMS)


def test_kept_programs_are_bounded():
    owner = tiny  # anything that can be held weakly
    for kind in range(20):
        _programs.keep_program(owner, kind, lambda: lambda: None)
    assert list(_programs._PROGRAMS[owner]) == list(range(12, 20))
    _programs.keep_program(owner, 12, lambda: pytest.fail("was kept"))


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.once
def test_one_member_is_exactly_the_run_alone(train, seed):
    key = jax.random.key(seed)
    runs = rx.sweep(train, rx.grid(HP), num_seeds=1, key=key)
    assert runs.metrics.eval_return.shape == (1, 1, 2)
    hp = jax.tree.map(jnp.asarray, HP)
    alone = jax.jit(train)(jax.random.split(key, 1)[0], hp)
    leaves_close(
        (runs.state[0, 0], jax.tree.map(lambda x: x[0, 0], runs.metrics)), alone, rtol=1e-6
    )


def test_one_member_is_not_mapped():
    jaxpr = jax.make_jaxpr(members_module.over_members(lambda a, b: a @ b))
    shapes = lambda n: (jnp.ones((n, 2, 3)), jnp.ones((n, 3, 2)))
    dots = lambda n: [e for e in jaxpr(*shapes(n)).eqns if e.primitive.name == "dot_general"]
    assert dots(1)[0].outvars[0].aval.shape == (2, 2)
    assert dots(2)[0].outvars[0].aval.shape == (2, 2, 2)
    assert members_module.over_members(lambda a, b: a @ b)(*shapes(1)).shape == (1, 2, 2)


class Inner(NamedTuple):
    kl: float
    same: float


class Middle(NamedTuple):
    inner: Inner
    reward: float
    env: dict


class Ending(NamedTuple):
    mean: float
    last: float


class Outer(NamedTuple):
    steps: float
    same: float
    middle: Middle
    more: dict


def test_flattening_takes_fields_and_mappings():
    env = {"alive": 1, "terms": {"up": 2}}
    tree = Outer(3, 4, Middle(Inner(5, 6), 7, env), {"success": Ending(8, 9), "none": None})
    assert list(flatten_metrics(tree).items()) == [
        ("steps", 3),
        ("same", 4),
        ("kl", 5),
        ("middle/inner/same", 6),
        ("reward", 7),
        ("env/alive", 1),
        ("env/terms/up", 2),
        ("more/success/mean", 8),
        ("more/success/last", 9),
    ]
    with pytest.raises(ValueError, match="two metrics are named 'a/b'; rename one"):
        flatten_metrics({"a/b": 1, "a": {"b": 2}})


def test_flattened_metrics_keep_their_names_and_order(runs):
    names = list(flatten_metrics(runs.metrics))
    known = (
        "env_steps eval_return eval_return_std eval_length critic_loss value_error aux_loss q_value "
        "actor_loss kl entropy temperature multiplier reward target nonfinite skipped_updates diverged_at"
    )
    assert [name for name in names if name in known.split()] == known.split()


def test_memory_of_a_host_has_fallbacks(monkeypatch, unchecked_annotations):
    physical = members_module._physical_memory()
    assert physical > 2**28
    monkeypatch.delattr(members_module.os, "sysconf")
    monkeypatch.setitem(
        sys.modules,
        "psutil",
        types.SimpleNamespace(virtual_memory=lambda: types.SimpleNamespace(total=5 * 2**30)),
    )
    assert members_module._physical_memory() == 5 * 2**30
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert members_module._physical_memory() is None
    monkeypatch.setattr(members_module, "_container_limits", list)
    assert members_module.host_memory() == members_module.UNKNOWN_HOST_MEMORY
    device = types.SimpleNamespace(memory_stats=lambda: None)
    eight = 8 * 2**30
    assert members_module.available_memory(device) == eight // 2
    assert members_module.available_memory(device, sharing=8) == eight // 16
    monkeypatch.setattr(members_module, "_container_limits", lambda: [2**30, 2**40])
    assert members_module.host_memory() == 2**30


@pytest.mark.parametrize(
    ("line", "folder", "name"),
    [
        ("0::/jobs/7", "sys/fs/cgroup/jobs", "memory.max"),
        ("3:cpu,memory:/jobs/7", "sys/fs/cgroup/memory/jobs/7", "memory.limit_in_bytes"),
        ("0::/", "sys/fs/cgroup", "memory.max"),
    ],
)
def test_memory_of_a_container_is_its_limit(tmp_path, line, folder, name):
    assert members_module._container_limits(tmp_path) == []
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(line + "\n")
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / name).write_text("3000000000\n")
    assert set(members_module._container_limits(tmp_path)) == {3_000_000_000}
    (tmp_path / folder / name).write_text("max\n")
    assert members_module._container_limits(tmp_path) == []


def test_bytes_are_counted_in_python(unchecked_annotations):
    stats = types.SimpleNamespace(
        argument_size_in_bytes=2**33,
        output_size_in_bytes=2**33,
        temp_size_in_bytes=2**34,
        alias_size_in_bytes=0,
    )
    program = types.SimpleNamespace(memory_analysis=lambda: stats)
    memory = members_module.measure_memory(program, 4)
    assert memory == (2**35, 2**33)


def test_a_sweep_inside_a_program_is_refused(train):
    with pytest.raises(ValueError, match="sweep compiles programs of its own"):
        jax.jit(lambda key: rx.sweep(train, SETTINGS, num_seeds=1, key=key))(KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"settings": SETTINGS._replace(discount=np.array([0.9, 1.5, 0.9, 0.9]))},
            r"discount\[1\] is 1.5",
        ),
        ({"settings": jax.tree.map(lambda x: x[:0], SETTINGS)}, "there are no settings"),
        ({"num_seeds": True}, "num_seeds is True; it must be a whole number"),
        ({"memory_limit": -1.0}, "memory_limit is -1.0; it must be positive"),
        ({"members_per_chunk": 2.5}, "members_per_chunk is 2.5; it must be a whole number"),
        ({"key": 0}, "key is 0; it must be a random key"),
        ({"key": jax.random.split(KEY, 3)}, r"key holds keys of shape \[3\]; give one"),
    ],
)
def test_a_sweep_names_what_is_wrong(train, unchecked_annotations, changes, message):
    with pytest.raises(ValueError, match=message):
        rx.sweep(train, **{"settings": SETTINGS, "num_seeds": 1, "key": KEY, **changes})
