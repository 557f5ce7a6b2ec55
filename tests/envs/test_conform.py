"""Environments as people write them: what is made to fit the contract, and the sentence for what is not."""

import dataclasses
from collections import OrderedDict, namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reppo_fx import envs
from reppo_fx.envs import probes
from reppo_fx.envs.base import Environment, TimeStep

VECTOR = jax.ShapeDtypeStruct((2,), jnp.float32)
Pair = namedtuple("Pair", ["near", "far"])


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Sensors:
    speed: jax.Array
    heights: jax.Array


def custom(
    *, observe=lambda x: jnp.stack([x, x]), reward=lambda x: x, flag=False, spec=VECTOR, **changes
):
    """Shows `observe(count)`, pays `reward(count)`, and says `flag` for its two flags."""
    metrics = changes.pop("metrics", lambda x: {})

    def reset(key):
        return jnp.zeros(()), observe(jnp.zeros(()))

    def step(count, action):
        count = count + 1.0
        seen = observe(count)
        return count, TimeStep(seen, seen, reward(count), flag, flag, metrics(count))

    return Environment("custom", reset, step, spec, 1)._replace(**changes)


def first_step(env):
    state, observation = env.reset(jax.random.key(0))
    return observation, env.step(state, jnp.zeros(1))[1]


@pytest.mark.parametrize(
    "reward",
    [
        lambda x: x[None],
        lambda x: x.astype(jnp.int32),
        lambda x: x.astype(jnp.int8)[None],
        lambda x: x > 0,
        lambda x: x.astype(jnp.float16),
        lambda x: x.astype(jnp.bfloat16),
        lambda x: 1,
        lambda x: 1.0,
        lambda x: True,
        lambda x: np.float64(1),
        lambda x: np.float32(1),
        lambda x: np.int64(1),
        lambda x: np.ones(1),
    ],
)
def test_a_reward_becomes_a_float_scalar(reward):
    _, timestep = first_step(envs.conform(custom(reward=reward)))
    assert timestep.reward.shape == ()
    assert timestep.reward.dtype == jnp.float32
    assert not timestep.reward.weak_type
    assert timestep.reward == 1.0


@pytest.mark.parametrize("kind", [bool, float, int, np.bool, np.float32, jnp.float32, jnp.int8])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("value", [0, 1])
def test_a_flag_becomes_a_boolean_scalar(kind, shape, value):
    flag = kind(value) if shape == () else jnp.full(shape, value, kind)
    _, timestep = first_step(envs.conform(custom(flag=flag)))
    for given in (timestep.terminated, timestep.truncated):
        assert given.shape == ()
        assert given.dtype == jnp.bool
        assert bool(given) == bool(value)


@pytest.mark.parametrize(
    ("observe", "spec"),
    [
        (lambda x: Pair(x, jnp.stack([x, x])), Pair(VECTOR, VECTOR)._replace(near=None)),
        (lambda x: (x, [x]), None),
        (lambda x: [x, {"a": x, "b": (x,)}], None),
        (lambda x: Sensors(x, jnp.stack([x, x])), None),
        (lambda x: {"deep": {"deeper": {"deepest": x}}, "flag": x > 0}, None),
        (
            lambda x: {"picture": jnp.zeros((4, 4, 3), jnp.uint8), "half": x.astype(jnp.float16)},
            None,
        ),
        (lambda x: OrderedDict(z=x, a=2 * x), None),
        (
            lambda x: {"python": 1.0, "integer": 3, "numpy": np.float64(2), "array": np.ones(2)},
            None,
        ),
    ],
)
def test_observations_of_any_containers_and_dtypes_go_through_training(observe, spec):
    spec = jax.eval_shape(observe, jnp.zeros(()))
    env = custom(observe=observe, spec=spec, actor_part="state")
    if isinstance(spec, dict | OrderedDict):
        env = env._replace(actor_part=next(iter(spec)), critic_part=next(iter(spec)))
    stack = envs.training_environment(env, 3)
    state, observation = stack.reset(jax.random.split(jax.random.key(0), 2))
    _, steps = jax.lax.scan(stack.step, stack.refresh(state), jnp.zeros((5, 2, 1)))
    assert jax.tree.structure(observation) == jax.tree.structure(spec)
    for seen in (observation, jax.tree.map(lambda x: x[0], steps.observation)):
        jax.tree.map(
            lambda x, s: np.testing.assert_equal((x.shape, x.dtype), ((2, *s.shape), s.dtype)),
            seen,
            spec,
        )
    assert not steps.metrics["nonfinite"].any()


