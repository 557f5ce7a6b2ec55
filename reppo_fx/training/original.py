"""The original code's peculiarities as functions, so that the method reads like the paper and stays reproducible.

`make_train` binds them where a `Config` asks for them, and the preset `authors` asks for all: observation
statistics at every step, starting from those of the first reset; the rollout's keys once more at the successors;
one key for all minibatches of an epoch, and for the action and the KL's samples; multipliers in the actor's
optimizer; truncated steps left out of the critic's loss; the new density of the sampled KL at clipped actions.

Source: github.com/cvoelcker/reppo; benchmarks/equivalence.py compares every term with it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree

from ..learner.method import Constraint, Method, Multipliers
from ..learner.networks import ActorNetwork, Networks
from ..learner.normalizers import Normalizer, Seen
from ..learner.optimizers import scale_dual_updates
from ..learner.rollout import Transition
from ..learner.state import KeyStreams, LearnerState
from ..ops import (
    Duals,
    RunningStatistics,
    dual_init,
    dual_loss,
    statistics_init,
    statistics_normalize,
    statistics_update,
)
from ..settings import Hyperparameters

CHOICES: dict[str, Any] = {
    "kl_estimator": "sampled_clipped",
    "num_kl_samples": 16,
    "critic_offset": "trainable",
    "statistics": "step",
    "num_value_samples": 1,
    "dual_optimizer": "actor",
    "noise": "reused",
    "mask_truncated": True,
}
"""What the preset `authors` says in a `Config`."""

KL_CLIP = 1e-4
"""How far from ±1 the new density's actions are kept."""


def statistics_of_every_step(
    before: RunningStatistics, observations: PyTree[Array], following: PyTree[Array]
) -> Seen:
    """Statistics that took in every step at once: before and after each row."""
    shifted = jax.tree.map(
        lambda x, last: jnp.concatenate([x[1:], last[None]]), observations, following
    )

    def take_in(
        statistics: RunningStatistics, observation: PyTree[Array]
    ) -> tuple[RunningStatistics, tuple[RunningStatistics, RunningStatistics]]:
        after = statistics_update(statistics, observation)
        return after, (statistics, after)

    last, (used, successors) = jax.lax.scan(take_in, before, shifted)
    return Seen(last, used, successors)


EVERY_STEP = Normalizer(
    statistics_init,
    statistics_update,
    statistics_update,
    statistics_of_every_step,
    statistics_normalize,
)
"""Statistics that have seen the first reset, and take in every step at once."""


def keys_of_the_rollout(streams: KeyStreams, rows: int) -> Array:
    """The keys that drew the actions, for those at the successors."""
    return jax.random.split(streams.collect, rows)


def no_own_keys(key: Array, count: int) -> None:
    """All minibatches of an epoch share its key."""
    del key, count


def same_key_twice(key: Array) -> tuple[Array, Array]:
    """The action's key is the KL's, too."""
    return key, key


def rows_not_truncated(transitions: Transition) -> Bool[Array, "*batch"]:
    """Truncated steps have no successor in code that lost it to an auto-reset."""
    return ~(transitions.nonfinite | transitions.truncated)


def init_shared_multipliers(
    method: Method, networks: Networks, hyperparameters: Hyperparameters
) -> tuple[optax.OptState, Duals]:
    """The actor's optimizer holds the multipliers, too."""
    optimizer = method.optimizer(hyperparameters, method.config)
    hp = hyperparameters
    duals = dual_init(hp.initial_temperature, hp.initial_multiplier, optax.identity())
    return optimizer.init((networks.actor, duals.params)), duals


def step_shared_multipliers(
    method: Method,
    state: LearnerState,
    gradient: ActorNetwork,
    constraint: Constraint,
    hyperparameters: Hyperparameters,
) -> LearnerState:
    """One step of actor and multipliers together, under one bound on the norm of both gradients."""
    optimizer = method.optimizer(hyperparameters, method.config)
    dual_gradient = jax.grad(dual_loss)(state.duals.params, *constraint, stop_gradients=False)
    # Weight decay, which is all that looks at parameters, is for weights: from zeros nothing decays.
    shown: PyTree[Array] = (
        state.networks.actor,
        jax.tree.map(jnp.zeros_like, state.duals.params),
    )
    updates, opt_state = optimizer.update((gradient, dual_gradient), state.actor_opt_state, shown)
    params = (state.networks.actor, state.duals.params)
    updates = (updates[0], scale_dual_updates(updates[1], hyperparameters))
    actor, dual_params = optax.apply_updates(params, updates)
    return state._replace(
        networks=state.networks._replace(actor=actor),
        actor_opt_state=opt_state,
        duals=state.duals._replace(params=dual_params),
    )


SHARED_MULTIPLIERS = Multipliers(init_shared_multipliers, step_shared_multipliers)
"""Multipliers in the actor's optimizer."""
