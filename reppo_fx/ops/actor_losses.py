"""Actor losses. All share one rule for the KL constraint, `kl_constraint`, and give one loss per state.

`temperature` (α) and `multiplier` (β) are constants here: their own losses are in `duals.py`. Q's parameters
must be constants too; take `q_values` from a critic that is not being differentiated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from ._checks import match_dtype, require_choice, require_same_shape

KL_CONSTRAINTS = ("clipped", "penalty", "none")


def kl_constrained(
    improvement: Float[Array, "*batch"],
    kl: Float[Array, "*batch"],
    multiplier: ScalarLike,
    kl_target: ScalarLike,
    kl_constraint: str = "clipped",
) -> Float[Array, "*batch"]:
    """Combine a per-state improvement loss with the KL constraint.

    `clipped`: `improvement` where `kl < kl_target`, else `β · kl`;
    `penalty`: `improvement + β · kl`;
    `none`: `improvement`.

    Args:
        improvement: loss that improves the policy, per state.
        kl: `KL(π_old ‖ π_new)` per state, in nats.
        multiplier: `β`; constant here.
        kl_target: `ε` in nats.
        kl_constraint: which rule.

    Returns:
        The loss per state.

    Raises:
        ValueError: if the shapes differ or the rule is unknown.

    Source: REPPO (arXiv 2507.11019), section 3, the clipped objective; the penalty is its ablation.

    >>> print(kl_constrained(jnp.array([-1.0, -1.0]), jnp.array([0.0, 0.3]), 2.0, 0.1))
    [-1.   0.6]
    """
    require_choice("kl_constraint", kl_constraint, KL_CONSTRAINTS)
    require_same_shape(improvement=improvement, kl=kl)
    if kl_constraint == "none":
        return improvement
    penalty = jax.lax.stop_gradient(match_dtype(multiplier, improvement)) * kl
    if kl_constraint == "penalty":
        return improvement + penalty
    return jnp.where(kl < match_dtype(kl_target, kl), improvement, penalty)


def pathwise_actor_loss(
    q_values: Float[Array, "*batch"],
    log_probs: Float[Array, "*batch"],
    kl: Float[Array, "*batch"],
    temperature: ScalarLike,
    multiplier: ScalarLike,
    kl_target: ScalarLike,
    kl_constraint: str = "clipped",
) -> Float[Array, "*batch"]:
    r"""REPPO's actor loss, differentiated through the action.

    `L(x) = α log π(a|x) − Q(x, a)` with `a` a fresh reparameterized sample, under `kl_constrained`.

    Args:
        q_values: `Q(x, a)`, differentiable with respect to the action.
        log_probs: `log π(a|x)` in nats, of the same sample.
        kl: `KL(π_old ‖ π_new)` at `x`, in nats.
        temperature: `α`, reward per nat; constant here.
        multiplier: `β`; constant here.
        kl_target: `ε` in nats.
        kl_constraint: `"clipped"`, `"penalty"` or `"none"`.

    Returns:
        One loss per state; minimize its mean.

    Raises:
        ValueError: if the shapes differ or the rule is unknown.

    Source: REPPO (arXiv 2507.11019), section 3, policy objective.

    >>> q, log_prob, kl = jnp.array([1.0, 1.0]), jnp.array([-1.0, -1.0]), jnp.array([0.0, 0.5])
    >>> print(pathwise_actor_loss(q, log_prob, kl, 0.1, 2.0, 0.1))
    [-1.1  1. ]
    """
    require_same_shape(q_values=q_values, log_probs=log_probs, kl=kl)
    alpha = jax.lax.stop_gradient(match_dtype(temperature, q_values))
    return kl_constrained(alpha * log_probs - q_values, kl, multiplier, kl_target, kl_constraint)


def score_function_actor_loss(
    log_probs: Float[Array, "*batch"],
    advantages: Float[Array, "*batch"],
    kl: Float[Array, "*batch"],
    temperature: ScalarLike,
    multiplier: ScalarLike,
    kl_target: ScalarLike,
    kl_constraint: str = "clipped",
    behavior_log_probs: Float[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    r"""Actor loss for policies that cannot be reparameterized, and for the paper's ablations.

    `L(x) = w log π(a|x) · (α log π(a|x) − A(x, a))`, the bracket and `w` constant, so that its gradient is an
    unbiased estimate of that of `pathwise_actor_loss`. `A = Q − mean Q` (any baseline that does not depend on
    the action) or a GAE estimate. `a` is a constant sample from π; where it comes from another policy, give
    that policy's log-density and `w = π(a|x) / π_behavior(a|x)`, else `w = 1`.

    Args:
        log_probs: `log π(a|x)`, differentiable.
        advantages: `A(x, a)`; constant here.
        kl: `KL(π_old ‖ π_new)` at `x`, in nats.
        temperature: `α`; 0 leaves plain policy gradient.
        multiplier: `β`; constant here.
        kl_target: `ε` in nats.
        kl_constraint: `"clipped"`, `"penalty"` or `"none"`.
        behavior_log_probs: `log π_behavior(a|x)`, if the action was drawn from another policy.

    Returns:
        One loss per state; its *gradient* is meaningful, its value is not a measure of progress.

    Raises:
        ValueError: if the shapes differ or the rule is unknown.

    Source: Williams (1992); REPPO (arXiv 2507.11019), ablation on the policy gradient.

    >>> log_prob, advantage = jnp.array([-1.0]), jnp.array([2.0])
    >>> print(score_function_actor_loss(log_prob, advantage, jnp.zeros(1), 0.0, 1.0, 0.1))
    [2.]
    """
    require_same_shape(log_probs=log_probs, advantages=advantages, kl=kl)
    signal = match_dtype(temperature, log_probs) * log_probs - advantages
    if behavior_log_probs is not None:
        require_same_shape(log_probs=log_probs, behavior_log_probs=behavior_log_probs)
        signal = signal * jnp.exp(log_probs - behavior_log_probs)
    improvement = log_probs * jax.lax.stop_gradient(signal)
    return kl_constrained(improvement, kl, multiplier, kl_target, kl_constraint)


def expected_actor_loss(
    q_values: Float[Array, "*batch actions"],
    logits: Float[Array, "*batch actions"],
    kl: Float[Array, "*batch"],
    temperature: ScalarLike,
    multiplier: ScalarLike,
    kl_target: ScalarLike,
    kl_constraint: str = "clipped",
) -> Float[Array, "*batch"]:
    r"""Actor loss for discrete actions: the exact expectation, without sampling.

    `L(x) = Σ_a π(a|x) (α log π(a|x) − Q(x, a))` under `kl_constrained`; Q is constant here.

    Args:
        q_values: `Q(x, a)` for every action.
        logits: unnormalized log-probabilities of the policy.
        kl: `KL(π_old ‖ π_new)` at `x`, in nats.
        temperature: `α`; constant here.
        multiplier: `β`; constant here.
        kl_target: `ε` in nats.
        kl_constraint: `"clipped"`, `"penalty"` or `"none"`.

    Returns:
        One loss per state.

    Raises:
        ValueError: if the shapes differ or the rule is unknown.

    Source: Christodoulou (arXiv 1910.07207), eq. 12, with REPPO's constraint.

    >>> print(expected_actor_loss(jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2)), jnp.zeros(1), 0.0, 1.0, 0.1))
    [-2.]
    """
    require_same_shape(q_values=q_values, logits=logits)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    alpha = jax.lax.stop_gradient(match_dtype(temperature, q_values))
    inner = alpha * log_probs - jax.lax.stop_gradient(q_values)
    improvement = jnp.sum(jnp.exp(log_probs) * inner, axis=-1)
    return kl_constrained(improvement, kl, multiplier, kl_target, kl_constraint)
