"""`metrics.csv`: one reader for everybody, whatever a power cut left."""

import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.run.plan import Plan
from reppo_fx.run.table import metric_columns, read_evaluations, read_returns

from ..sizes import tiny

PLAN = Plan("probe", "cpu", tiny(), rx.Hyperparameters(), num_seeds=2)
HEADER = "seed,env_steps,seconds,eval_return,kl"
ROWS = [
    "0,64,1.000,999.6,0.1",
    "1,64,1.000,12,0.1",
    "0,128,2.000,-3.25,0.1",
    "1,128,2.000,1e+03,0.125",
]


def written(tmp_path, lines):
    path = tmp_path / "metrics.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_whole_evaluations_are_read(tmp_path):
    steps, returns = read_returns(written(tmp_path, [HEADER, *ROWS]), PLAN)
    assert steps.tolist() == [64, 128]
    np.testing.assert_allclose(returns[:, 0], [[999.6, 12.0], [-3.25, 1000.0]])


def test_a_last_evaluation_that_is_cut_anywhere_is_left_out(tmp_path):
    path = written(tmp_path, [HEADER, *ROWS])
    whole = path.read_bytes()
    first = whole.index(ROWS[2].encode())
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        steps, returns = read_returns(path, PLAN)
        assert steps.tolist() == [64], whole[first:length]
        np.testing.assert_allclose(returns[:, 0], [[999.6, 12.0]])
    for length in range(first):
        path.write_bytes(whole[:length])
        if length > len(HEADER):
            assert not len(read_returns(path, PLAN)[0])


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 40, b"0,128,2.000,\n", b"1,128,2.0,5,0\n0,128,2.0,5,0\n"]
)
def test_garbage_at_the_end_is_left_out(tmp_path, garbage):
    path = written(tmp_path, [HEADER, *ROWS[:2]])
    path.write_bytes(path.read_bytes() + garbage)
    assert read_returns(path, PLAN)[0].tolist() == [64]


def test_damage_in_the_middle_is_named(tmp_path):
    path = written(tmp_path, [HEADER, "0,64,1.0,x,0", *ROWS[1:]])
    with pytest.raises(ValueError, match="damaged: lines 2 to 3 are not the 2 row"):
        read_evaluations(path, PLAN)


def test_a_table_of_another_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="it has no column 'eval_return'"):
        read_evaluations(written(tmp_path, ["seed,env_steps,seconds", "0,64,1"]), PLAN)


def test_columns_follow_the_metrics_with_the_environments_own():
    import jax
    import jax.numpy as jnp

    from reppo_fx.envs import probes

    inner = probes.match_observation()

    def step(state, action):
        state, timestep = inner.step(state, action)
        return state, timestep._replace(metrics={"reward/close": jnp.abs(action[0])})

    train = rx.make_train(inner._replace(step=step), tiny())
    _, metrics = jax.eval_shape(train, jax.random.key(0), rx.Hyperparameters())
    columns = metric_columns(metrics, ["discount"])
    assert columns[:5] == ["setting", "discount", "seed", "env_steps", "seconds"]
    assert {"eval_return", "kl", "diverged_at", "env/reward/close"} <= set(columns)
    own = [name for name in columns if name.startswith("eval_metrics/reward/close")]
    assert len(own) == 2
    assert len(set(columns)) == len(columns)
