"""Instances that act with a wider policy: how wide, and how far their returns are trusted as the policy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.envs import probes
from reppo_fx.learner.exploration import exploring_now, noise_correlations, noise_scales
from reppo_fx.learner.targets import trace_weights

from ..sizes import HP, leaves_close, tiny

KEY = jax.random.key(0)
WIDE = HP._replace(exploration_noise_min=1.0, exploration_noise_max=3.0, exploration_base=0.5)


def test_scales_grow_over_the_instances_that_are_not_the_base():
    np.testing.assert_allclose(noise_scales(WIDE, 8), [1, 1, 1, 1, 1.5, 2, 2.5, 3])
    np.testing.assert_allclose(noise_scales(HP, 5), np.ones(5))
    narrow = HP._replace(exploration_noise_min=0.5, exploration_noise_max=0.5, exploration_base=1.0)
    np.testing.assert_allclose(noise_scales(narrow, 3), [0.5, 0.5, 0.5])


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_a_wider_policy_has_more_spread_in_its_instances(kind):
    if kind == "continuous":
        distribution = rx.tanh_normal(2)
        policy = distribution.policy(jnp.full((4, 4), -1.0), HP)
    else:
        distribution = rx.categorical(3)
        policy = distribution.policy(jnp.tile(jnp.array([2.0, 0.0, -1.0]), (4, 1)), HP)
    wide = distribution.widen(policy, lambda n: noise_scales(WIDE, n))
    entropy = lambda p: distribution.entropy(KEY, p, 4096)
    assert (entropy(wide)[2:] > entropy(policy)[2:] + 0.05).all()
    leaves_close(
        jax.tree.map(lambda x: x[:2], (wide, policy))[0],
        jax.tree.map(lambda x: x[:2], policy),
        rtol=1e-6,
    )


def test_returns_are_trusted_by_the_clipped_ratio():
    """Against scipy's densities, one number at a time."""
    from scipy.stats import norm

    distribution = rx.tanh_normal(1)
    policy = distribution.policy(jnp.zeros((2, 4, 2)), HP._replace(min_std=0.0))
    u = jax.random.normal(KEY, (2, 4, 1)) * 3.0
    weights = rx.NOISE.weights(
        distribution, policy, jnp.tanh(u), WIDE._replace(min_trace_weight=0.3)
    )
    scale = np.broadcast_to(np.asarray(noise_scales(WIDE, 4)), (2, 4))
    ratio = norm.pdf(np.asarray(u[..., 0])) / norm.pdf(np.asarray(u[..., 0]), scale=scale)
    np.testing.assert_allclose(weights, np.clip(ratio, 0.3, 1.0), rtol=2e-3)
    assert 0 < int((np.asarray(weights) < 1).sum()) < weights.size
    np.testing.assert_allclose(weights[:, :2], 1.0, atol=1e-5)


@pytest.fixture(scope="module")
def noisy():
    return rx.make_train(probes.match_observation(), tiny(exploration="noise", num_envs=8))


@pytest.mark.once
def test_factors_of_one_change_nothing(noisy):
    plain = rx.make_train(probes.match_observation(), tiny(num_envs=8))
    states = [jax.jit(train.iteration)(train.init(KEY, HP))[0] for train in (noisy, plain)]
    leaves_close(*(state.learner for state in states), rtol=1e-5)


@pytest.mark.once
def test_the_same_noise_acts_in_pure_worlds_and_in_simulators(noisy):
    state = noisy.init(KEY, WIDE)
    _, rollout = rx.collect(noisy, noisy.training_env, state)
    _, plain = rx.collect(noisy, noisy.training_env, noisy.init(KEY, HP))
    first = lambda rollout: np.asarray(rollout.transitions.action[0])
    np.testing.assert_allclose(first(rollout)[:4], first(plain)[:4], atol=1e-6)
    assert (np.abs(first(rollout)[4:] - first(plain)[4:]) > 1e-4).all()
    with hosts.pure(probes.match_observation(), 8) as env:
        train = rx.make_host_train(env, tiny(exploration="noise", num_envs=8))
        host_state = train.init(KEY, WIDE)
        world = train.worlds.training(())
        _, host = hosts.collect(train, world, host_state)
        calm_train = rx.make_host_train(env, tiny(num_envs=8))
        calm_state = calm_train.init(KEY, WIDE)
        _, calm = hosts.collect(calm_train, calm_train.worlds.training(()), calm_state)
    np.testing.assert_allclose(first(host)[:4], first(calm)[:4], atol=1e-6)
    assert (np.abs(first(host)[4:] - first(calm)[4:]) > 1e-4).all()


