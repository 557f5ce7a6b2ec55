import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from reppo_fx import ops

# Compiled for speed; the conformance table checks that eager calls agree.
kl_constrained = jax.jit(ops.kl_constrained, static_argnames="kl_constraint")
pathwise_actor_loss = jax.jit(ops.pathwise_actor_loss, static_argnames="kl_constraint")
score_function_actor_loss = jax.jit(ops.score_function_actor_loss, static_argnames="kl_constraint")
expected_actor_loss = jax.jit(
    ops.expected_actor_loss, static_argnames=("kl_constraint", "stop_gradients")
)

CONSTRAINTS = ["clipped", "penalty", "none"]
ALPHA, BETA, EPSILON = 0.3, 2.0, 0.1
SCALARS = {"temperature": ALPHA, "multiplier": BETA, "kl_target": EPSILON}


def states(count=5, actions=None, seed=0):
    """Per-state losses' arguments; KLs lie on both sides of the target."""
    rng = np.random.default_rng(seed)
    per_action = (count,) if actions is None else (count, actions)
    kl = np.where(np.arange(count) % 2, 0.3, 0.02).astype(np.float32)
    return {
        "q_values": rng.normal(size=per_action).astype(np.float32),
        "log_probs": rng.normal(size=per_action).astype(np.float32),
        "kl": kl,
    }


def constrained_by_hand(improvement, kl, rule):
    if rule == "clipped":
        return [i if k < EPSILON else BETA * k for i, k in zip(improvement, kl, strict=True)]
    return improvement + (BETA * kl if rule == "penalty" else 0.0)


def logits_loss(logits, q_values, kl, rule, **scalars):
    return expected_actor_loss(q_values, logits, kl, **SCALARS | scalars, kl_constraint=rule)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("clipped", [-1.0, 1.0, 4.0]), ("penalty", [-1.0, 0.0, 3.0]), ("none", [-1.0, -1.0, -1.0])],
)
def test_each_rule_by_hand_with_the_target_itself_counting_as_too_far(rule, expected):
    improvement, kl = np.float32([-1.0, -1.0, -1.0]), np.float32([0.0, 0.5, 2.0])
    loss = kl_constrained(improvement, kl, 2.0, 0.5, kl_constraint=rule)
    np.testing.assert_array_equal(loss, expected)


@pytest.mark.parametrize("rule", CONSTRAINTS)
def test_pathwise_loss_by_hand(rule):
    given = states()
    loss = pathwise_actor_loss(**given, **SCALARS, kl_constraint=rule)
    improvement = ALPHA * given["log_probs"] - given["q_values"]
    expected = constrained_by_hand(improvement, given["kl"], rule)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("rule", CONSTRAINTS)
def test_pathwise_gradients_by_hand(rule):
    given = states()

    def total(q_values, log_probs, kl):
        return pathwise_actor_loss(q_values, log_probs, kl, **SCALARS, kl_constraint=rule).sum()

    into_q, into_log_prob, into_kl = jax.grad(total, argnums=(0, 1, 2))(*given.values())
    improves = given["kl"] < EPSILON if rule == "clipped" else np.ones(5, bool)
    penalized = {"clipped": ~improves, "penalty": np.ones(5), "none": np.zeros(5)}[rule]
    np.testing.assert_allclose(into_q, -1.0 * improves)
    np.testing.assert_allclose(into_log_prob, ALPHA * improves, rtol=1e-6)
    np.testing.assert_allclose(into_kl, BETA * penalized, rtol=1e-6)


@pytest.mark.parametrize("rule", CONSTRAINTS)
def test_no_gradient_reaches_temperature_multiplier_or_target(rule):
    given, discrete = states(), states(actions=3)

    def losses(temperature, multiplier, kl_target):
        scalars = (temperature, multiplier, kl_target, rule)
        log_probs, kl = given["log_probs"], given["kl"]
        pathwise = pathwise_actor_loss(given["q_values"], log_probs, kl, *scalars)
        score_function = score_function_actor_loss(log_probs, given["q_values"], kl, *scalars)
        expected = expected_actor_loss(*discrete.values(), *scalars)
        return jnp.stack([pathwise.sum(), score_function.sum(), expected.sum()])

    gradients = jax.jit(jax.jacrev(losses, argnums=(0, 1, 2)))(ALPHA, BETA, EPSILON)
    np.testing.assert_array_equal(gradients, np.zeros((3, 3)))


