"""Transforms of time, environment in, environment out: `auto_reset(time_limit(env, 1000))`."""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .base import Environment, Observation, State, TimeStep
from .conform import conform, standard_timestep
from .containment import (
    COUNTERS,
    LIMIT,
    contain_nan,
    move_counts,
    next_start,
    start_failed,
    where,
)


class TimeLimitState(NamedTuple):
    """The inner state and the age of the episode in steps."""

    inner: State
    age: Int[Array, "*batch"]


class AutoResetState(NamedTuple):
    """The inner state, the start that the next episode will use, and the key for the one after."""

    inner: State
    start: State
    start_observation: Observation
    key: Array


def time_limit(env: Environment, length: int) -> Environment:
    """Truncate an episode after `length` steps; a step that also terminates counts as terminated.

    Args:
        env: the environment, for one instance.
        length: in steps.

    Returns:
        The environment with that limit, which is its `episode_length`.

    Raises:
        ValueError: if `length` is less than 1.

    >>> from reppo_fx.envs import probes
    >>> env = time_limit(probes.constant_reward(), 2)
    >>> state, _ = env.reset(jax.random.key(0))
    >>> state, first = env.step(state, jnp.zeros(1))
    >>> state, second = env.step(state, jnp.zeros(1))
    >>> bool(first.truncated), bool(second.truncated)
    (False, True)
    """
    if length < 1:
        raise ValueError(f"length is {length}; an episode needs at least 1 step.")

    def reset(key: Array) -> tuple[TimeLimitState, Observation]:
        inner, observation = env.reset(key)
        return TimeLimitState(inner, jnp.zeros((), jnp.int32)), observation

    def step(state: TimeLimitState, action: Array) -> tuple[TimeLimitState, TimeStep]:
        inner, timestep = env.step(state.inner, action)
        timestep = standard_timestep(env.name, timestep)
        age = state.age + 1
        truncated = (timestep.truncated | (age >= length)) & ~timestep.terminated
        return TimeLimitState(inner, age), timestep._replace(truncated=truncated)

    def refresh(state: TimeLimitState) -> TimeLimitState:
        return state._replace(inner=env.refresh(state.inner))

    def restart(key: Array, state: TimeLimitState) -> tuple[TimeLimitState, Observation]:
        inner, observation = next_start(env)(key, state.inner)
        return TimeLimitState(inner, jnp.zeros((), jnp.int32)), observation

    return env._replace(
        reset=reset,
        step=step,
        refresh=refresh,
        restart=restart if env.restart else None,
        episode_length=length,
    )


def auto_reset(env: Environment) -> Environment:
    """Start a new episode in the step that ends one; `next_observation` stays the true successor.

    A simulator's reset costs as much as a step or more, so the start is drawn by `refresh`, once per rollout:
    an instance that ends twice within one rollout starts twice from the same state. Where the environment
    says `cheap_reset`, every episode has its own start. Every leaf of the state is replaced at an end, so
    nothing (no NaN either) survives it. A start that `contain_nan` found bad never replaces a good one.

    Args:
        env: the environment, for one instance, with its time limit.

    Returns:
        The environment that goes on after an end.

    >>> from reppo_fx.envs import probes
    >>> env = auto_reset(time_limit(probes.terminating_reward(4), 2))
    >>> state, _ = env.reset(jax.random.key(0))
    >>> state, first = env.step(state, jnp.zeros(1))
    >>> state, second = env.step(state, jnp.zeros(1))
    >>> print(second.truncated, second.next_observation, second.observation)  # the successor, and a new start
    True [0.5] [0.]
    """

    def reset(key: Array) -> tuple[AutoResetState, Observation]:
        key, first_key = jax.random.split(key)
        inner, observation = env.reset(first_key)
        start, _ = move_counts(inner, inner)
        return AutoResetState(inner, start, observation, key), observation

    def step(state: AutoResetState, action: Array) -> tuple[AutoResetState, TimeStep]:
        if env.cheap_reset:
            state = _with_new_start(env, state)
        inner, timestep = env.step(state.inner, action)
        timestep = standard_timestep(env.name, timestep)
        ended = timestep.terminated | timestep.truncated
        inner = where(ended, state.start, inner)
        observation = where(ended, state.start_observation, timestep.observation)
        return state._replace(inner=inner), timestep._replace(observation=observation)

    def refresh(state: AutoResetState) -> AutoResetState:
        return _with_new_start(env, state._replace(inner=env.refresh(state.inner)))

    return env._replace(reset=reset, step=step, refresh=refresh, restart=None)


def _with_new_start(env: Environment, state: AutoResetState) -> AutoResetState:
    key, reset_key = jax.random.split(state.key)
    # No second try: there is a start already.
    start, observation = next_start(env)(reset_key, state.inner)
    start, inner = move_counts(start, state.inner)
    failed = start_failed(start)
    if failed is not None:
        start, observation = where(
            failed, (state.start, state.start_observation), (start, observation)
        )
    return AutoResetState(inner, start, observation, key)


