"""Many runs of discrete actions with masks: a sweep, halving, and a population."""

import jax
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes

from ..sizes import HP, TINY, leaves_close

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def train():
    return rx.make_train(probes.masked(probes.two_step_choice()), TINY)


def test_a_member_of_a_sweep_is_the_run_alone(train):
    settings = rx.grid(HP, entropy_share=[0.1, 0.9])
    runs = rx.sweep(train, settings, num_seeds=2, key=KEY)
    assert runs.swept == ("entropy_share",)
    alone = jax.jit(train)(
        jax.random.split(KEY, 2)[1], jax.tree.map(lambda leaf: leaf[1], settings)
    )
    metrics = jax.tree.map(lambda leaf: leaf[1, 1], runs.metrics)
    leaves_close(
        (runs.state[1, 1].learner.networks, metrics.eval_return),
        (alone[0].learner.networks, alone[1].eval_return),
    )
    policy = rx.make_policy(train, runs.state[0, 0])
    shown = {"state": np.zeros((2, 1)), "action_mask": np.eye(2, dtype=bool)}
    assert policy(shown).tolist() == [0, 1]


def test_halving_and_a_population_take_them(train):
    settings = rx.grid(HP, entropy_share=[0.1, 0.9])
    halved = rx.successive_halving(train, settings, num_seeds=1, key=KEY, rungs=1, freed="stop")
    assert np.isfinite(halved.runs.metrics.eval_return[:, :, 0]).all()
    space = {"entropy_share": rx.uniform(0.0, 1.0)}
    population = rx.make_population(train, space, num_members=4, base=HP)
    state, metrics = jax.jit(population)(KEY)
    shares = np.asarray(state.members.hyperparameters.entropy_share)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert np.isfinite(metrics.metrics.eval_return).all()
