"""Batch → epochs × minibatches of gradient steps: critic, then actor against the updated critic, then duals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from .networks import Networks, ValueFunction
from .objectives import ActorObjective
from .ops import DualParams, Duals, dual_init, dual_loss, dual_update, self_prediction_loss
from .targets import Batch


class LearnerState(NamedTuple):
    """Everything that gradient steps change."""

    networks: Networks
    actor_opt_state: optax.OptState
    critic_opt_state: optax.OptState
    duals: Duals
    skipped_updates: Int[Array, ""]


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
    critic_grad_norm: Float[Array, ""]
    actor_grad_norm: Float[Array, ""]


class Learner(NamedTuple):
    """The functions and static settings that an update is made of; hyperparameters come with each call."""

    config: Any
    value_function: ValueFunction
    actor_objective: ActorObjective
    optimizer: Callable[[Any, Any], optax.GradientTransformation]
    action_size: int


def make_optimizer(hyperparameters: Any, config: Any) -> optax.GradientTransformation:
    """Adam behind a bound on the global norm, both from traced hyperparameters.

    The learning rate goes linearly from `learning_rate` to `final_learning_rate` times that.
    """
    return optax.chain(
        optax.clip_by_global_norm(hyperparameters.max_grad_norm),
        optax.adam(learning_rate_schedule(hyperparameters, config)),
    )


def learning_rate_schedule(hyperparameters: Any, config: Any) -> optax.Schedule:
    """Step size of the n-th gradient step."""
    end = hyperparameters.learning_rate * hyperparameters.final_learning_rate
    return optax.linear_schedule(hyperparameters.learning_rate, end, config.num_updates)


def learner_init(networks: Networks, learner: Learner, hyperparameters: Any) -> LearnerState:
    """Fresh optimizer states and multipliers for these networks."""
    hp, config = hyperparameters, learner.config
    optimizer = learner.optimizer(hp, config)
    dual_optimizer = optax.adam(learning_rate_schedule(hp, config))
    duals = dual_init(hp.initial_temperature, hp.initial_multiplier, dual_optimizer)
    shared = config.dual_optimizer == "actor"
    return LearnerState(
        networks=networks,
        actor_opt_state=optimizer.init((networks.actor, duals.params if shared else None)),
        critic_opt_state=optimizer.init(networks.critic),
        duals=duals._replace(opt_state=optax.EmptyState()) if shared else duals,
        skipped_updates=jnp.zeros((), jnp.int32),
    )


def critic_loss(
    critic: Any, batch: Batch, learner: Learner, hyperparameters: Any
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Value loss plus weighted self-prediction, mean over the minibatch."""
    hp = hyperparameters
    output = critic(batch.critic_observation, batch.action)
    losses = learner.value_function.loss(output.outputs, batch.target, hp)
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
    updates, opt_state = optimizer.update(gradients, state.critic_opt_state)
    critic = optax.apply_updates(state.networks.critic, updates)
    networks = state.networks._replace(critic=critic)
    metrics["critic_grad_norm"] = optax.global_norm(gradients)
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
    updates, opt_state = optimizer.update(grads, state.actor_opt_state)
    actor, dual_params = optax.apply_updates(params, updates)
    if dual_params is not None:
        duals = state.duals._replace(params=dual_params)
    else:
        dual_optimizer = optax.adam(learning_rate_schedule(hp, config))
        duals = dual_update(state.duals, *constraint, optimizer=dual_optimizer)
    metrics = {
        "actor_loss": loss,
        "kl": jnp.mean(terms.kl),
        "entropy": jnp.mean(terms.entropy),
        "temperature": duals.temperature,
        "multiplier": duals.multiplier,
        "actor_grad_norm": optax.global_norm(gradients),
    }
    networks = state.networks._replace(actor=actor)
    return state._replace(networks=networks, actor_opt_state=opt_state, duals=duals), metrics


def minibatch_step(
    state: LearnerState, key: Array, batch: Batch, learner: Learner, hyperparameters: Any
) -> tuple[LearnerState, LearnerMetrics]:
    """Critic, actor, duals on one minibatch; the whole step is dropped if anything in it is not finite."""
    new, critic_metrics = critic_step(state, batch, learner, hyperparameters)
    new, policy_metrics = policy_step(new, key, batch, learner, hyperparameters)
    ok = _all_finite((new.networks, new.duals, critic_metrics, policy_metrics))
    kept = jax.tree.map(lambda x, y: jnp.where(ok, x, y), new, state)
    skipped = state.skipped_updates + (~ok).astype(jnp.int32)
    return kept._replace(skipped_updates=skipped), LearnerMetrics(
        **critic_metrics, **policy_metrics
    )


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
        shuffle_key, noise_key = jax.random.split(key)
        order = jax.random.permutation(shuffle_key, rows).reshape(config.num_minibatches, -1)
        keys = jax.random.split(noise_key, config.num_minibatches)
        if config.noise == "reused":
            keys = jnp.broadcast_to(noise_key, keys.shape)

        def step(state: LearnerState, xs: tuple[Array, Array]) -> Any:
            key, indices = xs
            minibatch = jax.tree.map(lambda x: jnp.take(x, indices, axis=0), batch)
            return minibatch_step(state, key, minibatch, learner, hyperparameters)

        state, metrics = jax.lax.scan(step, state, (keys, order))
        return state, jax.tree.map(jnp.mean, metrics)

    state, metrics = jax.lax.scan(epoch, state, jax.random.split(key, config.num_epochs))
    return state, jax.tree.map(lambda x: x[-1], metrics)


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
