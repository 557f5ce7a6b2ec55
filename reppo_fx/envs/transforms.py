"""Transforms: environment in, environment out. `auto_reset(time_limit(env, 1000))`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, ScalarLike

from .base import Environment, TimeStep


class TimeLimitState(NamedTuple):
    """The inner state and the age of the episode in steps."""

    inner: Any
    age: Int[Array, "*batch"]


class AutoResetState(NamedTuple):
    """The inner state, the start that the next episode will use, and the key for the one after."""

    inner: Any
    start: Any
    start_observation: PyTree[Array]
    key: Array


class ContainState(NamedTuple):
    """The inner state and the last finite observation."""

    inner: Any
    observation: PyTree[Array]


def time_limit(env: Environment, length: int) -> Environment:
    """Truncate an episode after `length` steps; a step that also terminates counts as terminated.

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

    def reset(key):
        inner, observation = env.reset(key)
        return TimeLimitState(inner, jnp.zeros((), jnp.int32)), observation

    def step(state, action):
        inner, timestep = env.step(state.inner, action)
        age = state.age + 1
        truncated = (timestep.truncated | (age >= length)) & ~timestep.terminated
        return TimeLimitState(inner, age), timestep._replace(truncated=truncated)

    def refresh(state):
        return state._replace(inner=env.refresh(state.inner))

    def restart(key, state):
        inner, observation = _next_start(env, key, state.inner)
        return TimeLimitState(inner, jnp.zeros((), jnp.int32)), observation

    return env._replace(
        reset=reset,
        step=step,
        refresh=refresh,
        restart=restart if env.restart else None,
        episode_length=length,
    )


def action_repeat(env: Environment, repeat: int) -> Environment:
    """Take every action `repeat` times and sum the rewards; nothing is stepped after an end.

    The time limit that the environment knows of counts the steps that are left: `ceil(length / repeat)`.
    """

    def step(state, action):
        first = env.step(state, action)

        def again(carry, _):
            state, timestep = carry
            ended = timestep.terminated | timestep.truncated
            new_state, new = env.step(state, action)
            new = new._replace(reward=timestep.reward + new.reward)
            return _where(ended, carry, (new_state, new)), None

        return jax.lax.scan(again, first, length=repeat - 1)[0]

    length = env.episode_length
    length = length if length is None else math.ceil(length / repeat)
    return env._replace(step=step, episode_length=length)


def auto_reset(env: Environment) -> Environment:
    """Start a new episode in the step that ends one; `next_observation` stays the true successor.

    A simulator's reset costs as much as a step or more, so the start is drawn by `refresh`, once per rollout:
    an instance that ends twice within one rollout starts twice from the same state. Where the environment
    says `cheap_reset`, every episode has its own start. Every leaf of the state is replaced at an end, so
    nothing (no NaN either) survives it.
    """

    def reset(key):
        key, first_key = jax.random.split(key)
        inner, observation = env.reset(first_key)
        return AutoResetState(inner, inner, observation, key), observation

    def step(state, action):
        if env.cheap_reset:
            state = _with_new_start(env, state)
        inner, timestep = env.step(state.inner, action)
        ended = timestep.terminated | timestep.truncated
        inner = _where(ended, state.start, inner)
        observation = _where(ended, state.start_observation, timestep.observation)
        return state._replace(inner=inner), timestep._replace(observation=observation)

    def refresh(state):
        return _with_new_start(env, state._replace(inner=env.refresh(state.inner)))

    return env._replace(reset=reset, step=step, refresh=refresh, restart=None)


def _with_new_start(env: Environment, state: AutoResetState) -> AutoResetState:
    key, reset_key = jax.random.split(state.key)
    start, observation = _next_start(env, reset_key, state.inner)
    return AutoResetState(state.inner, start, observation, key)


def _next_start(env: Environment, key: Array, state: Any) -> tuple[Any, PyTree[Array]]:
    return env.restart(key, state) if env.restart else env.reset(key)


