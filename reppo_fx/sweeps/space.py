"""Sets of hyperparameters to try: a grid, random draws, and how population methods move within bounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, ScalarLike

from .._errors import unknown_name
from .._keys import as_key
from .._ranges import ORDERED, as_count, as_number, check_ranges
from ..settings import Config, Hyperparameters

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


def log_uniform(low: ScalarLike, high: ScalarLike) -> LogUniform:
    """A distribution for `sample`: uniform in the logarithm on `[low, high]`.

    Args:
        low: lowest value.
        high: highest value.

    Returns:
        The distribution.

    Raises:
        ValueError: unless `0 < low < high`, both finite numbers.

    >>> log_uniform(1e-4, 1e-2)
    LogUniform(low=0.0001, high=0.01)
    """
    bounds = _bounds("log_uniform", low, high)
    if not (0 < bounds[0] < bounds[1] and math.isfinite(bounds[1])):
        raise ValueError(f"log_uniform got low {low} and high {high}; it needs 0 < low < high.")
    return LogUniform(*bounds)


def uniform(low: ScalarLike, high: ScalarLike) -> Uniform:
    """A distribution for `sample`: uniform on `[low, high]`.

    Args:
        low: lowest value.
        high: highest value.

    Returns:
        The distribution.

    Raises:
        ValueError: unless `low < high`, both finite numbers, and their difference too.

    >>> uniform(0.9, 0.99)
    Uniform(low=0.9, high=0.99)
    """
    bounds = _bounds("uniform", low, high)
    width = bounds[1] - bounds[0]
    if not (width > 0 and width <= float(np.finfo(jnp.result_type(float)).max)):
        raise ValueError(
            f"uniform got low {low} and high {high}; it needs low < high and a finite difference."
        )
    return Uniform(*bounds)


def choice(options: Iterable[ScalarLike]) -> Choice:
    """A distribution for `sample`: one of the options, all equally likely.

    Args:
        options: numbers, at least one.

    Returns:
        The distribution.

    Raises:
        ValueError: for an empty list, what is no number, or the same option twice.

    >>> choice([0.5, 1.0])
    Choice(options=(0.5, 1.0))
    """
    return Choice(_list_values("choice", options))


def grid(base: Hyperparameters | None = None, **values: Iterable[ScalarLike]) -> Hyperparameters:
    """Cross product of the given values; the last name varies fastest.

    Args:
        base: values of everything else, single numbers; the defaults if none.
        **values: for each hyperparameter, the values it takes, all different.

    Returns:
        `Hyperparameters` with leaves `[settings]`.

    Raises:
        ValueError: for an unknown name (with the nearest ones), an empty list, the same value twice, a value out
            of range, or a combination that cannot be (`v_min ≥ v_max`).

    >>> settings = grid(learning_rate=[1e-4, 3e-4, 1e-3], kl_target=[0.05, 0.1])
    >>> settings.learning_rate.shape, settings.discount.shape
    ((6,), (6,))
    """
    return grid_but_for((), Hyperparameters() if base is None else base, values)


def grid_but_for(
    undecided: Collection[str], base: Hyperparameters, values: Mapping[str, Iterable[ScalarLike]]
) -> Hyperparameters:
    """A `grid` whose settings that are `undecided` are not looked at: they will have other values than the base."""
    _check_names(values)
    _check_base(base, [*values, *undecided])
    columns = {name: _list_values(name, options) for name, options in values.items()}
    for name, options in columns.items():
        for option in options:
            check_ranges({name: option})
    # Counted in Python numbers: a product may be larger than an int32.
    grids = np.meshgrid(*columns.values(), indexing="ij")
    count = math.prod(map(len, columns.values()))
    product = dict(zip(columns, (leaf.ravel() for leaf in grids), strict=True))
    dtype = jnp.result_type(float)
    settings: Hyperparameters = jax.tree.map(
        lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, dtype), (count,)), base._replace(**product)
    )
    unseen = set(undecided) - set(values)
    check_ranges({name: x for name, x in settings._asdict().items() if name not in unseen})
    return settings


def sample(
    key: Array,
    num: SupportsIndex,
    base: Hyperparameters | None = None,
    **distributions: Distribution | ScalarLike,
) -> Hyperparameters:
    """Random search: independent draws of the given hyperparameters.

    Args:
        key: a random key, typed or raw. Each name has its own stream, so adding one leaves the draws of the others.
        num: how many settings.
        base: values of everything else, single numbers or one for each setting; the defaults if none.
        **distributions: for each hyperparameter `log_uniform`, `uniform`, `choice`, or a number to fix it.

    Returns:
        `Hyperparameters` with leaves `[num]`.

    Raises:
        ValueError: for an unknown name (with the nearest ones), a bound out of range, bounds that allow a
            combination that cannot be (`v_min ≥ v_max`), or `num < 1`.

    >>> settings = sample(jax.random.key(0), 5, learning_rate=log_uniform(1e-4, 1e-2), discount=0.9)
    >>> settings.learning_rate.shape, print(settings.discount)
    [0.9 0.9 0.9 0.9 0.9]
    ((5,), None)
    """
    count, key = as_count("num", num), as_key(key)
    base = Hyperparameters() if base is None else base
    check_distributions(distributions, base, count)
    drawn: dict[str, ArrayLike] = {}
    for name, distribution in distributions.items():
        if isinstance(distribution, Distribution):
            stream = jax.random.fold_in(key, Hyperparameters._fields.index(name))
            drawn[name] = distribution.sample(stream, count)
        else:
            drawn[name] = distribution
    dtype = jnp.result_type(float)
    settings: Hyperparameters = jax.tree.map(
        lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, dtype), (count,)), base._replace(**drawn)
    )
    return settings


def check_distributions(
    distributions: Mapping[str, Distribution | ScalarLike],
    base: Hyperparameters,
    num: int | None = None,
) -> None:
    """Raise a sentence unless every draw would be in range, alone and together with the others.

    Args:
        distributions: for each name a distribution, or a number.
        base: everything else.
        num: length of the axis that leaves of `base` may have, if they may.
    """
    _check_names(distributions)
    _check_base(base, distributions, num)
    ends = {name: _ends(name, value) for name, value in distributions.items()}
    for name, values in ends.items():
        for value in values:
            check_ranges({name: value})
    for low, high in ORDERED:
        if low not in ends and high not in ends:
            continue  # both from the base, which has been checked
        first, second = (
            ends[name] if name in ends else (getattr(base, name),) for name in (low, high)
        )
        try:
            check_ranges({low: _most(first, np.max), high: _most(second, np.min)})
        except ValueError as error:
            given = " and ".join(
                f"{name} {distributions.get(name, getattr(base, name))}" for name in (low, high)
            )
            raise ValueError(f"{given} cannot go together: {error}") from None


def _most(values: tuple[ScalarLike, ...], pick: np.ufunc | object) -> object:
    """The largest or smallest value; a traced one is left as it is."""
    if any(isinstance(value, jax.core.Tracer) for value in values):
        return values[0]
    return pick([np.asarray(value, np.float64) for value in values])  # type: ignore[operator]


def _ends(name: str, value: object) -> tuple[float, ...]:
    """The values at which a distribution can leave a range; bounds given without a constructor are checked too."""
    if isinstance(value, LogUniform):
        return tuple(log_uniform(*value))
    if isinstance(value, Uniform):
        return tuple(uniform(*value))
    if isinstance(value, Choice):
        return choice(value.options).options
    if not isinstance(value, int | float | np.generic | np.ndarray | jax.Array):
        raise ValueError(
            f"{name} is {value!r}; it must be log_uniform, uniform, choice, or a number."
        )
    return (as_number(name, value),)


def _bounds(name: str, low: object, high: object) -> tuple[float, float]:
    return as_number(f"low of {name}", low), as_number(f"high of {name}", high)


def _list_values(name: str, options: object) -> tuple[float, ...]:
    """Plain numbers, in the given order, no two alike."""
    if isinstance(options, str | bytes | Mapping) or not isinstance(options, Iterable):
        raise ValueError(f"{name} is {options!r}; it must be a list of values, like [0.1, 0.2].")
    if isinstance(options, np.ndarray | jax.Array) and options.ndim != 1:
        raise ValueError(
            f"{name} has shape {list(options.shape)}; it must be a list of values, like [0.1, 0.2]."
        )
    values = tuple(as_number(name, option) for option in options)
    if not values:
        raise ValueError(f"{name} has no values; at least one is needed.")
    seen = np.asarray(values, jnp.result_type(float)).tolist()
    for index, value in enumerate(seen):
        if value in seen[:index]:
            raise ValueError(f"{name} has {values[index]} twice; give every value once.")
    return values


def _check_base(base: Hyperparameters, given: Iterable[str], num: int | None = None) -> None:
    """Raise a sentence unless what is left of the base is in range, single numbers or (if given) `[num]`."""
    left = {name: leaf for name, leaf in base._asdict().items() if name not in set(given)}
    check_ranges(left)
    for name, leaf in left.items():
        if jnp.shape(leaf) not in ((), (num,)):
            allowed = "a single number" if num is None else f"a single number, or {num} of them"
            raise ValueError(
                f"{name} of base has shape {list(jnp.shape(leaf))}; it must be {allowed}."
            )


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name not in Hyperparameters._fields:
            if name in {field.name for field in dataclasses.fields(Config)}:
                raise ValueError(
                    f"{name} is a field of Config, fixed in a compiled program; only hyperparameters can be varied."
                )
            raise unknown_name("hyperparameter", name, Hyperparameters._fields)
