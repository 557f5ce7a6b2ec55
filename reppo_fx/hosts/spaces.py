"""What actions a simulator takes: its space becomes a range or choices, and our actions become its own."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from .base import ActionBounds


@runtime_checkable
class Box(Protocol):
    """A space of real arrays, as gymnasium and its relatives have it."""

    low: NDArray[Any]
    high: NDArray[Any]


class ActionRange(NamedTuple):
    """A finite box of actions for those in [−1, 1]; an entry without both bounds passes through, within its box.

    Attributes:
        shape: of one instance's action.
        dtype: of it.
        low: lower bounds, flat.
        high: upper bounds, flat.
        middle: what 0 becomes.
        gain: by how much 1 is more; none where all stays as it is.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: Float[np.ndarray, " d"]
    high: Float[np.ndarray, " d"]
    middle: Float[np.ndarray, " d"]
    gain: Float[np.ndarray, " d"] | None

    @property
    def size(self) -> int:
        """`d`."""
        return len(self.low)

    @property
    def num_actions(self) -> None:
        """There is no number of them."""

    @property
    def bounds(self) -> ActionBounds:
        """What −1 and 1 become; none for an entry that passes through."""
        bounded = np.isfinite(self.low) & np.isfinite(self.high)
        low, high = (
            tuple(float(x) if both else None for x, both in zip(ends, bounded, strict=True))
            for ends in (self.low, self.high)
        )
        return low, high

    def any(self, num_envs: int) -> NDArray[Any]:
        """Some action of ours for every instance, to try a step with: zeros."""
        return np.zeros((num_envs, self.size))

    def __call__(self, action: Float[np.ndarray, "n d"]) -> NDArray[Any]:
        """`[n, d]` in [−1, 1] to `[n, *shape]` as the simulator has it."""
        own = np.asarray(action, np.float64)
        if self.gain is not None:
            own = self.middle + self.gain * own
        own = np.minimum(np.maximum(own, self.low), self.high)
        whole: NDArray[Any] = own.reshape(len(own), *self.shape).astype(self.dtype)
        return whole


class Choices(NamedTuple):
    """A simulator's numbers of actions for ours, which begin with 0.

    Attributes:
        num_actions: how many there are.
        start: the first one's number.
        dtype: of it.
    """

    num_actions: int
    start: int
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """An action is one number."""
        return 1

    @property
    def bounds(self) -> None:
        """There are none."""

    def any(self, num_envs: int) -> NDArray[Any]:
        """Some action of ours for every instance: the first."""
        return np.zeros(num_envs, np.int32)

    def __call__(self, action: Int[np.ndarray, " n"]) -> NDArray[Any]:
        """`[n]` from 0 to `[n]` as the simulator has them."""
        own: NDArray[Any] = (np.asarray(action) + self.start).astype(self.dtype)
        return own


ActionSpace: TypeAlias = ActionRange | Choices
"""How a simulator's actions are had from ours."""


def read_action_space(name: str, space: object) -> ActionSpace:
    """What a `Box` or a `Discrete` of one instance takes.

    Raises:
        ValueError: for any other space, an empty box, and less than two actions.
    """
    count = getattr(space, "n", None)
    # Several yes-or-no actions have an `n`, too, and a shape.
    if count is None or getattr(space, "shape", ()) != () or isinstance(space, Box):
        return read_box(name, space)
    if int(count) < 2:
        raise ValueError(f"{name} has a single action ({space!r}); there is nothing to choose.")
    dtype = np.dtype(getattr(space, "dtype", None) or np.int64)
    return Choices(int(count), int(getattr(space, "start", 0)), dtype)


def read_box(name: str, space: object) -> ActionRange:
    """The range of a `Box` for one instance.

    Raises:
        ValueError: for any other space, and for a box that is empty.
    """
    if not isinstance(space, Box):
        what = "discrete actions" if hasattr(space, "n") else "actions"
        raise ValueError(
            f"{name} has {what} in {space!r}; what can be learned is a Box of one or more numbers, or, of "
            "gymnasium and EnvPool, a Discrete."
        )
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
    if not low.size or not (low < high).all():
        raise ValueError(
            f"{name}: the box of actions goes from {low.tolist()} to {high.tolist()}; low must be below high."
        )
    # `Box.dtype` of a space whose actions are whole numbers would cut them.
    dtype = np.dtype(getattr(space, "dtype", np.float32))
    if not np.issubdtype(dtype, np.floating):
        raise ValueError(f"{name} has actions of {dtype}; they must be real numbers.")
    lowest, highest = low.ravel(), high.ravel()
    bounded = np.isfinite(lowest) & np.isfinite(highest)
    with np.errstate(invalid="ignore"):  # of infinite bounds
        middle = np.where(bounded, 0.5 * (lowest + highest), 0.0)
        gain = np.where(bounded, 0.5 * (highest - lowest), 1.0)
    as_it_is = not middle.any() and (gain == 1).all()
    return ActionRange(low.shape, dtype, lowest, highest, middle, None if as_it_is else gain)
