"""Evaluation in a simulator: one whole episode per instance."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree
from numpy.typing import NDArray

from .._members import over_axis
from ..envs import COUNTERS, LIMIT
from ..learner.method import Method
from ..learner.state import TrainState
from ..training.assembly import episode_length_of
from ..training.evaluate import EpisodeMetric, Episodes
from ..training.policy import Policy
from .base import HostEnvironment, HostTimeStep
from .collect import action_shape, programs
from .conform import conform
from .transforms import contain_nan, time_limit

# What a simulator takes as a seed: EnvPool's is a signed 32-bit integer.
LARGEST_SEED = 2**31 - 1


def evaluate_policy(
    env: HostEnvironment,
    policy: Callable[[PyTree[ArrayLike]], PyTree[ArrayLike]],
    episode_length: int | None = None,
    *,
    seed: int | None = None,
    key: Array | None = None,
    limit: float | int = LIMIT,
) -> Episodes:
    """Run every instance from a fresh start to its first end.

    Args:
        env: without time limit of ours.
        policy: `observations of all instances -> actions`; a `Policy` is compiled here. Where its leaves have an
            axis of members in front, each acts for its share of the instances.
        episode_length: time limit in steps; the simulator's own if not given.
        seed: of the start; none to go on with the simulator's own random numbers.
        key: to sample actions of a `Policy` with, instead of taking the mode.
        limit: magnitude beyond which an observation or a reward is a failure of the simulator.

    Returns:
        Return, length and the simulator's metrics per episode, `[num_envs]` behind any axis of members; NumPy.

    Raises:
        ValueError: if neither says how long an episode is, or the simulator's own limit is shorter.

    >>> from reppo_fx.envs import probes
    >>> from reppo_fx.hosts import pure
    >>> env = pure(probes.constant_reward(), 2)
    >>> evaluate_policy(env, lambda observation: np.zeros((2, 1)), 10).returns.tolist()
    [10.0, 10.0]
    """
    length = episode_length or env.episode_length
    if length is None:
        raise ValueError(
            f"episode_length is not set, and {env.name} has none of its own; give it (steps until the time limit)."
        )
    members: tuple[int, ...] = ()
    if isinstance(policy, Policy):
        members = np.shape(policy.hyperparameters.discount)
        policy = _compiled(policy, key)
    elif key is not None:
        raise ValueError(
            f"key is given, but the policy, a {type(policy).__name__}, cannot be sampled."
        )
    contained = contain_nan(time_limit(conform(env), length), limit)
    first = (*members, env.num_envs // max(1, *members, 1))

    def in_shares(leaf: NDArray[Any]) -> Any:
        return leaf.reshape(*first, *leaf.shape[1:])

    sums = _Sums(env.num_envs)
    observation, given = contained.reset(seed), action_shape(env)
    for _ in range(length):
        action = policy(jax.tree.map(in_shares, observation))
        timestep = contained.step(np.reshape(np.asarray(action), given))
        sums.add(timestep)
        if not sums.alive.any():
            break
        observation = timestep.observation
    metrics = {
        name: EpisodeMetric(in_shares(total / sums.lengths), in_shares(sums.last[name]))
        for name, total in sums.totals.items()
        if name not in COUNTERS
    }
    return Episodes(in_shares(sums.returns), in_shares(sums.lengths), metrics)


def evaluate(
    method: Method, env: HostEnvironment, state: TrainState, *, seed: int | None = None
) -> Episodes:
    """Episodes with the deterministic policy of a state, which is left as it is.

    Args:
        method: the functions.
        env: without time limit of ours; all of its instances run one episode each.
        state: with or without an axis of members.
        seed: of the start; none to go on with the simulator's own random numbers.

    Returns:
        What each episode came to, one per instance, behind any axis of members.

    Raises:
        ValueError: if neither the config nor the environment says how long an episode is.
    """
    return evaluate_policy(
        env,
        programs(method, state.iteration.ndim > 0).policy(state),
        episode_length_of(env, method.config),
        seed=seed,
        limit=method.config.observation_limit,
    )


def as_seed(key: Array) -> int:
    """A seed that every simulator takes, from a random key; the first one's, if there are several.

    >>> 0 <= as_seed(jax.random.key(0)) <= LARGEST_SEED
    True
    """
    return int(jax.random.bits(key if key.ndim == 0 else key[0])) & LARGEST_SEED


def _compiled(policy: Policy, key: Array | None) -> Callable[[PyTree[ArrayLike]], PyTree]:
    """`observation -> action`, of every member where there is an axis of them; flat leaves are quick to hand on."""
    leaves, structure = jax.tree.flatten(policy)
    members = np.shape(policy.hyperparameters.discount)
    if key is None:
        return lambda observation: _mode(structure, bool(members), leaves, observation)
    keys = key if not members else jax.random.split(key, members)
    steps = itertools.count()

    def sample(observation: PyTree[ArrayLike]) -> PyTree:
        step = np.full(members, next(steps), np.int32)
        return _sample(structure, bool(members), leaves, keys, step, observation)

    return sample


@functools.partial(jax.jit, static_argnums=(0, 1))
def _mode(structure: Any, members: bool, leaves: list[Array], observation: PyTree[Array]) -> Any:
    def one(leaves: list[Array], observation: PyTree[Array]) -> Any:
        return jax.tree.unflatten(structure, leaves)(observation)

    return (over_axis(one) if members else one)(leaves, observation)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(
    structure: Any,
    members: bool,
    leaves: list[Array],
    key: Array,
    step: Array,
    observation: PyTree[Array],
) -> Any:
    def one(leaves: list[Array], key: Array, step: Array, observation: PyTree[Array]) -> Any:
        policy: Policy = jax.tree.unflatten(structure, leaves)
        return policy.sample(jax.random.fold_in(key, step), observation)

    return (over_axis(one) if members else one)(leaves, key, step, observation)


class _Sums:
    """What is added up over the steps of each instance's first episode."""

    def __init__(self, num_envs: int) -> None:
        self.alive = np.ones(num_envs, bool)
        self.returns = np.zeros(num_envs)
        self.lengths = np.zeros(num_envs)
        self.totals: dict[str, NDArray[Any]] = {}
        self.last: dict[str, NDArray[Any]] = {}

    def add(self, timestep: HostTimeStep) -> None:
        """Take in a step of the instances that have not ended yet."""
        alive = self.alive
        self.returns = self.returns + np.where(alive, timestep.reward, 0.0)
        self.lengths = self.lengths + alive
        for name, value in timestep.metrics.items():
            self.totals[name] = self.totals.get(name, 0.0) + np.where(alive, value, 0.0)
            self.last[name] = np.where(alive, value, self.last.get(name, value))
        self.alive = alive & ~timestep.ended
