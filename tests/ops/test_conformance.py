"""What every op promises to every caller, checked from one table."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from reppo_fx import ops

# One size for features, bins, and actions: eager calls compile one program per operation and shape.
ROWS, STATES, MEMBERS, FEATURES = 5, 2, 4, 3

# Inputs without batch axes; the scalars among them may also be given as Python floats.
SCALARS = {
    "discount": 0.9,
    "trace_decay": 0.8,
    "temperature": 0.3,
    "multiplier": 2.0,
    "kl_target": 0.1,
    "target_entropy": -0.5,
    "learning_rate": 0.05,
    "sigma_ratio": 0.6,
    "variance_floor": 0.02,
    "clip": 1e-3,
    "v_min": -2.0,
    "v_max": 3.0,
}
UNBATCHED = {*SCALARS, "key", "support", "params", "duals", "statistics", "example", "scale"}

SGD = optax.sgd(0.1)
# optax.adam itself promotes: it raises a float to the power of its int32 step count.
NOT_STRICT = {"dual_update"}
# States are made of JAX's default floating-point type, whatever their example has.
DEFAULT_DTYPE = {"dual_init", "dual_update", "hl_gauss_support", "statistics_init"}


def wide(dtype):
    return jnp.dtype(dtype) if jnp.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)


class Draw:
    """Random example inputs of one dtype and batch shape; another seed gives other values."""

    def __init__(self, seed, dtype=jnp.float32, batch=(ROWS,)):
        self.rng, self.dtype, self.batch, self.seed = (
            np.random.default_rng(seed),
            dtype,
            batch,
            seed,
        )

    def normal(self, *features):
        return jnp.asarray(self.rng.normal(size=(*self.batch, *features)), self.dtype)

    def positive(self, *features):
        return jnp.asarray(self.rng.uniform(0.2, 1.5, size=(*self.batch, *features)), self.dtype)

    def actions(self, *features):
        return jnp.asarray(self.rng.uniform(-0.9, 0.9, size=(*self.batch, *features)), self.dtype)

    def choices(self):
        return jnp.asarray(self.rng.integers(FEATURES, size=self.batch), jnp.int32)

    def kl(self):
        return jnp.asarray(self.rng.uniform(0.0, 0.2, size=self.batch), self.dtype)

    def flags(self):
        return jnp.asarray(self.rng.uniform(size=self.batch) < 0.3)

    def key(self):
        return jax.random.key(self.seed)

    def scalars(self, *names):
        scale = 1.0 + 0.1 * self.rng.uniform()
        return {name: jnp.asarray(SCALARS[name] * scale, self.dtype) for name in names}

    def support(self):
        return jnp.asarray(np.linspace(-2.0, 3.0, FEATURES), self.dtype)

    def scale(self):
        return jnp.asarray(self.rng.uniform(0.5, 2.0, size=FEATURES), self.dtype)

    def dual_params(self):
        return ops.DualParams(*jnp.asarray(self.rng.normal(size=2), self.dtype))

    def duals(self, optimizer=None):
        # A state as after some steps, so that no moment is zero.
        duals = ops.dual_init(0.5, 2.0, optimizer)
        return jax.tree.map(lambda x: x + jnp.asarray(1 + self.seed, x.dtype), duals)

    def statistics(self):
        shapes = {"state": (FEATURES,), "speed": ()}
        dtype = wide(self.dtype)  # statistics never have less
        arrays = [
            {name: jnp.asarray(draw(size=shape), dtype) for name, shape in shapes.items()}
            for draw in (self.rng.normal, self.rng.random)
        ]
        count, rest = jnp.asarray([10.0 + self.seed, 0.0], dtype)
        return ops.RunningStatistics(*arrays, count, rest)

    def observations(self):
        return {"state": self.normal(FEATURES), "speed": self.normal()}


class Op(NamedTuple):
    """A public function, its static choices bound, and how to draw its inputs by name."""

    name: str
    call: Callable[..., Any]
    inputs: Callable[[Draw], dict[str, Any]]
    # "each": the output keeps the batch axes, one result for each; "all": one result for the batch;
    # "none": no batch axes, or noise of the batch's own shape.
    batch: str = "each"
    variant: str = ""


def bind(function, **static):
    """`function` by keyword, with its static choices; a new object, so that nothing is cached."""
    return lambda **inputs: function(**inputs, **static)


def trajectory(draw):
    ends = {"terminated": draw.flags(), "truncated": draw.flags()}
    rows = {"rewards": draw.normal(), "next_values": draw.normal()}
    return rows | ends | draw.scalars("discount", "trace_decay")


def constrained(draw):
    return {"kl": draw.kl()} | draw.scalars("multiplier", "kl_target")


def four_policies(draw):
    old = {"mean_old": draw.normal(FEATURES), "std_old": draw.positive(FEATURES)}
    return old | {"mean_new": draw.normal(FEATURES), "std_new": draw.positive(FEATURES)}


def policy(draw):
    return {"mean": draw.normal(FEATURES), "std": draw.positive(FEATURES)}


def score_inputs(draw):
    arrays = {"log_probs": draw.normal(), "advantages": draw.normal()}
    return arrays | constrained(draw) | draw.scalars("temperature")


def dual_batch(draw):
    batch = {"entropy": draw.normal(), "kl": draw.kl()}
    return batch | draw.scalars("target_entropy", "kl_target")


TABLE = [
    Op(
        "categorical_entropy",
        bind(ops.categorical_entropy),
        lambda d: {"logits": d.normal(FEATURES)},
    ),
    Op(
        "categorical_kl",
        bind(ops.categorical_kl),
        lambda d: {"logits_old": d.normal(FEATURES), "logits_new": d.normal(FEATURES)},
    ),
    Op(
        "categorical_log_prob",
        bind(ops.categorical_log_prob),
        lambda d: {"logits": d.normal(FEATURES), "action": d.choices()},
    ),
    Op(
        "categorical_mean",
        bind(ops.categorical_mean),
        lambda d: {"logits": d.normal(FEATURES), "values": d.normal(FEATURES)},
    ),
    Op(
        "categorical_sample",
        bind(ops.categorical_sample),
        lambda d: {"key": d.key(), "logits": d.normal(FEATURES)},
        "none",
    ),
    Op("dual_init", bind(ops.dual_init), lambda d: d.scalars("temperature", "multiplier"), "none"),
    Op(
        "dual_loss",
        bind(ops.dual_loss),
        lambda d: {"params": d.dual_params(), **dual_batch(d)},
        "all",
    ),
    Op(
        "dual_update",
        bind(ops.dual_update),
        lambda d: {"duals": d.duals(), **dual_batch(d), **d.scalars("learning_rate")},
        "all",
    ),
    Op(
        "dual_update",
        bind(ops.dual_update, optimizer=SGD),
        lambda d: {"duals": d.duals(SGD), **dual_batch(d)},
        "all",
        variant="sgd",
    ),
    Op(
        "entropy_regularized_rewards",
        bind(ops.entropy_regularized_rewards),
        lambda d: {
            "rewards": d.normal(),
            "next_log_probs": d.normal(),
            "terminated": d.flags(),
            **d.scalars("temperature", "discount"),
        },
    ),
    Op(
        "expected_actor_loss",
        bind(ops.expected_actor_loss),
        lambda d: {
            "q_values": d.normal(FEATURES),
            "logits": d.normal(FEATURES),
            **constrained(d),
            **d.scalars("temperature"),
        },
    ),
    Op(
        "generalized_advantages",
        bind(ops.generalized_advantages),
        lambda d: {"values": d.normal(), **trajectory(d)},
    ),
    Op(
        "cross_entropy",
        bind(ops.cross_entropy),
        lambda d: {
            "logits": d.normal(FEATURES),
            "probabilities": jax.nn.softmax(d.normal(FEATURES)),
        },
    ),
    Op(
        "hl_gauss_loss",
        bind(ops.hl_gauss_loss),
        lambda d: {
            "logits": d.normal(FEATURES),
            "targets": d.normal(),
            "support": d.support(),
            **d.scalars("sigma_ratio"),
        },
    ),
    Op(
        "hl_gauss_support",
        bind(ops.hl_gauss_support, num_bins=FEATURES),
        lambda d: d.scalars("v_min", "v_max"),
        "none",
    ),
    Op(
        "hl_gauss_targets",
        bind(ops.hl_gauss_targets),
        lambda d: {"values": d.normal(), "support": d.support(), **d.scalars("sigma_ratio")},
    ),
    Op(
        "hl_gauss_value",
        bind(ops.hl_gauss_value),
        lambda d: {"logits": d.normal(FEATURES), "support": d.support()},
    ),
    *(
        Op(
            "kl_constrained",
            bind(ops.kl_constrained, kl_constraint=rule),
            lambda d: {"improvement": d.normal(), **constrained(d)},
            variant=rule,
        )
        for rule in ("clipped", "penalty", "none")
    ),
    Op("lambda_returns", bind(ops.lambda_returns), trajectory),
    Op(
        "lambda_returns",
        bind(ops.lambda_returns),
        lambda d: {**trajectory(d), "trace_weights": d.positive()},
        variant="trace_weights",
    ),
    Op(
        "pathwise_actor_loss",
        bind(ops.pathwise_actor_loss),
        lambda d: {
            "q_values": d.normal(),
            "log_probs": d.normal(),
            **constrained(d),
            **d.scalars("temperature"),
        },
    ),
    Op("score_function_actor_loss", bind(ops.score_function_actor_loss), score_inputs),
    Op(
        "score_function_actor_loss",
        bind(ops.score_function_actor_loss),
        lambda d: {**score_inputs(d), "behavior_log_probs": d.normal()},
        variant="behavior",
    ),
    Op(
        "self_prediction_loss",
        bind(ops.self_prediction_loss),
        lambda d: {
            "predicted_embeddings": d.normal(FEATURES),
            "next_embeddings": d.normal(FEATURES),
            "predicted_rewards": d.normal(),
            "rewards": d.normal(),
            "terminated": d.flags(),
        },
    ),
    Op(
        "squared_value_loss",
        bind(ops.squared_value_loss),
        lambda d: {"values": d.normal(), "targets": d.normal()},
    ),
    Op(
        "statistics_init",
        bind(ops.statistics_init),
        lambda d: {"example": d.statistics().mean},
        "none",
    ),
    Op(
        "statistics_normalize",
        bind(ops.statistics_normalize),
        lambda d: {
            "statistics": d.statistics(),
            "batch": d.observations(),
            **d.scalars("variance_floor"),
        },
    ),
    Op(
        "statistics_update",
        bind(ops.statistics_update),
        lambda d: {"statistics": d.statistics(), "batch": d.observations()},
        "all",
    ),
    Op(
        "tanh_normal_entropy",
        bind(ops.tanh_normal_entropy, num_samples=4),
        lambda d: {"key": d.key(), **policy(d)},
        "none",
    ),
    Op("tanh_normal_kl", bind(ops.tanh_normal_kl), four_policies),
    Op(
        "tanh_normal_kl_sampled",
        bind(ops.tanh_normal_kl_sampled, num_samples=4),
        lambda d: {"key": d.key(), **four_policies(d)},
        "none",
    ),
    Op(
        "tanh_normal_kl_sampled",
        bind(ops.tanh_normal_kl_sampled, num_samples=4),
        lambda d: {"key": d.key(), **four_policies(d), **d.scalars("clip")},
        "none",
        variant="clip",
    ),
    Op(
        "tanh_normal_log_prob",
        bind(ops.tanh_normal_log_prob),
        lambda d: {**policy(d), "action": d.actions(FEATURES), **d.scalars("clip")},
        variant="action",
    ),
    Op(
        "tanh_normal_log_prob",
        bind(ops.tanh_normal_log_prob),
        lambda d: {**policy(d), "pre_tanh": d.normal(FEATURES)},
        variant="pre_tanh",
    ),
    Op("tanh_normal_mode", bind(ops.tanh_normal_mode), lambda d: {"mean": d.normal(FEATURES)}),
    Op(
        "tanh_normal_sample",
        bind(ops.tanh_normal_sample),
        lambda d: {"key": d.key(), **policy(d)},
        "none",
    ),
    *(
        Op(name, bind(function), inputs, batch, variant="scale")
        for name, function, inputs, batch in (
            (
                "tanh_normal_entropy",
                ops.tanh_normal_entropy,
                lambda d: {"key": d.key(), **policy(d), "scale": d.scale()},
                "none",
            ),
            (
                "tanh_normal_log_prob",
                ops.tanh_normal_log_prob,
                lambda d: {**policy(d), "action": d.actions(FEATURES) * 0.5, "scale": d.scale()},
                "each",
            ),
            (
                "tanh_normal_mode",
                ops.tanh_normal_mode,
                lambda d: {"mean": d.normal(FEATURES), "scale": d.scale()},
                "each",
            ),
            (
                "tanh_normal_sample",
                ops.tanh_normal_sample,
                lambda d: {"key": d.key(), **policy(d), "scale": d.scale()},
                "none",
            ),
        )
    ),
]


class Compiled:
    """One compiled program per op for the whole file, and how often it was traced."""

    def __init__(self, op):
        self.traces = 0
        self.call = jax.jit(self._counted)
        self.op = op

    def _counted(self, **inputs):
        self.traces += 1
        return self.op.call(**inputs)


def label(op):
    return f"{op.name}-{op.variant}" if op.variant else op.name


COMPILED = {label(op): Compiled(op) for op in TABLE}
every_op = pytest.mark.parametrize("op", TABLE, ids=label)


def assert_close(actual, expected):
    """Equal up to the order of some ten float32 roundings of numbers of order one to ten."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), actual, expected
    )


