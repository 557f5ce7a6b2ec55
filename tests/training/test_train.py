"""The assembly: vmaps, compilations, state, ablations, containment. Small sizes, probe environments."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.envs.base import Environment
from reppo_fx.run.loop import compile_programs, run_loop
from reppo_fx.training.presets import CLEANER, PRESETS

from ..sizes import HP, TINY, first_quick, leaves_close, tiny


@pytest.fixture(scope="module")
def train():
    return rx.make_train(probes.match_observation(), TINY)


@pytest.fixture(scope="module")
def jitted(train):
    return jax.jit(train)


@pytest.fixture(scope="module")
def vmapped(train):
    return jax.jit(jax.vmap(train))


def members(count):
    """Keys and hyperparameters that all differ."""
    keys = jax.random.split(jax.random.key(7), count)
    scales = jnp.linspace(1.0, 1.5, count)
    return keys, jax.tree.map(lambda leaf: leaf * scales, rx.Hyperparameters(*map(float, HP)))


@pytest.mark.once
def test_metrics_have_one_entry_per_evaluation(jitted):
    _, metrics = jitted(jax.random.key(0), HP)
    assert metrics.env_steps.tolist() == [64, 128]
    chex.assert_shape(jax.tree.leaves(metrics), (2,))
    chex.assert_tree_all_finite(metrics)


@pytest.mark.once
def test_the_same_key_gives_the_same_numbers_twice(jitted):
    chex.assert_trees_all_equal(jitted(jax.random.key(3), HP)[1], jitted(jax.random.key(3), HP)[1])


def test_another_key_gives_other_numbers(jitted):
    a, b = (jitted(jax.random.key(seed), HP)[1].training.target for seed in (0, 1))
    assert not np.allclose(a, b)


def test_member_of_a_vmapped_run_equals_the_run_alone(jitted, vmapped):
    keys, settings = members(3)
    together = vmapped(keys, settings)
    for k in range(3):
        alone = jitted(keys[k], jax.tree.map(lambda leaf, k=k: leaf[k], settings))
        leaves_close(jax.tree.map(lambda leaf, k=k: leaf[k], together), alone)


@pytest.mark.slow
def test_vmap_over_keys_only_and_over_hyperparameters_only(train, vmapped):
    keys, settings = members(2)
    over_keys = jax.jit(jax.vmap(train, in_axes=(0, None)))(keys, HP)[1]
    over_settings = jax.jit(jax.vmap(train, in_axes=(None, 0)))(keys[0], settings)[1]
    chex.assert_shape(over_keys.eval_return, (2, 2))
    same = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), rx.Hyperparameters(*map(float, HP)))
    leaves_close(over_keys, vmapped(keys, same)[1])
    leaves_close(over_settings, vmapped(jnp.stack([keys[0], keys[0]]), settings)[1])


@pytest.mark.parametrize(
    ("world", "of_others"),
    [
        (
            probes.terminating_reward(4),
            ["entropy_share", "exploration_density", "noise_correlation"],
        ),
        (
            probes.two_step_choice(),
            ["entropy_target", "min_std", "exploration_density", "noise_correlation"],
        ),
    ],
    ids=["box", "discrete"],
)
@pytest.mark.once
def test_every_hyperparameter_is_traced_and_shares_one_compilation(world, of_others):
    train = rx.make_train(world, dataclasses.replace(TINY, exploration="noise"))
    counted = jax.jit(chex.assert_max_traces(lambda key, hp: train(key, hp), n=1))
    base = HP._replace(sigma=0.1, exploration_noise_max=3.0, exploration_base=0.1)
    # A temperature that is at its bound.
    base = base._replace(initial_temperature=0.1, min_temperature=0.099)
    base = rx.Hyperparameters(*map(float, base))
    reference = counted(jax.random.key(0), base)
    chex.clear_trace_counter()
    unchanged = []
    for name in rx.Hyperparameters._fields:
        changed = base._replace(**{name: getattr(base, name) * 0.7 + 0.01})
        result = counted(jax.random.key(0), changed)
        same = all(
            np.array_equal(x, y)
            for x, y in zip(
                jax.tree.leaves((result[0].learner, result[1])),
                jax.tree.leaves((reference[0].learner, reference[1])),
                strict=True,
            )
        )
        if same:
            unchanged.append(name)
    assert counted._cache_size() == 1
    # Every leaf is not only accepted but has an effect, but for those of the other kinds of action and exploration.
    assert unchanged == of_others


def test_state_is_arrays_with_the_same_structure_and_types_after_every_step(train):
    state = jax.eval_shape(train.init, jax.random.key(0), HP)
    after, _ = jax.eval_shape(train.iteration, state)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    describe = lambda leaf: (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False))
    assert jax.tree.map(describe, state) == jax.tree.map(describe, after)
    real = jax.jit(train.init)(jax.random.key(0), HP)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(real))


@pytest.mark.once
def test_the_host_loop_gives_the_numbers_of_train(train):
    keys = jax.random.split(jax.random.key(5), 2)
    settings = jax.tree.map(lambda leaf: jnp.full(2, leaf), HP)
    programs = compile_programs(train, keys, settings)
    state = programs.init(keys, settings)
    rows = [p.metrics for p in run_loop(train, programs, state) if p.metrics is not None]
    expected = jax.jit(jax.vmap(train))(keys, settings)[1]
    leaves_close(jax.tree.map(lambda *x: np.stack(x, 1), *rows), expected)


@pytest.mark.once
def test_the_host_loop_stops_with_an_evaluation_of_what_it_has(train):
    keys = jax.random.split(jax.random.key(5), 2)
    settings = jax.tree.map(lambda leaf: jnp.full(2, leaf), HP)
    programs = compile_programs(train, keys, settings)
    seen = []
    loop = run_loop(train, programs, programs.init(keys, settings), lambda: len(seen) > 0)
    for progress in loop:
        seen.append(progress)
    assert seen[-1].metrics is not None
    assert seen[-1].env_steps == 32 < TINY.total_steps


ABLATIONS = {
    "authors": {
        "kl_estimator": "sampled_clipped",
        "statistics": "step",
        "dual_optimizer": "actor",
        "noise": "reused",
        "mask_truncated": True,
    },
    "KL penalty, sampled": {"kl_constraint": "penalty", "kl_estimator": "sampled"},
    "layer norm, no observation statistics": {"norm": "layer", "statistics": "none"},
    "score function with GAE": {"policy_gradient": "score_gae"},
    "no KL": {"kl_constraint": "none"},
    "no HL-Gauss": {"critic": "squared"},
    "no normalization": {"norm": "none"},
    "no auxiliary task": {"self_prediction": False},
    "score function with Q": {"policy_gradient": "score"},
    "several value samples, constant offset": {"num_value_samples": 3, "critic_offset": "constant"},
}


@pytest.mark.parametrize("name", first_quick(ABLATIONS, 4))
@pytest.mark.once
def test_every_ablation_is_a_change_of_arguments_and_trains(name):
    train = rx.make_train(probes.match_observation(), tiny(**ABLATIONS[name]))
    state = jax.jit(train.init)(jax.random.key(0), HP)
    after, metrics = jax.jit(train.iteration)(state)
    chex.assert_tree_all_finite(metrics)
    before_networks = jax.tree.leaves(state.learner.networks.actor)
    moved = [
        not np.array_equal(x, y)
        for x, y in zip(before_networks, jax.tree.leaves(after.learner.networks.actor), strict=True)
    ]
    assert all(moved)
    assert int(metrics.skipped_updates) == 0


@pytest.mark.once
def test_constant_offset_stays_and_trainable_offset_moves():
    for choice, moves in (("constant", False), ("trainable", True)):
        train = rx.make_train(probes.match_observation(), tiny(critic_offset=choice))
        state = jax.jit(train.init)(jax.random.key(0), HP)
        after, _ = jax.jit(train.iteration)(state)
        start, end = (s.learner.networks.critic.offset for s in (state, after))
        assert np.array_equal(start, end) is not moves


def test_the_critic_starts_near_zero_whatever_its_range():
    train = rx.make_train(probes.match_observation(), TINY)
    for v_min, v_max in ((0.0, 150.0), (-10.0, 10.0)):
        state = train.init(jax.random.key(0), HP._replace(v_min=v_min, v_max=v_max))
        output = state.learner.networks.critic(jnp.ones((5, 1)), jnp.zeros((5, 1)))
        value = train.value_function.value(output.outputs, state.hyperparameters, ())
        bin_width = (v_max - v_min) / 20
        assert np.abs(value).max() < bin_width


@pytest.mark.once
def test_pieces_can_be_replaced_by_functions():
    called = []

    distribution = rx.tanh_normal(1)
    penalized = rx.make_objective(
        rx.pathwise_loss, distribution, rx.exact_kl(distribution), kl_constraint="penalty"
    )

    def objective(*arguments):
        called.append("objective")
        return penalized(*arguments)

    def optimizer(hyperparameters, config):
        import optax

        called.append("optimizer")
        return optax.sgd(hyperparameters.learning_rate)

    def networks(key, shapes, value_function, hyperparameters):
        called.append("networks")
        return rx.make_networks(
            key, shapes, value_function, hyperparameters, actor_width=4, critic_width=6
        )

    train = rx.make_train(
        probes.match_observation(),
        TINY,
        networks=networks,
        actor_objective=objective,
        optimizer=optimizer,
        value_function=rx.squared_value_function(),
    )
    state, metrics = jax.jit(train)(jax.random.key(0), HP)
    assert set(called) == {"objective", "optimizer", "networks"}
    assert state.learner.networks.critic.head.layers[-1].weight.shape == (6, 1)
    chex.assert_tree_all_finite(metrics)


@pytest.mark.once
def test_actor_and_critic_see_their_own_parts():
    inner = probes.match_observation()

    def both(observation):
        return {"state": observation, "privileged_state": jnp.concatenate([observation] * 3)}

    def step(state, action):
        state, timestep = inner.step(state, action)
        return state, timestep._replace(
            observation=both(timestep.observation), next_observation=both(timestep.next_observation)
        )

    def reset(key):
        state, observation = inner.reset(key)
        return state, both(observation)

    spec = {
        "state": jax.ShapeDtypeStruct((1,), jnp.float32),
        "privileged_state": jax.ShapeDtypeStruct((3,), jnp.float32),
    }
    env = Environment("asymmetric", reset, step, spec, 1, critic_part="privileged_state")
    train = rx.make_train(env, TINY)
    state, metrics = jax.jit(train)(jax.random.key(0), HP)
    networks = state.learner.networks
    assert networks.actor.trunk.layers[0].weight.shape[0] == 1
    assert networks.critic.encoder.layers[0].weight.shape[0] == 3 + 1
    assert state.rollout.statistics.mean["privileged_state"].shape == (3,)
    chex.assert_tree_all_finite(metrics)


@pytest.mark.once
def test_a_nan_bomb_leaves_everything_finite_and_is_counted():
    train = rx.make_train(probes.nan_bomb(probes.constant_reward(), 0.05), TINY)
    state, metrics = jax.jit(train)(jax.random.key(0), HP)
    chex.assert_tree_all_finite((state.learner, state.rollout.statistics, metrics))
    steps = TINY.total_steps
    # 128 steps at 5 %: 6.4 expected, standard deviation 2.5.
    assert 0 < float(metrics.training.nonfinite[-1]) < 0.2 * steps
    assert int(metrics.training.skipped_updates[-1]) == 0


@pytest.mark.once
def test_a_diverging_member_stays_finite_says_when_and_leaves_its_neighbours_alone(jitted, vmapped):
    keys, settings = members(2)
    wild = settings._replace(learning_rate=settings.learning_rate.at[1].set(1e38))
    state, metrics = vmapped(keys, wild)
    # Diagnostics of what diverged may say nan; parameters, optimizer and statistics may not.
    chex.assert_tree_all_finite((state.learner, state.rollout.statistics))
    assert int(metrics.training.diverged_at[1, -1]) == TINY.steps_per_iteration
    assert int(metrics.training.skipped_updates[1, -1]) > 0
    assert int(metrics.training.diverged_at[0, -1]) == -1
    alone = jitted(keys[0], jax.tree.map(lambda leaf: leaf[0], settings))[1]
    leaves_close(jax.tree.map(lambda leaf: leaf[0], metrics), alone)


def test_iteration_statistics_are_those_of_the_batch_and_first_used_at_once(train):
    state = jax.jit(train.init)(jax.random.key(0), HP)
    assert float(state.rollout.statistics.count) == 0
    after, _ = jax.jit(train.iteration)(state)
    assert float(after.rollout.statistics.count) == TINY.steps_per_iteration
    # match_observation shows −1 or 1.
    assert abs(float(after.rollout.statistics.var[0]) - 1.0) < 0.2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_minibatches": 3}, "num_minibatches is 3, but num_envs . num_steps = 4 . 8 = 32"),
        ({"num_envs": 0}, "num_envs is 0; it must be at least 1"),
        ({"norm": "batch"}, "norm is 'batch'; allowed are 'rms', 'layer', 'none'"),
        ({"num_bins": 1}, "num_bins is 1"),
        ({"action_limit": 2.0}, "action_limit is 2.0"),
    ],
)
def test_bad_static_settings_get_a_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"discount": 1.1}, r"discount is 1.1; it must be in \[0, 1\]"),
        ({"trace_decay": -0.1}, "trace_decay is -0.1"),
        ({"v_min": 5.0, "v_max": 5.0}, "v_min is 5.0 and v_max is 5.0; v_min must be below v_max"),
        (
            {"min_temperature": 0.02},
            "min_temperature is 0.02 and initial_temperature is 0.01; min_temperature must be at most",
        ),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
        ({"kl_target": float("nan")}, "kl_target is nan; it must be finite"),
    ],
)
def test_bad_hyperparameters_get_a_sentence(train, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(jax.random.key(0), HP._replace(**changes))


def test_an_unknown_episode_length_is_asked_for():
    with pytest.raises(ValueError, match="episode_length is not set, and constant_reward has none"):
        rx.make_train(probes.constant_reward(), tiny(episode_length=None))


def test_the_authors_preset_is_the_default_and_cpu_makes_the_cleaner_choices():
    assert rx.preset("authors")[0] == rx.Config() == rx.preset("dmc")[0]
    cpu = dataclasses.asdict(rx.preset("cpu")[0])
    assert all(cpu[name] == choice for name, choice in CLEANER.items())


def test_a_horizon_is_a_tenth_of_the_episode_within_bounds():
    lengths = {1000: 0.99, 400: 0.975, 50: 0.95, 1: 0.95, 10_000: 0.995}
    assert {n: round(rx.horizon_discount(n), 6) for n in lengths} == lengths
    assert rx.horizon_discount(np.int64(50), lowest=0.8) == 0.8
    for wrong in ({"lowest": 0.99, "highest": 0.9}, {"highest": 1.5}, {"episode_length": 0}):
        with pytest.raises(ValueError, match=r"it must|they must|at least 1"):
            rx.horizon_discount(**{"episode_length": 100, **wrong})


def test_a_preset_is_fitted_to_the_episodes_of_a_world():
    world = probes.match_observation()._replace(episode_length=400)
    config, hp = rx.preset_for(world)
    own, numbers = rx.preset("any")
    assert config == dataclasses.replace(own, training_time_limit=200)
    assert hp == numbers._replace(discount=0.975)
    assert rx.preset_for(world, training_time_limit=None)[0] == own
    assert rx.preset_for(world, episode_length=2000)[0].training_time_limit == 1000
    assert rx.preset_for(world, episode_length=50)[1].discount == 0.95
    assert rx.preset_for(world, "cpu")[1].discount == 0.975
    assert rx.preset_for(probes.constant_reward()) == rx.preset("any")


def test_the_dimensions_of_an_action_share_the_bound_under_the_temperature():
    world = probes.match_observation()._replace(action_size=5)
    assert rx.preset_for(world)[1].min_temperature == 0.02
    assert rx.preset_for(world, "cpu")[1].min_temperature == 0.0


def test_discrete_actions_look_at_least_a_hundred_steps_ahead():
    for length, discount in ((9, 0.99), (500, 0.99), (1000, 0.99), (10_000, 0.995)):
        world = probes.bandit()._replace(episode_length=length)
        for name in ("any", "cpu"):
            assert rx.preset_for(world, name)[1].discount == pytest.approx(discount)


def test_a_preset_for_any_task_is_fitted_to_discrete_actions():
    world, (_, own) = probes.bandit()._replace(episode_length=None), rx.preset("any")
    assert rx.preset_for(world)[1] == own._replace(
        initial_temperature=0.8,
        temperature_rate=1.0,
        min_temperature=0.2,
        min_temperature_spread=0.0,
    )
    for name in sorted(set(PRESETS) - {"any"}):
        assert rx.preset_for(world, name) == rx.preset(name)


def test_training_episodes_are_of_horizons_and_no_longer_than_the_tasks():
    lengths = {1: 1, 20: 20, 50: 50, 200: 100, 400: 200, 1000: 500, 2000: 1000, 10_000: 1000}
    assert {n: rx.training_episode(n) for n in lengths} == lengths
    assert rx.training_episode(1000, 2.5) == 250
    assert rx.training_episode(1000, 1e-3) == 1
    for wrong in ({"horizons": 0.0}, {"episode_length": 0}):
        with pytest.raises(ValueError, match=r"must be positive|at least 1"):
            rx.training_episode(**{"episode_length": 100, **wrong})


def test_unknown_preset_gets_the_nearest_name():
    with pytest.raises(ValueError, match="unknown preset 'author'; did you mean 'authors'"):
        rx.preset("author")
