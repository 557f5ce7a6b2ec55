"""Evaluation: one whole episode per instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..envs import COUNTERS, LIMIT, Environment, TimeStep, batch, conform, contain_nan, time_limit
from ..learner.method import Method
from ..learner.state import TrainState, key_streams
from .assembly import episode_length_of
from .policy import make_policy


class EpisodeMetric(NamedTuple):
    """One of the environment's own metrics: mean over the steps of an episode, and its value at the last one."""

    mean: Float[Array, "*episodes"]
    last: Float[Array, "*episodes"]


class Trajectory(NamedTuple):
    """Every step of every episode, `[T, episodes, ...]`: what rendering needs.

    Attributes:
        state: the environment's own, before the step.
        observation: what was acted on.
        action: what the environment got.
        reward: for it.
        alive: whether the step belongs to the first episode of its instance.
    """

    state: PyTree
    observation: PyTree[Array]
    action: PyTree[Array]
    reward: Float[Array, "T episodes"]
    alive: Bool[Array, "T episodes"]


class Episodes(NamedTuple):
    """One whole episode per instance.

    Attributes:
        returns: undiscounted.
        lengths: in steps.
        metrics: the environment's own.
        trajectory: if it was asked for.
    """

    returns: Float[Array, "*episodes"]
    lengths: Float[Array, "*episodes"]
    metrics: dict[str, EpisodeMetric]
    trajectory: Trajectory | None = None


@runtime_checkable
class SamplingPolicy(Protocol):
    """A policy that can also be sampled."""

    def __call__(self, observation: PyTree[Array]) -> PyTree[Array]: ...
    def sample(self, key: Array, observation: PyTree[Array]) -> PyTree[Array]: ...


class _Sums(NamedTuple):
    """What is added up over the steps of each instance's first episode."""

    alive: Bool[Array, " episodes"]
    returns: Float[Array, " episodes"]
    lengths: Float[Array, " episodes"]
    totals: dict[str, Float[Array, " episodes"]]
    last: dict[str, Float[Array, " episodes"]]


def evaluate_policy(
    env: Environment,
    policy: Callable[[PyTree[Array]], PyTree[Array]] | SamplingPolicy,
    key: Array,
    num_episodes: int,
    episode_length: int,
    *,
    stochastic: bool = False,
    trajectory: bool = False,
    limit: float = LIMIT,
) -> Episodes:
    """Run `num_episodes` fresh instances to their first end.

    Args:
        env: an environment for one instance, without time limit or auto-reset.
        policy: `observation -> action`, batched.
        key: for the resets, and for sampling.
        num_episodes: instances.
        episode_length: time limit in steps; every instance is stepped that often, and what comes after
            its first end is not counted.
        stochastic: sample actions, `policy.sample(key, observation)`, instead of taking the mode.
        trajectory: keep every step, with the environment's states; memory grows with length and episodes.
        limit: magnitude beyond which an observation or a reward is a failure of the simulator.

    Returns:
        Return, length and the environment's metrics per episode.

    Raises:
        ValueError: if it is to be sampled and cannot be, or a number is below 1.

    >>> from reppo_fx.envs import probes
    >>> policy = lambda observation: jnp.zeros((observation.shape[0], 1))
    >>> episodes = evaluate_policy(probes.constant_reward(), policy, jax.random.key(0), 2, 10)
    >>> print(episodes.returns, episodes.lengths)
    [10. 10.] [10. 10.]
    """
    for name, value in (("num_episodes", num_episodes), ("episode_length", episode_length)):
        if value < 1:
            raise ValueError(f"{name} is {value}; at least 1 is needed.")
    choose = _sampled(policy) if stochastic else lambda key, observation: policy(observation)
    env = batch(contain_nan(time_limit(conform(env), episode_length), limit))
    reset_key, sample_key = jax.random.split(key)
    state, observation = env.reset(jax.random.split(reset_key, num_episodes))
    names = _own_metrics(env, state, jax.eval_shape(choose, key, observation))

    def step(
        carry: tuple[PyTree[Array], PyTree[Array], _Sums], key: Array
    ) -> tuple[tuple[PyTree[Array], PyTree[Array], _Sums], Trajectory | None]:
        state, observation, sums = carry
        action = choose(key, observation)
        new, timestep = env.step(state, action)
        row = Trajectory(state.inner.inner, observation, action, timestep.reward, sums.alive)
        return (new, timestep.observation, _add(sums, timestep)), row if trajectory else None

    keys = jax.random.split(sample_key, episode_length)
    start = (state, observation, _zeros(num_episodes, names))
    (_, _, sums), rows = jax.lax.scan(step, start, keys)
    metrics = {
        name: EpisodeMetric(sums.totals[name] / sums.lengths, sums.last[name]) for name in names
    }
    return Episodes(sums.returns, sums.lengths, metrics, rows)


def evaluate(method: Method, env: Environment, state: TrainState) -> Episodes:
    """`config.num_eval_envs` episodes with the deterministic policy of a state, which is left as it is.

    Args:
        method: the functions.
        env: for one instance, without time limit or auto-reset; its `episode_length` is the limit.
        state: of the run.

    Returns:
        What each episode came to, `[num_eval_envs]`.

    Raises:
        ValueError: if neither the config nor the environment says how long an episode is.
    """
    length = episode_length_of(env, method.config)
    key = key_streams(state.key).evaluate
    config = method.config
    policy = make_policy(method, state)
    return evaluate_policy(
        env, policy, key, config.num_eval_envs, length, limit=config.observation_limit
    )


def _sampled(policy: object) -> Callable[[Array, PyTree[Array]], PyTree[Array]]:
    if not isinstance(policy, SamplingPolicy):
        raise ValueError(
            f"stochastic is True, but the policy, a {type(policy).__name__}, cannot sample(key, observation)."
        )
    return policy.sample


def _own_metrics(env: Environment, state: PyTree, action: PyTree) -> list[str]:
    _, timestep = jax.eval_shape(env.step, state, action)
    return [name for name in timestep.metrics if name not in COUNTERS]


def _zeros(num_episodes: int, names: list[str]) -> _Sums:
    zeros = jnp.zeros((num_episodes,))
    nothing = dict.fromkeys(names, zeros)
    return _Sums(jnp.ones((num_episodes,), bool), zeros, zeros, nothing, nothing)


def _add(sums: _Sums, timestep: TimeStep) -> _Sums:
    alive = sums.alive
    metrics = timestep.metrics

    def only(value: Array) -> Array:
        return jnp.where(alive, value, 0.0)

    return _Sums(
        alive=alive & ~(timestep.terminated | timestep.truncated),
        returns=sums.returns + only(timestep.reward),
        lengths=sums.lengths + only(jnp.ones(())),
        totals={name: total + only(metrics[name]) for name, total in sums.totals.items()},
        last={name: jnp.where(alive, metrics[name], old) for name, old in sums.last.items()},
    )
