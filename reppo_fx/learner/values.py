"""What a critic's outputs mean: value, labels, loss. Nothing else knows whether a critic is categorical."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, ScalarLike

from ..ops import (
    cross_entropy,
    hl_gauss_support,
    hl_gauss_targets,
    hl_gauss_value,
    squared_value_loss,
)
from ..settings import Hyperparameters
from .rollout import Transition

# Of HL-Gauss's labels, in bin widths: below it their mean is no longer the target.
LOWEST_SIGMA_RATIO = 0.75

# A value function's own state, `LearnerState.values`: constant within an iteration.
Values: TypeAlias = PyTree


def _stateless(hyperparameters: Hyperparameters, num_envs: int) -> Values:
    del hyperparameters, num_envs
    return ()


def _unchanged(state: Values, transitions: Transition, hyperparameters: Hyperparameters) -> Values:
    del transitions, hyperparameters
    return state


def _as_it_is(state: Values, targets: Array) -> Values:
    del targets
    return state


def _one(state: Values) -> ScalarLike:
    del state
    return 1.0


class ValueFunction(NamedTuple):
    """How a critic's outputs are read and trained, as a bundle of functions.

    `state` is the value function's own, `LearnerState.values`: a PyTree of arrays, constant within an iteration.
    A fixed support has none, and needs only the first five.

    Attributes:
        num_outputs: outputs of the critic's head.
        offset: `hyperparameters -> start offset` of the critic (or none).
        value: `(outputs, hyperparameters, state) -> value`, one scalar per row, in the unit of now.
        labels: `(targets, hyperparameters, state) -> labels`, what outputs are trained towards; once per iteration.
        loss: `(outputs, labels) -> loss`, one per row.
        outside: `(targets, hyperparameters, state) -> bool`, which targets the outputs cannot hold, by more than
            the width of a label.
        init: `(hyperparameters, number of instances) -> state`.
        observe: `(state, transitions [T, num_envs], hyperparameters) -> state`, once a rollout is collected.
        adopt: `(state, targets) -> state`, before gradient steps: from here on the critic is trained in the unit of
            now, in which the targets are.
        unit: `state -> s`: rewards are divided by it for learning.
    """

    num_outputs: int
    offset: Callable[[Hyperparameters], Array | None]
    value: Callable[[Array, Hyperparameters, Values], Array]
    labels: Callable[[Array, Hyperparameters, Values], Array]
    loss: Callable[[Array, Array], Array]
    outside: Callable[[Array, Hyperparameters, Values], Bool[Array, "*batch"]] = lambda y, hp, s: (
        jnp.zeros_like(y, bool)
    )
    init: Callable[[Hyperparameters, int], Values] = _stateless
    observe: Callable[[Values, Transition, Hyperparameters], Values] = _unchanged
    adopt: Callable[[Values, Array], Values] = _as_it_is
    unit: Callable[[Values], ScalarLike] = _one


def categorical_value_function(num_bins: int = 151) -> ValueFunction:
    """HL-Gauss critic: `num_bins` logits on `[v_min, v_max]`, starting near value 0.

    The default: it needs a support that holds the values. `squared_value_function` needs none, and its gradients
    grow with the values; `scaled_value_function` makes a support fit any scale of reward.

    Args:
        num_bins: centres on the support, its ends included; 2 or more.

    Returns:
        The bundle; it has no state of its own.

    >>> values, hp = categorical_value_function(101), Hyperparameters(v_min=0.0, v_max=100.0)
    >>> print(values.value(jnp.zeros((2, 101)), hp, ()))  # all bins alike: the middle
    [50. 50.]
    """
    return ValueFunction(
        num_outputs=num_bins,
        offset=functools.partial(_zero_label, num_bins=num_bins),
        value=functools.partial(_value_of_bins, num_bins=num_bins),
        # Apart from the loss: Gaussian tails would take a tenth of every gradient step.
        labels=functools.partial(_labels, num_bins=num_bins),
        # Only the critic is differentiated: gradients through the whole update pass.
        loss=functools.partial(cross_entropy, stop_gradients=False, finite_logits=True),
        outside=functools.partial(_outside_support, num_bins=num_bins),
    )


def _support(hp: Hyperparameters, num_bins: int) -> Float[Array, " bins"]:
    return hl_gauss_support(hp.v_min, hp.v_max, num_bins)


def _sigma_ratio(hp: Hyperparameters, num_bins: int) -> Array:
    """Width of a label in bin widths."""
    return jnp.maximum(hp.sigma * (num_bins - 1.0), LOWEST_SIGMA_RATIO)


def _value_of_bins(outputs: Array, hp: Hyperparameters, state: Values, *, num_bins: int) -> Array:
    del state
    return hl_gauss_value(outputs, _support(hp, num_bins), finite_logits=True)


def _labels(targets: Array, hp: Hyperparameters, state: Values, *, num_bins: int) -> Array:
    del state
    return hl_gauss_targets(targets, _support(hp, num_bins), _sigma_ratio(hp, num_bins))


def _zero_label(hp: Hyperparameters, *, num_bins: int) -> Array:
    return _labels(jnp.zeros((), jnp.result_type(float)), hp, (), num_bins=num_bins)


def _outside_support(
    targets: Array, hp: Hyperparameters, state: Values, *, num_bins: int
) -> Bool[Array, "*batch"]:
    """What is beyond an end by less than a label's width is hardly changed by being cut."""
    del state
    low, high = jnp.asarray(hp.v_min), jnp.asarray(hp.v_max)
    margin = _sigma_ratio(hp, num_bins) * (high - low) / (num_bins - 1.0)
    return (targets < low - margin) | (targets > high + margin)


def squared_value_function() -> ValueFunction:
    """Scalar critic with squared error: the ablation without HL-Gauss.

    Returns:
        The bundle; it has no state of its own.

    >>> values, hp = squared_value_function(), Hyperparameters()
    >>> outputs = jnp.array([[1.0], [2.0]])
    >>> labels = values.labels(jnp.array([1.0, 4.0]), hp, ())
    >>> print(values.value(outputs, hp, ()), values.loss(outputs, labels))
    [1. 2.] [0. 4.]
    """
    return ValueFunction(
        num_outputs=1,
        offset=lambda hp: None,
        value=lambda outputs, hp, state: outputs[..., 0],
        labels=lambda targets, hp, state: targets,
        loss=lambda outputs, labels: squared_value_loss(
            outputs[..., 0], labels, stop_gradients=False
        ),
    )
