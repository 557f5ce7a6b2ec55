import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from reppo_fx import ops
from reppo_fx.ops import DualParams, dual_init

# Compiled for speed; the conformance table checks that eager calls agree.
dual_loss = jax.jit(ops.dual_loss)
dual_update = jax.jit(ops.dual_update, static_argnames="optimizer")

TARGETS = {"target_entropy": -0.5, "kl_target": 0.1}
LEARNING_RATE = 0.05


def batch(entropy=0.0, kl=0.1, size=4):
    """States whose mean entropy and KL are the given numbers, though no single state has them."""
    spread = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    return {"entropy": np.float32(entropy) + spread, "kl": np.float32(kl) + 0.05 * spread}


def adam_by_hand(parameter, gradients, learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma & Ba, algorithm 1, in float64; `gradients(parameter)` once a step."""
    first = second = 0.0
    for step in (1, 2, 3):
        gradient = gradients(parameter)
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        scaled = (first / (1 - b1**step)) / (np.sqrt(second / (1 - b2**step)) + eps)
        parameter = parameter - learning_rate * scaled
    return parameter


def test_start_is_the_given_values():
    duals = dual_init(0.25, 4.0)
    # exp(log(x)) in float32.
    np.testing.assert_allclose(duals.temperature, 0.25, rtol=1e-6)
    np.testing.assert_allclose(duals.multiplier, 4.0, rtol=1e-6)
    np.testing.assert_allclose(duals.params, np.log([0.25, 4.0]), rtol=1e-6)


def test_default_start_is_one_hundredth():
    np.testing.assert_allclose([dual_init().temperature, dual_init().multiplier], 0.01, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, -1.0, 0, -2])
@pytest.mark.parametrize("name", ["temperature", "multiplier"])
def test_a_start_that_has_no_logarithm_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be positive"):
        dual_init(**{name: value})


def test_loss_by_hand():
    params = DualParams(jnp.log(2.0), jnp.log(3.0))
    loss = dual_loss(params, **batch(entropy=1.0, kl=0.3), **TARGETS)
    # 2 (1 + 0.5) − 3 (0.3 − 0.1)
    np.testing.assert_allclose(loss, 2.4, rtol=1e-6)


def test_loss_gives_no_gradient_to_entropy_kl_or_their_targets():
    params = dual_init().params
    given = batch(entropy=1.0, kl=0.3)
    gradients = jax.grad(dual_loss, argnums=(1, 2, 3, 4))(params, *given.values(), -0.5, 0.1)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_each_multiplier_sees_its_own_constraint_alone():
    params = DualParams(jnp.log(2.0), jnp.log(3.0))
    gradient = jax.grad(dual_loss)(params, **batch(entropy=1.0, kl=0.3), **TARGETS)
    np.testing.assert_allclose(gradient.log_temperature, 2.0 * 1.5, rtol=1e-6)
    np.testing.assert_allclose(gradient.log_multiplier, -3.0 * 0.2, rtol=1e-5)


def test_gradients_of_the_loss():
    with jax.enable_x64(True):
        given = {name: jnp.float64(x) for name, x in batch(entropy=1.0, kl=0.3).items()}
        params = DualParams(jnp.float64(0.3), jnp.float64(-0.2))
        check_grads(
            jax.jit(lambda p: ops.dual_loss(p, **given, **TARGETS)), (params,), 1, rtol=1e-6
        )


@pytest.mark.parametrize(("entropy", "falls"), [(-0.4, True), (-0.6, False)])
def test_temperature_falls_exactly_while_entropy_is_above_target(entropy, falls):
    duals = dual_init(1.0, 1.0)
    new = dual_update(duals, **batch(entropy=entropy), **TARGETS, learning_rate=LEARNING_RATE)
    assert (new.temperature < duals.temperature) == falls
    assert new.temperature != duals.temperature


@pytest.mark.parametrize(("kl", "rises"), [(0.11, True), (0.09, False)])
def test_multiplier_rises_exactly_while_kl_is_above_target(kl, rises):
    duals = dual_init(1.0, 1.0)
    new = dual_update(duals, **batch(kl=kl), **TARGETS, learning_rate=LEARNING_RATE)
    assert (new.multiplier > duals.multiplier) == rises
    assert new.multiplier != duals.multiplier


def test_multipliers_stay_positive_however_long_they_are_pushed_down():
    duals = dual_init(1.0, 1.0)
    push = batch(entropy=50.0, kl=0.0)
    duals, _ = jax.lax.scan(
        lambda duals, _: (dual_update(duals, **push, **TARGETS, learning_rate=1.0), None),
        duals, length=60,
    )  # fmt: skip
    assert 0.0 < duals.temperature < 1e-3
    assert 0.0 < duals.multiplier < 1e-3


def test_three_updates_equal_adam_by_hand():
    with jax.enable_x64(True):
        given = {name: jnp.float64(x) for name, x in batch(entropy=1.0, kl=0.3).items()}
        duals = dual_init(0.5, 2.0)
        for _ in range(3):
            duals = dual_update(duals, **given, **TARGETS, learning_rate=LEARNING_RATE)
        slack, excess = float(given["entropy"].mean()) + 0.5, float(given["kl"].mean()) - 0.1
    log_alpha = adam_by_hand(np.log(0.5), lambda p: np.exp(p) * slack, LEARNING_RATE)
    log_beta = adam_by_hand(np.log(2.0), lambda p: -np.exp(p) * excess, LEARNING_RATE)
    np.testing.assert_allclose(duals.params, [log_alpha, log_beta], rtol=1e-10)


def test_another_optimizer_takes_the_place_of_adam():
    optimizer = optax.sgd(0.1, momentum=0.9)
    duals = dual_init(1.0, 1.0, optimizer)
    new = dual_update(duals, **batch(entropy=1.0, kl=0.3), **TARGETS, optimizer=optimizer)
    # One step of gradient descent on logs that start at 0: −0.1 · 1.5 and +0.1 · 0.2.
    np.testing.assert_allclose(new.params, [-0.15, 0.02], rtol=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(duals)


def test_the_default_learning_rate_is_the_published_one():
    new = dual_update(dual_init(1.0, 1.0), **batch(entropy=1.0, kl=0.3), **TARGETS)
    # The first step of Adam is the learning rate itself, against the sign of the gradient.
    np.testing.assert_allclose(new.params, [-3e-4, 3e-4], rtol=1e-4)


def test_the_learning_rate_may_differ_among_members_of_a_vmap():
    duals = dual_init(1.0, 1.0)
    given = batch(entropy=1.0, kl=0.3)
    rates = np.float32([0.0, 0.01, 0.1])
    members = jax.vmap(lambda rate: dual_update(duals, **given, **TARGETS, learning_rate=rate))
    stacked = members(rates)
    np.testing.assert_allclose(stacked.params.log_temperature, -rates, rtol=1e-4)
    np.testing.assert_allclose(stacked.multiplier, np.exp(rates), rtol=1e-4)
