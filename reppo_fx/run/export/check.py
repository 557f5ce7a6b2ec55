"""An exported policy beside the one in jax, on observations as they were seen and far beyond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from numpy.typing import NDArray

from ...learner.continuous import TanhNormal
from ...learner.discrete import Categorical
from ...training.policy import Policy
from .inputs import Inputs
from .program import by_name, in_single_precision

TOLERANCE = 1e-5
ROWS = 64


def check_alike(
    policy: Policy, inputs: Inputs, run: Callable[[dict[str, NDArray[Any]]], Any], format_: str
) -> None:
    """Refuse to hand out a file whose actions are others by more than 1e-5, where jax's own are not as rough.

    Raises:
        ValueError: with the difference, or where the policy gives no numbers.
    """
    leaves = example(policy, inputs)
    found = run(leaves)
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        single = in_single_precision(policy)
        observation = inputs.observation(leaves)
        expected = by_name(single(observation))
        parameters = single.at(observation)
    # Logits may be −∞, where an action is ruled out.
    if any(np.isnan(leaf).any() for leaf in jax.tree.leaves((expected, parameters))):
        raise ValueError("the policy's own actions are not numbers (NaN): its run has diverged.")
    worst = _difference(found, expected, parameters)
    if worst <= TOLERANCE:
        return
    allowed = max(TOLERANCE, 4.0 * _rounding(policy, inputs, leaves, expected, parameters))
    if not worst <= allowed:
        raise ValueError(
            f"format is {format_!r}, but its actions differ from the policy's by {worst:.2g}; at most "
            f"{allowed:.2g} is allowed, and no file was written."
        )


def _rounding(
    policy: Policy,
    inputs: Inputs,
    leaves: dict[str, NDArray[Any]],
    expected: PyTree[Array],
    parameters: PyTree[Array],
) -> float:
    """How far jax's own actions in single precision are from those in double; 0 where that cannot be had."""

    def wide(leaf: Any) -> Any:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(np.asarray(leaf), jnp.float64 if real else leaf.dtype)

    try:
        with jax.enable_x64(True):
            exact = jax.tree.map(wide, policy)(inputs.observation(jax.tree.map(wide, leaves)))
            return _difference(by_name(exact), expected, parameters)
    except Exception:  # networks of one's own may insist on single precision
        return 0.0


def _difference(found: Any, expected: Any, parameters: Any) -> float:
    """The largest, relative to numbers beyond 1: that is how far a mistake can be told from rounding."""
    if isinstance(parameters, Categorical):
        # Two logits may be equal but for rounding.
        logits = np.asarray(parameters.logits)
        taken = np.take_along_axis(logits, np.asarray(found)[:, None], 1)[:, 0]
        largest = logits.max(1)
        return float(np.max((largest - taken) / np.maximum(1.0, np.abs(largest))))
    before = np.abs(parameters.mean) if isinstance(parameters, TanhNormal) else np.zeros(())
    worst = 0.0
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        size = np.maximum(1.0, np.abs(other).max(0)) * np.maximum(1.0, before)
        # Not `max`, which would lose a NaN.
        worst = float(np.maximum(worst, np.max(np.abs(one - other) / size)))
    return worst


def example(policy: Policy, inputs: Inputs, rows: int = ROWS) -> dict[str, NDArray[Any]]:
    """Inputs spread three times as wide as the statistics say, `[rows, ...]`; any masks, also one of nothing."""
    generator = np.random.default_rng(0)
    own = [name for name in inputs.shapes if name != inputs.mask]
    moments = [jax.tree.leaves(tree) for tree in (policy.statistics.mean, policy.statistics.var)]
    leaves = {}
    for name, mean, variance in zip(own, *moments, strict=True):
        noise = generator.normal(size=(rows, *inputs.shapes[name]))
        drawn = np.asarray(mean) + 3.0 * np.sqrt(np.asarray(variance) + 1e-2) * noise
        leaves[name] = _as(drawn, inputs.dtypes[name])
    if inputs.mask is not None:
        mask = generator.random((rows, *inputs.shapes[inputs.mask])) < 0.5
        mask[0] = False
        leaves[inputs.mask] = mask
    return leaves


def _as(drawn: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "b":
        return drawn > 0.5
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        drawn = np.clip(np.round(drawn), ends.min, ends.max)
    array: NDArray[Any] = drawn.astype(dtype)
    return array
