"""The categorical policy: one of `n` actions, `π(a) = e^{l_a} / Σ_b e^{l_b}` of logits `l`.

An action is ruled out by a logit of `−∞`: it has probability 0, is never drawn, and reaches neither a sum nor a
gradient, whatever its value is. (A row in which every action is ruled out is no distribution: NaN.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ._checks import require_same_shape
from ._numerics import shifted_logits, weighted, widened


class CategoricalSample(NamedTuple):
    """One draw: the action's number, and its log-probability in nats.

    Attributes:
        action: `[*batch]`, int32.
        log_prob: `log π(a)`, `[*batch]`.
    """

    action: Int[Array, "*batch"]
    log_prob: Float[Array, "*batch"]


def _log_probs(logits: Array) -> tuple[Array, Array]:
    """Log-probabilities and probabilities of every action."""
    shifted, exponentials = shifted_logits(logits)
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    return shifted - jnp.log(total), exponentials / total


def categorical_sample(
    key: Key[Array, ""] | jax.Array, logits: Float[Array, "*batch n"]
) -> CategoricalSample:
    """A draw from the policy with its exact log-probability.

    Where all actions can be summed over, sum instead (`categorical_mean`, `expected_actor_loss`): sampling is for
    acting, and for the score-function losses.

    Args:
        key: a JAX random key.
        logits: unnormalized log-probabilities; `−∞` rules an action out.

    Returns:
        The action as int32, and `log π(a)`, through which gradients flow into the logits.

    >>> draw = categorical_sample(jax.random.key(0), jnp.array([[0.0, -jnp.inf], [-jnp.inf, 3.0]]))
    >>> print(draw.action, draw.log_prob)
    [0 1] [0. 0.]
    """
    _, (wide,) = widened(logits)
    action = jax.random.categorical(key, wide).astype(jnp.int32)
    return CategoricalSample(action, categorical_log_prob(logits, action))


def categorical_log_prob(
    logits: Float[Array, "*batch n"], action: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Log-probability of an action, `log π(a) = l_a − log Σ_b e^{l_b}`.

    Args:
        logits: unnormalized log-probabilities.
        action: its number, from 0; NaN is the answer where there is no such action.

    Returns:
        `log π(a)` in nats; `−∞` for an action that is ruled out.

    Raises:
        ValueError: if the action is not a whole number, or the batch axes differ.

    >>> print(categorical_log_prob(jnp.zeros((1, 4)), jnp.array([2])).round(3))
    [-1.386]
    """
    if not jnp.issubdtype(action.dtype, jnp.integer):
        raise ValueError(f"action is of {action.dtype}; it must be the whole number of an action.")
    require_same_shape(action=action, a_logit=logits[..., 0])
    dtype, (logits,) = widened(logits)
    log_probs, _ = _log_probs(logits)
    chosen = jnp.take_along_axis(log_probs, action[..., None], axis=-1, mode="fill")
    # Negative numbers count from the end for an index, but are no actions.
    return jnp.where(action < 0, jnp.nan, chosen[..., 0]).astype(dtype)


def categorical_mean(
    logits: Float[Array, "*batch n"], values: Float[Array, "*batch n"]
) -> Float[Array, "*batch"]:
    r"""Expectation of a number that every action has, `Σ_a π(a) v_a`: of Q, the value of a state.

    Args:
        logits: unnormalized log-probabilities.
        values: `v_a`; of an action of probability 0 it may be anything, NaN too.

    Returns:
        The expectation, without noise.

    Raises:
        ValueError: if the shapes differ.

    >>> print(categorical_mean(jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([1.0, 3.0, jnp.nan])))
    2.0
    """
    require_same_shape(logits=logits, values=values)
    dtype, (logits, values) = widened(logits, values)
    _, probabilities = _log_probs(logits)
    return jnp.sum(weighted(probabilities, values), axis=-1).astype(dtype)


def categorical_entropy(logits: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    r"""Entropy `H = −Σ_a π(a) log π(a)`, exact.

    Args:
        logits: unnormalized log-probabilities.

    Returns:
        Entropy in nats: from 0, one action for certain, to the logarithm of how many are not ruled out.

    >>> print(categorical_entropy(jnp.array([0.0, 0.0, -jnp.inf])).round(3))
    0.693
    """
    dtype, (logits,) = widened(logits)
    log_probs, probabilities = _log_probs(logits)
    return -jnp.sum(weighted(probabilities, log_probs), axis=-1).astype(dtype)


def categorical_kl(
    logits_old: Float[Array, "*batch n"], logits_new: Float[Array, "*batch n"]
) -> Float[Array, "*batch"]:
    r"""`KL(π_old ‖ π_new) = Σ_a π_old(a) (log π_old(a) − log π_new(a))`, exact.

    Args:
        logits_old: of the policy that collected the data.
        logits_new: of the policy being improved.

    Returns:
        The divergence in nats, never negative beyond rounding. What both rule out adds nothing; it is infinite
        where the new policy rules out what the old one does.

    Raises:
        ValueError: if the shapes differ.

    >>> print(categorical_kl(jnp.array([0.0, -jnp.inf]), jnp.zeros(2)).round(3))
    0.693
    """
    require_same_shape(logits_old=logits_old, logits_new=logits_new)
    dtype, (logits_old, logits_new) = widened(logits_old, logits_new)
    old, probabilities = _log_probs(logits_old)
    new, _ = _log_probs(logits_new)
    return jnp.sum(weighted(probabilities, old - new), axis=-1).astype(dtype)