def test_critic_features_get_no_gradient_when_q_is_called_with_constant_parameters():
    # The contract of the docs: the loss differentiates through the action, the caller holds Q still.
    def loss(mean, weight):
        action = jnp.tanh(mean)
        q_value = jax.lax.stop_gradient(weight) * action
        return pathwise_actor_loss(q_value, jnp.zeros(1), jnp.zeros(1), **SCALARS).sum()

    into_mean, into_weight = jax.grad(loss, argnums=(0, 1))(jnp.full(1, 0.5), jnp.full(1, 2.0))
    np.testing.assert_allclose(into_mean, -2.0 * (1 - np.tanh(0.5) ** 2), rtol=1e-5)
    np.testing.assert_array_equal(into_weight, [0.0])


def test_score_function_loss_by_hand():
    log_probs, advantages = np.float32([-1.0, -2.0]), np.float32([2.0, 2.0])
    behavior = np.float32([-1.0, -2.0 - np.log(3.0)])
    loss = score_function_actor_loss(
        log_probs, advantages, np.zeros(2, np.float32), **SCALARS, behavior_log_probs=behavior
    )
    # w log π (α log π − A) with w = 1 and w = 3
    expected = [-1.0 * (-ALPHA - 2.0), 3.0 * -2.0 * (-2.0 * ALPHA - 2.0)]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_score_function_gradient_is_the_constant_bracket_alone():
    given = states()

    def total(log_probs, advantages, behavior):
        return score_function_actor_loss(
            log_probs, advantages, given["kl"], **SCALARS, kl_constraint="none",
            behavior_log_probs=behavior,
        ).sum()  # fmt: skip

    log_probs, advantages = given["log_probs"], given["q_values"]
    behavior = log_probs - np.float32(0.5)
    into_log_probs, into_advantages, into_behavior = jax.grad(total, argnums=(0, 1, 2))(
        log_probs, advantages, behavior
    )
    expected = np.exp(0.5) * (ALPHA * log_probs - advantages)
    np.testing.assert_allclose(into_log_probs, expected, rtol=1e-5)
    np.testing.assert_array_equal(into_advantages, np.zeros(5))
    np.testing.assert_array_equal(into_behavior, np.zeros(5))


@functools.cache
def gradient_samples(behavior_mean=None, count=40_000):
    """Per-sample gradients of both losses for π = tanh Normal(m, e^s), Q(a) = −(a − 0.6)²."""
    mean, log_std = 0.1, np.log(0.5)
    behavior_mean = mean if behavior_mean is None else behavior_mean
    noise = np.random.default_rng(0).normal(size=(count, 1)).astype(np.float32)
    zero = jnp.zeros(())

    def critic(action):
        return -jnp.square(action[0] - 0.6)

    def pathwise(theta, noise):
        u = theta[:1] + jnp.exp(theta[1:]) * noise
        log_prob = ops.tanh_normal_log_prob(theta[:1], jnp.exp(theta[1:]), pre_tanh=u)
        return ops.pathwise_actor_loss(critic(jnp.tanh(u)), log_prob, zero, **SCALARS)

    def score_function(theta, noise):
        start = jnp.array([behavior_mean]), jnp.array([jnp.exp(log_std)])
        u = start[0] + start[1] * noise
        behavior = ops.tanh_normal_log_prob(*start, pre_tanh=u)
        log_prob = ops.tanh_normal_log_prob(theta[:1], jnp.exp(theta[1:]), pre_tanh=u)
        advantage = critic(jnp.tanh(u)) + 0.5  # any baseline
        return ops.score_function_actor_loss(
            log_prob, advantage, zero, **SCALARS, behavior_log_probs=behavior
        )

    theta = jnp.array([mean, log_std], jnp.float32)
    gradients = [
        jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(theta, noise)
        for loss in (pathwise, score_function)
    ]
    return [np.float64(x) for x in gradients]


@pytest.mark.parametrize("behavior_mean", [None, 0.3])
def test_score_function_gradient_equals_the_pathwise_one_in_expectation(behavior_mean):
    pathwise, score_function = gradient_samples(behavior_mean)
    variance = np.var(pathwise, axis=0) + np.var(score_function, axis=0)
    error = np.sqrt(variance / len(pathwise))
    difference = np.abs(pathwise.mean(0) - score_function.mean(0))
    # Four standard errors of independent means bound that of these, which share their noise; the
    # gradients themselves are many times larger.
    assert np.all(difference < 4 * error)
    assert np.all(np.abs(pathwise.mean(0)) > 10 * error)


