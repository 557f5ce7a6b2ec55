"""A value function of rewards divided by one number, which follows the task and is frozen for an iteration."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..ops import statistics_init
from ..settings import Hyperparameters
from .rollout import Transition
from .scale_rules import (
    Center,
    ReturnStatistics,
    Scalar,
    ScaleRule,
    TargetStatistics,
    about,
    at_zero,
    by_return,
    return_statistics,
    target_statistics,
)
from .values import ValueFunction


class Scaled(NamedTuple):
    """State of a scaled value function.

    Attributes:
        statistics: of rewards and returns.
        targets: of targets.
        now: `s`, what rewards are divided by in this iteration.
        trained: the `s` under which the critic was trained last.
        center: `c`, the value, in the environment's unit, that the inner value function reads as 0.
        trained_center: the `c` under which the critic was trained last.
        inner: state of the value function inside.
    """

    statistics: ReturnStatistics
    targets: TargetStatistics
    now: Scalar
    trained: Scalar
    center: Scalar
    trained_center: Scalar
    inner: object


def scaled_value_function(
    inner: ValueFunction, rule: ScaleRule = by_return, *, center: Center = at_zero
) -> ValueFunction:
    """The same value function of rewards divided by a scale `s` that follows the task.

    `s` is computed from everything seen so far once a rollout is collected, and frozen for the whole iteration. A
    critic that was trained under another `s` reads its values in the old unit; they are multiplied by
    `s_old / s_new` until it is trained again. So temperature, `sigma` and every other hyperparameter are free of
    the reward's unit: multiplying all rewards by a number changes nothing, if the first rollout pays anything. As
    long as nothing but zeros has been paid, `s` has nothing to go by, and begins at 1.

    Args:
        inner: a categorical or squared one, on a support that is symmetric where rewards may be negative.
        rule: statistics to `s`.
        center: the value that the inner value function reads as 0: `at_zero`, `at_mean` or `at_lowest`, for
            `by_target`, which holds the targets about it.

    Returns:
        A value function with state.

    >>> from reppo_fx import Hyperparameters, categorical_value_function
    >>> values = scaled_value_function(categorical_value_function(51))
    >>> state = values.init(Hyperparameters(), 4)
    >>> print(values.unit(state))
    1.0
    """

    return inner._replace(
        value=partial(_value, inner),
        labels=partial(_labels, inner),
        outside=partial(_outside, inner),
        init=partial(_init, inner),
        observe=partial(_observe, inner, rule, center),
        adopt=partial(_adopt, inner),
        unit=lambda state: state.now * inner.unit(state.inner),
    )


def _init(inner: ValueFunction, hp: Hyperparameters, num_envs: int) -> Scaled:
    real = jnp.result_type(float)
    zero, one = jnp.zeros((), real), jnp.ones((), real)
    statistics = ReturnStatistics(
        jnp.zeros((num_envs,), real),
        jnp.zeros((num_envs,), bool),
        statistics_init(jax.ShapeDtypeStruct((), real)),
        zero,
        zero,
        zero,
    )
    targets = TargetStatistics(zero, zero, zero)
    return Scaled(statistics, targets, one, one, zero, zero, inner.init(hp, num_envs))


def _observe(
    inner: ValueFunction,
    rule: ScaleRule,
    center: Center,
    state: Scaled,
    transitions: Transition,
    hp: Hyperparameters,
) -> Scaled:
    statistics = return_statistics(state.statistics, transitions, hp)
    middle = center(statistics, state.targets)
    s = rule(statistics, about(state.targets, middle), hp)
    # Nothing but zeros so far has no scale.
    now = jnp.where((s > 0) & jnp.isfinite(s), s, state.now)
    return state._replace(
        statistics=statistics,
        now=now,
        # What a critic says that has never been trained has no unit yet.
        trained=jnp.where(state.targets.weight > 0, state.trained, now),
        center=middle,
        inner=inner.observe(state.inner, transitions, hp),
    )


def _adopt(inner: ValueFunction, state: Scaled, targets: Array) -> Scaled:
    return state._replace(
        targets=target_statistics(state.targets, targets * state.now),
        trained=state.now,
        trained_center=state.center,
        inner=inner.adopt(state.inner, _about_center(targets, state)),
    )


def _value(inner: ValueFunction, outputs: Array, hp: Hyperparameters, state: Scaled) -> Array:
    own = inner.value(outputs, hp, state.inner)
    return (own * state.trained + state.trained_center) / state.now


def _labels(inner: ValueFunction, targets: Array, hp: Hyperparameters, state: Scaled) -> Array:
    return inner.labels(_about_center(targets, state), hp, state.inner)


def _outside(inner: ValueFunction, targets: Array, hp: Hyperparameters, state: Scaled) -> Array:
    return inner.outside(_about_center(targets, state), hp, state.inner)


def _about_center(targets: Array, state: Scaled) -> Array:
    return targets - state.center / state.now
