"""What numbers may be: checked before anything is traced, whatever type they come in."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

Numbers = Float[np.ndarray, "..."]
Rule = tuple[Callable[[Numbers], "np.ndarray"], str]
Order = tuple[Callable[[Numbers, Numbers], "np.ndarray"], str]

_FINITE: Rule = (np.isfinite, "it must be finite")
_POSITIVE: Rule = (lambda x: x > 0, "it must be positive")
_NOT_NEGATIVE: Rule = (lambda x: x >= 0, "it must not be negative")
_SHARE: Rule = (lambda x: (x > 0) & (x <= 1), "it must be above 0 and at most 1")
_FRACTION: Rule = (lambda x: (x >= 0) & (x <= 1), "it must be in [0, 1]")
_BELOW_ONE: Rule = (lambda x: (x >= 0) & (x < 1), "it must be in [0, 1)")

# Hyperparameters that are not here may be any finite number.
RULES: dict[str, Rule] = {
    "learning_rate": _POSITIVE,
    "final_learning_rate": _NOT_NEGATIVE,
    "max_grad_norm": _POSITIVE,
    "discount": _FRACTION,
    "trace_decay": _FRACTION,
    "kl_target": _POSITIVE,
    "entropy_share": _FRACTION,
    "initial_temperature": _POSITIVE,
    "initial_multiplier": _POSITIVE,
    "aux_weight": _NOT_NEGATIVE,
    "min_std": _NOT_NEGATIVE,
    "sigma": _SHARE,
    "temperature_rate": _NOT_NEGATIVE,
    "multiplier_rate": _NOT_NEGATIVE,
    "min_temperature": _NOT_NEGATIVE,
    "min_temperature_spread": _NOT_NEGATIVE,
    "exploration_noise_min": _POSITIVE,
    "exploration_noise_max": _POSITIVE,
    "exploration_base": _FRACTION,
    "exploration_density": _FRACTION,
    "noise_correlation": _BELOW_ONE,
    "min_trace_weight": _FRACTION,
    "variance_floor": _POSITIVE,
}
_BELOW: Order = (np.less, "below")
_AT_MOST: Order = (np.less_equal, "at most")
# How the first of a pair must be against the second.
ORDERED = {
    ("v_min", "v_max"): _BELOW,
    ("min_temperature", "initial_temperature"): _AT_MOST,
}


def check_ranges(values: Mapping[str, object]) -> None:
    """Raise a sentence about the first hyperparameter out of range, with its place where it is an array.

    Values count as what jax will make of them: 1e-50 is no positive number in float32.

    Args:
        values: numbers of Python, NumPy or JAX, or arrays of them. Tracers have no values to check.

    Raises:
        ValueError: naming the leaf, its value and what is allowed.
    """
    known = {name: as_numbers(name, value) for name, value in values.items()}
    for name, numbers in known.items():
        if numbers is not None:
            for rule in (_FINITE, RULES.get(name, _FINITE)):
                _require(rule, name, values[name], numbers)
    for (low, high), order in ORDERED.items():
        first, second = known.get(low), known.get(high)
        if first is not None and second is not None:
            _require_order(order, low, first, high, second)


def as_numbers(name: str, value: object) -> Numbers | None:
    """The value in the dtype that jax will use, or None where there is none to see (tracers, other processes).

    Raises:
        ValueError: for what is no real number, bools included.
    """
    numeric = isinstance(value, int | float | np.ndarray | np.generic | jax.Array)
    if not numeric or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be a number, or an array of numbers.")
    dtype = getattr(value, "dtype", np.dtype(float))
    if not _is_real(dtype):
        raise ValueError(
            f"{name} is of dtype {dtype}; it must be a number, or an array of numbers."
        )
    if isinstance(value, jax.core.Tracer) or not getattr(value, "is_fully_addressable", True):
        return None
    used = np.finfo(jnp.result_type(float))
    try:
        given = np.asarray(value, np.float64)
    except OverflowError:
        raise ValueError(f"{name} is an integer too large for {used.dtype}.") from None
    with np.errstate(over="ignore", under="ignore"):
        numbers = given.astype(used.dtype)
    return np.where(np.abs(numbers) < used.tiny, np.zeros_like(numbers), numbers)


def as_number(name: str, value: object) -> float:
    """One plain number that is known now, as a Python float.

    Raises:
        ValueError: for what is none: an array with axes, a tracer, a bool, text.
    """
    numbers = as_numbers(name, value)
    if numbers is None:
        raise ValueError(f"{name} is traced; it must be known when it is given.")
    if numbers.ndim:
        raise ValueError(f"{name} has shape {list(numbers.shape)}; it must be a single number.")
    return float(np.asarray(value, np.float64))


def as_count(name: str, value: object, at_least: int = 1) -> int:
    """A whole number of things, of whatever integer type.

    Raises:
        ValueError: for other numbers, and for too small ones.

    >>> as_count("num_seeds", np.int64(3))
    3
    """
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value}; it must be a whole number.")
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{name} is {value!r}; it must be a whole number.") from None
    if count < at_least:
        raise ValueError(f"{name} is {count}; at least {at_least} is needed.")
    return count


def as_bytes(name: str, value: object) -> int:
    """A number of bytes, which people write as `4e9`.

    Raises:
        ValueError: for what is not a positive, finite number.
    """
    number = float(value) if isinstance(value, int) else as_number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} is {value}; it must be positive and finite.")
    return int(number)


def _is_real(dtype: Any) -> bool:
    if jnp.issubdtype(dtype, jnp.integer):
        return bool(dtype.kind != "m")  # durations are integers to NumPy
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _require(rule: Rule, name: str, value: object, numbers: Numbers) -> None:
    holds, sentence = rule
    wrong = np.argwhere(~holds(numbers))
    if not len(wrong):
        return
    place = tuple(int(index) for index in wrong[0])
    given = np.asarray(value)[place]
    seen = "" if not holds(np.asarray(given, float)) else f", {numbers[place]!s} in {numbers.dtype}"
    raise ValueError(f"{_label(name, place)} is {given!s}{seen}; {sentence}.")


def _require_order(order: Order, low: str, first: Numbers, high: str, second: Numbers) -> None:
    holds, word = order
    try:
        wrong = np.argwhere(~holds(first, second))
    except ValueError:
        raise ValueError(
            f"{low} has shape {list(first.shape)} and {high} has shape {list(second.shape)}; "
            "they must have the same."
        ) from None
    if not len(wrong):
        return
    place = tuple(int(index) for index in wrong[0])
    shape = np.broadcast_shapes(first.shape, second.shape)
    given = [
        f"{_label(name, place if numbers.ndim else ())} is {np.broadcast_to(numbers, shape)[place]!s}"
        for name, numbers in ((low, first), (high, second))
    ]
    raise ValueError(f"{' and '.join(given)}; {low} must be {word} {high}.")


def _label(name: str, place: tuple[int, ...]) -> str:
    return name + (str(list(place)) if place else "")