@pytest.mark.parametrize("rule", CONSTRAINTS)
def test_expected_loss_equals_the_sum_over_actions(rule):
    given = states(actions=4)
    q_values, logits, kl = given.values()
    expected = []
    for q_row, logits_row in zip(np.float64(q_values), np.float64(logits), strict=True):
        probabilities = np.exp(logits_row) / np.exp(logits_row).sum()
        terms = [p * (ALPHA * np.log(p) - q) for p, q in zip(probabilities, q_row, strict=True)]
        expected.append(sum(terms))
    loss = logits_loss(logits, q_values, kl, rule)
    np.testing.assert_allclose(loss, constrained_by_hand(np.array(expected), kl, rule), rtol=1e-5)


def test_expected_loss_is_smallest_at_the_boltzmann_policy_of_its_temperature():
    q_values = states(actions=4)["q_values"]
    kl = np.zeros(5, np.float32)
    best = q_values / ALPHA
    gradient = jax.grad(lambda x: logits_loss(x, q_values, kl, "clipped").sum())(best)
    np.testing.assert_allclose(gradient, np.zeros_like(gradient), atol=1e-6)
    # There it is −α log Σ exp(Q / α).
    expected = -ALPHA * np.log(np.exp(np.float64(best)).sum(-1))
    np.testing.assert_allclose(logits_loss(best, q_values, kl, "clipped"), expected, rtol=1e-5)


def test_no_gradient_of_the_expected_loss_reaches_the_critic():
    given = states(actions=4)
    q_values, logits, kl = given.values()
    gradient = jax.grad(lambda q: logits_loss(logits, q, kl, "penalty").sum())(q_values)
    np.testing.assert_array_equal(gradient, np.zeros_like(q_values))


def test_expected_loss_is_finite_where_an_action_is_ruled_out():
    logits = np.float32([[0.0, -1e4]])
    q_values, kl = np.float32([[1.0, 5.0]]), np.zeros(1, np.float32)
    value, gradient = jax.value_and_grad(lambda x: logits_loss(x, q_values, kl, "clipped").sum())(
        logits
    )
    np.testing.assert_allclose(value, -1.0, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.0, 0.0]], atol=1e-6)


def test_gradients_under_every_rule():
    with jax.enable_x64(True):
        discrete = states(actions=3)
        inputs = [jnp.float64(x) for x in (*states().values(), discrete["log_probs"])]
        q_constant = jnp.float64(discrete["q_values"])

        def losses(q_values, log_probs, kl, logits):
            # Not the score-function loss: its gradient is not meant to be that of its value.
            scalars = SCALARS.values()
            for rule in CONSTRAINTS:
                yield ops.pathwise_actor_loss(q_values, log_probs, kl, *scalars, rule)
                yield ops.expected_actor_loss(q_constant, logits, kl, *scalars, rule)

        everything = jax.jit(lambda *inputs: list(losses(*inputs)))
        check_grads(everything, inputs, 1, modes=["rev"], rtol=1e-5)


def test_an_unknown_rule_is_refused_with_the_allowed_ones():
    message = "kl_constraint is 'clip'; allowed are 'clipped', 'penalty', 'none'"
    with pytest.raises(ValueError, match=message):
        kl_constrained(
            np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0, 0.1, kl_constraint="clip"
        )
    for loss in (pathwise_actor_loss, score_function_actor_loss):
        with pytest.raises(ValueError, match=message):
            loss(*states().values(), **SCALARS, kl_constraint="clip")
    with pytest.raises(ValueError, match=message):
        expected_actor_loss(*states(actions=2).values(), **SCALARS, kl_constraint="clip")


def test_arrays_of_other_shapes_are_named(unchecked_annotations):
    five, four = np.zeros(5, np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=r"improvement is \[5\] but kl is \[4\]"):
        kl_constrained(five, four, 1.0, 0.1)
    with pytest.raises(ValueError, match=r"q_values is \[5\] but log_probs is \[4\]"):
        pathwise_actor_loss(five, four, five, **SCALARS)
    with pytest.raises(ValueError, match=r"q_values is \[5\] but kl is \[4\]"):
        pathwise_actor_loss(five, five, four, **SCALARS)
    with pytest.raises(ValueError, match=r"log_probs is \[5\] but advantages is \[4\]"):
        score_function_actor_loss(five, four, five, **SCALARS)
    with pytest.raises(ValueError, match=r"log_probs is \[5\] but behavior_log_probs is \[4\]"):
        score_function_actor_loss(five, five, five, **SCALARS, behavior_log_probs=four)
    with pytest.raises(ValueError, match=r"q_values is \[5, 2\] but logits is \[5, 3\]"):
        expected_actor_loss(np.zeros((5, 2)), np.zeros((5, 3)), five, **SCALARS)
    with pytest.raises(ValueError, match=r"improvement is \[5\] but kl is \[5, 1\]"):
        expected_actor_loss(np.zeros((5, 2)), np.zeros((5, 2)), five[:, None], **SCALARS)


