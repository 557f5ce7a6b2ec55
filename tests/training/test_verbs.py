"""The four verbs, alone and together; counters that do not wrap; evaluations where they are due."""

import dataclasses

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.envs.base import Environment, TimeStep
from reppo_fx.learner.learn import env_steps

from ..sizes import HP, TINY, leaves_close, tiny


@pytest.fixture(scope="module")
def train():
    return rx.make_train(probes.match_observation(), TINY)


@pytest.mark.once
def test_an_iteration_is_collect_make_batch_update(train):
    state = jax.jit(train.init)(jax.random.key(0), HP)
    whole, metrics = jax.jit(train.iteration)(state)
    moved, rollout = rx.collect(train, train.training_env, state)
    batch = rx.make_batch(train, moved, rollout)
    parts, learner_metrics = rx.update(train, moved, batch)
    leaves_close(parts, whole)
    leaves_close(learner_metrics, metrics.learner)
    by_learn, _ = rx.learn(train, moved, rollout)
    leaves_close(by_learn, whole)


def test_collecting_moves_the_world_and_nothing_of_the_learner(train):
    state = jax.jit(train.init)(jax.random.key(0), HP)
    moved, rollout = rx.collect(train, train.training_env, state)
    chex.assert_trees_all_equal(moved.learner, state.learner)
    assert rollout.transitions.reward.shape == (TINY.num_steps, TINY.num_envs)
    assert rollout.transitions.metrics == {}


def test_evaluation_is_the_same_by_the_verb_and_leaves_the_state_alone(train):
    state = jax.jit(train.init)(jax.random.key(0), HP)
    env = train.env._replace(episode_length=TINY.episode_length)
    chex.assert_trees_all_equal(rx.evaluate(train, env, state), train.evaluate(state))


def test_counters_go_on_beyond_two_to_the_31():
    big = rx.make_train(
        probes.match_observation(),
        rx.Config(total_steps=5_000_000_000, episode_length=6, num_evals=20),
    )
    iterations = big.config.total_iterations
    assert iterations == 38147
    assert float(env_steps(big, jnp.int32(iterations))) == iterations * 131072


@pytest.mark.once
def test_a_full_count_of_failures_stays_full():
    train = rx.make_train(probes.nan_bomb(probes.match_observation(), 1.0), TINY)
    state = train.init(jax.random.key(0), HP)
    _, metrics = jax.jit(train.iteration)(state._replace(nonfinite=jnp.int32(2**31 - 2)))
    assert int(metrics.nonfinite) == 2**31 - 2


def test_a_late_divergence_is_dated_in_steps():
    train = rx.make_train(probes.match_observation(), tiny(num_steps=256, total_steps=4096))
    state = train.init(jax.random.key(0), HP._replace(learning_rate=1e38))
    after, metrics = jax.jit(train.iteration)(state._replace(iteration=jnp.int32(2**22)))
    assert float(metrics.diverged_at) == (2**22 + 1) * 1024
    assert float(env_steps(train, after.iteration)) == (2**22 + 1) * 1024


@pytest.mark.parametrize(
    ("total", "asked", "evaluations"),
    [
        (4 * 32, 2, (2, 4)),
        (4 * 32 + 1, 2, (2, 5)),
        (7 * 32, 3, (2, 4, 7)),
        (3 * 32, 8, (1, 2, 3)),
        (1, 5, (1,)),
    ],
)
def test_never_more_than_one_iteration_too_many_and_evaluations_spread(total, asked, evaluations):
    config = tiny(total_steps=total, num_evals=asked)
    assert config.evaluations == evaluations
    assert 0 <= config.total_iterations * config.steps_per_iteration - total < 32
    assert sum(config.iterations_between_evaluations) == config.total_iterations


def test_a_hundred_thousand_steps_with_the_default_sizes_are_one_iteration():
    assert rx.Config(total_steps=100_000).total_iterations == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"total_steps": 3 * 32, "num_evals": 8},
            "num_evals is 8, but total_steps = 96 are only 3",
        ),
        ({"total_steps": 5}, "total_steps is 5, but one iteration is num_envs . num_steps = 32"),
    ],
)
def test_what_cannot_be_met_is_said(changes, sentence):
    with pytest.warns(rx.ReppoWarning, match=sentence):
        rx.make_train(probes.match_observation(), tiny(**changes))


@pytest.mark.once
def test_uneven_rounds_train_as_the_even_ones_do():
    """Seven iterations in rounds of 2, 2 and 3: the same run as one iteration after the other."""
    train = rx.make_train(probes.match_observation(), tiny(total_steps=7 * 32, num_evals=3))
    state, metrics = jax.jit(train)(jax.random.key(0), HP)
    assert metrics.env_steps.tolist() == [64, 128, 224]
    step, alone = jax.jit(train.iteration), jax.jit(train.init)(jax.random.key(0), HP)
    for _ in range(7):
        alone, _ = step(alone)
    leaves_close(state.learner.networks, alone.learner.networks)


