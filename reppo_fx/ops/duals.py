"""Lagrange multipliers of the two constraints, in log space: temperature α (entropy) and multiplier β (KL)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, ScalarLike

from ._checks import match_dtype
from ._numerics import constant, widened


class DualParams(NamedTuple):
    """`log α` and `log β`.

    Attributes:
        log_temperature: `log α`.
        log_multiplier: `log β`.
    """

    log_temperature: Float[Array, ""]
    log_multiplier: Float[Array, ""]


class Duals(NamedTuple):
    """Multipliers with the state of their optimizer.

    Attributes:
        params: the logarithms of both.
        opt_state: of their optimizer.
    """

    params: DualParams
    opt_state: optax.OptState

    @property
    def temperature(self) -> Float[Array, "..."]:
        """`α`, reward per nat of entropy."""
        return jnp.exp(self.params.log_temperature)

    @property
    def multiplier(self) -> Float[Array, "..."]:
        """`β`, loss per nat of KL."""
        return jnp.exp(self.params.log_multiplier)


def dual_init(
    temperature: ScalarLike = 0.01,
    multiplier: ScalarLike = 0.01,
    optimizer: optax.GradientTransformation | None = None,
) -> Duals:
    """Start both multipliers at the given positive values.

    For multipliers with an optimizer of their own; `DualParams` alone is what `dual_loss` needs.

    Args:
        temperature: `α₀ > 0`.
        multiplier: `β₀ > 0`.
        optimizer: the optimizer that `dual_update` will get; Adam if none.

    Returns:
        The state for `dual_update`.

    Raises:
        ValueError: if a value given as a plain number is not positive.

    >>> duals = dual_init(0.5, 0.1)
    >>> print(duals.temperature.round(3), duals.multiplier.round(3))
    0.5 0.1
    """
    for name, value in (("temperature", temperature), ("multiplier", multiplier)):
        if isinstance(value, float | int) and value <= 0:
            raise ValueError(
                f"{name} is {value}; it must be positive, its logarithm is what is learned."
            )
    dtype = jnp.result_type(float)
    params = DualParams(
        jnp.log(jnp.asarray(temperature, dtype)), jnp.log(jnp.asarray(multiplier, dtype))
    )
    optimizer = optax.adam(0.0) if optimizer is None else optimizer
    return Duals(params, optimizer.init(params))


def dual_loss(
    params: DualParams,
    entropy: Float[Array, "*batch"],
    kl: Float[Array, "*batch"],
    target_entropy: ScalarLike,
    kl_target: ScalarLike,
    stop_gradients: bool = True,
) -> Float[Array, ""]:
    r"""`mean[ α (H − H_target) − β (KL − ε) ]`, H and KL constant.

    So α falls while entropy is above its target and β rises while KL is above its own. `dual_update` takes
    the step as well; call the loss alone where the multipliers share an optimizer with something else.

    `−log π(a|x)` of the actions that the actor's loss has drawn anyway is an unbiased entropy, and its noise is
    averaged over the batch; `tanh_normal_entropy` is for a few states, where it is not.

    Args:
        params: `log α`, `log β`.
        entropy: `H(π(·|x))` per state in nats (usually `−log π(a|x)`); constant here.
        kl: `KL(π_old ‖ π_new)` per state in nats; constant here.
        target_entropy: `H_target` in nats for the whole action; usually negative, `−0.5 d`.
        kl_target: `ε` in nats.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.

    Returns:
        A scalar.

    Source: REPPO (arXiv 2507.11019), the losses of its multipliers (eqs. 18–19; the version was not noted), with
        the sign of `H_target` and the KL that eq. 19 means.

    >>> params = DualParams(jnp.zeros(()), jnp.zeros(()))
    >>> print(dual_loss(params, jnp.ones(4), jnp.zeros(4), target_entropy=0.0, kl_target=0.1))
    1.1
    """
    dtype, (log_alpha, log_beta, entropy, kl) = widened(*params, entropy, kl)
    entropy_slack = jnp.mean(entropy) - match_dtype(target_entropy, entropy)
    kl_excess = jnp.mean(kl) - match_dtype(kl_target, kl)
    alpha_loss = jnp.exp(log_alpha) * constant(entropy_slack, stop_gradients)
    beta_loss = jnp.exp(log_beta) * constant(kl_excess, stop_gradients)
    return (alpha_loss - beta_loss).astype(dtype)


def dual_update(
    duals: Duals,
    entropy: Float[Array, "*batch"],
    kl: Float[Array, "*batch"],
    target_entropy: ScalarLike,
    kl_target: ScalarLike,
    learning_rate: ScalarLike = 3e-4,
    optimizer: optax.GradientTransformation | None = None,
    stop_gradients: bool = True,
) -> Duals:
    """One gradient step of `dual_loss` on both multipliers.

    With gradients through the update, Adam's root is taken of a second moment raised by 1e-30: no step is
    changed by it, and a gradient of exactly 0 has a derivative.

    Args:
        duals: from `dual_init` or the last update.
        entropy: `H(π(·|x))` per state in nats.
        kl: `KL(π_old ‖ π_new)` per state in nats.
        target_entropy: `H_target` in nats for the whole action.
        kl_target: `ε` in nats.
        learning_rate: Adam's step size; may be traced. Not used if `optimizer` is given.
        optimizer: any optax transformation; it must be the one given to `dual_init`.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.

    Returns:
        The updated state, same structure.

    >>> duals = dual_init(1.0, 1.0)
    >>> new = dual_update(duals, jnp.ones(4), jnp.ones(4), target_entropy=-0.5, kl_target=0.1)
    >>> print(new.temperature < duals.temperature, new.multiplier > duals.multiplier)
    True True
    """
    if optimizer is None:
        optimizer = optax.adam(learning_rate, eps_root=0.0 if stop_gradients else 1e-30)
    gradients = jax.grad(dual_loss)(
        duals.params, entropy, kl, target_entropy, kl_target, stop_gradients
    )
    updates, opt_state = optimizer.update(gradients, duals.opt_state, duals.params)
    return Duals(optax.apply_updates(duals.params, updates), opt_state)
