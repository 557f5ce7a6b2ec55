"""Discrete actions: the bundle, a critic of all actions, exact values and losses, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.training.presets import CLEANER

from ..sizes import HP, tiny

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def train():
    return rx.make_train(probes.bandit(), tiny())


@pytest.fixture(scope="module")
def masked():
    return rx.make_train(probes.masked(probes.bandit()), tiny())


def test_the_bundle_is_one_for_the_same_number_and_needs_a_choice(unchecked_annotations):
    assert rx.categorical(3) is rx.categorical(3)
    for wrong, sentence in ((1, "at least 2"), (2.5, "whole number"), (True, "whole number")):
        with pytest.raises(ValueError, match=sentence):
            rx.categorical(wrong)


def test_the_entropy_target_is_a_share_of_what_can_be_chosen():
    distribution = rx.categorical(4)
    hp = HP._replace(entropy_share=0.5)
    policy = distribution.policy(jnp.zeros((3, 4)), hp)
    assert float(distribution.target_entropy(hp, policy)) == pytest.approx(0.5 * np.log(4))
    two = distribution.policy(jnp.array([[0.0, 0.0, -jnp.inf, -jnp.inf]]), hp)
    assert float(distribution.target_entropy(hp, two)) == pytest.approx(0.5 * np.log(2))


def test_a_sampled_kl_is_the_exact_one_within_its_error():
    d = rx.categorical(3)
    old, new = (d.policy(jax.random.normal(jax.random.key(i), (2, 3)), HP) for i in (1, 2))
    sampled = d.kl_sampled(KEY, old, new, num_samples=20_000)
    np.testing.assert_allclose(sampled, d.kl(old, new), atol=0.03)


def test_a_critic_of_all_actions_says_of_each_what_it_says_alone(train):
    state = train.init(KEY, HP)
    critic = state.learner.networks.critic
    observation = jax.random.normal(KEY, (5, 1))
    together = critic(observation, None)
    assert together.outputs.shape == (5, 3, 21)
    assert together.predicted_embedding is None
    for action in range(3):
        alone = critic(observation, jnp.full(5, action, jnp.int32))
        np.testing.assert_allclose(alone.outputs, together.outputs[:, action], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(alone.embedding, together.embedding)
    others = [critic(observation, jnp.full(5, a, jnp.int32)).predicted_embedding for a in (0, 1)]
    assert not np.allclose(*others)  # what follows depends on the action


def test_values_are_sums_over_all_actions(train):
    state = train.init(KEY, HP)
    shown = jnp.array([[-1.0], [1.0]])
    inputs = rx.network_inputs(train, state.hyperparameters, state.rollout.statistics, shown)
    successor = rx.value_of(train, state, KEY, inputs)
    logits = train.distribution.logits(
        rx.policy_of(train, state.learner.networks.actor, inputs[0], HP)
    )
    p = np.asarray(jax.nn.softmax(logits))
    q = np.stack(
        [
            train.value_function.value(
                state.learner.networks.critic(inputs[1], jnp.full(2, a, jnp.int32)).outputs, HP, ()
            )
            for a in range(3)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(successor.value, (p * q).sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(successor.log_prob, (p * np.log(p)).sum(-1), rtol=1e-4)
    again = rx.value_of(train, state, jax.random.key(7), inputs)
    np.testing.assert_array_equal(successor.value, again.value)  # nothing is drawn


def test_the_objective_is_the_expectation(train):
    state = train.init(KEY, HP)
    state, rollout = rx.collect(train, train.training_env, state)
    batch = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), rx.make_batch(train, state, rollout)
    )
    assert batch.action.dtype == jnp.int32
    actor, q = state.learner.networks.actor, jnp.array([0.3, -1.0, 2.0])
    duals = rx.dual_init(0.5, 1.0)
    terms = train.objective(
        actor, KEY, batch, lambda x, a: jnp.broadcast_to(q, (len(x), 3)), duals, HP
    )
    p = np.asarray(
        jax.nn.softmax(
            train.distribution.logits(rx.policy_of(train, actor, batch.actor_observation, HP))
        )
    )
    np.testing.assert_allclose(
        terms.loss, (p * (0.5 * np.log(p) - np.asarray(q))).sum(-1), rtol=1e-4
    )
    np.testing.assert_allclose(terms.entropy, -(p * np.log(p)).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(terms.kl, 0.0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"policy_gradient": "score"},
        {"policy_gradient": "score_gae"},
        {"critic": "squared"},
        {"self_prediction": False},
        {"kl_constraint": "penalty", "value_scale": "return", "exploration": "noise"},
        {name: getattr(rx.preset("authors")[0], name) for name in CLEANER},
    ],
    ids=str,
)
def test_every_choice_of_the_config_trains(changes):
    train = rx.make_train(probes.two_step_choice(), tiny(num_evals=1, total_steps=32, **changes))
    state, metrics = jax.jit(train)(KEY, HP)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((state.learner.duals, metrics)))
    assert int(state.learner.skipped_updates) == 0


def test_what_is_ruled_out_has_no_probability_anywhere(masked):
    state = masked.init(KEY, HP)
    assert state.rollout.observation["action_mask"].dtype == jnp.bool
    iteration = jax.jit(masked.iteration)
    for _ in range(3):
        before = state
        state, training = iteration(state)
        _, rollout = rx.collect(masked, masked.training_env, before)
        rows = rollout.transitions
        mask = rows.observation["action_mask"]
        taken = jnp.take_along_axis(mask, rows.action[..., None], axis=-1)
        assert taken.all()
        assert float(rows.reward.max()) <= 1.0  # what is ruled out would pay 100
        assert float(training.learner.q_value) < 5.0
        batch = rx.make_batch(masked, before, rollout)
        p = jax.nn.softmax(masked.distribution.logits(batch.old_policy))
        np.testing.assert_array_equal(np.asarray(p)[~np.asarray(mask)], 0.0)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state.learner.networks))
    assert int(state.learner.skipped_updates) == 0


def test_a_policy_never_chooses_what_is_ruled_out(masked):
    policy = rx.make_policy(masked, masked.init(KEY, HP))
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
