"""Actor objectives: how a minibatch becomes one loss per state. `make_train(..., actor_objective=...)` takes any.

An objective is `(actor, key, batch, q_value, duals, hyperparameters) -> ActorTerms`, differentiated with respect
to the actor. `q_value(critic_observation, action)` holds the critic's parameters constant; where actions are
discrete, `q_value(critic_observation, None)` gives those of all, `[*batch, n]`. `make_objective` makes one of an
`ActorLoss`, which says what improves a policy, and how KL is estimated and constrained.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, ScalarLike

from ..ops import (
    Duals,
    expected_actor_loss,
    pathwise_actor_loss,
    score_function_actor_loss,
)
from ..settings import Hyperparameters
from .batch import Batch
from .distributions import Distribution
from .networks import ActorNetwork

NUM_BASELINE_SAMPLES = 4

QValue = Callable[[PyTree[Array], PyTree[Array]], Array]
"""`(critic observation, action or none) -> Q`, the critic constant."""

KLEstimator = Callable[[Array, PyTree[Array], PyTree[Array]], Float[Array, "*batch"]]
"""`(key, old policy, new policy) -> KL` per state."""

SplitKey = Callable[[Array], tuple[Array, Array]]
"""One key into that of the actions and that of the KL's samples."""


class ActorTerms(NamedTuple):
    """Per state: the loss, the entropy estimate (usually `−log π(a|x)`), and the KL.

    Attributes:
        loss: its mean over the minibatch is differentiated.
        entropy: in nats; the temperature is trained by it.
        kl: `KL(π_old ‖ π)`, in nats; the multiplier is trained by it.
    """

    loss: Float[Array, "*batch"]
    entropy: Float[Array, "*batch"]
    kl: Float[Array, "*batch"]


@runtime_checkable
class ActorObjective(Protocol):
    """The signature shared by all objectives."""

    def __call__(
        self,
        actor: ActorNetwork,
        key: Array,
        batch: Batch,
        q_value: QValue,
        duals: Duals,
        hyperparameters: Hyperparameters,
    ) -> ActorTerms: ...


class KLRule(NamedTuple):
    """What the losses of `ops` take beside improvement: KL per state, `α`, `β`, `ε`, and the rule's name.

    Attributes:
        kl: per state.
        temperature: `α`.
        multiplier: `β`.
        kl_target: `ε`.
        kl_constraint: `"clipped"`, `"penalty"` or `"none"`.
    """

    kl: Float[Array, "*batch"]
    temperature: ScalarLike
    multiplier: ScalarLike
    kl_target: ScalarLike
    kl_constraint: str


@runtime_checkable
class ActorLoss(Protocol):
    """What improves a policy: loss and entropy estimate per state, of the policy at a minibatch."""

    def __call__(
        self,
        distribution: Distribution,
        key: Array,
        policy: PyTree[Array],
        batch: Batch,
        q_value: QValue,
        rule: KLRule,
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]: ...


def two_keys(key: Array) -> tuple[Array, Array]:
    """Independent keys for the actions and for the KL's samples."""
    first, second = jax.random.split(key)
    return first, second


def make_objective(
    actor_loss: ActorLoss,
    distribution: Distribution,
    estimate_kl: KLEstimator,
    kl_constraint: str = "clipped",
    split_key: SplitKey = two_keys,
) -> ActorObjective:
    """The frame that all objectives share: policy, keys, KL, constraint.

    Args:
        actor_loss: what improves the policy.
        distribution: what the actor's outputs mean.
        estimate_kl: `(key, old policy, new policy) -> KL` per state.
        kl_constraint: `"clipped"`, `"penalty"` or `"none"`.
        split_key: one key into that of the actions and that of the KL's samples.

    Returns:
        The objective.

    >>> from reppo_fx import tanh_normal
    >>> d = tanh_normal(1)
    >>> objective = make_objective(pathwise_loss, d, exact_kl(d), "penalty")
    >>> # train = make_train(env, config, actor_objective=objective)
    """

    def objective(
        actor: ActorNetwork,
        key: Array,
        batch: Batch,
        q_value: QValue,
        duals: Duals,
        hyperparameters: Hyperparameters,
    ) -> ActorTerms:
        policy = distribution.policy(actor(batch.actor_observation), hyperparameters)
        sample_key, kl_key = split_key(key)
        kl = estimate_kl(kl_key, batch.old_policy, policy)
        rule = KLRule(
            kl, duals.temperature, duals.multiplier, hyperparameters.kl_target, kl_constraint
        )
        loss, entropy = actor_loss(distribution, sample_key, policy, batch, q_value, rule)
        return ActorTerms(loss, entropy, kl)

    return objective


