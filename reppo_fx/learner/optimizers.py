"""The optimizer of actor, critic and multipliers, built inside the trace from traced hyperparameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int


class SkipState(NamedTuple):
    """The inner optimizer's state, and how many updates were dropped."""

    inner: Any
    skipped: Int[Array, ""]


def skip_nonfinite(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Drop an update that would leave a parameter or the optimizer's state not finite, and count it.

    Unlike `optax.apply_if_finite` this looks at the parameters that would result, not at the gradient
    alone, and never gives in.

    >>> optimizer = skip_nonfinite(optax.sgd(1.0))
    >>> state = optimizer.init(jnp.ones(2))
    >>> updates, state = optimizer.update(jnp.array([1.0, jnp.nan]), state, jnp.ones(2))
    >>> print(updates, state.skipped)
    [0. 0.] 1
    """

    def init(params: Any) -> SkipState:
        return SkipState(inner.init(params), jnp.zeros((), jnp.int32))

    def update(
        gradients: Any, state: SkipState, params: Any = None, **extra: Any
    ) -> tuple[Any, SkipState]:
        updates, inner_state = inner.update(gradients, state.inner, params, **extra)
        ok = _all_finite((optax.apply_updates(params, updates), inner_state))
        updates = jax.tree.map(lambda u: jnp.where(ok, u, jnp.zeros_like(u)), updates)
        kept = jax.tree.map(lambda new, old: jnp.where(ok, new, old), inner_state, state.inner)
        return updates, SkipState(kept, state.skipped + (~ok).astype(jnp.int32))

    return optax.GradientTransformation(init, update)


def count_skipped(opt_state: Any) -> Int[Array, ""]:
    """Dropped updates, summed over every `skip_nonfinite` in an optimizer state."""
    is_skip = lambda node: isinstance(node, SkipState)
    nodes = [n for n in jax.tree.leaves(opt_state, is_leaf=is_skip) if is_skip(n)]
    return sum((node.skipped for node in nodes), jnp.zeros((), jnp.int32))


def learning_rate_schedule(hyperparameters: Any, config: Any) -> optax.Schedule:
    """Step size of the n-th gradient step: linear to `final_learning_rate` times the first one."""
    end = hyperparameters.learning_rate * hyperparameters.final_learning_rate
    return optax.linear_schedule(hyperparameters.learning_rate, end, config.num_updates)


def make_optimizer(hyperparameters: Any, config: Any) -> optax.GradientTransformation:
    """Adam behind a bound on the global norm; updates that are not finite are dropped.

    All parameters are one flat vector to it: a few large kernels instead of hundreds of small ones, which
    halves both compile and run time of a gradient step on a CPU.
    """
    adam = optax.adam(learning_rate_schedule(hyperparameters, config))
    clip = optax.clip_by_global_norm(hyperparameters.max_grad_norm)
    return optax.flatten(skip_nonfinite(optax.chain(clip, adam)))


def make_dual_optimizer(hyperparameters: Any, config: Any) -> optax.GradientTransformation:
    """Adam without a bound, for the multipliers' own optimizer."""
    adam = optax.adam(learning_rate_schedule(hyperparameters, config))
    return optax.flatten(skip_nonfinite(adam))


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
