"""Instances that act with a wider policy: how wide, and how far their returns are trusted as the policy's."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.envs import probes
from reppo_fx.learner.exploration import (
    noise_correlations,
    noise_scales,
    reward_density,
    without_prices,
)
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
    assert state.rollout.noise.normals.shape == (8, 1)
    moved, _ = jax.jit(lasting.iteration)(state)
    again, _ = jax.jit(lasting.iteration)(moved)
    lasts = LASTING._replace(noise_correlation=0.999, exploration_base=0.0)
    state = lasting.init(KEY, lasts)
    for _ in range(2):
        moved, _ = jax.jit(lasting.iteration)(state)
        np.testing.assert_allclose(
            moved.rollout.noise.normals, state.rollout.noise.normals, atol=0.5
        )
        state = moved
    assert not np.allclose(again.rollout.noise.normals, moved.rollout.noise.normals)


@pytest.mark.once
def test_lasting_noise_is_the_same_in_pure_worlds_and_in_simulators(lasting):
    state = lasting.init(KEY, LASTING)
    moved, rollout = rx.collect(lasting, lasting.training_env, state)
    with hosts.pure(probes.match_observation(), 8) as env:
        train = rx.make_host_train(env, tiny(exploration="correlated", num_envs=8))
        host_state = train.init(KEY, LASTING)
        chex.assert_trees_all_equal(host_state.rollout.noise, state.rollout.noise)
        host_moved, host = hosts.collect(train, train.worlds.training(()), host_state)
        learned, _ = train.iteration(train.init(KEY, LASTING))
    noise = moved.rollout.noise.normals
    np.testing.assert_allclose(host_moved.rollout.noise.normals, noise, rtol=1e-5)
    np.testing.assert_allclose(learned.rollout.noise.normals, noise, rtol=1e-5)
    assert host.transitions.action.shape == rollout.transitions.action.shape


@pytest.mark.parametrize(("unit", "lowest"), [(1.0, 0.0), (1e-30, 0.0), (1e3, -1e4), (1.0, 50.0)])
def test_density_is_the_share_that_earns_in_any_unit(unit, lowest):
    """Where ten instances have earned alike it is 1, where one of ten has a tenth, between them in order."""
    at = lambda *earned: float(reward_density(unit * jnp.array(earned) + lowest, jnp.array(lowest)))
    assert at(*10 * [3.0]) == pytest.approx(1.0, rel=1e-3)
    assert at(3.0, *9 * [0.0]) == pytest.approx(0.1, rel=1e-3)
    assert at(*10 * [0.0]) == 0.0
    assert 0.1 < at(3.0, 1.0, *8 * [0.0]) < at(*5 * [3.0], *5 * [1.0]) < 1.0


def rewards_of(reward, terminated=None, nonfinite=None, action=None):
    """A rollout of which exploring reads only these."""
    none = jnp.zeros_like(reward, bool)
    ended, failed = (none if x is None else jnp.asarray(x) for x in (terminated, nonfinite))
    action = jnp.zeros_like(reward, jnp.int32) if action is None else action
    return rx.Transition(reward, action, reward, reward, ended, none, failed, {})


@pytest.mark.parametrize("discount", [0.9, 0.99, 1.0])
def test_rewards_of_every_instance_are_averaged_over_the_horizon(discount):
    """Rollout by rollout it is the moving average that numpy makes step by step; failures are no rewards.

    An end for good is a horizon of zeros.
    """
    hp, rng = LASTING._replace(discount=discount), np.random.default_rng(0)
    rewards = rng.normal(size=(3, 5, 4)) - 7.0
    failed = rng.random((3, 5, 4)) < 0.2
    failed[:, :, 3] = True  # one that never does anything else
    ended = rng.random((3, 5, 4)) < 0.2
    noise = rx.CORRELATED_NOISE.start(KEY, rx.tanh_normal(1), 4)
    total, weight, rate = np.zeros(4), np.zeros(4), max(1.0 - discount, 1e-3)
    for row, bad, end in zip(rewards, failed, ended, strict=True):
        seen = rewards_of(jnp.asarray(np.where(bad, 0.0, row)), end, bad)
        noise = rx.CORRELATED_NOISE.observe(noise, seen, hp)
        for step in range(5):
            total = (1.0 - rate) * total + rate * np.where(bad[step], 0.0, row[step])
            weight = (1.0 - rate) * weight + rate * ~bad[step]
            kept = np.where(end[step] & ~bad[step], np.exp(-1.0), 1.0)
            total, weight = kept * total, kept * weight + 1.0 - kept
    np.testing.assert_allclose(noise.rewards, total, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(noise.weight, weight, rtol=1e-4, atol=1e-6)
    assert float(noise.lowest) == pytest.approx(rewards[~failed].min(), rel=1e-5)
    above = np.append((total / np.maximum(weight, 1e-9))[:3] - rewards[~failed].min(), 0.0)
    assert float(noise.density) == pytest.approx(above.mean() ** 2 / (above**2).mean(), rel=1e-3)


def test_the_share_of_instances_that_explore_is_told():
    assert float(rx.AS_IT_IS.share((), WIDE, 8)) == 0.0
    assert float(rx.NOISE.share((), WIDE, 8)) == 0.5
    noise = rx.CORRELATED_NOISE.start(KEY, rx.tanh_normal(1), 8)
    sparse = LASTING._replace(exploration_density=0.5)
    assert float(rx.CORRELATED_NOISE.share(noise, sparse, 8)) == 0.75
    found = noise._replace(density=jnp.asarray(0.6, noise.density.dtype))
    assert float(rx.CORRELATED_NOISE.share(found, sparse, 8)) == 0.0
    assert float(rx.CORRELATED_NOISE.share(found, LASTING, 8)) == 0.75


@pytest.mark.parametrize(
    ("reward", "every", "found"),
    [
        (1.0, 10, True),  # one more for every step before a fall
        (-1.0, 10, True),  # a goal that is reached again and again ends the costs
        (-1.0, 10_000, False),  # and one that no instance reaches is not found
        (-1.0, 900, False),
        (-1.0, 90, True),
    ],
)
def test_ends_for_good_are_seen_in_what_is_earned(reward, every, found):
    """Every instance comes to its end after so many steps, at times of its own."""
    steps, rows = np.arange(1000)[:, None], np.arange(64) * every // 64
    noise = rx.CORRELATED_NOISE.start(KEY, rx.tanh_normal(1), 64)
    ended = (steps + rows) % every == every - 1
    seen = rewards_of(jnp.full((1000, 64), reward), ended)
    noise = rx.CORRELATED_NOISE.observe(noise, seen, LASTING._replace(discount=0.98))
    assert (float(noise.density) > 0.5) == found


PRICES = {
    "squares": lambda a: -0.1 * jnp.square(a).sum(-1),
    "magnitudes, each its own": lambda a: -(jnp.abs(a) * jnp.array([0.5, 2.0])).sum(-1),
    "tiny": lambda a: -1e-12 * jnp.square(a).sum(-1),
    "both, huge": lambda a: -1e9 * (jnp.abs(a) + 3.0 * jnp.square(a)).sum(-1),
}


@pytest.mark.parametrize("price", PRICES.values(), ids=PRICES)
def test_noise_lasts_where_actions_cost_and_nothing_is_found(price):
    """Quieter from rollout to rollout, as a policy gets that pays for each action; then a goal is met."""
    hp = LASTING._replace(discount=0.9)
    noise = rx.CORRELATED_NOISE.start(KEY, rx.tanh_normal(2), 64)
    for turn in range(6):
        action = jax.random.uniform(jax.random.key(turn), (8, 64, 2), minval=-1.0) * 0.1**turn
        noise = rx.CORRELATED_NOISE.observe(noise, rewards_of(price(action), action=action), hp)
        assert float(noise.density) == 0.0
    for instances, sparse in ((3, True), (64, False)):
        action = jax.random.uniform(KEY, (8, 64, 2), minval=-1.0)
        goal = -100.0 * price(jnp.ones((1, 2)))
        paid = price(action).at[4, :instances].add(goal)
        found = rx.CORRELATED_NOISE.observe(noise, rewards_of(paid, action=action), hp)
        assert (float(found.density) < 0.1) == sparse
        assert sparse or float(found.density) > 0.9


@pytest.mark.parametrize(
    "reward",
    [
        lambda a, x: -jnp.square(a).sum(-1) - 0.1 * jnp.square(x),  # a state costs, too
        lambda a, x: 1.0 - 0.1 * jnp.square(a).sum(-1) + 0.0 * x,  # a step that is survived pays
        lambda a, x: jnp.full_like(x, -1.0),  # all alike: nothing is said of actions
        lambda a, x: -jnp.square(a).sum(-1) + (x > 0.0),  # most steps are paid
        lambda a, x: jnp.zeros_like(x),
    ],
)
def test_what_is_more_than_the_price_of_actions_stays_as_it_is(reward):
    action = jax.random.uniform(KEY, (8, 64, 2), minval=-1.0)
    place = jax.random.normal(jax.random.key(1), (8, 64)) + 1.0
    paid = reward(action, place)
    everywhere = jnp.ones((8, 64), bool)
    assert jnp.array_equal(without_prices(paid, action, everywhere), paid)
    cost = -jnp.square(action).sum(-1)
    # Too few steps for as many numbers, actions that are listed, and steps that do not count.
    for counts, its_actions in (
        (everywhere, jnp.tile(action, 30)),
        (everywhere, jnp.zeros((8, 64), jnp.int32)),
        (~everywhere, action),
    ):
        assert jnp.array_equal(without_prices(cost, its_actions, counts), cost)
    assert not without_prices(cost, action, everywhere).any()


@pytest.mark.parametrize(
    ("reward", "limit", "lasts"),
    [
        (lambda i: i == 0, 0.5, True),  # one in eight has met it
        (lambda i: i == 0, 0.1, False),
        (lambda i: i < 6, 0.5, False),
        (lambda i: i < 6, 1.0, True),
        (lambda i: 0 * i, 0.0, True),  # nothing has been found
        (lambda i: 0 * i - 3.0, 0.5, True),
    ],
)
def test_noise_lasts_as_long_as_rewards_are_sparse(reward, limit, lasts):
    hp = LASTING._replace(noise_correlation=0.9999, exploration_base=0.0, exploration_density=limit)
    distribution = rx.tanh_normal(1)
    policy = distribution.policy(jnp.zeros((8, 2)), hp)
    paid = rewards_of(jnp.tile(reward(jnp.arange(8)).astype(jnp.result_type(float)), (8, 1)))
    noise = rx.CORRELATED_NOISE.start(KEY, distribution, 8)
    noise = rx.CORRELATED_NOISE.observe(noise, paid, hp)
    _, after = rx.CORRELATED_NOISE.act(jax.random.key(1), distribution, policy, noise, hp)
    assert np.allclose(after.normals, noise.normals, atol=0.3) == lasts


@pytest.mark.once
def test_rewards_are_taken_in_once_a_rollout_in_pure_worlds_and_in_simulators(lasting):
    """What the rollout before has paid decides of the noise in this one."""
    hp = LASTING._replace(noise_correlation=0.9999, exploration_base=0.0, exploration_density=0.5)
    with hosts.pure(probes.match_observation(), 8) as env:
        train = rx.make_host_train(env, tiny(exploration="correlated", num_envs=8))
        worlds = (
            (lasting, rx.collect, lasting.training_env),
            (train, hosts.collect, train.worlds.training(())),
        )
        for method, collect, world in worlds:
            state = method.init(KEY, hp)
            found = state.rollout.noise._replace(density=jnp.ones_like(state.rollout.noise.density))
            at = state._replace(rollout=state.rollout._replace(noise=found))
            moved, rollout = collect(method, world, at)
            assert not np.allclose(moved.rollout.noise.normals, found.normals, atol=0.3)
            wanted = rx.CORRELATED_NOISE.observe(found, rollout.transitions, hp)
            np.testing.assert_allclose(moved.rollout.noise.rewards, wanted.rewards, rtol=1e-5)
            np.testing.assert_allclose(moved.rollout.noise.density, wanted.density, rtol=1e-4)


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


def test_a_program_of_many_members_decomposes_no_more_than_one_batch():
    """Two can wait for each other for ever (jax 0.10 on two cores)."""
    config, hp = rx.preset("any", total_steps=4096, num_evals=1, episode_length=10)
    train = rx.make_train(probes.match_observation(), config)
    members = jax.jit(jax.vmap(train, (0, None))).lower(jax.random.split(KEY, 2), hp)
    # The two solutions of a triangular system come one after the other.
    found = [name for name in re.findall(r"lapack_\w+", members.as_text()) if "trs" not in name]
    assert len(found) == 1, found