def with_python_scalars(inputs):
    return {name: float(x) if name in SCALARS else x for name, x in inputs.items()}


def of_batch(function, inputs):
    """`function` of every input that has batch axes, the others as they are."""
    return {
        name: x if name in UNBATCHED else jax.tree.map(function, x) for name, x in inputs.items()
    }


def stack(*leaves):
    # In numpy where it can be: it need not compile.
    is_key = jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key)
    return jnp.stack(leaves) if is_key else np.stack(leaves)


def float_dtypes(tree):
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert leaves
    return {x.dtype for x in leaves}


def test_the_table_covers_every_public_function():
    functions = {name for name in ops.__all__ if not isinstance(getattr(ops, name), type)}
    assert functions == {op.name for op in TABLE}


@every_op
def test_compiled_equals_eager_and_new_values_do_not_trace_again(op):
    compiled = COMPILED[label(op)]
    first, second = op.inputs(Draw(seed=0)), op.inputs(Draw(seed=1))
    assert_close(compiled.call(**first), op.call(**first))
    traces = compiled.traces
    assert traces > 0
    assert_close(compiled.call(**second), op.call(**second))
    assert compiled.traces == traces


@every_op
def test_vmap_equals_a_loop(op):
    members = [op.inputs(Draw(seed=seed)) for seed in range(MEMBERS)]
    stacked = jax.tree.map(stack, *members)
    outputs = jax.device_get(jax.jit(jax.vmap(lambda inputs: op.call(**inputs)))(stacked))
    for k, member in enumerate(members):
        assert_close(jax.tree.map(lambda x, k=k: x[k], outputs), COMPILED[label(op)].call(**member))