def test_observations_come_as_declared_where_that_is_safe():
    spec = {
        "b": jax.ShapeDtypeStruct((), jnp.float64),
        "a": jax.ShapeDtypeStruct((2,), jnp.float16),
    }
    observe = lambda x: OrderedDict(b=x.astype(jnp.int32), a=jnp.stack([x, x]))
    env = envs.conform(custom(observe=observe, spec=spec, actor_part="a", critic_part="b"))
    observation, timestep = first_step(env)
    for seen in (observation, timestep.observation, timestep.next_observation):
        assert type(seen) is dict
        assert seen["b"].dtype == jnp.result_type(float)
        assert seen["a"].dtype == jnp.float16
    assert env.observation["b"].dtype == jnp.result_type(float)


def test_metrics_become_float_scalars():
    metrics = lambda x: {
        "a": 1,
        "b": True,
        "c": x[None],
        "d": x.astype(jnp.float16),
        "e": np.int8(1),
    }
    _, timestep = first_step(envs.conform(custom(metrics=metrics)))
    assert {(m.shape, m.dtype.name, float(m)) for m in timestep.metrics.values()} == {
        ((), "float32", 1.0)
    }


def stateful(first, then):
    """An environment whose state is `first` from reset and `then(state)` from a step."""
    zeros = jnp.zeros(2)

    def step(state, action):
        return then(state), TimeStep(zeros, zeros, jnp.zeros(()), False, False, {})

    return Environment("stateful", lambda key: (first, zeros), step, VECTOR, 1)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"n": 0, "x": 0.0}, lambda s: {"n": s["n"] + 1, "x": s["x"] + 1}),
        ({"n": 0}, lambda s: {"n": 1}),
        ({"x": jnp.zeros(())}, lambda s: {"x": 1}),
        ({"x": jnp.zeros(())}, lambda s: {"x": s["x"].astype(jnp.float16)}),
        ({"x": jnp.zeros((), jnp.float16)}, lambda s: {"x": jnp.float32(1.0)}),
        ({"n": np.int64(0)}, lambda s: {"n": jnp.int8(1)}),
        ([np.zeros(3), None, ()], lambda s: [s[0] + 1, None, ()]),
    ],
)
def test_a_state_keeps_the_types_of_its_reset(first, then):
    env = envs.training_environment(stateful(first, then), 3)
    state, _ = env.reset(jax.random.split(jax.random.key(0), 2))
    after, _ = jax.lax.scan(env.step, state, jnp.zeros((4, 2, 1)))
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)


