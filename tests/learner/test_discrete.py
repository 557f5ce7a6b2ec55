"""Discrete actions: the categorical bundle, the critic of all actions, exact sums, and masks, by hand."""

import dataclasses

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.learner.update import minibatch_step
from reppo_fx.training import original

from ..sizes import HP, tiny

KEY = jax.random.key(0)


def policies(seed, rows=6, n=4):
    outputs = jax.random.normal(jax.random.key(seed), (rows, n))
    return rx.categorical(n).policy(outputs, HP)


def test_the_bundle_is_distraxs_categorical():
    d, policy, other = rx.categorical(4), policies(0), policies(1)
    theirs = distrax.Categorical(policy.logits)
    draw = d.sample(KEY, policy)
    assert draw.action.dtype == jnp.int32
    np.testing.assert_allclose(draw.log_prob, theirs.log_prob(draw.action), rtol=1e-5)
    exact = d.log_prob(policy, draw.action, draw.latent)
    np.testing.assert_array_equal(exact, d.log_prob(policy, draw.action))
    np.testing.assert_allclose(d.entropy(KEY, policy, 1), theirs.entropy(), rtol=1e-5)
    kl = theirs.kl_divergence(distrax.Categorical(other.logits))
    np.testing.assert_allclose(d.kl(policy, other), kl, rtol=1e-4)
    sampled = d.kl_sampled(KEY, policy, other, num_samples=20_000, clip=1e-4)
    np.testing.assert_allclose(sampled, kl, atol=0.05)
    np.testing.assert_array_equal(d.mode(policy), theirs.mode())
    np.testing.assert_array_equal(d.to_environment(draw.action), draw.action)
    assert rx.categorical(4) is d is rx.categorical(np.int64(4))


def test_the_target_entropy_is_a_share_of_what_a_state_leaves_open():
    d, hp = rx.categorical(4), HP._replace(entropy_share=0.3)
    np.testing.assert_allclose(d.target_entropy(hp, policies(0)), 0.3 * np.log(4), rtol=1e-6)
    never = -jnp.inf
    logits = jnp.array([[0.0, 1.0, never, never], [0.0, never, never, never]])
    masked = d.policy(logits, hp)
    np.testing.assert_allclose(d.target_entropy(hp, masked), 0.3 * np.log(2) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("count", "sentence"), [(1, "at least 2"), (2.5, "whole"), (True, "whole")]
)
def test_what_is_no_number_of_actions_gets_a_sentence(count, sentence, unchecked_annotations):
    with pytest.raises(ValueError, match=f"num_actions is {count}; .*{sentence}"):
        rx.categorical(count)


def start(env, **changes):
    train = rx.make_train(env, tiny(**changes))
    return train, train.init(KEY, HP)


@pytest.mark.parametrize("critic", ["categorical", "squared"])
def test_a_critic_asked_about_one_action_says_what_it_says_about_all(critic):
    train, state = start(probes.bandit(), critic=critic)
    network, seen = state.learner.networks.critic, jnp.array([[-1.0], [0.5], [2.0]])
    # Of an offset of its own, so that it is not what makes them equal.
    of_all = network(seen, None)
    assert of_all.outputs.shape == (3, 3, train.value_function.num_outputs)
    assert of_all.predicted_embedding is None
    for action in range(3):
        one = network(seen, jnp.full(3, action))
        np.testing.assert_allclose(one.outputs, of_all.outputs[:, action], rtol=1e-6)
        np.testing.assert_array_equal(one.embedding, of_all.embedding)
        assert one.predicted_embedding.shape == one.embedding.shape
    # What is predicted depends on what is done.
    predicted = [network(seen, jnp.full(3, a)).predicted_reward for a in range(2)]
    assert np.abs(predicted[0] - predicted[1]).min() > 1e-6


def test_every_action_starts_near_zero():
    train, state = start(probes.bandit())
    outputs = state.learner.networks.critic(jnp.ones((5, 1)), None).outputs
    value = train.value_function.value(outputs, state.hyperparameters, ())
    assert value.shape == (5, 3)
    assert np.abs(value).max() < 2.0  # a bin of [-20, 20]


