"""One of `n` actions: the categorical policy as a bundle of functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from .._ranges import as_count
from ..ops import (
    categorical_entropy,
    categorical_kl,
    categorical_log_prob,
    categorical_sample,
)
from ..settings import Hyperparameters
from .distributions import Distribution, PolicySample


class Categorical(NamedTuple):
    """Unnormalized log-probabilities; `−∞` rules an action out.

    Attributes:
        logits: `[*batch, n]`.
    """

    logits: Float[Array, "*batch n"]


def categorical(num_actions: SupportsIndex) -> Distribution:
    """`n` actions, numbered from 0, as int32; the actor gives a logit of each.

    The target entropy is `entropy_share · log n`, where `n` counts the actions that a state does not rule out. The
    same arguments give the same bundle.

    Args:
        num_actions: `n`.

    Returns:
        The bundle; its sums are exact: nothing but acting draws samples.

    Raises:
        ValueError: if there are less than 2, or it is no whole number.

    >>> from reppo_fx import Hyperparameters
    >>> d = categorical(3)
    >>> policy = d.policy(jnp.array([[0.0, 0.0, -jnp.inf]]), Hyperparameters())
    >>> draw = d.sample(jax.random.key(0), policy)
    >>> draw.action.dtype, draw.log_prob.round(3).tolist(), d.mode(policy).tolist()
    (dtype('int32'), [-0.6930000185966492], [0])
    """
    return _categorical(as_count("num_actions", num_actions, at_least=2))


@functools.cache
def _categorical(num_actions: int) -> Distribution:
    return Distribution(
        num_outputs=num_actions,
        policy=lambda outputs, hp: Categorical(outputs),
        sample=_sample,
        log_prob=_log_prob,
        kl=lambda old, new: categorical_kl(old.logits, new.logits),
        kl_sampled=_kl_sampled,
        entropy=_entropy,
        mode=lambda policy: jnp.argmax(policy.logits, axis=-1).astype(jnp.int32),
        to_environment=lambda action: action,
        target_entropy=_target_entropy,
        logits=lambda policy: policy.logits,
        widen=_widen,
        num_normals=num_actions,
        from_normals=_from_normals,
    )


def _sample(key: Array, policy: Categorical) -> PolicySample:
    action, log_prob = categorical_sample(key, policy.logits)
    return PolicySample(action, log_prob, action)


def _log_prob(policy: Categorical, action: Array, latent: Array | None = None) -> Array:
    del latent
    return categorical_log_prob(policy.logits, action)


def _kl_sampled(
    key: Array, old: Categorical, new: Categorical, *, num_samples: int, clip: float | None = None
) -> Array:
    del clip  # there is no edge
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 is needed.")

    def once(key: Array) -> Array:
        draw = jax.lax.stop_gradient(categorical_sample(key, old.logits))
        of_old, of_new = (categorical_log_prob(p.logits, draw.action) for p in (old, new))
        return of_old - of_new

    return jnp.mean(jax.vmap(once)(jax.random.split(key, num_samples)), axis=0)


def _entropy(key: Array, policy: Categorical, num_samples: int) -> Array:
    del key, num_samples
    return categorical_entropy(policy.logits)


def _target_entropy(hp: Hyperparameters, policy: Categorical) -> ScalarLike:
    valid = jnp.sum(policy.logits > -jnp.inf, axis=-1).astype(policy.logits.dtype)
    return hp.entropy_share * jnp.mean(jnp.log(jnp.maximum(valid, 1.0)))


def _widen(policy: Categorical, scales: Callable[[int], Array]) -> Categorical:
    return Categorical(policy.logits / scales(policy.logits.shape[-2])[:, None])


def _from_normals(policy: Categorical, normals: Array) -> Array:
    # The Gumbel trick; the quantiles of the two distributions correspond.
    gumbels = -jnp.log(-jax.scipy.special.log_ndtr(normals))
    return jnp.argmax(policy.logits + gumbels, axis=-1).astype(jnp.int32)
