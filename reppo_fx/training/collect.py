"""Policy × pure world → a time-major rollout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from ..envs import Environment, TimeStep
from ..learner.method import Method, network_inputs, policy_of
from ..learner.rollout import Rollout, Transition, take_in
from ..learner.state import RolloutState, TrainState, key_streams
from ..ops import RunningStatistics

INT32_MAX = 2**31 - 1
COUNTERS = ("nonfinite", "nonfinite_resets")
"""Metrics of `envs.contain_nan`, which the learner counts itself."""


def collect(method: Method, env: Environment, state: TrainState) -> tuple[TrainState, Rollout]:
    """Step every instance `config.num_steps` times with a frozen policy.

    The key stays: `update` moves it on, so collecting twice from one state repeats the noise.

    Args:
        method: the functions; `method.collecting` does the work.
        env: a batched environment that resets itself, as from `envs.training_environment`.
        state: whose policy acts, and where to go on.

    Returns:
        The state with the world moved on, and the rollout, `[T, num_envs, ...]`.
    """
    return method.collecting(method, env, state)


def collect_frozen(
    method: Method, env: Environment, state: TrainState
) -> tuple[TrainState, Rollout]:
    """Collect with one set of observation statistics, updated afterwards."""

    def step(
        carry: tuple[PyTree[Array], PyTree[Array]], key: Array
    ) -> tuple[tuple[PyTree[Array], PyTree[Array]], Transition]:
        env_state, observation = carry
        action = act(key, method, state, state.rollout.statistics, observation)
        env_state, timestep = env.step(env_state, action)
        return (env_state, timestep.observation), transition(observation, action, timestep)

    start = (env.refresh(state.rollout.env_state), state.rollout.observation)
    keys = jax.random.split(key_streams(state.key).collect, method.config.num_steps)
    (env_state, observation), transitions = jax.lax.scan(step, start, keys)
    statistics, rollout = take_in(method.normalizer, state.rollout.statistics, transitions)
    return close(state, RolloutState(env_state, observation, statistics), rollout)


def act(
    key: Array,
    method: Method,
    state: TrainState,
    statistics: RunningStatistics,
    observation: PyTree[Array],
) -> PyTree[Array]:
    """One action per instance from the policy of a state, as the environment gets it."""
    inputs, _ = network_inputs(method, state.hyperparameters, statistics, observation)
    policy = policy_of(method, state.learner.networks.actor, inputs, state.hyperparameters)
    return method.distribution.to_environment(method.distribution.sample(key, policy).action)


def transition(observation: PyTree[Array], action: PyTree[Array], timestep: TimeStep) -> Transition:
    """A row of a rollout; what containment counts is taken out of the metrics by `close`."""
    nonfinite = timestep.metrics.get("nonfinite", jnp.zeros_like(timestep.reward))
    return Transition(
        observation=observation,
        action=action,
        next_observation=timestep.next_observation,
        reward=timestep.reward,
        terminated=timestep.terminated,
        truncated=timestep.truncated,
        nonfinite=nonfinite > 0,
        metrics=timestep.metrics,
    )


def close(state: TrainState, world: RolloutState, rollout: Rollout) -> tuple[TrainState, Rollout]:
    """The state after collecting, failures counted, and the rollout with the environment's own metrics alone."""
    metrics = rollout.transitions.metrics
    own = {name: value for name, value in metrics.items() if name not in COUNTERS}
    failed = sum(
        (jnp.sum(metrics[name]).astype(jnp.int32) for name in COUNTERS if name in metrics),
        jnp.zeros((), jnp.int32),
    )
    state = state._replace(rollout=world, nonfinite=_add(state.nonfinite, failed))
    return state, rollout._replace(transitions=rollout.transitions._replace(metrics=own))


def _add(total: Int[Array, ""], more: Int[Array, ""]) -> Int[Array, ""]:
    """A count that stays at its largest number instead of starting anew."""
    return jnp.where(total > INT32_MAX - more, total, total + more)
