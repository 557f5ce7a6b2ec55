"""Policy × pure world → a time-major rollout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from ..envs import COUNTERS, Environment, TimeStep
from ..learner.method import Method, network_inputs, policy_of
from ..learner.rollout import Rollout, Transition
from ..learner.state import RolloutState, TrainState, key_streams

INT32_MAX = 2**31 - 1


def collect(method: Method, env: Environment, state: TrainState) -> tuple[TrainState, Rollout]:
    """Step every instance `config.num_steps` times with a frozen policy.

    The key stays: `update` moves it on, so collecting twice from one state repeats the noise.

    Args:
        method: the functions.
        env: a batched environment that resets itself, as from `envs.training_environment`.
        state: whose policy acts, and where to go on.

    Returns:
        The state with the world moved on, and the rollout, `[T, num_envs, ...]`.
    """

    def step(world: RolloutState, key: Array) -> tuple[RolloutState, Transition]:
        action, noise = act(key, method, state, world)
        env_state, timestep = env.step(world.env_state, action)
        statistics = method.normalizer.observe(world.statistics, timestep.observation)
        row = transition(world.observation, action, timestep)
        return RolloutState(env_state, timestep.observation, statistics, noise), row

    start = state.rollout._replace(env_state=env.refresh(state.rollout.env_state))
    keys = method.action_keys(key_streams(state.key), method.config.num_steps)
    world, transitions = jax.lax.scan(step, start, keys)
    return close(method, state, world, transitions)


def act(
    key: Array, method: Method, state: TrainState, world: RolloutState
) -> tuple[PyTree[Array], PyTree[Array]]:
    """One action per instance from the policy of a state as it behaves, for the environment; and the noise."""
    hp = state.hyperparameters
    inputs, _ = network_inputs(method, hp, world.statistics, world.observation)
    policy = policy_of(method, state.learner.networks.actor, inputs, hp)
    action, noise = method.exploration.act(key, method.distribution, policy, world.noise, hp)
    return method.distribution.to_environment(action), noise


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


def close(
    method: Method, state: TrainState, world: RolloutState, transitions: Transition
) -> tuple[TrainState, Rollout]:
    """The state after collecting and the rollout: statistics taken in, failures counted, own metrics left.

    What the value function observes is taken in here too, so that one scale holds for the whole iteration.

    Args:
        method: the functions.
        state: before collecting.
        world: where collecting ended.
        transitions: `[T, num_envs, ...]`.
    """
    own = {name: x for name, x in transitions.metrics.items() if name not in COUNTERS}
    failed = sum(
        (
            jnp.sum(transitions.metrics[name]).astype(jnp.int32)
            for name in COUNTERS
            if name in transitions.metrics
        ),
        jnp.zeros((), jnp.int32),
    )
    before = state.rollout.statistics
    noise = method.exploration.observe(world.noise, transitions, state.hyperparameters)
    seen = method.normalizer.rollout(before, transitions.observation, world.observation)
    values = method.value_function.observe(state.learner.values, transitions, state.hyperparameters)
    state = state._replace(
        learner=state.learner._replace(values=values),
        rollout=world._replace(statistics=seen.following, noise=noise),
        nonfinite=_add(state.nonfinite, failed),
    )
    return state, Rollout(transitions._replace(metrics=own), seen.used, seen.successors)


def _add(total: Int[Array, ""], more: Int[Array, ""]) -> Int[Array, ""]:
    """A count that stays at its largest number instead of starting anew."""
    return jnp.where(total > INT32_MAX - more, total, total + more)
