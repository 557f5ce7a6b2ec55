"""Domain randomization: every instance has a physics of its own, for as long as was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import envs

from ..sizes import HP, tiny
from .toy_task import ToyModel, ToyTask

LIMIT, INSTANCES = 3, 5


def mass(key):
    return ToyModel(jax.random.uniform(key, minval=1.0, maxval=5.0), jnp.zeros(2))


def as_simulators_write_it(model, keys):
    """Playground's and Brax's signature: a batch of models, and which axes are batched."""
    masses = jax.vmap(lambda key: jax.random.uniform(key, minval=1.0, maxval=5.0))(keys)
    axes = jax.tree.map(lambda _: None, model)._replace(mass=0)
    return model._replace(mass=masses), axes


def toy(randomize=None, redraw="reset", adapter="playground"):
    task = ToyTask(ends_at=100)
    own = task._mjx_model

    def heavier(key):
        return own._replace(mass=jax.random.uniform(key, minval=1.0, maxval=5.0))

    return getattr(envs, adapter)(task, randomize=randomize or heavier, redraw=redraw), task


def masses_shown(env, rollouts, steps=4, seed=0):
    """The mass that every instance moved with, `[rollouts · steps, instances]`, and where episodes ended."""
    env = envs.training_environment(env, LIMIT)

    def rollout(state, _):
        return jax.lax.scan(env.step, env.refresh(state), jnp.ones((steps, INSTANCES, 1)))

    state, _ = env.reset(jax.random.split(jax.random.key(seed), INSTANCES))
    _, timesteps = jax.jit(lambda s: jax.lax.scan(rollout, s, length=rollouts))(state)
    flat = jax.tree.map(lambda x: x.reshape(rollouts * steps, *x.shape[2:]), timesteps)
    return np.asarray(flat.next_observation[..., 1]), np.asarray(flat.truncated)


@pytest.mark.parametrize("randomize", [None, as_simulators_write_it])
def test_instances_of_other_mass_move_otherwise_and_of_equal_mass_alike(randomize):
    env, task = toy(randomize)
    before = task._mjx_model
    state, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), INSTANCES))
    drawn = state.physics["mass"]
    assert len(set(np.asarray(drawn).tolist())) == INSTANCES
    np.testing.assert_array_equal(state.inner.data["mass_at_reset"], drawn)  # reset used it too
    _, timesteps = jax.jit(jax.vmap(env.step))(state, jnp.ones((INSTANCES, 1)))
    np.testing.assert_allclose(timesteps.next_observation[:, 0], 1.0 / drawn, rtol=1e-6)
    np.testing.assert_allclose(timesteps.metrics["reward/speed"], 1.0, rtol=1e-6)
    # Only what differs is kept for each instance, and the task object is as it was.
    assert set(state.physics) == {"mass"}
    assert task._mjx_model is before
    equal = state._replace(physics={"mass": jnp.full((INSTANCES,), 2.0)})
    _, timesteps = jax.vmap(env.step)(equal, jnp.ones((INSTANCES, 1)))
    np.testing.assert_allclose(timesteps.next_observation[:, 0], 0.5)


class BraxToy(ToyTask):
    def model(self):
        return self.sys


def test_brax_keeps_its_model_elsewhere():
    env = envs.brax(BraxToy(), randomize=mass)
    state, _ = env.reset(jax.random.key(1))
    _, timestep = env.step(state, jnp.ones(1))
    np.testing.assert_allclose(timestep.next_observation[0], 1.0 / state.physics["mass"])


def test_drawn_at_every_start():
    shown, ends = masses_shown(toy()[0], rollouts=6)
    for instance in range(INSTANCES):
        changed = np.flatnonzero(np.diff(shown[:, instance]) != 0)
        # Nothing changes within an episode; every rollout (4 steps) has an end (limit 3) and a start of its own.
        assert ends[changed, instance].all()
        assert len(changed) >= 5


def test_never_drawn_again():
    shown, ends = masses_shown(toy(redraw="never")[0], rollouts=6)
    assert ends.sum() > 5 * INSTANCES
    assert (shown == shown[0]).all()
    assert len(set(shown[0].tolist())) == INSTANCES


def test_drawn_at_the_first_start_after_so_many_rollouts():
    shown, ends = masses_shown(toy(redraw=3)[0], rollouts=12)
    for instance in range(INSTANCES):
        changed = np.flatnonzero(np.diff(shown[:, instance]) != 0)
        assert ends[changed, instance].all()
        # 12 rollouts: at most every third has a change, and not none.
        assert 3 <= len(changed) <= 4
        assert (np.diff(changed) >= 3 * 4 - LIMIT).all()


@pytest.mark.parametrize("redraw", ["reset", "never", 2])
@pytest.mark.once
def test_it_trains(redraw):
    _, metrics = jax.jit(rx.make_train(toy(redraw=redraw)[0], tiny()))(jax.random.key(0), HP)
    assert np.isfinite(metrics.eval_return).all()


def test_the_same_key_draws_the_same_physics():
    env, _ = toy()
    first, _ = env.reset(jax.random.key(4))
    again, _ = jax.jit(env.reset)(jax.random.key(4))
    assert float(first.physics["mass"]) == float(again.physics["mass"])


@pytest.mark.parametrize(
    ("randomize", "redraw", "sentence"),
    [
        (mass, "sometimes", "redraw is 'sometimes'; it must be 'reset'"),
        (mass, 0, "redraw is 0; it must be"),
        (mass, True, "redraw is True; it must be"),
        (lambda a, b, c: a, "reset", "what was given needs 3 arguments"),
        (lambda key: {"mass": 1.0}, "reset", r"must give a model like the task's own \(ToyModel"),
        (
            lambda key: ToyModel(jnp.ones(2), jnp.zeros(2)),
            "reset",
            r"changes the shape of mass: \(\) in the task's own model, \(2,\)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(randomize, redraw, sentence):
    with pytest.raises(ValueError, match=sentence):
        toy(randomize, redraw)


def test_a_randomizer_that_changes_nothing_says_so():
    task = ToyTask()
    with pytest.raises(ValueError, match="randomize changes nothing in the model of ToyTask"):
        envs.playground(task, randomize=lambda key: task._mjx_model)


def test_a_task_without_a_model_cannot_be_randomized():
    task = ToyTask()
    del task.sys
    with pytest.raises(ValueError, match="keeps its model in `sys`; ToyTask has no"):
        envs.brax(task, randomize=mass)


def test_true_needs_a_name():
    with pytest.raises(ValueError, match="randomize=True needs a task's name"):
        envs.playground(ToyTask(), randomize=True)
