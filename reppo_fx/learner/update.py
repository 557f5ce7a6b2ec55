"""Batch → epochs × minibatches of gradient steps: critic, then actor against the updated critic, then duals."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..ops import Duals, dual_init, dual_update
from ..settings import Hyperparameters
from .batch import Batch, flatten_batch
from .method import Constraint, Method, Multipliers
from .networks import ActorNetwork, CriticNetwork, Networks
from .objectives import ActorTerms
from .optimizers import bound_duals, lowest_temperature, make_dual_optimizer
from .state import LearnerState, TrainState, key_streams


class LearnerMetrics(NamedTuple):
    """Diagnostics of gradient steps; means over minibatches, of the last epoch.

    Attributes:
        critic_loss: cross-entropy or squared error.
        value_error: root mean square of `Q − G`, in scaled reward.
        aux_loss: of the auxiliary task.
        q_value: mean Q, in scaled reward.
        actor_loss: of the objective.
        kl: `KL(π_old ‖ π_new)` in nats.
        entropy: of the policy, in nats.
        temperature: `α`, scaled reward per nat.
        multiplier: `β`.
        closed_gate: share of states with `KL ≥ ε`, where a clipped objective only pulls the policy back.
        clipped_critic_gradients: share of the critic's gradients above `max_grad_norm`.
        clipped_actor_gradients: share of the actor's.
    """

    critic_loss: Float[Array, ""]
    value_error: Float[Array, ""]
    aux_loss: Float[Array, ""]
    q_value: Float[Array, ""]
    actor_loss: Float[Array, ""]
    kl: Float[Array, ""]
    entropy: Float[Array, ""]
    temperature: Float[Array, ""]
    multiplier: Float[Array, ""]
    closed_gate: Float[Array, ""]
    clipped_critic_gradients: Float[Array, ""]
    clipped_actor_gradients: Float[Array, ""]


def learner_init(
    method: Method, networks: Networks, hyperparameters: Hyperparameters
) -> LearnerState:
    """Fresh optimizer states and multipliers for these networks."""
    actor_opt_state, duals = method.multipliers.init(method, networks, hyperparameters)
    optimizer = method.optimizer(hyperparameters, method.config)
    return LearnerState(
        networks=networks,
        actor_opt_state=actor_opt_state,
        critic_opt_state=optimizer.init(networks.critic),
        duals=duals,
        values=method.value_function.init(hyperparameters, method.config.num_envs),
    )


def critic_loss(
    critic: CriticNetwork, method: Method, state: TrainState, batch: Batch
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Value loss plus weighted auxiliary task, mean over the minibatch."""
    hp = state.hyperparameters
    output = critic(batch.critic_observation, batch.action)
    losses = method.value_function.loss(output.outputs, batch.label)
    auxiliary = method.auxiliary.loss(output, batch)
    total = losses + hp.aux_weight * auxiliary
    total = jnp.where(batch.counts, total, jnp.zeros_like(total))
    value = method.value_function.value(output.outputs, hp, state.learner.values)
    metrics = {
        "critic_loss": jnp.mean(losses),
        "value_error": jnp.sqrt(jnp.mean(jnp.square(value - batch.target))),
        "aux_loss": jnp.mean(auxiliary),
        "q_value": jnp.mean(value),
    }
    return jnp.mean(total), metrics


def critic_step(
    method: Method, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, Array]]:
    """One gradient step on the critic."""
    learner = state.learner
    gradient, metrics = jax.grad(critic_loss, has_aux=True)(
        learner.networks.critic, method, state, batch
    )
    optimizer = method.optimizer(state.hyperparameters, method.config)
    updates, opt_state = optimizer.update(
        gradient, learner.critic_opt_state, learner.networks.critic
    )
    critic = optax.apply_updates(learner.networks.critic, updates)
    metrics["clipped_critic_gradients"] = _above_bound(gradient, state)
    networks = learner.networks._replace(critic=critic)
    learner = learner._replace(networks=networks, critic_opt_state=opt_state)
    return state._replace(learner=learner), metrics


def policy_step(
    key: Array, method: Method, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, Array]]:
    """One gradient step on the actor, then one on the multipliers, against the critic as it is now."""
    hp, learner = state.hyperparameters, state.learner

    def q_value(observation: PyTree[Array], action: PyTree[Array]) -> Array:
        outputs = learner.networks.critic(observation, action).outputs
        return method.value_function.value(outputs, hp, learner.values)

    def actor_loss(actor: ActorNetwork) -> tuple[Array, ActorTerms]:
        terms = method.objective(actor, key, batch, q_value, learner.duals, hp)
        return jnp.mean(terms.loss), terms

    (loss, terms), gradient = jax.value_and_grad(actor_loss, has_aux=True)(learner.networks.actor)
    target_entropy = method.distribution.target_entropy(hp, batch.old_policy)
    constraint = Constraint(terms.entropy, terms.kl, target_entropy, hp.kl_target)
    learner = method.multipliers.step(method, learner, gradient, constraint, hp)
    duals = bound_duals(learner.duals, lowest_temperature(batch.target, hp))
    learner = learner._replace(duals=duals)
    metrics = {
        "actor_loss": loss,
        "kl": jnp.mean(terms.kl),
        "entropy": jnp.mean(terms.entropy),
        "temperature": learner.duals.temperature,
        "multiplier": learner.duals.multiplier,
        "closed_gate": jnp.mean(jnp.where(terms.kl < hp.kl_target, 0.0, 1.0)),
        "clipped_actor_gradients": _above_bound(gradient, state),
    }
    return state._replace(learner=learner), metrics


