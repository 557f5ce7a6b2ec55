"""Gradients through one step of an update, against finite differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from reppo_fx import ops

X64 = jax.enable_x64
STEP = 0.1


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def squared(params, meta, stop):
    return ops.squared_value_loss(jnp.tanh(params), meta, stop_gradients=stop)


def self_prediction(params, meta, stop):
    embeddings, rewards = params
    ended = jnp.array([False, True, False])
    return ops.self_prediction_loss(embeddings**2, meta[0], rewards, meta[1], ended, stop)


def hl_gauss(params, meta, stop):
    targets, sigma_ratio = meta
    return ops.hl_gauss_loss(params, targets, jnp.linspace(-1.0, 2.0, 7), sigma_ratio, stop)


def cross_entropy(params, meta, stop):
    return ops.cross_entropy(params, jax.nn.softmax(meta), stop)


def dual(params, meta, stop):
    entropy, kl, target_entropy, kl_target = meta
    return ops.dual_loss(ops.DualParams(*params), entropy, kl, target_entropy, kl_target, stop)


def constrained(rule):
    # KLs on both sides of the target, not near it.
    def loss(params, meta, stop):
        kl = jnp.array([0.02, 0.5, 0.3]) * params**2
        return ops.kl_constrained(jnp.sin(params), kl, meta, 0.1, rule, stop)

    return loss


def pathwise(params, meta, stop):
    (mean, log_std), (best, temperature, multiplier) = params, meta
    std = jnp.exp(log_std)
    draw = ops.tanh_normal_sample(jax.random.key(0), mean, std)
    kl = ops.tanh_normal_kl(0.0 * mean, jnp.ones_like(std), mean, std)
    q = -jnp.sum(jnp.square(draw.action - best), axis=-1)
    return ops.pathwise_actor_loss(
        q, draw.log_prob, kl, temperature, multiplier, 0.3, stop_gradients=stop
    )


def expected(params, meta, stop):
    q, temperature, multiplier = meta
    kl = jnp.array([0.0, 1.0]) * jnp.sum(jnp.square(params), axis=-1)
    return ops.expected_actor_loss(q, params, kl, temperature, multiplier, 0.1, stop_gradients=stop)


def score_function(params, meta, stop):
    (mean, log_std), (advantages, temperature, multiplier, behavior) = params, meta
    action = jnp.array([[0.3, -0.2], [0.1, 0.5], [-0.6, 0.0]])
    std = jnp.exp(log_std)
    log_prob = ops.tanh_normal_log_prob(mean, std, action)
    kl = ops.tanh_normal_kl(0.0 * mean, jnp.ones_like(std), mean, std)
    return ops.score_function_actor_loss(
        log_prob, advantages, kl, temperature, multiplier, 0.3,
        behavior_log_probs=behavior, stop_gradients=stop,
    )  # fmt: skip


def policy(seed):
    mean, log_std = arrays(seed, (3, 2), (3, 2))
    # The first state near the old policy, a standard normal; the others far from it.
    return jnp.array([[0.05], [1.0], [2.0]]) * mean, 0.1 * log_std


ALPHA, BETA = jnp.float64, jnp.float64
CASES = {
    "squared_value_loss": (squared, lambda: (*arrays(0, (3,)), *arrays(1, (3,)))),
    "self_prediction_loss": (
        self_prediction,
        lambda: (arrays(0, (3, 4), (3,)), arrays(1, (3, 4), (3,))),
    ),
    # One target on an edge between bins, one in a bin's middle.
    "hl_gauss_loss": (
        hl_gauss,
        lambda: (*arrays(0, (3, 7)), (jnp.array([-0.25, 0.5, 1.13]), jnp.float64(0.75))),
    ),
    "cross_entropy": (cross_entropy, lambda: (*arrays(0, (3, 5)), *arrays(1, (3, 5)))),
    "dual_loss": (dual, lambda: (arrays(0, (), ()), arrays(1, (4,), (4,), (), ()))),
    "kl_constrained-clipped": (constrained("clipped"), lambda: (jnp.ones(3), BETA(2.0))),
    "kl_constrained-penalty": (constrained("penalty"), lambda: (jnp.ones(3), BETA(2.0))),
    "pathwise_actor_loss": (
        pathwise,
        lambda: (policy(0), (*arrays(1, (3, 2)), ALPHA(0.3), BETA(2.0))),
    ),
    "expected_actor_loss": (
        expected,
        lambda: (*arrays(0, (2, 4)), (*arrays(1, (2, 4)), ALPHA(0.3), BETA(2.0))),
    ),
    "score_function_actor_loss": (
        score_function,
        lambda: (policy(0), (*arrays(1, (3,)), ALPHA(0.3), BETA(2.0), *arrays(2, (3,)))),
    ),
}


def sgd_step(loss, stop):
    def step(params, meta):
        gradient = jax.grad(lambda p: loss(p, meta, stop).sum())(params)
        return jax.tree.map(lambda p, g: p - STEP * g, params, gradient)

    return step


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_gradient_descent_differentiates_as_finite_differences_do(name):
    loss, draw = CASES[name]
    with X64(True):
        step = jax.jit(sgd_step(loss, stop=False))
        check_grads(step, draw(), order=1, modes=["fwd", "rev"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_the_first_gradient_is_the_same_with_and_without(name):
    loss, draw = CASES[name]
    with X64(True):
        params, meta = draw()
        steps = [jax.jit(sgd_step(loss, stop))(params, meta) for stop in (True, False)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *steps)


@pytest.mark.parametrize("name", CASES)
def test_by_default_no_gradient_passes_through_what_is_constant(name):
    loss, draw = CASES[name]

    def total(meta, params, stop):
        new = sgd_step(loss, stop)(params, meta)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(new))

    with X64(True):
        params, meta = draw()
        gradient = jax.jit(jax.grad(total), static_argnums=2)
        default, through = (jax.tree.leaves(gradient(meta, params, stop)) for stop in (True, False))
    if name == "pathwise_actor_loss":  # the best action is part of the caller's own Q
        default, through = default[1:], through[1:]
    for off, on in zip(map(np.asarray, default), map(np.asarray, through), strict=True):
        np.testing.assert_array_equal(off, np.zeros_like(off))
        assert np.any(on != 0.0)


@pytest.mark.parametrize("optimizer", [None, optax.sgd(0.1)])
def test_dual_update_differentiates_as_finite_differences_do(optimizer):
    with X64(True):
        duals = ops.dual_init(0.5, 2.0, optimizer)
        entropy, kl = arrays(0, (4,), (4,))

        def update(params, entropy, kl, target_entropy, kl_target, learning_rate):
            given = (duals._replace(params=params), entropy, kl, target_entropy, kl_target)
            new = ops.dual_update(*given, learning_rate, optimizer, stop_gradients=False)
            new = ops.dual_update(new, *given[1:], learning_rate, optimizer, stop_gradients=False)
            return new.params

        inputs = (duals.params, entropy, kl, *map(jnp.float64, (-0.5, 0.1, 0.05)))
        check_grads(jax.jit(update), inputs, order=1, modes=["rev"], rtol=1e-5)


def test_dual_update_has_a_derivative_where_a_constraint_is_met_exactly():
    def multiplier(kl, stop):
        new = ops.dual_update(
            ops.dual_init(1.0, 1.0), jnp.zeros(2), kl, 0.0, 0.5, 0.05, stop_gradients=stop
        )
        return new.temperature + new.multiplier

    met = jnp.full(2, 0.5)
    assert multiplier(met, False) == multiplier(met, True) == 2.0
    assert np.all(np.isfinite(jax.jit(jax.grad(multiplier), static_argnums=1)(met, False)))


def test_two_steps_of_the_score_function_carry_the_signals_own_dependence():
    # The second step's signal is made of the first one's parameters.
    loss, draw = CASES["score_function_actor_loss"]
    with X64(True):
        step = sgd_step(loss, stop=False)
        twice = jax.jit(lambda params, meta: step(step(params, meta), meta))
        check_grads(twice, draw(), order=1, modes=["rev"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("trace_decay", [0.0, 0.7, 1.0])
def test_returns_have_their_derivatives_at_both_ends_of_lambda(trace_decay):
    no = jnp.zeros(4, bool)
    with X64(True):
        rewards, values, weights = arrays(0, (4,), (4,), (4,))
        weights = weights.at[2].set(0.0)

        def returns(rewards, values, discount, trace_decay, weights):
            return ops.lambda_returns(
                rewards, values, no, no.at[1].set(True), discount, trace_decay, weights
            )

        inputs = (rewards, values, jnp.float64(0.9), jnp.float64(trace_decay), weights)
        check_grads(jax.jit(returns), inputs, order=2, modes=["rev"], rtol=1e-4)
