"""Actor losses. All share one rule for the KL constraint, `kl_constraint`, and give one loss per state.

Which one: `pathwise_actor_loss` where a sample can be differentiated and Q too (continuous actions: the least
noise); `expected_actor_loss` where all actions can be listed (no noise at all); `score_function_actor_loss`
where neither holds, or where there are advantages and no Q.

`temperature` (α) and `multiplier` (β) are constants here: their own losses are in `duals.py`. Q's parameters
must be constants too; take `q_values` from a critic that is not being differentiated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from ._checks import match_dtype, require_choice, require_same_shape
from ._numerics import constant, shifted_logits, weighted, widened

KL_CONSTRAINTS = ("clipped", "penalty", "none")


def kl_constrained(
    improvement: Float[Array, "*batch"],
    kl: Float[Array, "*batch"],
    multiplier: ScalarLike,
    kl_target: ScalarLike,
    kl_constraint: str = "clipped",
    stop_gradients: bool = True,
) -> Float[Array, "*batch"]:
    """Combine a per-state improvement loss with the KL constraint.

    `clipped`: `improvement` where `kl < kl_target`, else `β · kl`;
    `penalty`: `improvement + β · kl`;
    `none`: `improvement`.

    What `clipped` leaves out may be NaN. It bounds each state's divergence, however wrong Q is there; `penalty`
    bounds only the mean, and `none` serves a policy that is held back by other means (a small step, PPO's ratio).
    For a rule of your own, give an actor loss `kl_constraint="none"` and combine it with the KL yourself.

    Args:
        improvement: loss that improves the policy, per state.
        kl: `KL(π_old ‖ π_new)` per state, in nats.
        multiplier: `β`; constant here.
        kl_target: `ε` in nats.
        kl_constraint: which rule.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.

    Returns:
        The loss per state.

    Raises:
        ValueError: if the shapes differ or the rule is unknown.

    Source: REPPO (arXiv 2507.11019), the clipped policy objective: eq. 12 of the version reviewed for ICLR 2026
        (OpenReview 4vmm8mlHkS); the penalty is its ablation.

    >>> print(kl_constrained(jnp.array([-1.0, -1.0]), jnp.array([0.0, 0.3]), 2.0, 0.1))
    [-1.   0.6]
    """
    require_choice("kl_constraint", kl_constraint, KL_CONSTRAINTS)
    require_same_shape(improvement=improvement, kl=kl)
    if kl_constraint == "none":
        return improvement
    dtype, (improvement, kl) = widened(improvement, kl)
    beta = constant(match_dtype(multiplier, improvement), stop_gradients)
    if kl_constraint == "penalty":
        return (improvement + weighted(beta, kl)).astype(dtype)
    improves = _improves(kl, kl_target, kl_constraint)
    # The branch that is not taken is made finite first: its gradient is multiplied by 0, and 0 · NaN is NaN.
    improvement, kl = _where(improves, improvement), _where(~improves, kl)
    return jnp.where(improves, improvement, weighted(beta, kl)).astype(dtype)


def _improves(kl: Array, kl_target: ScalarLike, kl_constraint: str) -> Array:
    """Where the improvement counts: within the target if `clipped`, else everywhere."""
    if kl_constraint != "clipped":
        return jnp.ones(kl.shape, bool)
    return kl < match_dtype(kl_target, kl)


def _where(counts: Array, x: Array) -> Array:
    return jnp.where(counts, x, jnp.zeros_like(x))


def pathwise_actor_loss(
    q_values: Float[Array, "*batch"],
    log_probs: Float[Array, "*batch"],
    kl: Float[Array, "*batch"],
    temperature: ScalarLike,
    multiplier: ScalarLike,
    kl_target: ScalarLike,
    kl_constraint: str = "clipped",
    stop_gradients: bool = True,
) -> Float[Array, "*batch"]:
    r"""REPPO's actor loss, differentiated through the action.

    `L(x) = α log π(a|x) − Q(x, a)` with `a` a fresh reparameterized sample, under `kl_constrained`.

    The choice for continuous actions: Q tells in which direction an action is better, so that one sample
    a state is enough. It needs a Q that is right in its slope, and a policy that can be reparameterized; else
    take `score_function_actor_loss`, and for a few discrete actions `expected_actor_loss`.

    Args:
        q_values: `Q(x, a)`, differentiable with respect to the action.
        log_probs: `log π(a|x)` in nats, of the same sample.
        kl: `KL(π_old ‖ π_new)` at `x`, in nats.
        temperature: `α`, reward per nat; constant here.
        multiplier: `β`; constant here.
        kl_target: `ε` in nats.
        kl_constraint: `"clipped"`, `"penalty"` or `"none"`.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.

    Returns:
        One loss per state; minimize its mean.

    Raises:
        ValueError: if the shapes differ or the rule is unknown.

    Source: REPPO (arXiv 2507.11019), the pathwise policy gradient and the clipped policy objective: eqs. 2 and 12
        of the version reviewed for ICLR 2026 (OpenReview 4vmm8mlHkS).

    >>> q, log_prob, kl = jnp.array([1.0, 1.0]), jnp.array([-1.0, -1.0]), jnp.array([0.0, 0.5])
    >>> print(pathwise_actor_loss(q, log_prob, kl, 0.1, 2.0, 0.1))
    [-1.1  1. ]
    """
    require_choice("kl_constraint", kl_constraint, KL_CONSTRAINTS)
    require_same_shape(q_values=q_values, log_probs=log_probs, kl=kl)
    dtype, (q_values, log_probs, kl) = widened(q_values, log_probs, kl)
    alpha = constant(match_dtype(temperature, q_values), stop_gradients)
    log_probs = _where(_improves(kl, kl_target, kl_constraint), log_probs)
    improvement = weighted(alpha, log_probs) - q_values
    rule = (multiplier, kl_target, kl_constraint, stop_gradients)
    return kl_constrained(improvement, kl, *rule).astype(dtype)


def score_function_actor_loss(
    log_probs: Float[Array, "*batch"],
    advantages: Float[Array, "*batch"],
    kl: Float[Array, "*batch"],
    temperature: ScalarLike,
    multiplier: ScalarLike,
    kl_target: ScalarLike,
    kl_constraint: str = "clipped",
    behavior_log_probs: Float[Array, "*batch"] | None = None,
    stop_gradients: bool = True,
) -> Float[Array, "*batch"]:
    r"""Actor loss for policies that cannot be reparameterized, and for the paper's ablations.

    `L(x) = w log π(a|x) · (α log π(a|x) − A(x, a))`, the bracket and `w` constant, so that its gradient is an
    unbiased estimate of that of `pathwise_actor_loss`. `A = Q − mean Q` (any baseline that does not depend on
    the action) or a GAE estimate. `a` is a constant sample from π; where it comes from another policy, give
    that policy's log-density and `w = π(a|x) / π_behavior(a|x)`, else `w = 1`.

    It asks least: a density that can be differentiated, and any estimate of how good an action was. The price
    is noise, which grows with the action's dimension; where there is a choice, take `pathwise_actor_loss`
    (continuous) or `expected_actor_loss` (discrete).

    Args:
        log_probs: `log π(a|x)`, differentiable.
        advantages: `A(x, a)`; constant here.
        kl: `KL(π_old ‖ π_new)` at `x`, in nats.
        temperature: `α`; 0 leaves plain policy gradient.
        multiplier: `β`; constant here.
        kl_target: `ε` in nats.
        kl_constraint: `"clipped"`, `"penalty"` or `"none"`.
        behavior_log_probs: `log π_behavior(a|x)`, if the action was drawn from another policy.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted. The signal, `w` times the bracket, stays constant when the loss is
            differentiated, because the gradient is that of no value; the gradient itself is then differentiable
            with respect to all that is in the signal.

    Returns:
        One loss per state; its *gradient* is meaningful, its value is not a measure of progress.

    Raises:
        ValueError: if the shapes differ or the rule is unknown.

    Source: Williams (1992); REPPO (arXiv 2507.11019), the score-based variants of its ablations.

    >>> log_prob, advantage = jnp.array([-1.0]), jnp.array([2.0])
    >>> print(score_function_actor_loss(log_prob, advantage, jnp.zeros(1), 0.0, 1.0, 0.1))
    [2.]
    """
    require_choice("kl_constraint", kl_constraint, KL_CONSTRAINTS)
    require_same_shape(log_probs=log_probs, advantages=advantages, kl=kl)
    behavior = log_probs if behavior_log_probs is None else behavior_log_probs
    require_same_shape(log_probs=log_probs, behavior_log_probs=behavior)
    dtype, arrays = widened(log_probs, advantages, kl, behavior)
    improves = _improves(arrays[2], kl_target, kl_constraint)
    kl, (log_probs, advantages, _, behavior) = arrays[2], (_where(improves, x) for x in arrays)
    ratio = jnp.exp(log_probs - behavior)
    # An action that π never takes (log π = −∞, ratio 0) says nothing, rather than 0 · ∞.
    log_probs = _where((ratio != 0) | jnp.isfinite(log_probs), log_probs)
    signal = weighted(match_dtype(temperature, log_probs), log_probs) - advantages
    if behavior_log_probs is not None:
        signal = weighted(ratio, signal)
    pull = _pulled_by_constant if stop_gradients else _pulled
    improvement = pull(log_probs, signal)
    rule = (multiplier, kl_target, kl_constraint, stop_gradients)
    return kl_constrained(improvement, kl, *rule).astype(dtype)


def _pulled_by_constant(log_probs: Array, signal: Array) -> Array:
    return log_probs * jax.lax.stop_gradient(signal)


@jax.custom_vjp
def _pulled(log_probs: Array, signal: Array) -> Array:
    """`log π · signal`, whose gradient is the signal alone, though the signal may depend on `log π`."""
    return log_probs * signal


def _pulled_forward(log_probs: Array, signal: Array) -> tuple[Array, Array]:
    return log_probs * signal, signal


def _pulled_backward(signal: Array, pull: Array) -> tuple[Array, Array]:
    # Not a constant here: a gradient of this gradient finds the signal's own dependence.
    return pull * signal, jnp.zeros_like(signal)


_pulled.defvjp(_pulled_forward, _pulled_backward)


def expected_actor_loss(
    q_values: Float[Array, "*batch actions"],
    logits: Float[Array, "*batch actions"],
    kl: Float[Array, "*batch"],
    temperature: ScalarLike,
    multiplier: ScalarLike,
    kl_target: ScalarLike,
    kl_constraint: str = "clipped",
    stop_gradients: bool = True,
) -> Float[Array, "*batch"]:
    r"""Actor loss for discrete actions: the exact expectation, without sampling.

    `L(x) = Σ_a π(a|x) (α log π(a|x) − Q(x, a))` under `kl_constrained`; Q is constant here.

    An action is ruled out by a logit of `−∞`: it adds nothing, whatever its Q. Take it wherever Q of every
    action is to be had; for so many actions that it is not, `score_function_actor_loss` of a sampled one.

    Args:
        q_values: `Q(x, a)` for every action; constant here.
        logits: unnormalized log-probabilities of the policy.
        kl: `KL(π_old ‖ π_new)` at `x`, in nats.
        temperature: `α`; constant here.
        multiplier: `β`; constant here.
        kl_target: `ε` in nats.
        kl_constraint: `"clipped"`, `"penalty"` or `"none"`.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.

    Returns:
        One loss per state.

    Raises:
        ValueError: if the shapes differ or the rule is unknown.

    Source: Christodoulou (arXiv 1910.07207), eq. 12 there, with REPPO's constraint (see `kl_constrained`).

    >>> print(expected_actor_loss(jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2)), jnp.zeros(1), 0.0, 1.0, 0.1))
    [-2.]
    """
    require_choice("kl_constraint", kl_constraint, KL_CONSTRAINTS)
    require_same_shape(q_values=q_values, logits=logits)
    require_same_shape(improvement=q_values[..., 0], kl=kl)
    dtype, (q_values, logits, kl) = widened(q_values, logits, kl)
    improves = _improves(kl, kl_target, kl_constraint)[..., None]
    q_values, logits = _where(improves, q_values), _where(improves, logits)
    alpha = constant(match_dtype(temperature, q_values), stop_gradients)
    shifted, exponentials = shifted_logits(logits)
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    probabilities = exponentials / total
    negative_entropy = jnp.sum(weighted(probabilities, shifted - jnp.log(total)), axis=-1)
    value = jnp.sum(weighted(probabilities, constant(q_values, stop_gradients)), axis=-1)
    improvement = alpha * negative_entropy - value
    rule = (multiplier, kl_target, kl_constraint, stop_gradients)
    return kl_constrained(improvement, kl, *rule).astype(dtype)