def test_trust_cuts_the_trace_of_the_step_before_and_a_failure_cuts_it_whole():
    noisy = rx.make_train(probes.constant_reward(), tiny(exploration="noise", num_envs=8))
    state = noisy.init(KEY, WIDE)
    _, rollout = rx.collect(noisy, noisy.training_env, state)
    trust = jnp.full_like(rollout.transitions.reward, 0.7)
    rows = rollout.transitions._replace(nonfinite=rollout.transitions.nonfinite.at[2, 1].set(True))
    weights = np.asarray(trace_weights(rows, trust))
    assert weights[2, 1] == 0.0
    assert (np.delete(weights.ravel(), 2 * 8 + 1) == np.float32(0.7)).all()
    targets = [
        rx.make_batch(
            noisy, state._replace(hyperparameters=WIDE._replace(min_trace_weight=w)), rollout
        ).target
        for w in (0.0, 1.0)
    ]
    assert np.abs(targets[0] - targets[1]).max() > 1e-3  # wide actions are trusted less
    np.testing.assert_allclose(targets[0][:, :4], targets[1][:, :4], atol=1e-4)


def test_what_cannot_be_widened_says_so():
    distribution = rx.tanh_normal(1)._replace(widen=None)
    with pytest.raises(ValueError, match="cannot be widened"):
        rx.make_train(
            probes.match_observation(), tiny(exploration="noise"), distribution=distribution
        )
    with pytest.raises(ValueError, match="exploration is 'noise' and policy_gradient 'score_gae'"):
        rx.make_train(
            probes.match_observation(), tiny(exploration="noise", policy_gradient="score_gae")
        )
    with pytest.raises(ValueError, match="exploration_noise_max is 0.0"):
        rx.make_train(probes.match_observation(), tiny()).init(
            KEY, HP._replace(exploration_noise_max=0.0)
        )


LASTING = HP._replace(noise_correlation=0.8, exploration_base=0.25)


def test_correlations_are_none_in_the_base():
    np.testing.assert_allclose(noise_correlations(LASTING, 8), [0, 0] + 6 * [0.8])
    np.testing.assert_allclose(
        noise_correlations(LASTING._replace(exploration_base=1.0), 3), [0, 0, 0]
    )


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_lasting_noise_leaves_every_action_to_the_policy(kind):
    """Frequencies of single actions are the policy's, at every lag, and successive ones agree more often."""
    if kind == "continuous":
        distribution = rx.tanh_normal(1, scale=2.0)
        policy = distribution.policy(jnp.tile(jnp.array([0.3, -0.5]), (8, 1)), HP)
        direct = distribution.sample(KEY, jax.tree.map(lambda x: x[:1].repeat(50_000, 0), policy))
        moments = lambda a: np.array([np.mean(a), np.mean(np.square(a)), np.mean(a**3)])
    else:
        distribution = rx.categorical(3)
        policy = distribution.policy(jnp.tile(jnp.array([1.0, 0.0, -1.0]), (8, 1)), HP)
        direct = distribution.sample(KEY, jax.tree.map(lambda x: x[:1].repeat(50_000, 0), policy))
        moments = lambda a: np.array([np.mean(np.asarray(a) == k) for k in range(3)])

    def step(noise, key):
        action, noise = rx.CORRELATED_NOISE.act(key, distribution, policy, noise, LASTING)
        return noise, action

    start = rx.CORRELATED_NOISE.start(KEY, distribution, 8)
    _, actions = jax.lax.scan(step, start, jax.random.split(KEY, 20_000))
    actions = np.asarray(actions, float).reshape(20_000, 8)
    np.testing.assert_allclose(moments(actions), moments(np.asarray(direct.action)), atol=0.02)
    lag = [np.corrcoef(actions[:-1, i], actions[1:, i])[0, 1] for i in range(8)]
    assert np.abs(lag[:2]).max() < 0.03
    assert min(lag[2:]) > 0.5


@pytest.fixture(scope="module")
def lasting():
    return rx.make_train(probes.match_observation(), tiny(exploration="correlated", num_envs=8))


@pytest.mark.once
def test_lasting_noise_goes_on_from_rollout_to_rollout(lasting):
    state = lasting.init(KEY, LASTING)
    assert state.rollout.noise.shape == (8, 1)
    moved, _ = jax.jit(lasting.iteration)(state)
    again, _ = jax.jit(lasting.iteration)(moved)
    lasts = LASTING._replace(noise_correlation=0.999, exploration_base=0.0)
    state = lasting.init(KEY, lasts)
    for _ in range(2):
        moved, _ = jax.jit(lasting.iteration)(state)
        np.testing.assert_allclose(moved.rollout.noise, state.rollout.noise, atol=0.5)
        state = moved
    assert not np.allclose(again.rollout.noise, moved.rollout.noise)


