"""Sets of hyperparameters to try: a grid, random draws, and how population methods move within bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._errors import unknown_name
from ..settings import Hyperparameters, check_hyperparameters

PERTURBATION = 1.25


class LogUniform(NamedTuple):
    """Uniform in the logarithm, on `[low, high]`; perturbed by a factor of 1.25 or its inverse."""

    low: float
    high: float

    def sample(self, key: Array, num: int) -> Float[Array, " num"]:
        """`num` independent draws."""
        draws = jax.random.uniform(
            key, (num,), minval=math.log(self.low), maxval=math.log(self.high)
        )
        return jnp.clip(jnp.exp(draws), self.low, self.high)

    def perturb(self, key: Array, value: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """A neighbour of each value, inside the bounds."""
        up = jax.random.bernoulli(key, shape=value.shape)
        return jnp.clip(
            jnp.where(up, value * PERTURBATION, value / PERTURBATION), self.low, self.high
        )


class Uniform(NamedTuple):
    """Uniform on `[low, high]`; perturbed by a tenth of the range, up or down."""

    low: float
    high: float

    def sample(self, key: Array, num: int) -> Float[Array, " num"]:
        """`num` independent draws."""
        return jax.random.uniform(key, (num,), minval=self.low, maxval=self.high)

    def perturb(self, key: Array, value: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """A neighbour of each value, inside the bounds."""
        step = 0.1 * (self.high - self.low)
        up = jax.random.bernoulli(key, shape=value.shape)
        return jnp.clip(jnp.where(up, value + step, value - step), self.low, self.high)


class Choice(NamedTuple):
    """One of the options, all equally likely; perturbed to one of the two beside it in the given order."""

    options: tuple[float, ...]

    def sample(self, key: Array, num: int) -> Float[Array, " num"]:
        """`num` independent draws."""
        return jax.random.choice(key, jnp.asarray(self.options, jnp.result_type(float)), (num,))

    def perturb(self, key: Array, value: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """A neighbour of each value; values that are no option move to one beside the nearest."""
        options = jnp.asarray(self.options, jnp.result_type(float))
        index = jnp.argmin(jnp.abs(options - value[..., None]), axis=-1)
        step = jnp.where(jax.random.bernoulli(key, shape=value.shape), 1, -1)
        return options[jnp.clip(index + step, 0, len(self.options) - 1)]


Distribution = LogUniform | Uniform | Choice


def log_uniform(low: float, high: float) -> LogUniform:
    """A distribution for `sample`: uniform in the logarithm on `[low, high]`.

    Raises:
        ValueError: unless `0 < low < high`, both finite.

    >>> log_uniform(1e-4, 1e-2)
    LogUniform(low=0.0001, high=0.01)
    """
    if not (0 < low < high and math.isfinite(high)):
        raise ValueError(f"log_uniform got low {low} and high {high}; it needs 0 < low < high.")
    return LogUniform(float(low), float(high))


def uniform(low: float, high: float) -> Uniform:
    """A distribution for `sample`: uniform on `[low, high]`.

    Raises:
        ValueError: unless `low < high`, both finite.

    >>> uniform(0.9, 0.99)
    Uniform(low=0.9, high=0.99)
    """
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"uniform got low {low} and high {high}; it needs low < high.")
    return Uniform(float(low), float(high))


def choice(options: Sequence[float]) -> Choice:
    """A distribution for `sample`: one of the options, all equally likely.

    Raises:
        ValueError: for an empty list.

    >>> choice([0.5, 1.0])
    Choice(options=(0.5, 1.0))
    """
    if not len(options):
        raise ValueError("choice got no options; it needs at least one.")
    return Choice(tuple(float(option) for option in options))


def grid(base: Hyperparameters | None = None, **values: Sequence[float]) -> Hyperparameters:
    """Cross product of the given values; the last name varies fastest.

    Args:
        base: values of everything else; the defaults if none.
        **values: for each hyperparameter, the values it takes.

    Returns:
        `Hyperparameters` with leaves `[settings]`.

    Raises:
        ValueError: for an unknown name (with the nearest ones), an empty list, or a value out of range.

    >>> settings = grid(learning_rate=[1e-4, 3e-4, 1e-3], kl_target=[0.05, 0.1])
    >>> settings.learning_rate.shape, settings.discount.shape
    ((6,), (6,))
    """
    base = Hyperparameters() if base is None else base
    _check_names(values)
    for name, options in values.items():
        if not len(options):
            raise ValueError(f"{name} has no values; a grid needs at least one of each.")
    members = [
        base._replace(**dict(zip(values, combination, strict=True)))
        for combination in itertools.product(*values.values())
    ]
    for member in members:
        check_hyperparameters(member)
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves, dtype), *members)


def sample(
    key: Array,
    num: int,
    base: Hyperparameters | None = None,
    **distributions: Distribution | float,
) -> Hyperparameters:
    """Random search: independent draws of the given hyperparameters.

    Args:
        key: a JAX random key. Each name has its own stream, so adding one leaves the draws of the others.
        num: how many settings.
        base: values of everything else; the defaults if none.
        **distributions: for each hyperparameter `log_uniform`, `uniform`, `choice`, or a number to fix it.

    Returns:
        `Hyperparameters` with leaves `[num]`.

    Raises:
        ValueError: for an unknown name (with the nearest ones), a bound out of range, or `num < 1`.

    >>> settings = sample(jax.random.key(0), 5, learning_rate=log_uniform(1e-4, 1e-2), discount=0.9)
    >>> settings.learning_rate.shape, print(settings.discount)
    [0.9 0.9 0.9 0.9 0.9]
    ((5,), None)
    """
    if num < 1:
        raise ValueError(f"num is {num}; at least 1 is needed.")
    base = Hyperparameters() if base is None else base
    check_distributions(distributions, base)
    drawn: dict[str, Any] = {}
    for name, distribution in distributions.items():
        if isinstance(distribution, Distribution):
            stream = jax.random.fold_in(key, Hyperparameters._fields.index(name))
            drawn[name] = distribution.sample(stream, num)
        else:
            drawn[name] = distribution
    dtype = jnp.result_type(float)
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, dtype), (num,)), base._replace(**drawn)
    )


def check_distributions(distributions: Mapping[str, Any], base: Hyperparameters) -> None:
    """Raise a sentence unless every name is a hyperparameter and its ends are in that one's range."""
    _check_names(distributions)
    for name, distribution in distributions.items():
        ends = tuple(distribution) if isinstance(distribution, LogUniform | Uniform) else ()
        ends = distribution.options if isinstance(distribution, Choice) else ends
        for value in ends or (distribution,):
            if not isinstance(value, int | float):
                raise ValueError(
                    f"{name} is {value!r}; it must be log_uniform, uniform, choice, or a number."
                )
            check_hyperparameters(base._replace(**{name: float(value)}))


def _check_names(names: Mapping[str, Any]) -> None:
    for name in names:
        if name not in Hyperparameters._fields:
            raise unknown_name("hyperparameter", name, Hyperparameters._fields)