def random_start_age(env: Environment, length: int) -> Environment:
    """First episodes start at a random age in `[0, length)`, so that instances do not step in tandem.

    Only the clock of `time_limit` (inside `env`) is moved, and only by `reset`: later episodes start at 0.

    Args:
        env: the environment, for one instance, with a time limit inside.
        length: of an episode.

    Returns:
        The environment whose `reset` starts at any age.

    >>> from reppo_fx.envs import probes
    >>> env = random_start_age(time_limit(probes.constant_reward(), 50), 50)
    >>> state, _ = env.reset(jax.random.key(0))
    >>> print(0 <= state.age < 50)
    True
    """

    def reset(key: Array) -> tuple[State, Observation]:
        reset_key, age_key = jax.random.split(key)
        state, observation = env.reset(reset_key)
        age = jax.random.randint(age_key, (), 0, length, jnp.int32)
        # The spare start that `auto_reset` keeps is a clock as well: it must stay at age 0.
        if isinstance(state, AutoResetState):
            return state._replace(inner=_set_age(state.inner, age)), observation
        return _set_age(state, age), observation

    return env._replace(reset=reset)


def _set_age(state: State, age: Array) -> State:
    """Every clock of `time_limit` in a state, set."""
    if not any(map(_is_clock, jax.tree.leaves(state, is_leaf=_is_clock))):
        raise ValueError("random_start_age needs a time_limit inside the environment it is given.")
    return jax.tree.map(
        lambda n: n._replace(age=age) if _is_clock(n) else n, state, is_leaf=_is_clock
    )


def _is_clock(node: object) -> TypeGuard[TimeLimitState]:
    return isinstance(node, TimeLimitState)


class _Repeated(NamedTuple):
    """The steps taken so far under one action, as one: sums, and the latest flags and observations."""

    state: State
    timestep: TimeStep
    ended: Bool[Array, ""]
    taken: Float[Array, ""]


def action_repeat(env: Environment, n: int) -> Environment:
    """Take `n` steps of the environment with the same action as one step.

    Rewards add up until the first end, and the state stays as it was there; flags and observations are those
    of the last step taken. Metrics are means over the steps taken, except that `nonfinite` and
    `nonfinite_resets` add up. `episode_length` is `ceil(length / n)`. Put `time_limit` outside, or inside with
    a length in single steps.

    Args:
        env: the environment, for one instance.
        n: steps per action.

    Returns:
        The environment with longer steps; itself for 1.

    Raises:
        ValueError: if `n` is less than 1.

    >>> from reppo_fx.envs import probes
    >>> env = action_repeat(probes.terminating_reward(5), 3)
    >>> state, _ = env.reset(jax.random.key(0))
    >>> state, first = env.step(state, jnp.zeros(1))
    >>> state, second = env.step(state, jnp.zeros(1))
    >>> print(first.reward, first.terminated, second.reward, second.terminated)
    3.0 False 2.0 True
    """
    if n < 1:
        raise ValueError(f"n is {n}; an action is taken at least once.")
    if n == 1:
        return env

    def inner_step(state: State, action: Array) -> tuple[State, TimeStep]:
        state, timestep = env.step(state, action)
        return state, standard_timestep(env.name, timestep)

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        once = jax.jit(inner_step, inline=True)  # one trace for the shapes and the loop

        def again(before: _Repeated, _: None) -> tuple[_Repeated, None]:
            state, timestep = once(before.state, action)
            metrics = {k: v + before.timestep.metrics[k] for k, v in timestep.metrics.items()}
            summed = timestep._replace(
                reward=timestep.reward + before.timestep.reward, metrics=metrics
            )
            ended = timestep.terminated | timestep.truncated
            after = _Repeated(state, summed, ended, before.taken + 1.0)
            return where(before.ended, before, after), None

        blank = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(once, state, action)[1]
        )
        first = _Repeated(state, blank, jnp.asarray(False), jnp.zeros(()))
        last, _ = jax.lax.scan(again, first, None, length=n)
        metrics = {
            key: total if key in COUNTERS else total / last.taken.astype(total.dtype)
            for key, total in last.timestep.metrics.items()
        }
        return last.state, last.timestep._replace(metrics=metrics)

    length, seconds = env.episode_length, env.action_seconds
    return env._replace(
        step=step,
        episode_length=length and -(-length // n),
        action_seconds=seconds and n * seconds,
    )


def batch(env: Environment) -> Environment:
    """Vectorize: `reset` takes keys `[n]`, everything else gains a leading axis.

    Args:
        env: the environment, for one instance.

    Returns:
        The environment for `n` of them.

    >>> from reppo_fx.envs import probes
    >>> env = batch(probes.constant_reward())
    >>> state, observation = env.reset(jax.random.split(jax.random.key(0), 3))
    >>> observation.shape
    (3, 1)
    """
    return env._replace(
        reset=jax.vmap(env.reset), step=jax.vmap(env.step), refresh=jax.vmap(env.refresh)
    )


def training_environment(
    env: Environment, episode_length: int, *, limit: float | int = LIMIT
) -> Environment:
    """The stack that training uses, over an environment for one instance.

    From the inside: `conform`, time limit, containment (of what is not finite or beyond `limit`), auto-reset,
    random start ages, batching.

    Args:
        env: the environment, for one instance.
        episode_length: the time limit in steps.
        limit: largest magnitude of an observation or reward that is believed; see `contain_nan`.

    Returns:
        The batched environment, which resets itself.

    Raises:
        ValueError: if the environment does not keep the contract, or a number is out of range.

    >>> from reppo_fx.envs import probes
    >>> env = training_environment(probes.constant_reward(), 5)
    >>> state, observation = jax.eval_shape(env.reset, jax.random.split(jax.random.key(0), 4))
    >>> observation.shape, env.episode_length
    ((4, 1), 5)
    """
    single = auto_reset(contain_nan(time_limit(conform(env), episode_length), limit))
    return batch(random_start_age(single, episode_length))