@pytest.mark.parametrize("op", [op for op in TABLE if op.batch == "each"], ids=label)
def test_further_batch_axes_are_treated_one_by_one(op):
    inputs = jax.device_get(op.inputs(Draw(seed=0, batch=(ROWS, STATES))))
    outputs = jax.device_get(jax.jit(op.call)(**inputs))
    for k in range(STATES):
        column = of_batch(lambda x, k=k: x[:, k], inputs)
        expected = COMPILED[label(op)].call(**column)
        assert_close(jax.tree.map(lambda x, k=k: x[:, k], outputs), expected)


@pytest.mark.parametrize("op", [op for op in TABLE if op.batch == "all"], ids=label)
def test_all_batch_axes_are_summed_up_as_one(op):
    inputs = jax.device_get(op.inputs(Draw(seed=0, batch=(ROWS, STATES))))
    flat = of_batch(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
    assert_close(jax.jit(op.call)(**inputs), jax.jit(op.call)(**flat))


@pytest.mark.parametrize("op", [op for op in TABLE if label(op) not in NOT_STRICT], ids=label)
@pytest.mark.parametrize("scalars", ["array", "python"])
def test_float32_stays_float32_without_any_implicit_promotion_of_dtype_or_rank(op, scalars):
    inputs = op.inputs(Draw(seed=0))
    inputs = with_python_scalars(inputs) if scalars == "python" else inputs
    static = {name: x for name, x in inputs.items() if isinstance(x, float)}
    arrays = {name: x for name, x in inputs.items() if name not in static}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        outputs = jax.eval_shape(lambda **arrays: op.call(**arrays, **static), **arrays)
    assert float_dtypes(outputs) == {jnp.dtype("float32")}


@every_op
@pytest.mark.parametrize("scalars", ["array", "python"])
def test_float64_stays_float64(op, scalars):
    with jax.enable_x64(True):
        inputs = op.inputs(Draw(seed=0, dtype=jnp.float64))
        inputs = with_python_scalars(inputs) if scalars == "python" else inputs
        static = {name: x for name, x in inputs.items() if isinstance(x, float)}
        arrays = {name: x for name, x in inputs.items() if name not in static}
        outputs = jax.eval_shape(lambda **arrays: op.call(**arrays, **static), **arrays)
    assert float_dtypes(outputs) == {jnp.dtype("float64")}


@pytest.mark.parametrize("op", [op for op in TABLE if op.name not in DEFAULT_DTYPE], ids=label)
@pytest.mark.parametrize("scalar_type", [float, np.float64])
def test_float32_stays_float32_where_float64_is_allowed(op, scalar_type):
    with jax.enable_x64(True):
        inputs = op.inputs(Draw(seed=0, dtype=jnp.float32))
        inputs |= {name: scalar_type(x) for name, x in inputs.items() if name in SCALARS}
        outputs = jax.eval_shape(lambda: op.call(**inputs))
    assert float_dtypes(outputs) == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("name", "carried"),
    [("dual_update", "duals"), ("dual_update-sgd", "duals"), ("statistics_update", "statistics")],
)
def test_updates_return_the_state_they_were_given_in_structure_shape_and_dtype(name, carried):
    (op,) = (op for op in TABLE if label(op) == name)
    inputs = op.inputs(Draw(seed=0))
    before, after = inputs[carried], jax.eval_shape(lambda: op.call(**inputs))
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)