scalar = lambda *shape, dtype=jnp.float32: jnp.zeros(shape, dtype)
STATE = {"arm": {"angle": scalar(2)}, "steps": scalar(dtype=jnp.int32)}
SENTENCES = [
    (custom(reward=lambda x: jnp.ones(3)), "custom: reward has shape [3]; it must be a scalar."),
    (custom(reward=lambda x: x + 1j), "custom: reward is complex64; it must be a real number."),
    (custom(reward=lambda x: "much"), "custom: reward is 'much' (str); jax has no array of it."),
    (custom(reward=lambda x: None), "custom: reward is None; jax has no array of it."),
    (custom(flag=jnp.zeros((2,), bool)), "custom: terminated has shape [2]; it must be a scalar."),
    (
        custom(metrics=lambda x: {"pose": jnp.ones(3)}),
        "custom: metrics['pose'] has shape [3]; it must be a scalar.",
    ),
    (
        custom(metrics=lambda x: [x]),
        "custom: metrics is a list of 0; it must be a dict of scalars.",
    ),
    (
        custom(observe=lambda x: jnp.ones(3)),
        "custom: observation of reset has shape [3]; [2] was declared.",
    ),
    (
        custom(observe=lambda x: {"a": jnp.ones(2)}),
        "custom: observation of reset is a dict of 'a'; an array was declared.",
    ),
    (
        custom(
            observe=lambda x: {"state": {"a": x, "c": x}},
            spec={"state": {"a": VECTOR, "b": VECTOR}},
        ),
        "custom: observation of reset['state'] is a dict of 'a', 'c'; a dict of 'a', 'b' was declared.",
    ),
    (
        custom(observe=lambda x: jnp.ones(2) * 1j),
        "custom: observation of reset is complex64; float32 was declared.",
    ),
    (
        custom(spec=jax.ShapeDtypeStruct((2,), jnp.int32)),
        "custom: observation of reset is float32; int32 was declared.",
    ),
    (
        custom(observe=lambda x: Pair(x, "far"), spec=Pair(scalar(), scalar())),
        "custom: observation of reset.far is 'far' (str); jax has no array of it.",
    ),
    (
        custom(spec=(3,)),
        "custom: observation[0] is declared as 3 (int); it must have a shape and a dtype",
    ),
    (custom(spec={}), "custom: observation is declared without a single array."),
    (
        custom(actor_part="eyes", spec={"state": VECTOR}),
        "custom: actor_part is 'eyes', but the observation has no part 'eyes'; its parts are 'state'.",
    ),
    (
        custom(action_size=0),
        "custom: action_size is 0; it must be a whole number of at least 1.",
    ),
    (custom(action_size=2.0), "custom: action_size is 2.0; it must be a whole number"),
    (custom(episode_length=0), "custom: episode_length is 0; it must be a whole number"),
    (
        custom(action_scale=(1.0, 2.0)),
        "custom: action_scale has shape [2]; it must be one number or one for each of the 1 entries",
    ),
    (custom(action_scale=-1.0), "custom: action_scale is -1.0; it must be positive."),
    (
        custom(reset=lambda key: jnp.zeros(2)),
        "custom: reset gave an array; it must give (state, observation).",
    ),
    (
        custom(reset=lambda key: (1.0, jnp.zeros(2), {})),
        "custom: reset gave a tuple of 0, 1, 2; it must give (state, observation).",
    ),
    (
        custom(step=lambda state, action: (state, (1.0, True))),
        "custom: step gave a tuple of 0, 1 as second; it must be a TimeStep.",
    ),
    (
        stateful(STATE, lambda s: {**s, "arm": {"angle": scalar(3)}}),
        "stateful: state['arm']['angle'] has shape [3]; [2] was there before step, and must stay.",
    ),
    (
        stateful(STATE, lambda s: {**s, "steps": s["steps"] + 0.5}),
        "stateful: state['steps'] is float32; int32 was there before step, and must stay.",
    ),
    (
        stateful(STATE, lambda s: {**s, "arm": {**s["arm"], "speed": scalar()}}),
        "stateful: state['arm'] is a dict of 'angle', 'speed' after step, but was a dict of 'angle' before;",
    ),
    (
        stateful(STATE, lambda s: {**s, "arm": None}),
        "stateful: state['arm'] is None after step, but was a dict of 'angle' before;",
    ),
    (
        stateful(["name"], lambda s: s),
        "stateful: state of reset[0] is 'name' (str); jax has no array of it.",
    ),
    (
        stateful(STATE, lambda s: s)._replace(refresh=lambda s: {**s, "steps": scalar(2)}),
        "stateful: state['steps'] has shape [2]; [] was there before refresh, and must stay.",
    ),
]


