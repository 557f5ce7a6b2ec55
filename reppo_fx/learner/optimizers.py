"""The optimizer of actor, critic and multipliers, built inside the trace from traced hyperparameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from .._trees import all_finite
from ..ops import DualParams, Duals
from ..settings import Config, Hyperparameters

# Changes no number (its root is far below Adam's own 1e-8), but keeps the root's derivative at zero finite.
EPSILON_OF_ROOT = 1e-37
# Bounds nothing, and has a logarithm that can be differentiated.
NO_TEMPERATURE = 1e-30
# Far below any spread that matters, and the root has a finite derivative where all targets are equal.
NO_SPREAD = 1e-3


class SkipState(NamedTuple):
    """The inner optimizer's state, and how many updates were dropped."""

    inner: optax.OptState
    skipped: Int[Array, ""]


def skip_nonfinite(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Drop an update that would leave a parameter or the optimizer's state not finite, and count it.

    Unlike `optax.apply_if_finite` this looks at the parameters that would result, not at the gradient
    alone, and never gives in.

    Args:
        inner: the optimizer whose updates are looked at.

    Returns:
        The optimizer; its state has the number of dropped updates, `skipped`.

    >>> optimizer = skip_nonfinite(optax.sgd(1.0))
    >>> state = optimizer.init(jnp.ones(2))
    >>> updates, state = optimizer.update(jnp.array([1.0, jnp.nan]), state, jnp.ones(2))
    >>> print(updates, state.skipped)
    [0. 0.] 1
    """

    def init(params: optax.Params) -> SkipState:
        return SkipState(inner.init(params), jnp.zeros((), jnp.int32))

    def update(
        gradients: optax.Updates, state: SkipState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, SkipState]:
        updates, inner_state = inner.update(gradients, state.inner, params)
        result = updates if params is None else optax.apply_updates(params, updates)
        ok = all_finite((result, inner_state))
        updates = jax.tree.map(lambda u: jnp.where(ok, u, jnp.zeros_like(u)), updates)
        kept = jax.tree.map(lambda new, old: jnp.where(ok, new, old), inner_state, state.inner)
        return updates, SkipState(kept, state.skipped + (~ok).astype(jnp.int32))

    return optax.GradientTransformation(init, update)


def count_skipped(opt_state: PyTree) -> Int[Array, ""]:
    """Dropped updates, summed over every `skip_nonfinite` in an optimizer state."""

    def is_skip(node: object) -> bool:
        return isinstance(node, SkipState)

    nodes = [node for node in jax.tree.leaves(opt_state, is_leaf=is_skip) if is_skip(node)]
    return sum((node.skipped for node in nodes), jnp.zeros((), jnp.int32))


def learning_rate_schedule(hyperparameters: Hyperparameters, config: Config) -> optax.Schedule:
    """Step size of the n-th gradient step: linear to `final_learning_rate` times the first one, then constant."""
    start = jnp.asarray(hyperparameters.learning_rate)
    end = start * hyperparameters.final_learning_rate
    return optax.linear_schedule(start, end, config.num_updates)


def make_optimizer(
    hyperparameters: Hyperparameters, config: Config
) -> optax.GradientTransformation:
    """Adam behind a bound on the global norm; updates that are not finite are dropped.

    All parameters are one flat vector to it: a few large kernels instead of hundreds of small ones, which
    halves both compile and run time of a gradient step on a CPU.

    Args:
        hyperparameters: the learning rate and its end, the bound of the gradient's norm.
        config: how long the learning rate falls.

    Returns:
        The optimizer; its state counts what was dropped.

    >>> optimizer = make_optimizer(Hyperparameters(), Config())
    >>> state = optimizer.init(jnp.zeros(3))
    >>> updates, state = jax.jit(optimizer.update)(jnp.array([jnp.nan, 1.0, 0.0]), state, jnp.zeros(3))
    >>> print(updates)  # dropped, and counted
    [0. 0. 0.]
    """
    clip = optax.clip_by_global_norm(hyperparameters.max_grad_norm)
    return optax.flatten(skip_nonfinite(optax.chain(clip, _adam(hyperparameters, config))))


def make_dual_optimizer(
    hyperparameters: Hyperparameters, config: Config
) -> optax.GradientTransformation:
    """Adam without a bound, for the multipliers' own optimizer; each at its own rate."""

    def at_own_rates(updates: optax.Updates, _: optax.Params | None = None) -> optax.Updates:
        return scale_dual_updates(updates, hyperparameters)

    adam = optax.flatten(skip_nonfinite(_adam(hyperparameters, config)))
    return optax.chain(adam, optax.stateless(at_own_rates))


def scale_dual_updates(updates: DualParams, hyperparameters: Hyperparameters) -> DualParams:
    """Steps of `log α` and `log β`, each times its rate."""
    return DualParams(
        updates.log_temperature * hyperparameters.temperature_rate,
        updates.log_multiplier * hyperparameters.multiplier_rate,
    )


def lowest_temperature(
    targets: Float[Array, "*batch"], hyperparameters: Hyperparameters
) -> Float[Array, ""]:
    """`α_min = min_temperature · max(0, 1 − std(G) / min_temperature_spread)`, or `min_temperature` if that is 0.

    Where all values are alike, a policy of a low temperature follows the critic's error. Where they differ, values
    tell good actions from bad ones, and small exact actions need a low temperature.

    Args:
        targets: `G`, of a minibatch, in scaled reward.
        hyperparameters: the bound, and the spread that needs none.

    Returns:
        `α_min`, scaled reward per nat.

    Source: ours, from what was measured (benchmarks/README.md, what was tried for unknown tasks).

    >>> hyperparameters = Hyperparameters(min_temperature=0.1, min_temperature_spread=10.0)
    >>> for targets in (jnp.full(4, 90.0), jnp.array([86.0, 94.0]), jnp.array([0.0, 90.0])):
    ...     print(f"{lowest_temperature(targets, hyperparameters):.2f}")
    0.10
    0.06
    0.00
    """
    bound = jnp.asarray(hyperparameters.min_temperature)
    needless = jnp.asarray(hyperparameters.min_temperature_spread)
    spread = jnp.sqrt(jnp.var(targets) + NO_SPREAD**2)
    # A spread that is no number is not below: a diverged critic leaves the temperature alone.
    share = jnp.where(
        spread < needless, 1.0 - spread / jnp.where(needless > 0.0, needless, 1.0), 0.0
    )
    return bound * jnp.where(needless > 0.0, share, 1.0)


def bound_duals(duals: Duals, lowest: Float[Array, ""]) -> Duals:
    """`α ≥ lowest`.

    >>> from reppo_fx.ops import dual_init
    >>> duals = bound_duals(dual_init(0.01, 0.02), jnp.array(0.05))
    >>> print(f"{duals.temperature:.3f}, {duals.multiplier:.3f}")
    0.050, 0.020
    """
    log_temperature = jnp.maximum(
        duals.params.log_temperature, jnp.log(jnp.maximum(lowest, NO_TEMPERATURE))
    )
    return duals._replace(params=duals.params._replace(log_temperature=log_temperature))


def _adam(hyperparameters: Hyperparameters, config: Config) -> optax.GradientTransformation:
    schedule = learning_rate_schedule(hyperparameters, config)
    return optax.adam(schedule, eps_root=EPSILON_OF_ROOT)
