"""The deterministic policy as a PyTree: what evaluation uses, and what a run saves."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..envs import select_part
from ..ops import RunningStatistics, statistics_normalize, tanh_normal_mode


class Policy(eqx.Module):
    """`observation -> tanh(mean)`, with the observation statistics inside; any leading axes.

    All leaves are arrays, so it can be vmapped (a policy per seed), saved, and loaded without the trainer.
    """

    actor: Any
    statistics: RunningStatistics
    min_std: Float[Array, ""]
    variance_floor: Float[Array, ""]
    part: str = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)
    action_limit: float = eqx.field(static=True)

    def __call__(self, observation: PyTree[Array]) -> Float[Array, "*batch d"]:
        if self.normalize:
            observation = statistics_normalize(self.statistics, observation, self.variance_floor)
        mean, _ = self.actor(select_part(observation, self.part), self.min_std)
        return jnp.clip(tanh_normal_mode(mean), -self.action_limit, self.action_limit)