def random_start_age(env: Environment, length: int) -> Environment:
    """First episodes start at a random age in `[0, length)`, so that instances do not step in tandem.

    Only the clock of `time_limit` (inside `env`) is moved, and only by `reset`: later episodes start at 0.
    """

    def reset(key):
        reset_key, age_key = jax.random.split(key)
        state, observation = env.reset(reset_key)
        age = jax.random.randint(age_key, (), 0, length, jnp.int32)
        # The spare start that `auto_reset` keeps is a clock as well: it must stay at age 0.
        if isinstance(state, AutoResetState):
            return state._replace(inner=_set_age(state.inner, age)), observation
        return _set_age(state, age), observation

    return env._replace(reset=reset)


def _set_age(state: Any, age: Array) -> Any:
    """Every clock of `time_limit` in a state, set."""
    is_clock = lambda node: isinstance(node, TimeLimitState)
    clocks = [n for n in jax.tree.leaves(state, is_leaf=is_clock) if is_clock(n)]
    if not clocks:
        raise ValueError("random_start_age needs a time_limit inside the environment it is given.")
    return jax.tree.map(
        lambda n: n._replace(age=age) if is_clock(n) else n, state, is_leaf=is_clock
    )


def scale_reward(env: Environment, scale: ScalarLike) -> Environment:
    """Multiply every reward by `scale`."""

    def step(state, action):
        state, timestep = env.step(state, action)
        return state, timestep._replace(reward=timestep.reward * scale)

    return env._replace(step=step)


def clip_action(env: Environment, limit: float = 0.999) -> Environment:
    """Clip actions to `[-limit, limit]` before the environment sees them."""

    def step(state, action):
        return env.step(state, jnp.clip(action, -limit, limit))

    return env._replace(step=step)


def contain_nan(env: Environment) -> Environment:
    """End an episode whose reward or observation is not finite, and let nothing of it out.

    Such a step gives reward 0, `terminated`, and the last finite observation as successor; it is counted in
    `metrics["nonfinite"]`. Put `auto_reset` outside: it replaces the whole state. A non-finite value that
    has not reached reward or observation yet is caught at the step where it does.
    """

    def reset(key):
        inner, observation = env.reset(key)
        return ContainState(inner, observation), observation

    def step(state, action):
        inner, timestep = env.step(state.inner, action)
        bad = ~_all_finite((timestep.reward, timestep.next_observation, timestep.observation))
        successor = _where(bad, state.observation, timestep.next_observation)
        observation = _where(bad, state.observation, timestep.observation)
        metrics = {
            name: jnp.where(jnp.isfinite(value), value, 0.0)
            for name, value in timestep.metrics.items()
        }
        timestep = TimeStep(
            observation=observation,
            next_observation=successor,
            reward=jnp.where(bad, 0.0, timestep.reward),
            terminated=timestep.terminated | bad,
            truncated=timestep.truncated & ~bad,
            metrics={**metrics, "nonfinite": bad.astype(timestep.reward.dtype)},
        )
        return ContainState(inner, observation), timestep

    def refresh(state):
        return state._replace(inner=env.refresh(state.inner))

    def restart(key, state):
        inner, observation = _next_start(env, key, state.inner)
        return ContainState(inner, observation), observation

    return env._replace(
        reset=reset, step=step, refresh=refresh, restart=restart if env.restart else None
    )


def batch(env: Environment) -> Environment:
    """Vectorize: `reset` takes keys `[n]`, everything else gains a leading axis."""
    return env._replace(
        reset=jax.vmap(env.reset), step=jax.vmap(env.step), refresh=jax.vmap(env.refresh)
    )


def training_environment(env: Environment, episode_length: int) -> Environment:
    """The stack that training uses: time limit, NaN containment, auto-reset, random start ages, batching."""
    single = auto_reset(contain_nan(time_limit(env, episode_length)))
    return batch(random_start_age(single, episode_length))


def _all_finite(tree: PyTree[Array]) -> Array:
    checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(checks))


def _where(condition: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """`on_true` where the condition holds; a node that knows how it is merged (`mjx.Data`) is asked."""

    def choose(x: Any, y: Any) -> Any:
        return y.where(condition, x) if _merges_itself(x) else jnp.where(condition, x, y)

    return jax.tree.map(choose, on_true, on_false, is_leaf=_merges_itself)


def _merges_itself(node: Any) -> bool:
    """Whether a node has a `where` of its own: some of its leaves are shared by all instances of a batch."""
    return hasattr(node, "where") and not isinstance(node, jax.Array | jax.ShapeDtypeStruct)
