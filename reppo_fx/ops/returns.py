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


def entropy_regularized_rewards(
    rewards: Float[Array, "*batch"],
    next_log_probs: Float[Array, "*batch"],
    terminated: Bool[Array, "*batch"],
    temperature: ScalarLike,
    discount: ScalarLike,
) -> Float[Array, "*batch"]:
    r"""Reward with the entropy bonus of the *next* action.

    `r̃_t = r_t − γ (1 − terminated_t) α log π(a_{t+1} | x_{t+1})`

    The entropy of the first action is not part of Q(x_t, a_t), hence the index t+1 and the factor γ.

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

    Source: REPPO (arXiv 2507.11019), section 3, the soft return.

    >>> import jax.numpy as jnp
    >>> r = entropy_regularized_rewards(
    ...     jnp.ones(2), jnp.full(2, -2.0), jnp.array([False, True]), temperature=0.1, discount=0.5
    ... )
    >>> print(r)
    [1.1 1. ]
    """
    require_same_shape(rewards=rewards, next_log_probs=next_log_probs, terminated=terminated)
    scale = match_dtype(discount, rewards) * match_dtype(temperature, rewards)
    return rewards - jnp.where(terminated, jnp.zeros_like(rewards), scale * next_log_probs)


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
    trace is cut there; where a step is both terminated and truncated, terminated wins.

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

    Source: REPPO (arXiv 2507.11019), section 3; Sutton & Barto (2018), eq. 12.18.

    >>> import jax.numpy as jnp
    >>> no = jnp.zeros(3, bool)
    >>> print(lambda_returns(jnp.ones(3), jnp.zeros(3), no, no, discount=0.5, trace_decay=1.0))
    [1.75 1.5  1.  ]
    """
    require_same_shape(
        rewards=rewards, next_values=next_values, terminated=terminated, truncated=truncated
    )
    discount, trace_decay = match_dtype(discount, rewards), match_dtype(trace_decay, rewards)
    decay = jnp.broadcast_to(trace_decay, rewards.shape)
    if trace_weights is not None:
        require_same_shape(rewards=rewards, trace_weights=trace_weights)
        decay = decay * jnp.concatenate([trace_weights[1:], jnp.ones_like(trace_weights[:1])])
    decay = jnp.where(truncated, jnp.zeros_like(decay), decay)

    def backward(following, row):
        reward, next_value, ended, decay_t = row
        continuation = (1.0 - decay_t) * next_value + decay_t * following
        target = reward + jnp.where(ended, jnp.zeros_like(reward), discount * continuation)
        return target, target

    # Starting from V_T makes the last row bootstrap fully, whatever its λ.
    _, targets = jax.lax.scan(
        backward, next_values[-1], (rewards, next_values, terminated, decay), reverse=True
    )
    return targets


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
    that difference is what is computed.

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
    targets = lambda_returns(rewards, next_values, terminated, truncated, discount, trace_decay)
    return targets - values