HALF = [jnp.float16, jnp.bfloat16]


def cast(tree, dtype):
    """Every floating-point array of a tree in another dtype."""
    floats = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(dtype) if floats(x) else x, tree)


def assert_rounded_once(actual, expected, dtype):
    """Equal up to a rounding of the result to `dtype`, and float32's own roundings before."""
    step = float(jnp.finfo(dtype).eps)
    rtol, atol = (step, 2e-5) if step > 1e-5 else (2e-4, 2e-4)

    def close(a, b):
        np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=rtol, atol=atol)

    jax.tree.map(close, actual, expected)


@every_op
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_computed_in_float32_and_rounded_once(op, dtype):
    inputs = op.inputs(Draw(seed=0, dtype=dtype))
    outputs = jax.jit(op.call)(**inputs)
    expected = COMPILED[label(op)].call(**cast(inputs, jnp.float32))
    kept = {"statistics_update"} | DEFAULT_DTYPE
    assert float_dtypes(outputs) == {jnp.dtype(jnp.float32 if op.name in kept else dtype)}
    assert_rounded_once(outputs, expected, dtype)


class Extreme(Draw):
    """Inputs at the ends of a dtype: `big` fits as it is, `root` when it is squared, `tiny` is no 0."""

    def __init__(self, dtype):
        super().__init__(seed=0, dtype=dtype)
        self.big, self.tiny = (2e3, 6e-8) if dtype == jnp.float16 else (1e30, 1e-30)
        self.root = 0.1 * self.big**0.5

    def rows(self, *values):
        return jnp.asarray(
            np.stack([np.asarray(value, np.float64) for value in values]), self.dtype
        )

    def mask(self, *values):
        return jnp.asarray(values, bool)


