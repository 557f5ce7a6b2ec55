"""Updates that are dropped, schedules, and what weight decay may touch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.learner.optimizers import learning_rate_schedule, lowest_temperature

from ..sizes import HP, tiny


@pytest.mark.parametrize("dual_optimizer", ["actor", "own"])
@pytest.mark.once
def test_weight_decay_touches_weights_and_no_multiplier(dual_optimizer):
    """With nothing to learn from but decay, weights shrink and α and β stay."""

    def only_decay(hyperparameters, config):
        # Adam's part is scaled to nothing: what is left is −rate · decay · parameter.
        return optax.chain(optax.scale(0.0), optax.add_decayed_weights(0.5), optax.scale(-0.1))

    config = tiny(dual_optimizer=dual_optimizer, num_epochs=1, num_minibatches=1)
    train = rx.make_train(probes.match_observation(), config, optimizer=only_decay)
    hp = HP._replace(initial_temperature=0.3, initial_multiplier=0.7, learning_rate=1e-12)
    state = train.init(jax.random.key(0), hp)
    after, _ = jax.jit(train.iteration)(state)
    for network in ("actor", "critic"):
        before, now = (getattr(s.learner.networks, network) for s in (state, after))
        for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True):
            np.testing.assert_allclose(y, 0.95 * x, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(after.learner.duals.temperature, 0.3, rtol=1e-5)
    np.testing.assert_allclose(after.learner.duals.multiplier, 0.7, rtol=1e-5)


@pytest.mark.parametrize("dual_optimizer", ["actor", "own"])
@pytest.mark.once
def test_a_temperature_falls_no_lower_than_it_may(dual_optimizer):
    """An entropy far above its target draws α down until it is at the bound, and one below it still raises α."""
    train = rx.make_train(probes.match_observation(), tiny(dual_optimizer=dual_optimizer))
    last = jax.jit(lambda hp: train(jax.random.key(0), hp)[0].learner.duals.temperature)
    hp = HP._replace(initial_temperature=0.1, temperature_rate=30.0)
    free = hp._replace(entropy_target=50.0)
    assert float(last(free)) < 0.09
    np.testing.assert_allclose(last(free._replace(min_temperature=0.09)), 0.09, rtol=1e-5)
    wanted = hp._replace(entropy_target=-50.0)
    assert float(last(wanted)) > 0.11
    assert float(last(wanted._replace(min_temperature=0.09))) == float(last(wanted))


BOUND = rx.Hyperparameters(min_temperature=0.2, min_temperature_spread=8.0)


@pytest.mark.parametrize(
    ("targets", "spread", "lowest"),
    [
        ([70.0, 70.0, 70.0], 8.0, 0.2),
        ([-2.0, 2.0, -2.0, 2.0], 8.0, 0.15),
        ([-2.0, 2.0, -2.0, 2.0], 2.5, 0.04),
        ([-8.0, 8.0], 8.0, 0.0),
        ([0.0, 90.0], 8.0, 0.0),
        ([0.0, 90.0], 0.0, 0.2),
        ([0.0, np.nan], 8.0, 0.0),
        ([0.0, np.nan], 0.0, 0.2),
    ],
)
def test_the_bound_under_a_temperature_falls_with_the_spread_of_values(targets, spread, lowest):
    found = lowest_temperature(jnp.array(targets), BOUND._replace(min_temperature_spread=spread))
    np.testing.assert_allclose(found, lowest, atol=1e-4)


@pytest.mark.parametrize("spread", [0.0, 8.0])
def test_a_bound_by_spread_has_gradients_where_all_values_are_equal(spread):
    value, slope = jax.value_and_grad(
        lambda x: lowest_temperature(x * jnp.ones(5), BOUND._replace(min_temperature_spread=x))
    )(spread)
    np.testing.assert_allclose(value, 0.2, atol=1e-4)
    np.testing.assert_allclose(slope, 0.0, atol=1e-4)


@pytest.mark.once
def test_a_temperature_is_only_bound_where_values_are_alike():
    """The same targets, counted as alike and as different."""
    train = rx.make_train(probes.match_observation(), tiny())
    last = jax.jit(lambda hp: train(jax.random.key(0), hp)[0].learner.duals.temperature)
    hp = HP._replace(initial_temperature=0.1, temperature_rate=30.0, entropy_target=50.0)
    bound = hp._replace(min_temperature=0.09, min_temperature_spread=1e3)
    assert 0.0899 < float(last(bound)) < 0.09
    assert float(last(bound._replace(min_temperature_spread=1e-3))) == float(last(hp))


@pytest.mark.once
def test_adamw_of_a_user_leaves_multipliers_where_their_gradients_put_them():
    config = tiny(dual_optimizer="actor")
    make = lambda decay: lambda hp, config: optax.adamw(hp.learning_rate, weight_decay=decay)
    duals = []
    for decay in (0.0, 0.9):
        train = rx.make_train(probes.match_observation(), config, optimizer=make(decay))
        state = train.init(jax.random.key(0), HP._replace(initial_temperature=0.01))
        # One gradient step on the same batch: only decay could tell the two apart.
        _, rollout = rx.collect(train, train.training_env, state)
        batch = rx.make_batch(train, state, rollout)
        state, _ = rx.update(train, state, jax.tree.map(lambda x: x[:1], batch))
        duals.append(state.learner.duals.params)
    np.testing.assert_allclose(duals[0].log_temperature, duals[1].log_temperature, atol=2e-3)
    # Decay towards log α = 0 would have moved it by rate · 0.9 · log 100 per step, 0.05 in all.
    assert abs(float(duals[1].log_temperature) - np.log(0.01)) < 0.02


def test_the_schedule_may_end_before_the_run_does_and_stays_there():
    hp = rx.Hyperparameters(learning_rate=1e-2, final_learning_rate=0.1)
    short, long = tiny(), tiny(total_steps=8 * 32, schedule_steps=4 * 32)
    for count in (0, 3, 16, 100):
        rates = [float(learning_rate_schedule(hp, config)(count)) for config in (short, long)]
        assert rates[0] == rates[1]
    assert np.isclose(rates[0], 1e-3)


def test_a_dropped_update_leaves_integers_and_empty_states_alone():
    optimizer = rx.skip_nonfinite(optax.adam(0.1))
    state = optimizer.init({"a": jnp.ones(2)})
    _, after = optimizer.update({"a": jnp.array([jnp.inf, 1.0])}, state, {"a": jnp.ones(2)})
    assert int(after.skipped) == 1
    assert int(after.inner[0].count) == 0
