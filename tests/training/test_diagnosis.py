"""Runs that cannot work say so once, with the remedy: in Python and on the screen."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.envs import probes

from ..sizes import HP, tiny

KEY = jax.random.key(0)
WRONG = HP._replace(v_min=-2.0, v_max=0.0)  # rewards of the probe are 1


def constant_train(**changes):
    return rx.make_train(probes.constant_reward(), tiny(total_steps=6 * 32, num_evals=3, **changes))


@pytest.fixture(scope="module")
def train():
    return constant_train()


def found(train, hp):
    _, metrics = jax.jit(train)(KEY, hp)
    return rx.diagnose(metrics, hp)


def test_a_run_that_works_is_left_alone(train):
    assert found(train, HP) == []


def test_targets_outside_the_support_are_named_with_the_remedy(train):
    (finding,) = found(train, WRONG)
    assert finding.name == "outside"
    assert finding.members == (0,)
    assert finding.env_steps == 128.0  # at the second of two evaluations in a row
    assert "100% of the targets are outside" in finding.sentence
    assert "[v_min, v_max] = [-2, 0]" in finding.sentence
    assert 'value_scale="return"' in finding.sentence
    assert "Rewards of 1 a step are worth 10 at discount 0.9" in finding.sentence


@pytest.mark.once
def test_the_remedy_is_one():
    assert found(constant_train(value_scale="return"), WRONG._replace(v_min=-2.0, v_max=2.0)) == []


@pytest.mark.once
def test_sweep_warns_and_says_in_how_many_runs(train):
    settings = rx.grid(HP, v_max=[0.5, 20.0])
    with pytest.warns(rx.ReppoRunWarning, match=r"in 3 of 6 runs") as caught:
        runs = rx.sweep(train, settings, num_seeds=3, key=KEY)
    assert len(caught) == 1
    (finding,) = rx.diagnose(runs.metrics, settings)
    assert finding.members == (0, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rx.sweep(train, rx.grid(HP, v_max=[20.0]), num_seeds=1, key=KEY)


@pytest.mark.once
def test_a_simulator_warns_as_well():
    with hosts.pure(probes.constant_reward(), 4) as env:
        train = rx.make_host_train(env, tiny(total_steps=6 * 32, num_evals=3))
        with pytest.warns(rx.ReppoRunWarning, match="outside of what the critic can hold"):
            train(KEY, WRONG)


def changed(metrics, **training):
    own = {k: v for k, v in training.items() if k in metrics.training._fields}
    learner = {k: v for k, v in training.items() if k not in own}
    new = metrics.training._replace(learner=metrics.training.learner._replace(**learner), **own)
    return metrics._replace(training=new)


@pytest.mark.parametrize(
    ("changes", "name", "sentence"),
    [
        (
            {"skipped_updates": [0, 0, 4], "diverged_at": [-1.0, -1.0, 160.0]},
            "diverged",
            "from 160 steps on, and 4",
        ),
        ({"closed_gate": [0.2, 0.95, 0.99]}, "gate", "at 99% of the states .*Lower learning_rate"),
        (
            {"temperature": [1.0, 1e7, 1e8]},
            "temperature",
            "the temperature is 1e.08, from 0.01 at the start",
        ),
        ({"multiplier": [1.0, jnp.nan, jnp.nan]}, "multiplier", "kl_target cannot be held"),
        ({"nonfinite": [0, 0, 100]}, "simulator", "100 of 192 environment steps were not finite"),
    ],
)
def test_what_else_is_said(train, changes, name, sentence):
    _, metrics = jax.jit(train)(KEY, HP)
    broken = changed(metrics, **{k: jnp.asarray(v) for k, v in changes.items()})
    (finding,) = rx.diagnose(broken, HP)
    assert finding.name == name
    with pytest.warns(rx.ReppoRunWarning, match=sentence):
        warnings.warn(finding.sentence, rx.ReppoRunWarning, stacklevel=1)


def test_a_single_bad_evaluation_is_none(train):
    _, metrics = jax.jit(train)(KEY, HP)
    once = changed(
        metrics, outside=jnp.array([1.0, 0.0, 0.3]), closed_gate=jnp.array([1.0, 0.0, 1.0])
    )
    assert rx.diagnose(once, HP) == []


def test_a_watch_tells_each_finding_once(train):
    _, metrics = jax.jit(train)(KEY, WRONG)
    watch = rx.Watch(WRONG)
    rows = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[None, i], metrics) for i in range(3)]
    assert [len(watch.evaluated(row)) for row in rows] == [0, 1, 0]


def test_shares_are_measured(train):
    _, metrics = jax.jit(train)(KEY, HP._replace(max_grad_norm=1e-6, kl_target=1e-9))
    learner = metrics.training.learner
    np.testing.assert_allclose(learner.clipped_critic_gradients, 1.0)
    np.testing.assert_allclose(learner.clipped_actor_gradients, 1.0)
    assert (np.asarray(learner.closed_gate) > 0.5).all()
    _, metrics = jax.jit(train)(KEY, HP._replace(max_grad_norm=1e6, kl_target=1e6))
    learner = metrics.training.learner
    assert not np.any(learner.clipped_critic_gradients)
    assert not np.any(learner.clipped_actor_gradients)
    assert not np.any(learner.closed_gate)
