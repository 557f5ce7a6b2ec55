"""Batch → epochs × minibatches of gradient steps: critic, then actor against the updated critic, then duals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ..ops import DualParams, Duals, dual_init, dual_loss, dual_update, self_prediction_loss
from .networks import Networks, ValueFunction
from .objectives import ActorObjective
from .optimizers import count_skipped, make_dual_optimizer
from .targets import Batch


class LearnerState(NamedTuple):
    """Everything that gradient steps change."""

    networks: Networks
    actor_opt_state: optax.OptState
    critic_opt_state: optax.OptState
    duals: Duals

    @property
    def skipped_updates(self) -> Int[Array, ""]:
        """Gradient steps that were dropped because they were not finite."""
        return count_skipped((self.actor_opt_state, self.critic_opt_state, self.duals.opt_state))


class LearnerMetrics(NamedTuple):
    """Diagnostics of gradient steps; means over minibatches, of the last epoch."""

    critic_loss: Float[Array, ""]
    value_error: Float[Array, ""]
    aux_loss: Float[Array, ""]
    q_value: Float[Array, ""]
    actor_loss: Float[Array, ""]
    kl: Float[Array, ""]
    entropy: Float[Array, ""]
    temperature: Float[Array, ""]
    multiplier: Float[Array, ""]


class Learner(NamedTuple):
    """The functions and static settings that an update is made of; hyperparameters come with each call."""

    config: Any
    value_function: ValueFunction
    actor_objective: ActorObjective
    optimizer: Callable[[Any, Any], optax.GradientTransformation]
    action_size: int
    place: Callable[[Batch], Batch] = lambda minibatch: minibatch
    """Where a minibatch goes; `spread_environments` lays it over devices."""


def learner_init(networks: Networks, learner: Learner, hyperparameters: Any) -> LearnerState:
    """Fresh optimizer states and multipliers for these networks."""
    hp, config = hyperparameters, learner.config
    optimizer = learner.optimizer(hp, config)
    dual_optimizer = make_dual_optimizer(hp, config)
    duals = dual_init(hp.initial_temperature, hp.initial_multiplier, dual_optimizer)
    shared = config.dual_optimizer == "actor"
    return LearnerState(
        networks=networks,
        actor_opt_state=optimizer.init((networks.actor, duals.params if shared else None)),
        critic_opt_state=optimizer.init(networks.critic),
        duals=duals._replace(opt_state=optax.EmptyState()) if shared else duals,
    )


def critic_loss(
    critic: Any, batch: Batch, learner: Learner, hyperparameters: Any
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Value loss plus weighted self-prediction, mean over the minibatch."""
    hp = hyperparameters
    output = critic(batch.critic_observation, batch.action)
    losses = learner.value_function.loss(output.outputs, batch.label)
    aux = jnp.zeros_like(losses)
    if batch.next_embedding is not None:
        aux = self_prediction_loss(
            output.predicted_embedding,
            batch.next_embedding,
            output.predicted_reward,
            batch.reward,
            batch.terminated,
        )
    total = losses + hp.aux_weight * aux
    if learner.config.mask_truncated:
        total = jnp.where(batch.truncated, jnp.zeros_like(total), total)
    value = learner.value_function.value(output.outputs, hp)
    metrics = {
        "critic_loss": jnp.mean(losses),
        "value_error": jnp.sqrt(jnp.mean(jnp.square(value - batch.target))),
        "aux_loss": jnp.mean(aux),
        "q_value": jnp.mean(value),
    }
    return jnp.mean(total), metrics


def critic_step(
    state: LearnerState, batch: Batch, learner: Learner, hyperparameters: Any
) -> tuple[LearnerState, dict[str, Array]]:
    """One gradient step on the critic."""
    gradients, metrics = jax.grad(critic_loss, has_aux=True)(
        state.networks.critic, batch, learner, hyperparameters
    )
    optimizer = learner.optimizer(hyperparameters, learner.config)
    updates, opt_state = optimizer.update(gradients, state.critic_opt_state, state.networks.critic)
    critic = optax.apply_updates(state.networks.critic, updates)
    networks = state.networks._replace(critic=critic)
    return state._replace(networks=networks, critic_opt_state=opt_state), metrics


