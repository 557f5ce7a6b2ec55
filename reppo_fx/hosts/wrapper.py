"""An environment around another: everything is the inner one's until a subclass says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, PyTree
from numpy.typing import NDArray

from .base import Actions, HostEnvironment, HostTimeStep

FACTS = (
    "name",
    "num_envs",
    "observation",
    "action_size",
    "episode_length",
    "actor_part",
    "critic_part",
    "metrics",
    "action_scale",
    "num_actions",
    "action_mask",
    "action_seconds",
    "action_bounds",
    "picture_seconds",
)


class Wrapper(HostEnvironment):
    """Passes everything on to `env`; `again` makes the same wrapper around another one."""

    def __init__(self, env: HostEnvironment) -> None:
        self.env = env
        for fact in FACTS:
            setattr(self, fact, getattr(env, fact))

    def again(self, env: HostEnvironment) -> HostEnvironment:
        """The same wrapper around another environment."""
        return type(self)(env)

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        return self.env.reset(seed)

    def step(self, action: Actions) -> HostTimeStep:
        return self.env.step(action)

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        return self.env.restart(which)

    @property
    def can_restart(self) -> bool:
        return self.env.can_restart

    def sized(self, num_envs: int) -> HostEnvironment:
        return self.again(self.env.sized(num_envs))

    def close(self) -> None:
        self.env.close()