def nan_beyond(per_state, kl):
    """NaN in every state whose KL is beyond the target."""
    return np.where((kl < EPSILON).reshape(-1, *[1] * (per_state.ndim - 1)), per_state, np.nan)


LOSSES = {
    "kl_constrained": lambda x, alpha, beta: ops.kl_constrained(
        x["q_values"], x["kl"], beta, EPSILON, stop_gradients=False
    ),
    "pathwise": lambda x, alpha, beta: ops.pathwise_actor_loss(
        x["q_values"], x["log_probs"], x["kl"], alpha, beta, EPSILON, stop_gradients=False
    ),
    "score function": lambda x, alpha, beta: ops.score_function_actor_loss(
        x["log_probs"], x["q_values"], x["kl"], alpha, beta, EPSILON,
        behavior_log_probs=x["log_probs"] - 0.5, stop_gradients=False,
    ),
    "expected": lambda x, alpha, beta: ops.expected_actor_loss(
        x["q_values"], x["log_probs"], x["kl"], alpha, beta, EPSILON, stop_gradients=False
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_nan_in_the_branch_that_is_not_taken_reaches_neither_value_nor_gradient(name):
    given = {
        k: jnp.asarray(x) for k, x in states(actions=3 if name == "expected" else None).items()
    }
    spoilt = given | {
        k: jnp.asarray(nan_beyond(given[k], given["kl"])) for k in ("q_values", "log_probs")
    }
    both = jax.jit(
        jax.value_and_grad(lambda x, *multipliers: LOSSES[name](x, *multipliers).sum(), (0, 1, 2))
    )
    assert np.isnan(spoilt["q_values"]).any()
    clean, masked = (both(x, ALPHA, BETA) for x in (given, spoilt))
    jax.tree.map(np.testing.assert_array_equal, masked, clean)


@pytest.mark.parametrize("q_ruled_out", [0.0, -np.inf, np.inf, np.nan])
def test_an_action_ruled_out_adds_nothing_whatever_its_value(q_ruled_out):
    q_values, logits = np.float32([[1.0, 2.0, q_ruled_out]]), np.float32([[0.5, -0.5, -np.inf]])
    kl = np.zeros(1, np.float32)

    def total(logits, q_values, temperature):
        return expected_actor_loss(
            q_values, logits, kl, temperature, BETA, EPSILON, stop_gradients=False
        ).sum()

    three, two = (
        jax.value_and_grad(total, (0, 1, 2))(logits[:, :n], q_values[:, :n], ALPHA) for n in (3, 2)
    )
    np.testing.assert_allclose(three[0], two[0], rtol=1e-6)
    for a, b in zip(three[1][:2], two[1][:2], strict=True):
        np.testing.assert_allclose(a, np.append(b, [[0.0]], axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(three[1][2], two[1][2], rtol=1e-6)


@pytest.mark.parametrize("stop_gradients", [True, False])
@pytest.mark.parametrize("advantage", [1.0, np.nan])
def test_an_action_that_the_policy_never_takes_says_nothing(stop_gradients, advantage):
    def total(log_probs, temperature, behavior):
        return ops.score_function_actor_loss(
            log_probs, jnp.array([advantage, 2.0]), jnp.zeros(2), temperature, BETA, EPSILON,
            behavior_log_probs=behavior, stop_gradients=stop_gradients,
        ).sum()  # fmt: skip

    def squared_gradient(*given):
        return jnp.square(jax.grad(total)(*given)).sum()

    given = jnp.array([-jnp.inf, -1.0]), ALPHA, jnp.array([-1.0, -1.0])
    value, gradient = jax.value_and_grad(total)(*given)
    np.testing.assert_allclose(value, -1.0 * (-ALPHA - 2.0), rtol=1e-6)
    np.testing.assert_allclose(gradient, [0.0, -ALPHA - 2.0], rtol=1e-6)
    for meta in jax.grad(squared_gradient, (0, 1, 2))(*given):
        assert np.all(np.isfinite(meta))