def collected(env, **changes):
    train, state = start(env, **changes)
    state, rollout = jax.jit(lambda s: rx.collect(train, train.training_env, s))(state)
    return train, state, rollout


def by_hand(train, state, observation):
    """π, Q of every action at raw observations, in NumPy."""
    seen = observation["state"] if isinstance(observation, dict) else observation
    mean, var = state.rollout.statistics.mean, state.rollout.statistics.var
    if isinstance(observation, dict):
        mean, var = mean["state"], var["state"]
    x = (np.asarray(seen) - np.asarray(mean)) / np.sqrt(np.asarray(var) + 1e-2)
    networks = state.learner.networks
    plain = getattr(networks.actor, "actor", networks.actor)
    weights = np.exp(np.asarray(plain(jnp.asarray(x))))
    if isinstance(observation, dict):
        weights = weights * np.asarray(observation["action_mask"])
    outputs = networks.critic(jnp.asarray(x), None).outputs
    q = np.asarray(train.value_function.value(outputs, state.hyperparameters, ()))
    return weights / weights.sum(-1, keepdims=True), q


@pytest.mark.parametrize("masked", [False, True])
def test_targets_are_the_sums_over_actions(masked):
    env = probes.two_step_choice()
    train, state, rollout = collected(probes.masked(env) if masked else env)
    batch = jax.jit(lambda s, r: rx.make_batch(train, s, r))(state, rollout)
    rows = jax.tree.map(np.asarray, rollout.transitions)
    p, q = by_hand(train, state, rows.next_observation)
    value = (p * q).sum(-1)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(-1)
    alpha, gamma, decay = HP.initial_temperature, HP.discount, HP.trace_decay
    soft = rows.reward + gamma * alpha * entropy * ~rows.terminated
    target, following = np.zeros_like(soft), value[-1]
    for t in range(len(soft))[::-1]:
        mixed = (1 - decay) * value[t] + decay * following
        mixed = value[t] if t == len(soft) - 1 else np.where(rows.truncated[t], value[t], mixed)
        following = target[t] = soft[t] + gamma * np.where(rows.terminated[t], 0.0, mixed)
    np.testing.assert_allclose(batch.target, target, rtol=1e-4, atol=1e-4)
    assert (rows.action.dtype, rows.action.shape) == (np.int32, rows.reward.shape)


@pytest.mark.parametrize("masked", [False, True])
def test_the_objective_is_the_exact_expectation(masked):
    env = probes.bandit()
    train, state, rollout = collected(probes.masked(env) if masked else env)
    batch = jax.jit(lambda s, r: rx.make_batch(train, s, r))(state, rollout)
    p, q = by_hand(train, state, rollout.transitions.observation)
    networks, hp = state.learner.networks, state.hyperparameters

    def q_value(observation, action):
        outputs = networks.critic(observation, action).outputs
        return train.value_function.value(outputs, hp, ())

    def loss(key):
        return train.objective(networks.actor, key, batch, q_value, state.learner.duals, hp)

    terms, again = loss(KEY), loss(jax.random.key(9))
    jax.tree.map(np.testing.assert_array_equal, terms, again)  # no chance in it
    log_p = np.log(np.where(p > 0, p, 1.0))
    expected = (p * (HP.initial_temperature * log_p - q)).sum(-1)
    np.testing.assert_allclose(terms.loss, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms.entropy, -(p * log_p).sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms.kl, np.zeros_like(terms.kl), atol=1e-5)


