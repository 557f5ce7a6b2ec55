"""Transforms over the contract, with the meanings that they have in `envs`: time, containment, action repeat."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, PyTree
from numpy.typing import NDArray

from ..envs import COUNTERS, LIMIT, RESET_TRIES, believed
from .base import Actions, HostEnvironment, HostTimeStep, choose, restarted
from .conform import conform
from .wrapper import Wrapper

Observation: TypeAlias = PyTree
Mask: TypeAlias = NDArray[Any]


def time_limit(
    env: HostEnvironment, length: int, *, random_first_ages: bool = False
) -> HostEnvironment:
    """Truncate an episode after `length` steps; a step that also terminates counts as terminated.

    Args:
        env: the environment.
        length: in steps, at most the simulator's own limit.
        random_first_ages: first episodes start at an age in `[0, length)` drawn at random, so that instances do not
            step in tandem.

    Returns:
        The environment with that limit; itself where the simulator's own is the same and the only one possible.

    Raises:
        ValueError: if the simulator's own limit is shorter, or it is longer and single instances cannot be started.

    >>> from reppo_fx.envs import probes
    >>> from reppo_fx.hosts import pure
    >>> env = time_limit(pure(probes.constant_reward(), 1), 2)
    >>> _ = env.reset(0)
    >>> [env.step(np.zeros((1, 1))).truncated.tolist() for _ in range(3)]
    [[False], [True], [False]]
    """
    if length < 1:
        raise ValueError(f"length is {length}; an episode needs at least 1 step.")
    own = env.episode_length
    if own is not None and length > own:
        raise ValueError(
            f"episode_length is {length}, but {env.name} itself ends an episode after {own} steps; give it a "
            "longer limit of its own where it is made."
        )
    if env.can_restart:
        return _TimeLimit(env, length, random_first_ages)
    if own != length:
        raise ValueError(
            f"episode_length is {length}, but {env.name} ends an episode after {own or 'no number of'} steps and "
            "cannot start single instances anew, so its own limit is the only one it can have."
        )
    return env


class _TimeLimit(Wrapper):
    def __init__(self, env: HostEnvironment, length: int, random_first_ages: bool) -> None:
        super().__init__(env)
        self.episode_length = length
        self._random = random_first_ages
        self._generator = np.random.default_rng(0)
        self._age = np.zeros(env.num_envs, int)

    def again(self, env: HostEnvironment) -> HostEnvironment:
        return _TimeLimit(env, self.episode_length or 1, self._random)

    def reset(self, seed: int | None = None) -> Observation:
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        self._age = np.zeros(self.num_envs, int)
        if self._random:
            self._age = self._generator.integers(0, self.episode_length, self.num_envs)
        return self.env.reset(seed)

    def restart(self, which: Mask) -> Observation:
        self._age = np.where(which, 0, self._age)
        return self.env.restart(which)

    def step(self, action: Actions) -> HostTimeStep:
        timestep = self.env.step(action)
        self._age = self._age + 1
        ended = timestep.ended
        late = (self._age >= self.episode_length) & ~ended
        self._age[ended | late] = 0
        if not late.any():
            return timestep
        timestep = timestep._replace(truncated=timestep.truncated | late)
        return restarted(self.env, timestep, late)


def contain_nan(
    env: HostEnvironment, limit: float | int = LIMIT, tries: int = RESET_TRIES
) -> HostEnvironment:
    """End an episode whose reward or observation is not finite or beyond `limit`; let nothing of it out.

    As `envs.contain_nan`: such a step gives reward 0, `terminated`, the last good observation as successor and
    `metrics["nonfinite"]` 1, and the instance starts anew where the simulator can start single ones. Bad starts are
    drawn again, and counted in `nonfinite_resets`.

    Args:
        env: the environment.
        limit: largest magnitude of an observation or reward that is believed.
        tries: draws for one reset.

    Returns:
        The environment that gives nothing but what is believed.

    Raises:
        ValueError: if `limit` is not positive or `tries` is less than 1.

    >>> from reppo_fx.envs import probes
    >>> from reppo_fx.hosts import pure
    >>> env = contain_nan(pure(probes.constant_reward(), 1), limit=0.5)  # believes nothing that is larger
    >>> _ = env.reset(0)
    >>> timestep = env.step(np.zeros((1, 1)))
    >>> timestep.reward.tolist(), timestep.terminated.tolist()
    ([0.0], [True])
    """
    if not limit > 0:
        raise ValueError(f"limit is {limit}; it must be positive (math.inf for no limit).")
    if tries < 1:
        raise ValueError(f"tries is {tries}; a reset needs at least 1.")
    return _Contained(env, limit, tries)


class _Contained(Wrapper):
    def __init__(self, env: HostEnvironment, limit: float | int, tries: int) -> None:
        super().__init__(env)
        self.metrics = tuple(dict.fromkeys((*env.metrics, *COUNTERS)))
        self._limit, self._tries = limit, tries
        self._failed = np.zeros(env.num_envs, bool)
        self._bad_resets = np.zeros(env.num_envs)
        self._last: Observation = None
        none = np.zeros(env.num_envs)
        none.setflags(write=False)
        self._no_counts = dict.fromkeys(COUNTERS, none)

    def again(self, env: HostEnvironment) -> HostEnvironment:
        return _Contained(env, self._limit, self._tries)

    def reset(self, seed: int | None = None) -> Observation:
        self._bad_resets = np.zeros(self.num_envs)
        self._failed = np.zeros(self.num_envs, bool)
        return self._started(np.ones(self.num_envs, bool), self.env.reset(seed))

    def restart(self, which: Mask) -> Observation:
        return self._started(which, choose(which, self.env.restart(which), self._last))

    def step(self, action: Actions) -> HostTimeStep:
        timestep = self.env.step(action)
        if self._is_plain(timestep):
            self._last = jax.tree.map(np.array, timestep.observation)
            return timestep._replace(metrics={**_finite(timestep.metrics), **self._no_counts})
        bad = self._failed | ~self._is_good(timestep.reward, timestep.next_observation)
        # Where nothing ended both observations are of one moment; a simulator may spoil either.
        bad |= ~timestep.ended & ~self._is_good(timestep.reward, timestep.observation)
        counts = {"nonfinite": bad.astype(float), "nonfinite_resets": self._bad_resets}
        counts = {name: n + timestep.metrics.get(name, 0.0) for name, n in counts.items()}
        self._bad_resets = np.zeros(self.num_envs)
        timestep = timestep._replace(metrics=_finite(timestep.metrics) | counts)
        ended = timestep.ended | bad
        if bad.any():
            timestep = self._without(timestep, bad)
        return timestep._replace(observation=self._started(ended, timestep.observation))

    def _is_plain(self, timestep: HostTimeStep) -> bool:
        """Whether nothing is to be done, which is to be found out quickly: most steps are so."""
        seen = jax.tree.leaves((timestep.next_observation, timestep.observation))
        if timestep.ended.any() or self._failed.any() or self._bad_resets.any():
            return False
        if any(name in timestep.metrics for name in COUNTERS):
            return False
        # Where nothing ended both observations are often one and the same.
        different = {id(leaf): leaf for leaf in (timestep.reward, *seen)}.values()
        return all(_all_within(leaf, self._limit) for leaf in different)

    def _without(self, timestep: HostTimeStep, bad: Mask) -> HostTimeStep:
        """A time step of which nothing bad is left, and bad instances started anew where that can be."""
        still_running = bad & ~timestep.ended
        clean = timestep._replace(
            observation=choose(still_running, self._last, timestep.observation),
            next_observation=choose(bad, self._last, timestep.next_observation),
            reward=np.where(bad, 0.0, timestep.reward).astype(timestep.reward.dtype),
            terminated=timestep.terminated | bad,
            truncated=timestep.truncated & ~bad,
            metrics={
                name: value if name in COUNTERS else np.where(bad, 0.0, value)
                for name, value in timestep.metrics.items()
            },
        )
        return restarted(self.env, clean, still_running) if self.can_restart else clean

    def _started(self, which: Mask, observation: Observation) -> Observation:
        """Good starts for these instances, drawn again as often as it takes; the last good of all is kept."""
        observation = jax.tree.map(np.array, observation)
        self._failed = self._failed & ~which
        for attempt in range(self._tries):
            bad = which & ~self._is_good(np.zeros(self.num_envs), observation)
            if not bad.any():
                break
            self._bad_resets = self._bad_resets + bad
            if attempt + 1 < self._tries and self.can_restart:
                observation = choose(bad, self.env.restart(bad), observation)
                continue
            self._failed = self._failed | bad
            observation = choose(bad, jax.tree.map(np.zeros_like, observation), observation)
            break
        self._last = observation
        return observation

    def _is_good(self, reward: Float[np.ndarray, " n"], observation: Observation) -> Mask:
        good = [_within(leaf, self._limit) for leaf in (reward, *jax.tree.leaves(observation))]
        every: Mask = np.logical_and.reduce(good)
        return every


def _all_within(leaf: NDArray[Any], limit: float | int) -> bool:
    """Whether every number of every instance is; NaN is not."""
    if leaf.dtype.kind != "f":
        return bool(_within(leaf, limit).all())
    return bool(np.abs(leaf).max(initial=0.0) <= believed(leaf.dtype, limit)[1])


def _within(leaf: NDArray[Any], limit: float | int) -> Mask:
    if leaf.dtype == bool:
        return np.ones(len(leaf), bool)
    lowest, highest = believed(leaf.dtype, limit)
    with np.errstate(invalid="ignore"):
        good = (leaf >= lowest) & (leaf <= highest)
    every: Mask = np.all(good.reshape(len(leaf), -1), axis=1)
    return every


def _finite(metrics: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        name: value if np.isfinite(value).all() else np.where(np.isfinite(value), value, 0.0)
        for name, value in metrics.items()
    }


def action_repeat(env: HostEnvironment, n: int) -> HostEnvironment:
    """Take `n` steps of the environment with the same action as one step.

    As `envs.action_repeat`: rewards add up until the first end, flags and the successor are those of the last step
    taken, metrics are means over the steps taken. An instance that ended before the last of the `n` steps is
    started anew once more, so that every episode begins with an action of its own.

    Args:
        env: the environment.
        n: steps per action.

    Returns:
        The environment with longer steps; itself for 1.

    Raises:
        ValueError: if `n` is less than 1, or the simulator cannot start single instances.

    >>> from reppo_fx.envs import probes
    >>> from reppo_fx.hosts import pure
    >>> env = action_repeat(pure(probes.constant_reward(), 2), 3)
    >>> _ = env.reset(0)
    >>> env.step(np.zeros((2, 1))).reward.tolist()
    [3.0, 3.0]
    """
    if n < 1:
        raise ValueError(f"n is {n}; an action is taken at least once.")
    if n > 1 and not env.can_restart:
        raise ValueError(
            f"n is {n}, but {env.name} cannot start single instances anew, which repeated actions need; give it "
            "the repeat where it is made."
        )
    return env if n == 1 else _ActionRepeat(conform(env), n)


class _ActionRepeat(Wrapper):
    def __init__(self, env: HostEnvironment, n: int) -> None:
        super().__init__(env)
        self._n = n
        self.episode_length = env.episode_length and -(-env.episode_length // n)
        self.action_seconds = env.action_seconds and n * env.action_seconds

    def again(self, env: HostEnvironment) -> HostEnvironment:
        return _ActionRepeat(env, self._n)

    def step(self, action: Actions) -> HostTimeStep:
        total: HostTimeStep = jax.tree.map(np.array, self.env.step(action))
        taken = np.ones(self.num_envs)
        early = np.zeros(self.num_envs, bool)
        for _ in range(self._n - 1):
            early = total.ended
            timestep = self.env.step(action)
            total = _added(total, timestep, early)
            taken = taken + ~early
        metrics = {k: v if k in COUNTERS else v / taken for k, v in total.metrics.items()}
        return restarted(self.env, total._replace(metrics=metrics), early)


def _added(total: HostTimeStep, timestep: HostTimeStep, over: Mask) -> HostTimeStep:
    """Sums so far and one more step, except where the episode is over."""
    metrics = {
        name: np.where(over, value, value + timestep.metrics[name])
        for name, value in total.metrics.items()
    }
    return HostTimeStep(
        observation=choose(over, total.observation, timestep.observation),
        next_observation=choose(over, total.next_observation, timestep.next_observation),
        reward=np.where(over, total.reward, total.reward + timestep.reward),
        terminated=np.where(over, total.terminated, timestep.terminated),
        truncated=np.where(over, total.truncated, timestep.truncated),
        metrics=metrics,
    )


def training_environment(
    env: HostEnvironment, episode_length: int, *, limit: float | int = LIMIT
) -> HostEnvironment:
    """The stack that training uses: `conform`, time limit with random first ages, containment.

    Args:
        env: the environment.
        episode_length: the time limit in steps, at most the simulator's own.
        limit: largest magnitude of an observation or reward that is believed.

    Returns:
        The environment.

    Raises:
        ValueError: as the three.

    >>> from reppo_fx.envs import probes
    >>> from reppo_fx.hosts import pure
    >>> env = training_environment(pure(probes.constant_reward(), 2), 5)
    >>> env.reset(0).shape, env.episode_length
    ((2, 1), 5)
    """
    limited = time_limit(conform(env), episode_length, random_first_ages=True)
    return contain_nan(limited, limit)