@pytest.mark.once
def test_lasting_noise_is_the_same_in_pure_worlds_and_in_simulators(lasting):
    state = lasting.init(KEY, LASTING)
    moved, rollout = rx.collect(lasting, lasting.training_env, state)
    with hosts.pure(probes.match_observation(), 8) as env:
        train = rx.make_host_train(env, tiny(exploration="correlated", num_envs=8))
        host_state = train.init(KEY, LASTING)
        np.testing.assert_array_equal(host_state.rollout.noise, state.rollout.noise)
        host_moved, host = hosts.collect(train, train.worlds.training(()), host_state)
        learned, _ = train.iteration(train.init(KEY, LASTING))
    np.testing.assert_allclose(host_moved.rollout.noise, moved.rollout.noise, rtol=1e-5)
    np.testing.assert_allclose(learned.rollout.noise, moved.rollout.noise, rtol=1e-5)
    assert host.transitions.action.shape == rollout.transitions.action.shape


def test_instances_explore_for_a_share_of_the_run():
    at = lambda done, **changes: exploring_now(LASTING._replace(**changes), jnp.asarray(done))
    for done in (0.0, 0.49):
        assert float(at(done, exploration_fraction=0.5).exploration_base) == 0.25
    for done in (0.5, 1.0, 3.0):  # a run may go on beyond its schedule
        np.testing.assert_allclose(
            noise_correlations(at(done, exploration_fraction=0.5), 4), np.zeros(4)
        )
    assert float(at(0.99).exploration_base) == 0.25  # all of it, where nothing is said
    wide = exploring_now(WIDE._replace(exploration_fraction=0.0), jnp.zeros(()))
    np.testing.assert_allclose(noise_scales(wide, 4), np.ones(4))


@pytest.mark.once
def test_exploring_ends_in_pure_worlds_and_in_simulators(lasting):
    """Noise that hardly changes while it lasts, and anew at every step from half of the run on."""
    hp = LASTING._replace(noise_correlation=0.9999, exploration_base=0.0, exploration_fraction=0.5)
    half = lasting.config.schedule_iterations // 2
    with hosts.pure(probes.match_observation(), 8) as env:
        train = rx.make_host_train(env, tiny(exploration="correlated", num_envs=8))
        worlds = (
            (lasting, rx.collect, lasting.training_env),
            (
                train,
                hosts.collect,
                train.worlds.training(()),
            ),
        )
        for method, collect, world in worlds:
            state = method.init(KEY, hp)
            before = np.asarray(state.rollout.noise)
            for iteration, lasts in ((half - 1, True), (half, False)):
                at = state._replace(iteration=jnp.asarray(iteration, jnp.int32))
                moved, _ = collect(method, world, at)
                assert np.allclose(moved.rollout.noise, before, atol=0.3) == lasts


def test_what_is_trusted_follows_who_explores():
    """After it, every action is the policy's."""
    noisy = rx.make_train(probes.constant_reward(), tiny(exploration="noise", num_envs=8))
    hp = WIDE._replace(exploration_fraction=0.5, min_trace_weight=0.0)
    state = noisy.init(KEY, hp)
    _, rollout = rx.collect(noisy, noisy.training_env, state)
    plain = noisy.init(KEY, hp._replace(exploration_base=1.0))
    late = state._replace(iteration=jnp.asarray(noisy.config.schedule_iterations, jnp.int32))
    targets = [rx.make_batch(noisy, s, rollout).target for s in (state, plain, late)]
    np.testing.assert_allclose(targets[2], targets[1], rtol=1e-6)
    assert np.abs(targets[0] - targets[2]).max() > 1e-3


def test_what_takes_no_noise_says_so():
    distribution = rx.tanh_normal(1)._replace(from_normals=None)
    with pytest.raises(ValueError, match="takes no noise from outside"):
        rx.make_train(
            probes.match_observation(), tiny(exploration="correlated"), distribution=distribution
        )
    with pytest.raises(ValueError, match="exploration is 'correlated' and policy_gradient"):
        rx.make_train(
            probes.match_observation(),
            tiny(exploration="correlated", policy_gradient="score_gae"),
        )
    with pytest.raises(ValueError, match="noise_correlation is 1.0"):
        rx.make_train(probes.match_observation(), tiny()).init(
            KEY, HP._replace(noise_correlation=1.0)
        )