def _above_bound(gradient: PyTree[Array], state: TrainState) -> Float[Array, ""]:
    """1 where the optimizer scales a gradient down."""
    norm = optax.tree.norm(gradient)
    return jnp.where(norm > state.hyperparameters.max_grad_norm, 1.0, 0.0)


def init_own_multipliers(
    method: Method, networks: Networks, hyperparameters: Hyperparameters
) -> tuple[optax.OptState, Duals]:
    """The actor's optimizer knows the actor alone."""
    hp = hyperparameters
    optimizer = method.optimizer(hp, method.config)
    dual_optimizer = make_dual_optimizer(hp, method.config)
    duals = dual_init(hp.initial_temperature, hp.initial_multiplier, dual_optimizer)
    return optimizer.init(networks.actor), duals


def step_own_multipliers(
    method: Method,
    state: LearnerState,
    gradient: ActorNetwork,
    constraint: Constraint,
    hyperparameters: Hyperparameters,
) -> LearnerState:
    """One step of the actor, one of the multipliers' own Adam."""
    optimizer = method.optimizer(hyperparameters, method.config)
    updates, opt_state = optimizer.update(gradient, state.actor_opt_state, state.networks.actor)
    actor = optax.apply_updates(state.networks.actor, updates)
    dual_optimizer = make_dual_optimizer(hyperparameters, method.config)
    return state._replace(
        networks=state.networks._replace(actor=actor),
        actor_opt_state=opt_state,
        duals=dual_update(state.duals, *constraint, optimizer=dual_optimizer, stop_gradients=False),
    )


OWN_MULTIPLIERS = Multipliers(init_own_multipliers, step_own_multipliers)
"""Multipliers with an Adam of their own, and no bound on their gradient."""


def minibatch_step(
    key: Array, method: Method, state: TrainState, batch: Batch
) -> tuple[TrainState, LearnerMetrics]:
    """Critic, actor, duals on one minibatch `[rows, ...]`."""
    state, critic_metrics = critic_step(method, state, batch)
    state, policy_metrics = policy_step(key, method, state, batch)
    return state, LearnerMetrics(**critic_metrics, **policy_metrics)


def update(method: Method, state: TrainState, batch: Batch) -> tuple[TrainState, LearnerMetrics]:
    """All epochs over one batch, reshuffled for each; the state's key and counters move on.

    Args:
        method: the functions.
        state: of the learner that collected the batch.
        batch: from `make_batch`, `[T, num_envs, ...]`.

    Returns:
        The new state, and the metrics of the last epoch.

    Source: REPPO (arXiv 2507.11019), Algorithm 1.
    """
    streams = key_streams(state.key)
    values = method.value_function.adopt(state.learner.values, batch.target)
    state = state._replace(learner=state.learner._replace(values=values))
    learner, metrics = run_epochs(streams.update, method, state, batch)
    iteration = state.iteration + 1
    diverged = (learner.skipped_updates > 0) & (state.diverged_at < 0)
    new = state._replace(
        learner=learner,
        key=streams.following,
        iteration=iteration,
        diverged_at=jnp.where(diverged, iteration, state.diverged_at),
    )
    return new, metrics


def run_epochs(
    key: Array, method: Method, state: TrainState, batch: Batch
) -> tuple[LearnerState, LearnerMetrics]:
    """The gradient steps of `update`, from a key of your own."""
    rows = flatten_batch(batch)
    num_rows, count = rows.reward.shape[0], method.config.num_minibatches

    def epoch(learner: LearnerState, key: Array) -> tuple[LearnerState, LearnerMetrics]:
        # In the original code's order: benchmarks/equivalence.py gives both the same keys.
        noise_key, shuffle_key = jax.random.split(key)
        order = jax.random.permutation(shuffle_key, num_rows).reshape(count, -1)

        def step(
            learner: LearnerState, xs: tuple[Array | None, Array]
        ) -> tuple[LearnerState, LearnerMetrics]:
            own_key, indices = xs
            # A key that all steps share stays out of the loop, and so does drawing its noise.
            key = noise_key if own_key is None else own_key
            # Indices are in bounds; the default mode would pay for masking those that are not.
            minibatch = jax.tree.map(lambda x: jnp.take(x, indices, axis=0, mode="clip"), rows)
            new, metrics = minibatch_step(
                key, method, state._replace(learner=learner), method.place(minibatch)
            )
            return new.learner, metrics

        keys = method.minibatch_keys(noise_key, count)
        learner, metrics = jax.lax.scan(step, learner, (keys, order))
        return learner, jax.tree.map(jnp.mean, metrics)

    epoch_keys = jax.random.split(key, method.config.num_epochs)
    learner, metrics = jax.lax.scan(epoch, state.learner, epoch_keys)
    return learner, jax.tree.map(lambda x: x[-1], metrics)
