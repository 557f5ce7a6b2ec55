"""The same world through `envs` and through `hosts`: the same numbers give the same targets and the same steps."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.envs import probes
from reppo_fx.hosts.collect import gather, transition_shapes
from reppo_fx.training import original
from reppo_fx.training.iteration import init_state

from ..sizes import leaves_close, tiny
from ..sweeps.compilations import compiled_programs

CONFIG = tiny(total_steps=4 * 8 * 6, num_evals=3, num_eval_envs=4, episode_length=5)
HP = rx.Hyperparameters(v_min=-5.0, v_max=5.0, discount=0.9)
PRESETS = {"cleaner": {}, "authors": original.CHOICES, "plain": {"statistics": "none"}}


WORLDS = {
    "box": probes.match_observation,
    "discrete": probes.two_step_choice,
    "masked": lambda: probes.masked(probes.bandit()),
}


def trains(world="box", **changes):
    config = rx.Config(**{**vars(CONFIG), **changes})
    world = WORLDS[world]()
    return rx.make_train(world, config), rx.make_host_train(hosts.pure(world, 4), config)


CASES = {
    **{name: ("box", choices) for name, choices in PRESETS.items()},
    "discrete": ("discrete", {"value_scale": "return"}),
    "masked": ("masked", {}),
}
# Each compiles for as long as the others.
MARKS = {"authors": ("once",), "masked": ("once",), "plain": ("slow",)}


@pytest.mark.parametrize(
    ("world", "choices"),
    [
        pytest.param(*case, id=name, marks=[getattr(pytest.mark, m) for m in MARKS.get(name, ())])
        for name, case in CASES.items()
    ],
)
def test_a_rollout_from_a_host_gives_the_targets_and_gradients_of_the_same_numbers(world, choices):
    pure, host = trains(world, **choices)
    state = host.init(jax.random.key(3), HP)
    for _ in range(2):  # the second one has statistics of its own
        gathered = gather(host, host.worlds.training(()), state)
        collected, rollout = host.programs(state).close(state, *gathered)
        # The same numbers as a pure world would hand over.
        by_hand = rx.Rollout(
            jax.tree.map(jnp.array, rollout.transitions),
            rollout.statistics,
            rollout.next_statistics,
        )
        ours = jax.jit(lambda s, r: rx.make_batch(host, s, r))(collected, rollout)
        theirs = jax.jit(lambda s, r: rx.make_batch(pure, s, r))(collected, by_hand)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        learned, _ = host.programs(state).learn(state, *gathered)
        also, _ = jax.jit(lambda s, r: rx.learn(pure, s, r))(collected, by_hand)
        for one, other in zip(
            jax.tree.leaves(learned.learner), jax.tree.leaves(also.learner), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
        state = learned


@pytest.mark.parametrize("choices", PRESETS.values(), ids=PRESETS)
def test_it_acts_as_the_pure_loop_does_and_sees_the_same_statistics(choices):
    """A world without chance: both loops walk through the same numbers."""
    config = rx.Config(**{**vars(CONFIG), **choices, "episode_length": 5})
    world = probes.terminating_reward(5)
    pure, host = rx.make_train(world, config), rx.make_host_train(hosts.pure(world, 4), config)
    env = rx.envs.batch(rx.envs.auto_reset(rx.envs.conform(world)))
    simulator = hosts.conform(hosts.pure(world, 4))
    simulator.reset(0)
    theirs = init_state(jax.random.key(1), pure, env, HP)
    ours = theirs._replace(rollout=theirs.rollout._replace(env_state=()))
    for _ in range(2):
        ours, mine = hosts.collect(host, simulator, ours)
        theirs, other = jax.jit(lambda state: rx.collect(pure, env, state))(theirs)
        near(mine, other)
        near(ours.rollout.statistics, theirs.rollout.statistics)
        near(ours.rollout.observation, theirs.rollout.observation)


def near(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def member_of(tree, member):
    return jax.tree.map(lambda leaf: leaf[member], tree)


def test_members_are_the_runs_alone():
    _, host = trains()
    settings = HP._replace(learning_rate=jnp.array([1e-3, 1e-2]))
    state = host.init(jax.random.split(jax.random.key(0), 2), settings)
    gathered = gather(host, host.worlds.training((2,)), state)
    learned, _ = host.programs(state).learn(state, *gathered)
    programs = host.programs(member_of(state, 0))
    for member in range(2):
        alone, rows = member_of(state, member), member_of(gathered.transitions, member)
        act = programs.actor(alone)
        for step in range(2):
            near(act(step, member_of(rows.observation, step)), rows.action[step])
        observation = member_of(gathered.observation, member)
        one, _ = programs.learn(alone, rows, observation, gathered.noise)
        leaves_close(one.learner, member_of(learned.learner, member))


@pytest.mark.once
def test_axes_are_those_of_a_vmapped_train():
    _, host = trains()
    keys = jax.random.split(jax.random.key(0), 3)
    state, metrics = host(keys, HP)
    assert metrics.eval_return.shape == (3, 3)
    assert state.iteration.tolist() == [6, 6, 6]
    assert metrics.env_steps[0].tolist() == [64, 128, 192]
    assert metrics.training.reward.shape == (3, 3)
    _, alone = host(keys[0], HP)
    assert alone.eval_return.shape == (3,)
    _, raw = host(jax.random.PRNGKey(5), HP)
    assert raw.eval_return.shape == (3,)


@pytest.mark.parametrize(
    ("key", "hp", "sentence"),
    [
        (lambda: jax.random.key(0), HP._replace(discount=np.ones(2) * 0.9), "discount has shape"),
        (
            lambda: jax.random.split(jax.random.key(0), 3),
            HP._replace(discount=np.ones(2) * 0.9),
            r"discount has shape \[2\], beside 3 keys",
        ),
        (lambda: jnp.zeros(3), HP, "key is an array of float32"),
        (lambda: jax.random.key(0), HP._replace(discount=1.5), "discount"),
    ],
)
def test_keys_and_settings_that_do_not_fit_are_named(key, hp, sentence):
    _, host = trains()
    with pytest.raises(ValueError, match=sentence):
        host.init(key(), hp)


@pytest.mark.slow
def test_it_learns_what_the_pure_loop_learns():
    config = rx.Config(
        **{
            **vars(CONFIG),
            "total_steps": 4096,
            "num_envs": 16,
            "num_evals": 1,
            "num_eval_envs": 16,
            "num_minibatches": 4,
            "actor_width": 32,
            "critic_width": 32,
        }
    )
    hp = rx.Hyperparameters(v_max=5.0, discount=0.5, learning_rate=3e-3)
    world = probes.match_observation()
    keys = jax.random.split(jax.random.key(0), 2)
    pure = jax.jit(jax.vmap(rx.make_train(world, config), in_axes=(0, None)))(keys, hp)[1]
    host = rx.make_host_train(hosts.pure(world, 16), config)(keys, hp)[1]
    assert (np.asarray(pure.eval_return) > 0.9).all()
    assert (np.asarray(host.eval_return) > 0.9).all()


def test_members_of_discrete_actions_share_a_simulator_and_learn():
    config = rx.Config(**{**vars(CONFIG), "total_steps": 4096, "num_envs": 16, "num_evals": 1})
    hp = rx.Hyperparameters(v_max=2.0, learning_rate=3e-3, initial_temperature=0.1)
    with rx.make_host_train(hosts.pure(probes.bandit(), 16), config) as host:
        settings = rx.grid(hp, entropy_share=[0.1, 0.9])
        runs = rx.sweep(host, settings, num_seeds=2, key=jax.random.key(0))
        assert runs.metrics.eval_return.shape == (2, 2, 1)
        assert (runs.metrics.eval_return == 1.0).all()  # the mode is the best action
        state = host.init(jax.random.key(0), hp)
        transitions, *_ = gather(host, host.worlds.training(()), state)
        shapes = transition_shapes(host.worlds.training(()), (config.num_steps, config.num_envs))
        pairs = ((transitions.action, shapes.action), (transitions.reward, shapes.reward))
        assert all((ours.shape, ours.dtype) == (s.shape, s.dtype) for ours, s in pairs)
        assert transitions.action.dtype == np.int32


@pytest.mark.once
def test_a_sweep_gives_axes_and_labels_and_cannot_be_traced():
    _, host = trains()
    settings = rx.grid(HP, learning_rate=[1e-3, 1e-2])
    runs = rx.sweep(host, settings, num_seeds=2, key=jax.random.key(0))
    assert runs.metrics.eval_return.shape == (2, 2, 3)
    assert runs.swept == ("learning_rate",)
    assert runs.state[1, 0].iteration == 6
    chunked = rx.sweep(host, settings, num_seeds=2, key=jax.random.key(0), members_per_chunk=3)
    assert chunked.metrics.eval_return.shape == (2, 2, 3)
    with pytest.raises(ValueError, match="memory_limit is for pure environments"):
        rx.sweep(host, settings, num_seeds=2, key=jax.random.key(0), memory_limit=1e9)
    with pytest.raises(ValueError, match="a simulator cannot be part of a compiled program"):
        jax.vmap(host)(jax.random.split(jax.random.key(0), 2))
    state = host.init(jax.random.key(0), HP)
    with pytest.raises(ValueError, match="a simulator cannot be part of a compiled program"):
        jax.jit(host.iteration)(state)


class OneSize(hosts.HostEnvironment):
    """There is only the one that there is, as with Isaac Lab."""

    def __init__(self, num_envs):
        self.env = hosts.pure(probes.terminating_reward(3), num_envs)
        for fact in ("name", "num_envs", "observation", "action_size", "metrics"):
            setattr(self, fact, getattr(self.env, fact))
        self.resets = 0

    def reset(self, seed=None):
        self.resets += 1
        return self.env.reset(seed)

    def step(self, action):
        return self.env.step(action)

    def restart(self, which):
        return self.env.restart(which)


def test_where_there_can_be_one_simulator_evaluating_starts_its_training_episodes_anew():
    env = OneSize(4)
    with rx.make_host_train(env, CONFIG) as host:
        state = host.init(jax.random.key(0), HP)
        assert env.resets == 1
        state, _ = host.iteration(state)
        assert (host.evaluate(state).returns == 3).all()
        assert env.resets == 2
        state, _ = host.iteration(state)
        assert env.resets == 3
        host.iteration(state)
        assert env.resets == 3


@pytest.mark.parametrize(
    ("size", "changes", "sentence"),
    [
        (3, {}, "num_envs is 4, which makes 4 instances, but terminating_reward has 3"),
        (
            4,
            {"num_eval_envs": 5},
            "num_eval_envs is 5, but terminating_reward has only 4 instances",
        ),
    ],
)
def test_a_size_that_cannot_be_had_is_named(size, changes, sentence):
    host = rx.make_host_train(OneSize(size), rx.Config(**{**vars(CONFIG), **changes}))
    with pytest.raises(ValueError, match=sentence):
        host(jax.random.key(0), HP)


def test_what_cannot_be_is_said_when_it_is_bound():
    own = hosts.pure(probes.terminating_reward(3), 4)
    with pytest.raises(
        ValueError, match="episode_length is not set, and terminating_reward has none"
    ):
        rx.make_host_train(own, rx.Config(**{**vars(CONFIG), "episode_length": None}))
    limited = hosts.pure(probes.terminating_reward(3)._replace(episode_length=3), 4)
    with pytest.raises(ValueError, match="episode_length is 5, but terminating_reward itself ends"):
        rx.make_host_train(limited, CONFIG)


def test_a_train_that_nobody_needs_takes_its_simulators_along():
    _, host = trains()
    state, _ = host(jax.random.key(0), HP)
    hosts.collect(host, host.worlds.training(()), state)
    simulator, gone = weakref.ref(host.worlds.training(())), weakref.ref(host)
    del host
    gc.collect()
    assert (gone(), simulator()) == (None, None)


def test_starting_again_compiles_nothing():
    _, host = trains()
    host.init(jax.random.key(0), HP)
    with compiled_programs() as programs:
        host.init(jax.random.key(1), HP)
    assert programs == []
