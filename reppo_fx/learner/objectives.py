"""Actor objectives: how a minibatch becomes one loss per state. `make_train(..., actor_objective=...)` takes any.

An objective is `(actor, key, batch, q_value, duals, hyperparameters) -> ActorTerms`, differentiated with respect
to the actor. `q_value(critic_observation, action)` holds the critic's parameters constant.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..ops import (
    Duals,
    pathwise_actor_loss,
    score_function_actor_loss,
    tanh_normal_kl,
    tanh_normal_kl_sampled,
    tanh_normal_log_prob,
    tanh_normal_sample,
)
from .targets import Batch

ORIGINAL_KL_CLIP = 1e-4
NUM_BASELINE_SAMPLES = 4


class ActorTerms(NamedTuple):
    """Per state: the loss, the entropy estimate `−log π(a|x)`, and the KL."""

    loss: Float[Array, "*batch"]
    entropy: Float[Array, "*batch"]
    kl: Float[Array, "*batch"]


@runtime_checkable
class ActorObjective(Protocol):
    """The signature shared by all objectives."""

    def __call__(
        self,
        actor: Any,
        key: Array,
        batch: Batch,
        q_value: Callable[[Array, Array], Array],
        duals: Duals,
        hyperparameters: Any,
    ) -> ActorTerms: ...


KLEstimator = Callable[[Array, Array, Array, Array, Array], Array]


def kl_estimator(config: Any) -> KLEstimator:
    """`(key, old mean, old std, new mean, new std) -> KL per state`, as the config says."""
    if config.kl_estimator == "exact":
        return lambda key, *distributions: tanh_normal_kl(*distributions)
    clip = ORIGINAL_KL_CLIP if config.kl_estimator == "sampled_clipped" else None
    return functools.partial(tanh_normal_kl_sampled, num_samples=config.num_kl_samples, clip=clip)


def pathwise_objective(
    actor: Any,
    key: Array,
    batch: Batch,
    q_value: Callable[[Array, Array], Array],
    duals: Duals,
    hyperparameters: Any,
    *,
    estimate_kl: KLEstimator,
    kl_constraint: str,
    noise: str = "independent",
) -> ActorTerms:
    """REPPO's objective: differentiate through a reparameterized action and Q."""
    mean, std = actor(batch.actor_observation, hyperparameters.min_std)
    sample_key, kl_key = (key, key) if noise == "reused" else jax.random.split(key)
    sample = tanh_normal_sample(sample_key, mean, std)
    kl = estimate_kl(kl_key, batch.old_mean, batch.old_std, mean, std)
    loss = pathwise_actor_loss(
        q_value(batch.critic_observation, sample.action),
        sample.log_prob,
        kl,
        duals.temperature,
        duals.multiplier,
        hyperparameters.kl_target,
        kl_constraint,
    )
    return ActorTerms(loss, -sample.log_prob, kl)


def score_objective(
    actor: Any,
    key: Array,
    batch: Batch,
    q_value: Callable[[Array, Array], Array],
    duals: Duals,
    hyperparameters: Any,
    *,
    estimate_kl: KLEstimator,
    kl_constraint: str,
) -> ActorTerms:
    """Score function with Q: the advantage is Q minus the mean Q of other samples at the same state."""
    mean, std = actor(batch.actor_observation, hyperparameters.min_std)
    sample_key, baseline_key, kl_key = jax.random.split(key, 3)
    sample = jax.lax.stop_gradient(tanh_normal_sample(sample_key, mean, std))
    baseline_keys = jax.random.split(baseline_key, NUM_BASELINE_SAMPLES)
    others = jax.vmap(
        lambda k: q_value(batch.critic_observation, tanh_normal_sample(k, mean, std).action)
    )(baseline_keys)
    advantage = q_value(batch.critic_observation, sample.action) - others.mean(0)
    kl = estimate_kl(kl_key, batch.old_mean, batch.old_std, mean, std)
    log_prob = tanh_normal_log_prob(mean, std, pre_tanh=sample.pre_tanh)
    loss = score_function_actor_loss(
        log_prob,
        advantage,
        kl,
        duals.temperature,
        duals.multiplier,
        hyperparameters.kl_target,
        kl_constraint,
    )
    return ActorTerms(loss, -log_prob, kl)


def gae_objective(
    actor: Any,
    key: Array,
    batch: Batch,
    q_value: Callable[[Array, Array], Array],
    duals: Duals,
    hyperparameters: Any,
    *,
    estimate_kl: KLEstimator,
    kl_constraint: str,
) -> ActorTerms:
    """Score function with GAE on the actions taken, weighted by how much likelier they have become."""
    del q_value
    if batch.advantage is None:
        raise ValueError(
            "gae_objective needs advantages: set policy_gradient='score_gae' in the Config."
        )
    mean, std = actor(batch.actor_observation, hyperparameters.min_std)
    sample_key, kl_key = jax.random.split(key)
    entropy = -tanh_normal_sample(sample_key, mean, std).log_prob
    kl = estimate_kl(kl_key, batch.old_mean, batch.old_std, mean, std)
    log_prob = tanh_normal_log_prob(mean, std, batch.action)
    loss = score_function_actor_loss(
        log_prob,
        _standardize(batch.advantage),
        kl,
        duals.temperature,
        duals.multiplier,
        hyperparameters.kl_target,
        kl_constraint,
        behavior_log_probs=tanh_normal_log_prob(batch.old_mean, batch.old_std, batch.action),
    )
    return ActorTerms(loss, entropy, kl)


def _standardize(x: Array) -> Array:
    return (x - jnp.mean(x)) / (jnp.std(x) + 1e-8)


def objective_from_config(config: Any) -> ActorObjective:
    """The objective that a `Config` names, with its KL estimator and constraint bound."""
    bound = {"estimate_kl": kl_estimator(config), "kl_constraint": config.kl_constraint}
    if config.policy_gradient == "score":
        return functools.partial(score_objective, **bound)
    if config.policy_gradient == "score_gae":
        return functools.partial(gae_objective, **bound)
    return functools.partial(pathwise_objective, noise=config.noise, **bound)