def test_settings_of_other_libraries_become_plain_numbers(unchecked_annotations):
    config = tiny(num_envs=np.int64(4), action_limit=np.float32(0.5), self_prediction=np.True_)
    assert type(config.num_envs) is int
    assert type(config.action_limit) is float
    assert type(config.self_prediction) is bool
    assert hash(config) == hash(dataclasses.replace(config))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_envs": np.int64(0)}, "num_envs is 0; it must be at least 1"),
        ({"num_envs": 4.0}, "num_envs is 4.0; it must be a whole number"),
        ({"num_envs": True}, "num_envs is True; it must be a whole number"),
        ({"self_prediction": 1}, "self_prediction is 1; it must be True or False"),
        ({"action_limit": "0.9"}, "action_limit is '0.9'; it must be a number"),
        ({"episode_length": 0}, "episode_length is 0; it must be at least 1"),
        ({"norm": 3}, "norm is '3'; allowed are"),
    ],
)
def test_settings_of_the_wrong_kind_get_a_sentence(unchecked_annotations, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**changes)


def image_task():
    """Shows a picture whose brightness is the action that pays, and a vector beside it."""

    def show(bright):
        picture = jnp.full((4, 4, 1), 127.5 * (1.0 + bright)).astype(jnp.uint8)
        return {"state": (picture, jnp.stack([bright, -bright])), "other": jnp.zeros(3)}

    def reset(key):
        bright = jax.random.uniform(key, minval=-0.8, maxval=0.8)
        return bright, show(bright)

    def step(bright, action):
        observation = show(bright)
        return bright, TimeStep(
            observation=observation,
            next_observation=observation,
            reward=1.0 - jnp.square(action[0] - bright),
            terminated=jnp.asarray(True),
            truncated=jnp.asarray(False),
            metrics={"error": jnp.abs(action[0] - bright)},
        )

    spec = jax.eval_shape(lambda: show(jnp.zeros(())))
    return Environment("picture", reset, step, spec, 1, cheap_reset=True)


class Convolution(eqx.Module):
    """A user's network on pictures; leading axes are the batch's."""

    kernel: jax.Array
    last: rx.Actor

    def __call__(self, observation):
        picture, vector = observation
        batch = picture.shape[:-3]
        flat = picture.reshape(-1, *picture.shape[-3:])
        features = jax.lax.conv_general_dilated(
            flat, self.kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).reshape(*batch, -1)
        return self.last(jnp.concatenate([features, vector], -1))


def picture_networks(key, shapes, value_function, hyperparameters):
    picture, vector = shapes.actor_observation
    assert picture.shape == (4, 4, 1)
    assert vector.shape == (2,)
    keys = jax.random.split(key, 3)
    kernel = 0.3 * jax.random.normal(keys[0], (2, 2, 1, 4))
    actor = Convolution(kernel, rx.Actor(keys[1], 16 + 2, shapes.policy_outputs, 16))
    inner = rx.Critic(keys[2], 2, shapes.action, value_function.num_outputs, 16)

    class OfTheVector(eqx.Module):
        critic: rx.Critic

        def __call__(self, observation, action):
            return self.critic(observation[1], action)

    return rx.Networks(actor, OfTheVector(inner))


@pytest.mark.once
def test_networks_of_a_user_get_pictures_and_other_containers():
    train = rx.make_train(image_task(), tiny(), networks=picture_networks)
    state, metrics = jax.jit(train)(jax.random.key(0), HP)
    chex.assert_tree_all_finite((state.learner, metrics))
    policy = rx.make_policy(train, state)
    picture = jnp.zeros((3, 4, 4, 1), jnp.uint8), jnp.zeros((3, 2))
    assert policy(picture).shape == (3, 1)
    np.testing.assert_array_equal(
        policy(picture), policy({"state": picture, "other": jnp.zeros((3, 3))})
    )


def test_our_own_networks_say_that_they_want_flat_observations():
    train = rx.make_train(image_task(), tiny())
    with pytest.raises(
        ValueError, match=r"the actor's observation is \[4, 4, 1\], \[2\]; these networks take"
    ):
        train.init(jax.random.key(0), HP)


@pytest.mark.once
def test_the_environments_own_metrics_come_back():
    train = rx.make_train(image_task(), tiny(), networks=picture_networks)
    _, metrics = jax.jit(train)(jax.random.key(0), HP)
    assert set(metrics.training.env) == {"error"}
    assert metrics.training.env["error"].shape == (2,)
    assert set(metrics.eval_metrics) == {"error"}
    # One-step episodes: the mean over steps is the last one, and reward is 1 − error².
    error = metrics.eval_metrics["error"]
    np.testing.assert_allclose(error.mean, error.last)
    assert (np.asarray(error.mean) > 0).all()
    assert (1 - np.asarray(metrics.eval_return) >= np.asarray(error.mean) ** 2 - 1e-5).all()


def test_an_action_in_another_range_is_the_same_run():
    """The same world with actions in [−3, 3]: the curve that it has with actions in [−1, 1]."""
    inner = probes.match_observation()
    wide = inner._replace(
        step=lambda state, action: inner.step(state, action / 3.0), action_scale=3.0
    )
    config = tiny(self_prediction=False, total_steps=32, num_evals=1, num_epochs=1)
    runs = []
    for env in (inner, wide):
        train = rx.make_train(env, config)
        state = train.init(jax.random.key(0), HP)
        _, rollout = rx.collect(train, train.training_env, state)
        runs.append((rollout, rx.make_batch(train, state, rollout), train))
    np.testing.assert_allclose(
        runs[1][0].transitions.action, 3.0 * runs[0][0].transitions.action, rtol=1e-6
    )
    np.testing.assert_allclose(
        runs[1][0].transitions.reward, runs[0][0].transitions.reward, rtol=1e-5
    )
    assert np.abs(np.asarray(runs[1][0].transitions.action)).max() > 1.0
