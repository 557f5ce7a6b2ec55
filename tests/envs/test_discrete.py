"""Discrete actions and their masks in the contract and its transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reppo_fx import envs, hosts
from reppo_fx.envs import probes
from reppo_fx.training.evaluate import evaluate_policy

KEY = jax.random.key(0)


def masked():
    return probes.masked(probes.bandit())


def test_an_action_is_one_int32_whatever_integer_comes():
    env = envs.conform(probes.bandit((0, 2, 5)))
    state, observation = env.reset(KEY)
    best = 2 if float(observation[0]) > 0 else 0
    for dtype in (jnp.int8, jnp.uint8, jnp.int32):
        assert float(env.step(state, jnp.asarray(best, dtype))[1].reward) == 5.0
    assert envs.action_spec(env) == jax.ShapeDtypeStruct((), jnp.int32)
    batched = jax.eval_shape(envs.batch(env).reset, jax.random.split(KEY, 4))[0]
    step = jax.eval_shape(envs.batch(env).step, batched, jax.ShapeDtypeStruct((4,), jnp.int32))
    assert step[1].reward.shape == (4,)


@pytest.mark.parametrize("action", [0.5, np.zeros(1, np.int32), np.zeros(1, np.float32)])
def test_other_actions_are_named(action):
    env = envs.conform(probes.bandit())
    with pytest.raises(ValueError, match="bandit: an action of .* one whole number"):
        env.step(env.reset(KEY)[0], jnp.asarray(action))


FACTS = [
    ({"num_actions": 1}, "num_actions is 1; it must be a whole number of at least 2"),
    ({"num_actions": 2.0}, "num_actions is 2.0; it must be a whole number"),
    ({"num_actions": True}, "num_actions is True; it must be a whole number"),
    ({"action_size": 3}, "action_size is 3, but actions are discrete"),
    ({"action_scale": 2.0}, "action_scale is 2.0, but actions are discrete"),
    ({"action_mask": "mask"}, "action_mask is 'mask', but the observation has no part 'mask'"),
    ({"action_mask": "state"}, r"action_mask is 'state', which is float32, \[1\]"),
    ({"num_actions": 4}, r"action_mask is 'action_mask', which is bool, \[3\]; .* \[4\]"),
    ({"num_actions": None}, "only discrete actions .* can be ruled out"),
]


@pytest.mark.parametrize(("changes", "sentence"), FACTS, ids=str)
def test_facts_that_cannot_be_are_named_on_both_sides(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        envs.conform(masked()._replace(**changes))
    host = hosts.pure(masked(), 2)
    for name, value in changes.items():
        setattr(host, name, value)
    with pytest.raises(ValueError, match=sentence):
        hosts.conform(host)


def test_a_range_is_for_boxes():
    for transform in (envs.clip_action, lambda env: envs.action_range(env, 0.0, 1.0)):
        with pytest.raises(ValueError, match="bandit has 3 discrete actions, which have no range"):
            transform(probes.bandit())


def test_a_flat_observation_keeps_its_mask():
    env = envs.conform(envs.flatten_observation(masked()))
    state, observation = env.reset(KEY)
    assert observation["action_mask"].dtype == jnp.bool
    assert observation["state"].shape == (1,)
    _, timestep = env.step(state, jnp.argmax(observation["action_mask"]))
    assert timestep.next_observation["action_mask"].shape == (3,)


def test_repeats_limits_containment_and_evaluation_pass_actions_on():
    env = envs.action_repeat(probes.two_step_choice(), 2)
    _, timestep = env.step(env.reset(KEY)[0], jnp.asarray(1))
    assert (float(timestep.reward), bool(timestep.terminated)) == (1.0, True)
    training = envs.training_environment(masked(), 3)
    state, observation = training.reset(jax.random.split(KEY, 4))
    for _ in range(3):
        state, timestep = training.step(state, jnp.argmax(observation["action_mask"], -1))
        assert float(timestep.reward.max()) <= 1.0
        observation = timestep.observation
    first = lambda observation: jnp.argmax(observation["action_mask"], -1)
    episodes = evaluate_policy(masked(), first, KEY, 5, 4, trajectory=True)
    assert episodes.trajectory.action.shape == (4, 5)
    assert float(episodes.returns.max()) <= 1.0


def test_a_pure_world_as_a_program_takes_the_same_actions():
    host = hosts.conform(hosts.pure(masked(), 4))
    assert (host.num_actions, host.action_mask, host.action_size) == (3, "action_mask", 1)
    repeated = hosts.action_repeat(hosts.time_limit(host, 3), 2)
    assert (repeated.num_actions, repeated.action_mask) == (3, "action_mask")
    seen = host.reset(0)
    best = np.where(seen["state"][:, 0] > 0, 2, 0)
    allowed = seen["action_mask"][np.arange(4), best]
    reward = host.step(best.astype(np.int32)).reward
    np.testing.assert_array_equal(reward, np.where(allowed, 1.0, 100.0))
    episodes = hosts.evaluate_policy(
        hosts.pure(masked(), 4), lambda seen: seen["action_mask"].argmax(-1), 3
    )
    assert episodes.returns.max() <= 1.0
