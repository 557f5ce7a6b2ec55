"""Targets for the critic: entropy-regularized rewards, λ-returns, and advantages for the ablations.

Arrays are time-major, `[T, *batch]`. Row `t` holds what happened between `x_t` and its true successor
`x_{t+1}`, so `next_values[t]` is the value of the state that action `a_t` really led to, also where the
episode was cut there by a time limit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, ScalarLike

from ._checks import match_dtype, require_same_shape
from ._numerics import weighted, widened


def entropy_regularized_rewards(
    rewards: Float[Array, "*batch"],
    next_log_probs: Float[Array, "*batch"],
    terminated: Bool[Array, "*batch"],
    temperature: ScalarLike,
    discount: ScalarLike,
) -> Float[Array, "*batch"]:
    r"""Reward with the entropy bonus of the *next* action.

    `r̃_t = r_t − γ (1 − terminated_t) α log π(a_{t+1} | x_{t+1})`

    The entropy of the first action is not part of Q(x_t, a_t), hence the index t+1 and the factor γ. Give
    the result to `lambda_returns` for soft targets; without it they are those of the reward alone.

    Args:
        rewards: `r_t`.
        next_log_probs: `log π(a_{t+1} | x_{t+1})` in nats, at the true successor.
        terminated: whether the episode ended at `t` for good; there is no next action then.
        temperature: `α`, reward per nat.
        discount: `γ`.

    Returns:
        `r̃_t`, same shape as `rewards`.

    Raises:
        ValueError: if the three arrays differ in shape.

    Source: REPPO (arXiv 2507.11019), the entropy term of its multi-step critic target.

    >>> import jax.numpy as jnp
    >>> r = entropy_regularized_rewards(
    ...     jnp.ones(2), jnp.full(2, -2.0), jnp.array([False, True]), temperature=0.1, discount=0.5
    ... )
    >>> print(r)
    [1.1 1. ]
    """
    require_same_shape(rewards=rewards, next_log_probs=next_log_probs, terminated=terminated)
    dtype, (rewards, next_log_probs) = widened(rewards, next_log_probs)
    scale = match_dtype(discount, rewards) * match_dtype(temperature, rewards)
    next_log_probs = jnp.where(terminated, jnp.zeros_like(next_log_probs), next_log_probs)
    return (rewards - weighted(scale, next_log_probs)).astype(dtype)


def lambda_returns(
    rewards: Float[Array, "T *batch"],
    next_values: Float[Array, "T *batch"],
    terminated: Bool[Array, "T *batch"],
    truncated: Bool[Array, "T *batch"],
    discount: ScalarLike,
    trace_decay: ScalarLike,
    trace_weights: Float[Array, "T *batch"] | None = None,
) -> Float[Array, "T *batch"]:
    r"""TD(λ) targets, in one backward pass.

    `G_t = r_t + γ (1 − terminated_t) [ V_{t+1}                               if truncated_t or t = T−1,`
    `                                   (1 − λ_t) V_{t+1} + λ_t G_{t+1}       otherwise ]`

    with `λ_t = λ` or, with trace weights, `λ_t = λ c_{t+1}`: the weight of the action taken at t+1 scales
    how much of its return is trusted. A truncated step bootstraps from its own true successor and the
    trace is cut there; where a step is both terminated and truncated, terminated wins. A cut is exact: what
    does not count (after an end, behind a weight of 0) may be NaN and reaches neither target nor gradient.

    These are the targets of a critic; for the weight of a policy gradient take `generalized_advantages`.

    Args:
        rewards: `r_t` (entropy-regularized or not).
        next_values: `V(x_{t+1})` at the true successor.
        terminated: episode ended at `t`; nothing follows.
        truncated: episode was cut at `t`; the successor still has a value.
        discount: `γ` in [0, 1].
        trace_decay: `λ` in [0, 1]; 0 is one-step TD, 1 is Monte Carlo.
        trace_weights: `c_t ≤ 1`, e.g. clipped importance weights of the actions at `t`; none means 1.

    Returns:
        `G_t`, same shape as `rewards`.

    Raises:
        ValueError: if the arrays differ in shape.

    Source: REPPO (arXiv 2507.11019), its multi-step TD(λ) critic target; Sutton & Barto (2018), eq. 12.18.

    >>> import jax.numpy as jnp
    >>> no = jnp.zeros(3, bool)
    >>> print(lambda_returns(jnp.ones(3), jnp.zeros(3), no, no, discount=0.5, trace_decay=1.0))
    [1.75 1.5  1.  ]
    """
    require_same_shape(
        rewards=rewards, next_values=next_values, terminated=terminated, truncated=truncated
    )
    if trace_weights is not None:
        require_same_shape(rewards=rewards, trace_weights=trace_weights)
    dtype, (rewards, next_values) = widened(rewards, next_values)
    # What does not count is taken out before it meets a product: 0 · NaN is NaN.
    next_values = jnp.where(terminated, jnp.zeros_like(next_values), next_values)
    cut = terminated | truncated
    gamma = match_dtype(discount, rewards)
    decay = _decay(match_dtype(trace_decay, rewards), trace_weights, cut)

    def backward(following: Array, row: tuple[Array, ...]) -> tuple[Array, Array]:
        reward, next_value, cut_t, decay_t = row
        following = jnp.where(cut_t, jnp.zeros_like(following), following)
        continuation = weighted(1.0 - decay_t, next_value) + weighted(decay_t, following)
        target = reward + weighted(gamma, continuation)
        return target, target

    # Starting from V_T makes the last row bootstrap fully, whatever its λ.
    rows = (rewards, next_values, cut, decay)
    targets: Array = jax.lax.scan(backward, next_values[-1], rows, reverse=True)[1]
    return targets.astype(dtype)


def _decay(trace_decay: Array, trace_weights: Array | None, cut: Array) -> Array:
    """`λ_t` for every row; 0 where the trace is cut."""
    decay = jnp.broadcast_to(trace_decay, cut.shape)
    if trace_weights is not None:
        weights = match_dtype(trace_weights, decay)
        following = jnp.concatenate([weights[1:], jnp.ones_like(weights[:1])])
        decay = weighted(decay, jnp.where(cut, jnp.ones_like(following), following))
    return jnp.where(cut, jnp.zeros_like(decay), decay)


def generalized_advantages(
    rewards: Float[Array, "T *batch"],
    values: Float[Array, "T *batch"],
    next_values: Float[Array, "T *batch"],
    terminated: Bool[Array, "T *batch"],
    truncated: Bool[Array, "T *batch"],
    discount: ScalarLike,
    trace_decay: ScalarLike,
) -> Float[Array, "T *batch"]:
    r"""Generalized advantage estimation with true successors.

    `δ_t = r_t + γ (1 − terminated_t) V(x_{t+1}) − V(x_t)`
    `A_t = δ_t + γ λ (1 − terminated_t)(1 − truncated_t) A_{t+1}`

    which is `lambda_returns(…) − V(x_t)` where `next_values[t]` is `values[t+1]` on every row that goes on;
    that difference is what is computed. It serves `score_function_actor_loss` where there is no Q; a critic
    is trained on `lambda_returns` themselves, and `pathwise_actor_loss` needs no advantages.

    Args:
        rewards: `r_t`.
        values: `V(x_t)`.
        next_values: `V(x_{t+1})` at the true successor.
        terminated: episode ended at `t`.
        truncated: episode was cut at `t`.
        discount: `γ`.
        trace_decay: `λ`.

    Returns:
        `A_t`, same shape as `rewards`.

    Raises:
        ValueError: if the arrays differ in shape.

    Source: Schulman et al. (arXiv 1506.02438), eq. 16.

    >>> import jax.numpy as jnp
    >>> no = jnp.zeros(2, bool)
    >>> print(generalized_advantages(jnp.ones(2), jnp.ones(2), jnp.zeros(2), no, no, 0.5, 1.0))
    [0.5 0. ]
    """
    require_same_shape(rewards=rewards, values=values)
    dtype, (rewards, values, next_values) = widened(rewards, values, next_values)
    targets = lambda_returns(rewards, next_values, terminated, truncated, discount, trace_decay)
    return (targets - values).astype(dtype)