def extreme_paths(d):
    b, nan = d.big / 10, np.nan
    return {
        "rewards": d.rows(b, -b, d.tiny, b, 0.0),
        "next_values": d.rows(nan, b, nan, -d.tiny, -b),
        "terminated": d.mask(1, 0, 1, 0, 0),
        "truncated": d.mask(0, 1, 1, 0, 0),
    }


def extreme_states(d):
    """Per state; NaN and infinities where the KL is beyond its target."""
    b, inf, nan = d.big / 10, np.inf, np.nan
    return {
        "improvement": d.rows(b, -b, nan, inf, d.tiny),
        "q_values": d.rows(b, -b, nan, inf, d.tiny),
        "advantages": d.rows(d.root, -d.root, nan, inf, d.tiny),
        "kl": d.rows(0.0, d.tiny, b, 1.0, -d.tiny),
    }


def among(inputs, *names):
    return {name: inputs[name] for name in names}


MASKED = [[0.0, -np.inf, 1.0], [np.inf, 0.0, 1.0], [-np.inf, -np.inf, 0.0], [9.0, -9.0, 0.0]]


def masked_logits(d):
    big = d.big / 4
    return d.rows(*MASKED, [big, -big, -np.inf])


# What replaces an op's ordinary inputs.
EXTREMES = {
    "categorical_entropy": lambda d: {"logits": masked_logits(d)},
    "categorical_kl": lambda d: {
        "logits_old": masked_logits(d),
        # Rules out nothing that the old one takes.
        "logits_new": d.rows(
            [1.0, -np.inf, d.tiny],
            [0.0, 1.0, 2.0],
            [-np.inf, 0.0, d.big / 4],
            [-9.0, 9.0, 0.0],
            [0.0] * 3,
        ),
    },
    "categorical_log_prob": lambda d: {
        "logits": masked_logits(d),
        "action": jnp.asarray([2, 0, 2, 1, 1 if d.dtype == jnp.float16 else 0], jnp.int32),
    },
    "categorical_mean": lambda d: {
        "logits": masked_logits(d),
        "values": d.rows(
            [1.0, np.nan, 2.0],
            [-1.0, np.inf, np.nan],
            [np.nan, np.inf, d.big],
            [d.root, -d.root, 0.0],
            [d.tiny, np.nan if d.dtype != jnp.float16 else 0.0, -np.inf],
        ),
    },
    "categorical_sample": lambda d: {"logits": masked_logits(d)},
    "dual_init": lambda d: {
        "temperature": jnp.asarray(d.tiny, d.dtype),
        "multiplier": jnp.asarray(d.big, d.dtype),
    },
    "dual_loss": lambda d: {
        "params": ops.DualParams(*jnp.zeros(2, d.dtype)),
        "entropy": d.rows(d.big, -d.big, d.tiny, 0.0, d.big / 2),
        "kl": d.rows(d.big / 4, 0.0, d.tiny, 0.0, 0.0),
    },
    "dual_update": lambda d: {
        "entropy": d.rows(d.root, d.root, -d.root, 0.0, d.tiny),
        "kl": d.rows(d.root, d.root, 0.0, 0.0, d.tiny),
    },
    "entropy_regularized_rewards": lambda d: {
        "rewards": d.rows(d.big, -d.big, d.tiny, 0.0, 1.0),
        "next_log_probs": d.rows(np.nan, d.big, -d.big, np.inf, -np.inf),
        "terminated": d.mask(1, 0, 0, 1, 1),
    },
    "expected_actor_loss": lambda d: {
        "q_values": d.rows(
            [1.0, -np.inf, 2.0],
            [-1.0, np.nan, np.nan],
            [np.nan, np.inf, d.root],
            [d.root, -d.root, 0.0],
            [np.nan] * 3,
        ),
        "logits": masked_logits(d),
        "kl": d.rows(0.0, 0.0, 0.0, 0.0, 1.0),
    },
    "generalized_advantages": lambda d: {
        **extreme_paths(d),
        "values": d.rows(d.big / 10, -d.tiny, 0.0, 1.0, -d.big / 10),
    },
    "lambda_returns": extreme_paths,
    "cross_entropy": lambda d: {
        "logits": masked_logits(d),
        "probabilities": d.rows(
            [0.5, 0.0, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [d.tiny, 1.0, 0.0], [1.0, 0.0, 0.0]
        ),
    },
    "hl_gauss_loss": lambda d: {
        "logits": masked_logits(d)[::-1],
        "targets": d.rows(-np.inf, 0.5, np.inf, -d.big, 3.0),
        "sigma_ratio": jnp.asarray(0.01, d.dtype),
    },
    "hl_gauss_support": lambda d: {
        "v_min": jnp.asarray(-d.big, d.dtype),
        "v_max": jnp.asarray(d.big, d.dtype),
    },
    "hl_gauss_targets": lambda d: {
        "values": d.rows(-np.inf, np.inf, d.big, -d.tiny, 0.5),
        "sigma_ratio": jnp.asarray(1e-3, d.dtype),
    },
    "hl_gauss_value": lambda d: {"logits": masked_logits(d)},
    "kl_constrained-clipped": lambda d: among(extreme_states(d), "improvement", "kl"),
    "kl_constrained-penalty": lambda d: {
        "improvement": d.rows(d.big, -d.big, 0.0, d.tiny, 1.0),
        "kl": d.rows(0.0, d.big, d.tiny, 1.0, 0.0),
    },
    "kl_constrained-none": lambda d: {
        "improvement": d.rows(d.big, -d.big, 0.0, d.tiny, 1.0),
        "kl": d.rows(np.nan, np.inf, d.big, -np.inf, 0.0),
    },
    "pathwise_actor_loss": lambda d: {
        **among(extreme_states(d), "q_values", "kl"),
        "log_probs": d.rows(-d.big, d.big, np.nan, -np.inf, d.tiny),
    },
    "score_function_actor_loss": lambda d: {
        **among(extreme_states(d), "advantages", "kl"),
        "log_probs": d.rows(-d.root, d.root, np.nan, -np.inf, d.tiny),
    },
    "score_function_actor_loss-behavior": lambda d: {
        **among(extreme_states(d), "advantages", "kl"),
        "log_probs": d.rows(-d.root, d.root, np.nan, -np.inf, d.tiny),
        "behavior_log_probs": d.rows(-d.root, d.root, np.nan, -np.inf, 1.0),
    },
    "self_prediction_loss": lambda d: {
        "predicted_embeddings": d.rows(
            [d.root] * 3, [d.tiny] * 3, [1.0] * 3, [0.0] * 3, [-1.0] * 3
        ),
        "next_embeddings": d.rows([-d.root] * 3, [0.0] * 3, [np.nan] * 3, [np.inf] * 3, [1.0] * 3),
        "rewards": d.rows(d.root, d.tiny, np.nan, -np.inf, 0.0),
        "terminated": d.mask(0, 0, 1, 1, 0),
    },
    "squared_value_loss": lambda d: {
        "values": d.rows(d.root, -d.root, d.tiny, 0.0, 1.0),
        "targets": d.rows(-d.root, 0.0, -d.tiny, 0.0, d.root),
    },
    "statistics_init": lambda d: {
        "example": {
            "flag": jnp.zeros(2, bool),
            "pixels": jnp.zeros(3, jnp.uint8),
            "x": d.rows(d.big),
        }
    },
    "statistics_normalize": lambda d: {
        "batch": {
            "state": d.rows([d.big / 10] * 3, [d.tiny] * 3, [0.0] * 3, [1.0] * 3, [-1.0] * 3),
            "speed": d.rows(-d.big / 10, d.tiny, 0.0, 1.0, -1.0),
        }
    },
    "statistics_update": lambda d: {
        "batch": {
            "state": d.rows([d.root] * 3, [d.tiny] * 3, [0.0] * 3, [1.0] * 3, [d.root] * 3),
            "speed": d.rows(*[d.root] * 5),
        }
    },
    "tanh_normal_entropy": lambda d: extreme_policy(d),
    "tanh_normal_sample": lambda d: extreme_policy(d),
    "tanh_normal_kl_sampled": lambda d: extreme_policies(d),
    "tanh_normal_kl": lambda d: extreme_policies(d) | {"std_old": d.rows(*[[d.tiny] * 3] * 5)},
    "tanh_normal_log_prob-action": lambda d: {
        "mean": d.rows([0.0] * 3, [3.0] * 3, [-3.0] * 3, [0.0] * 3, [0.0] * 3),
        "std": jnp.ones((5, 3), d.dtype),
        "action": d.rows([1.0, -1.0, 0.0], [1.0] * 3, [-1.0] * 3, [2.0, -9.0, 0.5], [d.tiny] * 3),
    },
    "tanh_normal_log_prob-scale": lambda d: {
        "mean": jnp.zeros((5, 3), d.dtype),
        "std": jnp.ones((5, 3), d.dtype),
        "action": d.rows(*[[d.root, -d.root, d.tiny]] * 5),
        "scale": d.rows(2 * d.root, 4 * d.root, 1.0),
    },
    "tanh_normal_log_prob-pre_tanh": lambda d: {
        "std": jnp.ones((5, 3), d.dtype),
        "pre_tanh": d.rows([d.root] * 3, [-d.root] * 3, [d.tiny] * 3, [20.0] * 3, [-20.0] * 3),
    },
    "tanh_normal_mode": lambda d: {"mean": d.rows(*[[d.big, -d.big, d.tiny]] * 5)},
}


def extreme_policy(d):
    return {
        "mean": d.rows([0.0] * 3, [30.0] * 3, [-30.0] * 3, [d.root] * 3, [-d.root] * 3),
        "std": d.rows([max(d.tiny, 1e-15)] * 3, [1.0] * 3, [2.0] * 3, [d.root] * 3, [d.root] * 3),
    }


def extreme_policies(d):
    return {
        "mean_old": d.rows([0.0] * 3, [30.0] * 3, [-30.0] * 3, [d.root] * 3, [0.0] * 3),
        "mean_new": d.rows([0.0] * 3, [29.0] * 3, [-30.0] * 3, [0.0] * 3, [1.0] * 3),
        "std_old": jnp.ones((5, 3), d.dtype),
        "std_new": d.rows(*[[1.0, 2.0, 3.0]] * 5),
    }


def extreme_inputs(op, dtype):
    draw = Extreme(dtype)
    name = label(op) if label(op) in EXTREMES else op.name
    return op.inputs(draw) | EXTREMES[name](draw)


def test_every_op_has_its_extremes():
    for op in TABLE:
        assert label(op) in EXTREMES or op.name in EXTREMES


@every_op
@pytest.mark.parametrize("dtype", [jnp.float32, *HALF])
def test_extremes_are_finite_and_agree_with_more_digits(op, dtype):
    inputs = extreme_inputs(op, dtype)
    outputs = jax.jit(op.call)(**inputs)
    for leaf in jax.tree.leaves(outputs):
        assert np.all(np.isfinite(np.float64(leaf)))
    if "key" in inputs:  # float64 draws other noise
        expected = jax.jit(op.call)(**cast(inputs, jnp.float32))
    else:
        with jax.enable_x64(True):
            expected = jax.jit(op.call)(**cast(inputs, jnp.float64))
    assert_rounded_once(outputs, expected, dtype)


@every_op
def test_gradients_at_extremes_are_finite(op):
    inputs = extreme_inputs(op, jnp.float32)
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    leaves, structure = jax.tree.flatten(inputs)
    floats = [x for x in leaves if is_float(x)]

    def total(floats):
        given = iter(floats)
        rebuilt = jax.tree.unflatten(structure, [next(given) if is_float(x) else x for x in leaves])
        outputs = [x for x in jax.tree.leaves(op.call(**rebuilt)) if is_float(x)]
        return sum(jnp.sum(x) for x in outputs)

    for gradient in jax.jit(jax.grad(total))(floats):
        assert np.all(np.isfinite(gradient))


@every_op
def test_second_derivatives_are_finite(op):
    leaves, structure = jax.tree.flatten(op.inputs(Draw(seed=0)))
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    floats = [x for x in leaves if is_float(x)]

    def total(floats):
        given = iter(floats)
        rebuilt = jax.tree.unflatten(structure, [next(given) if is_float(x) else x for x in leaves])
        outputs = [x for x in jax.tree.leaves(op.call(**rebuilt)) if is_float(x)]
        return sum(jnp.sum(jnp.sin(x)) for x in outputs)

    def steepness(floats):
        return sum(jnp.sum(jnp.square(x)) for x in jax.grad(total)(floats))

    for gradient in jax.jit(jax.grad(steepness))(floats):
        assert np.all(np.isfinite(gradient))
