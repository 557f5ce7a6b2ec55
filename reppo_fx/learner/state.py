"""What goes on from one iteration to the next: arrays only, in one PyTree, with a stream of keys for every use."""

from __future__ import annotations

from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Int, PyTree

from ..ops import Duals, RunningStatistics
from ..settings import Hyperparameters
from .networks import Networks
from .optimizers import count_skipped


class LearnerState(NamedTuple):
    """Everything that gradient steps change.

    Attributes:
        networks: actor and critic.
        actor_opt_state: of the actor (and of the multipliers where they share its optimizer).
        critic_opt_state: of the critic.
        duals: multipliers, with the state of their own optimizer if they have one.
        values: the value function's own state (a scale that follows the task); nothing for a fixed support.
    """

    networks: Networks
    actor_opt_state: optax.OptState
    critic_opt_state: optax.OptState
    duals: Duals
    values: PyTree[Array] = ()

    @property
    def skipped_updates(self) -> Int[Array, ""]:
        """Gradient steps that were dropped because they were not finite."""
        return count_skipped((self.actor_opt_state, self.critic_opt_state, self.duals.opt_state))


class RolloutState(NamedTuple):
    """Where collecting goes on.

    Attributes:
        env_state: of the world's instances; whatever `collect` needs, the learner never looks at it.
        observation: to act on next.
        statistics: of all observations so far.
        noise: of the exploration, where it goes on from step to step; nothing where every step draws its own.
    """

    env_state: PyTree
    observation: PyTree[Array]
    statistics: RunningStatistics
    noise: PyTree[Array] = ()


class TrainState(NamedTuple):
    """All that the next step needs, arrays only: learner, world, statistics, key, counters, settings.

    Attributes:
        learner: parameters, optimizer states, multipliers.
        rollout: environment states, the observations to act on next, observation statistics.
        key: random key for what follows; see `key_streams`. `update` moves it on.
        iteration: iterations done.
        nonfinite: environment steps and resets that were not finite and were contained, so far.
        diverged_at: iterations done when a gradient step was first dropped for not being finite; −1 never.
        hyperparameters: those given to `init`, as arrays.
    """

    learner: LearnerState
    rollout: RolloutState
    key: Array
    iteration: Int[Array, ""]
    nonfinite: Int[Array, ""]
    diverged_at: Int[Array, ""]
    hyperparameters: Hyperparameters


class KeyStreams(NamedTuple):
    """One independent key for every consumer of a state's key; nothing else may be drawn from it.

    Attributes:
        collect: actions while collecting.
        targets: actions at the successors.
        update: shuffles, and what minibatches draw.
        following: the state's next key.
        evaluate: starts of evaluation episodes.
        advantages: actions for the values that advantages are measured from.
        world: starts of a simulator that is a program.
        noise: the first of a noise that lasts for several steps.
    """

    collect: Array
    targets: Array
    update: Array
    following: Array
    evaluate: Array
    advantages: Array
    world: Array
    noise: Array


def key_streams(key: Array) -> KeyStreams:
    """Split a state's key by use.

    Args:
        key: of a state, `state.key`.

    Returns:
        One key for each use.

    >>> streams = key_streams(jax.random.key(0))
    >>> len({str(jax.random.key_data(stream)) for stream in streams})
    8
    """
    return KeyStreams(*jax.random.split(key, len(KeyStreams._fields)))