def policy_step(
    state: LearnerState, key: Array, batch: Batch, learner: Learner, hyperparameters: Any
) -> tuple[LearnerState, dict[str, Array]]:
    """One gradient step on the actor, then one on the multipliers, against the critic as it is now."""
    hp, config = hyperparameters, learner.config

    def q_value(observation: Array, action: Array) -> Array:
        return learner.value_function.value(state.networks.critic(observation, action).outputs, hp)

    def actor_loss(actor: Any) -> tuple[Array, Any]:
        terms = learner.actor_objective(actor, key, batch, q_value, state.duals, hp)
        return jnp.mean(terms.loss), terms

    (loss, terms), gradients = jax.value_and_grad(actor_loss, has_aux=True)(state.networks.actor)
    target_entropy = -hp.entropy_target * learner.action_size
    constraint = (terms.entropy, terms.kl, target_entropy, hp.kl_target)
    optimizer = learner.optimizer(hp, config)
    params: tuple[Any, DualParams | None] = (state.networks.actor, None)
    grads: tuple[Any, DualParams | None] = (gradients, None)
    if config.dual_optimizer == "actor":
        params = (state.networks.actor, state.duals.params)
        grads = (gradients, jax.grad(dual_loss)(state.duals.params, *constraint))
    updates, opt_state = optimizer.update(grads, state.actor_opt_state, params)
    actor, dual_params = optax.apply_updates(params, updates)
    if dual_params is not None:
        duals = state.duals._replace(params=dual_params)
    else:
        dual_optimizer = make_dual_optimizer(hp, config)
        duals = dual_update(state.duals, *constraint, optimizer=dual_optimizer)
    metrics = {
        "actor_loss": loss,
        "kl": jnp.mean(terms.kl),
        "entropy": jnp.mean(terms.entropy),
        "temperature": duals.temperature,
        "multiplier": duals.multiplier,
    }
    networks = state.networks._replace(actor=actor)
    return state._replace(networks=networks, actor_opt_state=opt_state, duals=duals), metrics


def minibatch_step(
    state: LearnerState, key: Array, batch: Batch, learner: Learner, hyperparameters: Any
) -> tuple[LearnerState, LearnerMetrics]:
    """Critic, actor, duals on one minibatch."""
    state, critic_metrics = critic_step(state, batch, learner, hyperparameters)
    state, policy_metrics = policy_step(state, key, batch, learner, hyperparameters)
    return state, LearnerMetrics(**critic_metrics, **policy_metrics)


def update(
    state: LearnerState, key: Array, batch: Batch, learner: Learner, hyperparameters: Any
) -> tuple[LearnerState, LearnerMetrics]:
    """All epochs over one flat batch `[num_envs · num_steps, ...]`, reshuffled for each.

    Args:
        state: learner state.
        key: for shuffling and action noise.
        batch: from `targets.make_batch`, flattened.
        learner: the bound functions.
        hyperparameters: traced settings.

    Returns:
        The new learner state, and the metrics of the last epoch.
    """
    config = learner.config
    rows = config.steps_per_iteration

    def epoch(state: LearnerState, key: Array) -> tuple[LearnerState, LearnerMetrics]:
        # In the original code's order: benchmarks/equivalence.py gives both the same keys.
        noise_key, shuffle_key = jax.random.split(key)
        order = jax.random.permutation(shuffle_key, rows).reshape(config.num_minibatches, -1)
        keys = None
        if config.noise == "independent":
            keys = jax.random.split(noise_key, config.num_minibatches)

        def step(state: LearnerState, xs: tuple[Array | None, Array]) -> Any:
            own_key, indices = xs
            # A key that all steps share stays out of the loop, and so does drawing its noise.
            key = noise_key if own_key is None else own_key
            # Indices are in bounds; the default mode would pay for masking those that are not.
            rows_of = lambda x: jnp.take(x, indices, axis=0, mode="clip")
            minibatch = learner.place(jax.tree.map(rows_of, batch))
            return minibatch_step(state, key, minibatch, learner, hyperparameters)

        state, metrics = jax.lax.scan(step, state, (keys, order))
        return state, jax.tree.map(jnp.mean, metrics)

    state, metrics = jax.lax.scan(epoch, state, jax.random.split(key, config.num_epochs))
    return state, jax.tree.map(lambda x: x[-1], metrics)