def test_what_is_ruled_out_is_never_done_and_its_q_may_be_anything():
    train, state, rollout = collected(probes.masked(probes.bandit()))
    rows = rollout.transitions
    taken = jnp.take_along_axis(rows.observation["action_mask"], rows.action[..., None], axis=-1)
    assert bool(taken.all())
    assert float(rows.reward.max()) <= 1.0
    mask = rows.observation["action_mask"]
    assert not bool(mask.all())

    batch = jax.jit(lambda s, r: rx.make_batch(train, s, r))(state, rollout)
    assert batch.actor_observation.mask.dtype == jnp.bool
    np.testing.assert_array_equal(batch.actor_observation.mask, mask)
    logits = batch.old_policy.logits
    np.testing.assert_array_equal(jnp.isneginf(logits), ~mask)
    mode = train.distribution.mode(batch.old_policy)
    assert bool(jnp.take_along_axis(mask, mode[..., None], axis=-1).all())

    hp = state.hyperparameters

    def of(spoil):
        def q_value(observation, action):
            q = train.value_function.value(
                state.learner.networks.critic(observation, action).outputs, hp, ()
            )
            return jnp.where(mask, q, spoil)

        def loss(actor):
            duals = state.learner.duals
            return train.objective(actor, KEY, batch, q_value, duals, hp).loss.mean()

        return jax.value_and_grad(loss)(state.learner.networks.actor)

    jax.tree.map(np.testing.assert_array_equal, of(0.0), of(jnp.nan))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of(jnp.nan)))


def test_a_mask_of_nothing_rules_out_nothing():
    actor = rx.MaskedActor(lambda x: x)
    outputs = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    mask = jnp.array([[False, False], [True, False]])
    expected = [[1.0, 2.0], [3.0, -np.inf]]
    np.testing.assert_array_equal(actor(rx.Masked(outputs, mask)), expected)
    for wrong in (mask[:, :1], mask.astype(jnp.float32)):
        with pytest.raises(ValueError, match="the mask of actions is"):
            actor(rx.Masked(outputs, wrong))


CHOICES = {
    "authors": original.CHOICES,
    "sampled KL": {"kl_estimator": "sampled"},
    "KL penalty": {"kl_constraint": "penalty"},
    "score function with Q": {"policy_gradient": "score"},
    "score function with GAE": {"policy_gradient": "score_gae"},
    "squared": {"critic": "squared", "num_value_samples": 3},
    "no auxiliary task": {"self_prediction": False},
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.once
def test_every_choice_of_a_config_works_with_discrete_actions_and_masks(name):
    train, state = start(probes.masked(probes.two_step_choice()), **CHOICES[name])
    after, metrics = jax.jit(train.iteration)(state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics))
    assert int(metrics.skipped_updates) == 0
    pairs = zip(*(jax.tree.leaves(s.learner.networks.actor) for s in (state, after)), strict=True)
    assert all(not np.array_equal(x, y) for x, y in pairs)


def test_kl_and_values_are_exact_whatever_a_config_says_of_samples():
    """A minibatch of one key is that of another: nothing is drawn."""
    changes = {"kl_estimator": "sampled_clipped", "num_value_samples": 5, "noise": "reused"}
    train, state, rollout = collected(probes.bandit(), **changes)
    batch = jax.jit(lambda s, r: rx.make_batch(train, s, r))(state, rollout)
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    step = jax.jit(lambda key: minibatch_step(key, train, state, rows)[0])
    one, two = step(KEY), step(jax.random.key(5))
    jax.tree.map(np.testing.assert_array_equal, one.learner, two.learner)


def test_a_distribution_for_other_actions_is_refused():
    for env, distribution, sentence in (
        (probes.bandit(), rx.tanh_normal(1), r"bandit has 3 actions \(\[\] of int32\)"),
        (probes.bandit(), rx.categorical(2), "but the distribution has 2 outputs"),
        (probes.match_observation(), rx.categorical(2), "match_observation has a box of actions"),
        (probes.match_observation(), rx.tanh_normal(2), r"gives \[2\] of float32"),
    ):
        with pytest.raises(ValueError, match=sentence):
            rx.make_train(env, tiny(), distribution=distribution)


def test_the_expectation_needs_actions_that_can_be_listed(unchecked_annotations):
    with pytest.raises(ValueError, match="lists its actions"):
        rx.expected_loss(rx.tanh_normal(1), KEY, None, None, None, None)


