"""From a rollout to a batch: keys of their own, failures that teach nothing, observations of any shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.learner.state import KeyStreams

from ..sizes import HP, tiny


def collected(**changes):
    train = rx.make_train(probes.match_observation(), tiny(**changes))
    state = train.init(jax.random.key(0), HP)
    state, rollout = rx.collect(train, train.training_env, state)
    return train, state, rollout


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_every_use_of_a_state_has_a_stream_of_its_own(impl):
    key = jax.random.key(0, impl=impl)
    streams = rx.key_streams(key)
    drawn = {name: float(jax.random.normal(stream)) for name, stream in streams._asdict().items()}
    # Those of the next iteration, too: nothing of this one may come again in it.
    following = rx.key_streams(streams.following)
    drawn |= {f"next {n}": float(jax.random.normal(s)) for n, s in following._asdict().items()}
    assert len(set(drawn.values())) == 2 * len(KeyStreams._fields)


def test_evaluation_does_not_start_from_the_key_of_the_next_rollout():
    _, state, _ = collected()
    streams = rx.key_streams(state.key)
    data = {n: tuple(jax.random.key_data(s).tolist()) for n, s in streams._asdict().items()}
    assert data["evaluate"] not in {v for n, v in data.items() if n != "evaluate"}
    assert jax.random.key_data(jax.random.fold_in(state.key, 0)).tolist() == list(data["collect"])


def failing(rollout, t, env):
    """The same rollout with a failure of the simulator, which paid something and then went on."""
    rows = rollout.transitions
    rows = rows._replace(
        nonfinite=rows.nonfinite.at[t, env].set(True),
        terminated=rows.terminated.at[t, env].set(True),
        reward=rows.reward.at[t, env].set(0.0),
    )
    return rollout._replace(transitions=rows)


@pytest.mark.parametrize("policy_gradient", ["pathwise", "score_gae"])
def test_a_failure_teaches_nothing_about_its_step_and_cuts_the_trace_before_it(policy_gradient):
    train, state, rollout = collected(policy_gradient=policy_gradient)
    # Nothing ends by itself: what changes below comes from the failure alone.
    rows = rollout.transitions
    none = jnp.zeros_like(rows.terminated)
    rollout = rollout._replace(transitions=rows._replace(terminated=none, truncated=none))
    t, env = 4, 2
    plain = rx.make_batch(train, state, rollout)
    failed = rx.make_batch(train, state, failing(rollout, t, env))
    cut = rollout._replace(
        transitions=rollout.transitions._replace(truncated=none.at[t - 1, env].set(True))
    )
    expected = rx.make_batch(train, state, cut)
    assert not bool(failed.counts[t, env])
    assert int(jnp.sum(~failed.counts)) == 1
    # Before the failure: exactly as if the episode had been cut there, bootstrapping from what came.
    np.testing.assert_array_equal(failed.target[:t, env], expected.target[:t, env])
    np.testing.assert_array_equal(failed.target[t + 1 :], plain.target[t + 1 :])
    np.testing.assert_array_equal(np.delete(failed.target, env, 1), np.delete(plain.target, env, 1))
    if failed.advantage is not None:
        assert float(failed.advantage[t, env]) == 0.0
        np.testing.assert_array_equal(failed.advantage[:t, env], expected.advantage[:t, env])


def test_a_failing_step_gives_the_critic_no_gradient():
    train, state, rollout = collected()
    t, env = 4, 2
    batch = rx.make_batch(train, state, failing(rollout, t, env))
    spoiled = batch._replace(
        label=batch.label.at[t, env].set(0.5), reward=batch.reward.at[t, env].set(1e6)
    )
    from reppo_fx.learner.batch import flatten_batch
    from reppo_fx.learner.update import critic_loss

    gradients = [
        jax.grad(critic_loss, has_aux=True)(
            state.learner.networks.critic, train, state, flatten_batch(b)
        )[0]
        for b in (batch, spoiled)
    ]
    jax.tree.map(np.testing.assert_array_equal, *gradients)


def test_truncated_rows_count_unless_the_original_is_asked_for():
    for masked in (False, True):
        train, state, rollout = collected(mask_truncated=masked)
        rows = rollout.transitions
        rollout = rollout._replace(
            transitions=rows._replace(truncated=rows.truncated.at[0, 0].set(True))
        )
        counts = rx.make_batch(train, state, rollout).counts
        assert bool(counts[0, 0]) is not masked