@pytest.mark.parametrize(
    ("env", "sentence"), SENTENCES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_what_cannot_fit_is_one_sentence(env, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        envs.conform(env)
    assert str(error.value).startswith(sentence)
    assert type(error.value) is ValueError
    assert not getattr(error.value, "__notes__", [])
    with pytest.raises(ValueError):  # noqa: PT011
        envs.training_environment(env, 10)


def test_an_error_of_the_environment_itself_says_which_one_it_was():
    with pytest.raises(ZeroDivisionError) as error:
        envs.conform(custom(reward=lambda x: 1 / 0))
    assert any("step of the environment custom" in note for note in error.value.__notes__)


def test_steps_that_change_their_state_in_place_reach_nobody():
    def reset(key):
        return {"info": {"steps": jnp.zeros(())}, "list": [jnp.zeros(())]}, jnp.zeros(2)

    def step(state, action):
        state["info"]["steps"] += 1.0
        state["list"].append(state["list"].pop() + 2.0)
        seen = jnp.stack([state["info"]["steps"], state["list"][0]])
        return state, TimeStep(seen, seen, state["info"]["steps"], False, False, {})

    def refresh(state):
        state["info"]["steps"] *= 1.0
        return state

    nasty = Environment("nasty", reset, step, VECTOR, 1, episode_length=4, refresh=refresh)
    same = envs.conform(nasty)
    transformed = {
        "conform": same,
        "time_limit": envs.time_limit(same, 3),
        "contain_nan": envs.contain_nan(same),
        "auto_reset": envs.auto_reset(envs.time_limit(same, 2)),
        "random_start_age": envs.random_start_age(envs.auto_reset(envs.time_limit(same, 2)), 2),
        "action_repeat": envs.action_repeat(same, 2),
        "scale_reward": envs.scale_reward(same, 2.0),
        "clip_action": envs.clip_action(same),
        "action_range": envs.action_range(same, 0.0, 1.0),
        "flatten_observation": envs.flatten_observation(same),
        "containers": envs.conform(probes.containers(same)),
        "nan_bomb": probes.nan_bomb(same, 0.5),
        "outlier": probes.outlier(same, 0.5),
        "nan_reset": probes.nan_reset(same, 0.5),
    }
    for name, env in transformed.items():
        for context in (jax.disable_jit(False), jax.disable_jit(True)):
            with context:
                state, _ = env.reset(jax.random.key(0))
                before = jax.tree.map(np.asarray, jax.tree.leaves(_numbers(state)))
                one = env.step(state, jnp.zeros(1))
                env.refresh(state)
                two = env.step(state, jnp.zeros(1))
            after = jax.tree.map(np.asarray, jax.tree.leaves(_numbers(state)))
            np.testing.assert_equal(after, before, err_msg=name)
            np.testing.assert_equal(
                *[jax.tree.map(np.asarray, jax.tree.leaves(_numbers(x))) for x in (one, two)],
                err_msg=name,
            )


def _numbers(tree):
    """Typed keys as numbers."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def test_what_went_through_once_is_itself_and_traced_no_more():
    traces = []
    inner = custom()

    def step(state, action):
        traces.append(1)
        return inner.step(state, action)

    env = envs.conform(inner._replace(step=step))
    assert envs.conform(env) is env
    stack = envs.training_environment(env, 5)
    state, _ = stack.reset(jax.random.split(jax.random.key(0), 3))
    jax.jit(stack.step)(state, jnp.zeros((3, 1)))
    evaluation = envs.batch(envs.contain_nan(envs.time_limit(env, 5)))
    state, _ = evaluation.reset(jax.random.split(jax.random.key(0), 2))
    jax.jit(evaluation.step)(state, jnp.zeros((2, 1)))
    assert len(traces) == 1
    # A changed function is looked at again.
    assert envs.conform(env._replace(reset=inner.reset)) is not env


def test_a_conformed_environment_computes_the_same():
    for probe in (probes.match_observation(), probes.two_step_credit(), probes.nan_bomb(custom())):
        plain, checked = probe, envs.conform(probe)
        results = []
        for env in (plain, checked):
            state, first = env.reset(jax.random.key(4))
            results.append((first, jax.lax.scan(env.step, state, jnp.zeros((20, 1)))[1]))
        jax.tree.map(np.testing.assert_array_equal, *results)


def test_legacy_keys_and_other_key_types_pass():
    env = envs.conform(probes.match_observation())
    for key in (jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")):
        state, _ = env.reset(key)
        state, _ = env.step(state, jnp.zeros(1))
        assert state.key.dtype == key.dtype


def test_an_environment_may_close_over_values_that_are_being_traced():
    @jax.jit
    @jax.grad
    def slope(gain):
        env = envs.conform(custom(reward=lambda x: gain * x))
        state, _ = env.reset(jax.random.key(0))
        return env.step(state, jnp.zeros(1))[1].reward

    assert slope(3.0) == 1.0


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("state", [1.0]),
        ("robot.arm", (2.0, 3.0)),
        ("robot.arm.1", 3.0),
        ("robot.pair.far", 5.0),
        ("a.b", 6.0),
        ("a.c.d", 7.0),
        ("sensors.speed", 8.0),
        ("3", 10.0),
    ],
)
def test_parts_are_named_by_keys_fields_indices_and_paths(part, expected):
    observation = {
        "state": [1.0],
        "robot": {"arm": (2.0, 3.0), "pair": Pair(4.0, 5.0)},
        "a.b": 6.0,
        "a": {"c.d": 7.0},
        "sensors": Sensors(8.0, 9.0),
        3: 10.0,
    }
    assert envs.select_part(observation, part) == expected


def test_the_default_part_of_what_is_no_mapping_is_all_of_it():
    assert envs.select_part((1.0, 2.0), "state") == (1.0, 2.0)
    assert envs.select_part(Pair(1.0, 2.0), "state") == Pair(1.0, 2.0)
    assert envs.select_part(Pair(1.0, 2.0), "near") == 1.0
    assert envs.select_part(jnp.ones(()), "anything") == 1.0


@pytest.mark.parametrize(
    ("observation", "part", "sentence"),
    [
        (Pair(1, 2), "left", "the observation has no part 'left'; its parts are 'near', 'far'."),
        ((1, 2), "2", "the observation has no part '2'; its parts are '0', '1'."),
        ({"a": 1}, "state", "the observation has no part 'state'; its parts are 'a'."),
        ({"a": {"b": 1}}, "a.c", "the observation's part 'a' has no part 'c'; its parts are 'b'."),
        ({"a": {"b": 1}}, "a.b.c", "the observation's part 'a.b' has no part 'c'; it has none."),
        ({"a": 1}, "", "the observation has no part ''; its parts are 'a'."),
    ],
)
def test_an_unknown_part_is_named_with_those_there_are(observation, part, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        envs.select_part(observation, part)
    assert str(error.value) == sentence