def pathwise_loss(
    distribution: Distribution,
    key: Array,
    policy: PyTree[Array],
    batch: Batch,
    q_value: QValue,
    rule: KLRule,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """REPPO's: differentiate through a reparameterized action and Q.

    Args:
        distribution: what the actor's outputs mean.
        key: of the action.
        policy: of the actor that is trained, at the minibatch.
        batch: the minibatch.
        q_value: `(critic_observation, action) -> Q`, the critic's parameters held constant.
        rule: KL and its constraint.

    Returns:
        The loss and an estimate of the entropy, one per state.

    >>> from reppo_fx import tanh_normal
    >>> d = tanh_normal(1)
    >>> policy = d.policy(jnp.zeros((5, 2)), Hyperparameters())
    >>> batch = Batch(*(jnp.zeros((5, 1)) for _ in Batch._fields))  # this loss reads the observations alone
    >>> q_value = lambda observation, action: -jnp.square(action[..., 0])
    >>> rule = KLRule(jnp.zeros(5), 0.01, 0.01, 0.1, "clipped")
    >>> run = lambda key: pathwise_loss(d, key, policy, batch, q_value, rule)
    >>> [term.shape for term in jax.eval_shape(run, jax.random.key(0))]
    [(5,), (5,)]
    """
    sample = distribution.sample(key, policy)
    q_values = q_value(batch.critic_observation, sample.action)
    loss = pathwise_actor_loss(q_values, sample.log_prob, *rule, stop_gradients=False)
    return loss, -sample.log_prob


def expected_loss(
    distribution: Distribution,
    key: Array,
    policy: PyTree[Array],
    batch: Batch,
    q_value: QValue,
    rule: KLRule,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """REPPO's where all actions can be listed: the exact expectation over them, and the exact entropy.

    Args:
        distribution: what the actor's outputs mean.
        key: not used: nothing is drawn.
        policy: of the actor that is trained, at the minibatch.
        batch: the minibatch.
        q_value: `(critic_observation, action) -> Q`, the critic's parameters held constant; without an
            action, those of all.
        rule: KL and its constraint.

    Returns:
        The loss and the entropy, one per state.

    Raises:
        ValueError: if the distribution does not list its actions.

    >>> from reppo_fx import categorical
    >>> d = categorical(3)
    >>> policy = d.policy(jnp.zeros((5, 3)), Hyperparameters())
    >>> batch = Batch(*(jnp.zeros((5, 1)) for _ in Batch._fields))  # this loss reads the observations alone
    >>> q_value = lambda observation, action: jnp.zeros((5, 3))
    >>> rule = KLRule(jnp.zeros(5), 0.01, 0.01, 0.1, "clipped")
    >>> run = lambda key: expected_loss(d, key, policy, batch, q_value, rule)
    >>> [term.shape for term in jax.eval_shape(run, jax.random.key(0))]
    [(5,), (5,)]
    """
    if distribution.logits is None:
        raise ValueError(
            "this objective needs a distribution that lists its actions (logits), as categorical does."
        )
    q_values = q_value(batch.critic_observation, None)
    loss = expected_actor_loss(q_values, distribution.logits(policy), *rule, stop_gradients=False)
    return loss, distribution.entropy(key, policy, 1)


def score_loss(
    distribution: Distribution,
    key: Array,
    policy: PyTree[Array],
    batch: Batch,
    q_value: QValue,
    rule: KLRule,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Score function with Q: the advantage is Q less the mean Q of other samples at the same state.

    Args:
        distribution: what the actor's outputs mean.
        key: of the action and of the baseline's actions.
        policy: of the actor that is trained, at the minibatch.
        batch: the minibatch.
        q_value: `(critic_observation, action) -> Q`, the critic's parameters held constant.
        rule: KL and its constraint.

    Returns:
        The loss and an estimate of the entropy, one per state.

    >>> from reppo_fx import tanh_normal
    >>> d = tanh_normal(1)
    >>> policy = d.policy(jnp.zeros((5, 2)), Hyperparameters())
    >>> batch = Batch(*(jnp.zeros((5, 1)) for _ in Batch._fields))  # this loss reads the observations alone
    >>> q_value = lambda observation, action: -jnp.square(action[..., 0])
    >>> rule = KLRule(jnp.zeros(5), 0.01, 0.01, 0.1, "clipped")
    >>> run = lambda key: score_loss(d, key, policy, batch, q_value, rule)
    >>> [term.shape for term in jax.eval_shape(run, jax.random.key(0))]
    [(5,), (5,)]
    """
    sample_key, baseline_key = jax.random.split(key)
    sample = jax.lax.stop_gradient(distribution.sample(sample_key, policy))

    def q_of_another(key: Array) -> Array:
        return q_value(batch.critic_observation, distribution.sample(key, policy).action)

    others = jax.vmap(q_of_another)(jax.random.split(baseline_key, NUM_BASELINE_SAMPLES))
    advantage = q_value(batch.critic_observation, sample.action) - others.mean(0)
    log_prob = distribution.log_prob(policy, sample.action, sample.latent)
    loss = score_function_actor_loss(log_prob, advantage, *rule, stop_gradients=False)
    return loss, -log_prob


def gae_loss(
    distribution: Distribution,
    key: Array,
    policy: PyTree[Array],
    batch: Batch,
    q_value: QValue,
    rule: KLRule,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Score function with GAE on the actions taken, weighted by how much likelier they have become.

    Args:
        distribution: what the actor's outputs mean.
        key: of the entropy's sample.
        policy: of the actor that is trained, at the minibatch.
        batch: the minibatch.
        q_value: `(critic_observation, action) -> Q`, the critic's parameters held constant; not used.
        rule: KL and its constraint.

    Returns:
        The loss and an estimate of the entropy, one per state.

    Raises:
        ValueError: if the batch has no advantages.

    >>> from reppo_fx import tanh_normal
    >>> d = tanh_normal(1)
    >>> policy = d.policy(jnp.zeros((5, 2)), Hyperparameters())
    >>> batch = Batch(*(jnp.zeros((5, 1)) for _ in Batch._fields))
    >>> batch = batch._replace(old_policy=policy, advantage=jnp.arange(5.0))
    >>> q_value = lambda observation, action: jnp.zeros(5)
    >>> rule = KLRule(jnp.zeros(5), 0.01, 0.01, 0.1, "clipped")
    >>> run = lambda key: gae_loss(d, key, policy, batch, q_value, rule)
    >>> [term.shape for term in jax.eval_shape(run, jax.random.key(0))]
    [(5,), (5,)]
    """
    del q_value
    if batch.advantage is None:
        raise ValueError(
            "this objective needs advantages: set policy_gradient='score_gae' in the Config."
        )
    log_prob = distribution.log_prob(policy, batch.action)
    loss = score_function_actor_loss(
        log_prob,
        _standardize(batch.advantage),
        *rule,
        behavior_log_probs=distribution.log_prob(batch.old_policy, batch.action),
        stop_gradients=False,
    )
    return loss, -distribution.sample(key, policy).log_prob


def _standardize(x: Array) -> Array:
    return (x - jnp.mean(x)) / (jnp.std(x) + 1e-8)


def exact_kl(distribution: Distribution) -> KLEstimator:
    """Closed form: no noise, and cheap. The choice wherever the distribution has one.

    Args:
        distribution: what the actor's outputs mean.

    Returns:
        `(key, old policy, new policy) -> KL`, one per state; the key is not used.

    >>> from reppo_fx import tanh_normal
    >>> d = tanh_normal(1)
    >>> old, new = (d.policy(jnp.array([[mean, 0.0]]), Hyperparameters(min_std=0.0)) for mean in (0.0, 1.0))
    >>> print(exact_kl(d)(jax.random.key(0), old, new))  # half the squared distance of the means
    [0.5]
    """
    return lambda key, old, new: distribution.kl(old, new)


def sampled_kl(
    distribution: Distribution, num_samples: int, clip: float | None = None
) -> KLEstimator:
    """From samples of the old policy, as in the published code; all that a policy without a closed form has.

    Args:
        distribution: what the actor's outputs mean.
        num_samples: actions of the old policy, per state.
        clip: the new density is taken at actions clipped to this magnitude, as the published code does it; none:
            where they are.

    Returns:
        `(key, old policy, new policy) -> KL`, one per state.

    >>> from reppo_fx import tanh_normal
    >>> d = tanh_normal(1)
    >>> old, new = (d.policy(jnp.array([[mean, 0.0]]), Hyperparameters(min_std=0.0)) for mean in (0.0, 1.0))
    >>> jax.eval_shape(sampled_kl(d, 16), jax.random.key(0), old, new).shape
    (1,)
    """
    return functools.partial(distribution.kl_sampled, num_samples=num_samples, clip=clip)
