"""What adapters make of a simulator's task object, whatever its habits: with a toy of known numbers."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import envs
from reppo_fx.envs import _simulator

from ..sizes import HP, tiny
from .toy_task import ToyTask

ADAPTERS = {"playground": envs.playground, "brax": envs.brax}


@pytest.fixture(params=ADAPTERS, scope="module")
def toy(request):
    return ADAPTERS[request.param](ToyTask())


def types_of(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


def test_a_step_leaves_its_callers_state_as_it_was(toy):
    state, _ = toy.reset(jax.random.key(0))
    leaves, structure = jax.tree.flatten(state)
    entries = dict(state.info), dict(state.info["cause"]), dict(state.metrics)
    new, _ = toy.step(state, jnp.ones(1))
    assert jax.tree.structure(state) == structure
    assert all(a is b for a, b in zip(jax.tree.leaves(state), leaves, strict=True))
    for before, now in zip(entries, (state.info, state.info["cause"], state.metrics), strict=True):
        assert all(now[name] is value for name, value in before.items())
    assert int(new.info["steps"]) == 1
    assert int(state.info["steps"]) == 0


def test_the_types_of_a_state_never_change(toy):
    state, observation = toy.reset(jax.random.key(0))
    expected = types_of(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), observation) == ((2,), jnp.float32)
    assert types_of(toy.step(state, jnp.ones(1))[0]) == expected
    assert types_of(jax.jit(toy.step)(state, jnp.ones(1))[0]) == expected
    # A scan is what it is for.
    final, _ = jax.lax.scan(toy.step, state, jnp.ones((3, 1)))
    assert types_of(final) == expected


def test_a_number_that_needs_room_has_it_from_the_start(toy):
    """An integer 0 at reset that becomes 0.25 in the first step must not be cut to 0."""
    state, _ = toy.reset(jax.random.key(0))
    state, _ = toy.step(state, jnp.ones(1))
    assert float(state.info["share"]) == 0.25


def test_a_time_step_is_what_the_contract_says(toy):
    state, _ = toy.reset(jax.random.key(0))
    for clock in range(1, 5):
        state, timestep = toy.step(state, jnp.ones(1))
        assert timestep.reward.shape == timestep.terminated.shape == timestep.truncated.shape == ()
        assert timestep.reward.dtype == jnp.float32
        assert timestep.terminated.dtype == timestep.truncated.dtype == bool
        assert float(timestep.reward) == clock
        assert bool(timestep.terminated) == (clock == 4)
        assert not timestep.truncated


def test_the_tasks_own_numbers_are_the_metrics_of_every_step(toy):
    state, _ = toy.reset(jax.random.key(0))
    _, steps = jax.lax.scan(toy.step, state, jnp.ones((3, 1)))
    assert set(steps.metrics) == {"reward/speed", "success"}  # what is no number is left out
    assert all(value.dtype == jnp.float32 for value in steps.metrics.values())
    np.testing.assert_allclose(steps.metrics["reward/speed"], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(steps.metrics["success"], [0.0, 1.0, 1.0])


def test_a_toy_trains():
    env = envs.make(envs.playground(ToyTask(), redraw="reset"))
    _, metrics = jax.jit(rx.make_train(env, tiny()))(jax.random.key(0), HP)
    np.testing.assert_array_equal(metrics.eval_length, [4.0, 4.0])


def test_the_config_of_an_object_gives_its_facts():
    env = envs.playground(ToyTask(episode_length=9, action_repeat=2))
    assert env.name == "ToyTask"
    assert env.episode_length == 5  # ceil(9 / 2)
    state, _ = env.reset(jax.random.key(0))
    state, timestep = env.step(state, jnp.ones(1))
    assert float(timestep.reward) == 1.0 + 2.0
    state, timestep = env.step(state, jnp.ones(1))
    assert bool(timestep.terminated)
    # An odd end: the repeats after it are not taken.
    env = envs.playground(ToyTask(ends_at=3, action_repeat=2))
    state, _ = env.step(env.reset(jax.random.key(0))[0], jnp.ones(1))
    state, timestep = env.step(state, jnp.ones(1))
    assert bool(timestep.terminated)
    assert float(timestep.reward) == 3.0


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_how_long_an_action_lasts(adapter):
    for said, seconds in ((jnp.float32(0.008), 0.008), (None, None), (jnp.nan, None), (0, None)):
        task = ToyTask(action_repeat=2)
        task.dt = said
        repeats = 2 if adapter == "playground" else 1
        expected = seconds and seconds * repeats
        assert envs.conform(ADAPTERS[adapter](task)).action_seconds == expected
    assert ADAPTERS[adapter](ToyTask()).action_seconds is None


class NewKey(ToyTask):
    def step(self, state, action):
        state = super().step(state, action)
        state.info["late"] = 1.0
        return state


class NewShape(ToyTask):
    def step(self, state, action):
        return dataclasses.replace(super().step(state, action), obs=jnp.zeros(3))


class ManyRewards(ToyTask):
    def reset(self, rng):
        return dataclasses.replace(super().reset(rng), reward=jnp.zeros(2))

    def step(self, state, action):
        return dataclasses.replace(super().step(state, action), reward=jnp.zeros(2))


class Parts(ToyTask):
    def _parts(self, state):
        return dataclasses.replace(state, obs={"camera": jnp.zeros((4, 4, 3)), "state": state.obs})

    def reset(self, rng):
        return self._parts(super().reset(rng))

    def step(self, state, action):
        return self._parts(super().step(state, action))


class OnlyCamera(Parts):
    def _parts(self, state):
        return dataclasses.replace(state, obs={"camera": jnp.zeros((4, 4, 3), jnp.uint8)})


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (
            NewKey(),
            r"NewKey changes its state: nothing only after reset, state.info\['late'\] only",
        ),
        (
            NewShape(),
            r"NewShape changes its state: state.obs has shape \(2,\) after reset and \(3,\)",
        ),
        (ManyRewards(), r"ManyRewards gives a reward of shape \(2,\)"),
    ],
)
def test_what_the_contract_cannot_hold_is_a_sentence(task, sentence):
    with pytest.raises(ValueError, match=sentence):
        envs.playground(task)


def test_parts_of_an_observation():
    env = envs.playground(Parts())
    assert (env.actor_part, env.critic_part) == ("state", "state")
    assert env.observation["camera"].shape == (4, 4, 3)
    env = envs.playground(Parts(), actor_part="camera", critic_part="state")
    assert (env.actor_part, env.critic_part) == ("camera", "state")
    env = envs.brax(OnlyCamera())
    assert (env.actor_part, env.critic_part) == ("camera", "camera")
    assert env.observation["camera"].dtype == jnp.uint8
    with pytest.raises(ValueError, match="actor_part is 'pixels'.*has the parts 'camera', 'state'"):
        envs.playground(Parts(), actor_part="pixels")


@pytest.mark.parametrize("kind", ["EpisodeWrapper", "BraxAutoResetWrapper", "VmapWrapper"])
def test_wrappers_of_training_loops_are_refused(kind):
    inner = type(kind, (ToyTask,), {})()
    outer = ToyTask()
    outer.env = inner  # a user's own wrapper around it
    for task in (inner, outer):
        with pytest.raises(ValueError, match=f"wrapped in {kind}, which hides the true successor"):
            envs.playground(task)


@pytest.mark.parametrize("adapter", [envs.playground, envs.brax, envs.make])
def test_what_is_no_task_is_a_sentence(adapter, unchecked_annotations):
    with pytest.raises(ValueError, match=r"task must be a name, or|task must be a name or"):
        adapter(7)


def test_arguments_for_a_name_do_not_go_with_an_object():
    for changes in ({"impl": "warp"}, {"config_overrides": {"sim_dt": 0.1}}):
        with pytest.raises(ValueError, match="belong to a task's name; ToyTask was given"):
            envs.playground(ToyTask(), **changes)
    for changes in ({"backend": "spring"}, {"healthy_reward": 2.0}):
        with pytest.raises(ValueError, match="belongs to an environment's name; ToyTask"):
            envs.brax(ToyTask(), **changes)


def test_a_call_that_jax_no_longer_takes_is_said_to_be_the_simulators_fault():
    class Old(ToyTask):
        def step(self, state, action):
            return super().step(state, jnp.clip(action, a_max=1.0))

    sentence = (
        r"Old cannot run here: \S*test_adapters calls jax.numpy.clip with the argument 'a_max'"
    )
    with pytest.raises(ValueError, match=sentence) as caught:
        envs.playground(Old())
    assert isinstance(caught.value.__cause__, TypeError)


def test_other_errors_of_a_task_are_its_own():
    class Wrong(ToyTask):
        def step(self, state, action):
            return self._own_reward(speed=1.0, sped=2.0)

    with pytest.raises(TypeError, match="unexpected keyword argument 'sped'"):
        envs.playground(Wrong())


def raising(error):
    """A module finder for which importing `name` raises."""

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "reppo_simulator":
                raise error

    return Finder()


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (ModuleNotFoundError("no module", name="reppo_simulator"), True),
        (ModuleNotFoundError("no module", name="reppo_simulator.envs"), True),
        (ModuleNotFoundError("no module", name="mujoco"), False),
        (ModuleNotFoundError("no module", name="reppo_simulator_core"), False),
        (ImportError("cannot import name 'x'"), False),
        (ImportError("libfoo.so: undefined symbol", name="reppo_simulator"), False),
    ],
)
def test_only_a_missing_module_of_that_very_name_is_not_installed(monkeypatch, error, missing):
    monkeypatch.setattr(sys, "meta_path", [raising(error), *sys.meta_path])
    with pytest.raises(ImportError) as caught:
        _simulator.require("reppo_simulator.envs", "The simulator", "extra")
    assert ("is not installed" in str(caught.value)) == missing
    assert (caught.value is error) != missing


def without(monkeypatch, *modules):
    for module in modules:
        for name in [n for n in sys.modules if n.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)


def fake_brax(monkeypatch, **tasks):
    """A package named brax that has these environments."""
    package, module = types.ModuleType("brax"), types.ModuleType("brax.envs")
    package.envs, module._envs = module, tasks
    module.get_environment = lambda name, **kwargs: tasks[name](**kwargs)
    monkeypatch.setitem(sys.modules, "brax", package)
    monkeypatch.setitem(sys.modules, "brax.envs", module)


def test_make_names_the_extra_of_the_family_that_is_missing(monkeypatch):
    without(monkeypatch, "mujoco_playground")
    fake_brax(monkeypatch, hopper=ToyTask, ant=ToyTask)
    assert envs.make("hopper").name == "hopper"
    with pytest.raises(ValueError, match=r"unknown task 'hoper'; did you mean 'hopper'") as caught:
        envs.make("hoper")
    assert "MuJoCo Playground is not installed" in str(caught.value)
    assert "reppo_fx[playground]" in str(caught.value)


def test_make_without_any_family_names_both_extras(monkeypatch):
    without(monkeypatch, "mujoco_playground", "brax", "gymnax")
    with pytest.raises(ImportError, match=r"'reppo_fx\[playground\]' or 'reppo_fx\[brax\]'"):
        envs.make("hopper")


def test_what_brax_has_registered_takes_the_arguments_it_takes(monkeypatch):
    class Plain(ToyTask):
        def __init__(self, ends_at=4):
            super().__init__(ends_at)

    fake_brax(monkeypatch, plain=Plain, old=lambda backend: ToyTask())
    assert envs.brax("plain", ends_at=2).name == "plain"  # no backend forced on it
    assert envs.brax("old").name == "old"
    with pytest.raises(ValueError, match=r"plain takes no argument 'end_at' \(its value here: 2\)"):
        envs.brax("plain", end_at=2)
    with pytest.raises(ValueError, match="backend is 'sprung'; it must be 'generalized', "):
        envs.brax("plain", backend="sprung")