def test_networks_of_ones_own_need_not_know_of_masks():
    seen = []

    def networks(key, shapes, value_function, hyperparameters):
        seen.append(shapes)
        return rx.make_networks(
            key, shapes, value_function, hyperparameters, actor_width=4, critic_width=6
        )

    train = rx.make_train(probes.masked(probes.bandit()), tiny(), networks=networks)
    state = train.init(KEY, HP)
    assert (seen[0].num_actions, seen[0].policy_outputs, seen[0].action) == (3, 3, 1)
    assert seen[0].actor_observation.shape == (1,)
    assert isinstance(state.learner.networks.critic, rx.DiscreteCritic)
    assert dataclasses.is_dataclass(state.learner.networks.actor)
    policy = rx.make_policy(train, state)
    shown = {"state": jnp.zeros((5, 1)), "action_mask": jnp.eye(3, dtype=bool)[jnp.arange(5) % 3]}
    assert policy(shown).tolist() == [0, 1, 2, 0, 1]
    assert policy.sample(KEY, shown).tolist() == [0, 1, 2, 0, 1]


@pytest.fixture(scope="module")
def masked_train():
    return rx.make_train(probes.masked(probes.bandit()), tiny())


@pytest.mark.once
def test_what_is_ruled_out_has_no_probability_anywhere(masked_train):
    state = masked_train.init(KEY, HP)
    assert state.rollout.observation["action_mask"].dtype == jnp.bool
    iteration = jax.jit(masked_train.iteration)
    for _ in range(3):
        before = state
        state, training = iteration(state)
        _, rollout = rx.collect(masked_train, masked_train.training_env, before)
        rows = rollout.transitions
        mask = rows.observation["action_mask"]
        taken = jnp.take_along_axis(mask, rows.action[..., None], axis=-1)
        assert taken.all()
        assert float(rows.reward.max()) <= 1.0  # what is ruled out would pay 100
        assert float(training.learner.q_value) < 5.0
        batch = rx.make_batch(masked_train, before, rollout)
        p = jax.nn.softmax(masked_train.distribution.logits(batch.old_policy))
        np.testing.assert_array_equal(np.asarray(p)[~np.asarray(mask)], 0.0)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state.learner.networks))
    assert int(state.learner.skipped_updates) == 0


def test_a_policy_never_chooses_what_is_ruled_out(masked_train):
    policy = rx.make_policy(masked_train, masked_train.init(KEY, HP))
    masks = jnp.array([[True, False, False], [False, True, False], [False, False, True]])
    observation = {"state": jnp.zeros((3, 1)), "action_mask": masks}
    np.testing.assert_array_equal(policy(observation), [0, 1, 2])
    for key in jax.random.split(KEY, 20):
        np.testing.assert_array_equal(policy.sample(key, observation), [0, 1, 2])
    none = {"state": jnp.zeros((1, 1)), "action_mask": jnp.zeros((1, 3), bool)}
    assert int(policy(none)[0]) in (0, 1, 2)


def test_what_cannot_be_is_a_sentence():
    bandit = probes.bandit()
    for changes, sentence in (
        ({"num_actions": 1}, "num_actions is 1; it must be a whole number of at least 2"),
        ({"num_actions": 2.0}, "num_actions is 2.0"),
        ({"action_size": 2}, "action_size is 2, but actions are discrete"),
        ({"action_mask": "mask"}, "action_mask is 'mask'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            rx.make_train(bandit._replace(**changes), tiny())
    with pytest.raises(ValueError, match="only discrete actions"):
        rx.make_train(probes.constant_reward()._replace(action_mask="mask"), tiny())
    with pytest.raises(ValueError, match=r"has 3 actions .* the distribution has"):
        rx.make_train(bandit, tiny(), distribution=rx.tanh_normal(1))
    with pytest.raises(ValueError, match=r"has a box of actions .* the distribution has"):
        rx.make_train(probes.constant_reward(), tiny(), distribution=rx.categorical(3))
    for transform in (rx.envs.clip_action, lambda env: rx.envs.action_range(env, -1.0, 1.0)):
        with pytest.raises(ValueError, match="3 discrete actions, which have no range"):
            transform(bandit)
    repeated = rx.envs.action_repeat(probes.two_step_choice(), 2)
    state, _ = repeated.reset(KEY)
    _, timestep = repeated.step(state, jnp.int32(1))
    assert float(timestep.reward) == 1.0
