"""From settings to functions: every name in a `Config` is resolved here, and nowhere else."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from ..envs import action_spec, select_part
from ..envs.base import DescribedWorld
from ..learner.auxiliary import NO_AUXILIARY_TASK, SELF_PREDICTION
from ..learner.continuous import tanh_normal
from ..learner.discrete import categorical
from ..learner.distributions import Distribution
from ..learner.exploration import AS_IT_IS, CORRELATED_NOISE, NOISE, Exploration
from ..learner.masks import Masked, masked_networks, without_mask
from ..learner.method import (
    AddMask,
    MakeOptimizer,
    Method,
    finite_rows,
    keys_of_actions,
    own_key_per_minibatch,
    own_key_per_row,
)
from ..learner.networks import MakeNetworks, networks_from_config
from ..learner.normalizers import NO_NORMALIZATION, ONCE_PER_ITERATION, Normalizer
from ..learner.objectives import (
    ActorObjective,
    KLEstimator,
    exact_kl,
    expected_loss,
    gae_loss,
    make_objective,
    pathwise_loss,
    sampled_kl,
    score_loss,
    two_keys,
)
from ..learner.optimizers import make_optimizer
from ..learner.scale_rules import (
    at_lowest,
    at_mean,
    by_return,
    by_reward,
    by_spread,
    by_target,
)
from ..learner.scales import scaled_value_function
from ..learner.targets import (
    expected_value,
    gae_advantages,
    no_advantages,
    sampled_value,
)
from ..learner.update import OWN_MULTIPLIERS
from ..learner.values import (
    ValueFunction,
    categorical_value_function,
    squared_value_function,
)
from ..settings import Config, Hyperparameters
from . import original


@runtime_checkable
class World(DescribedWorld, Protocol):
    """The static facts of an environment, pure or not, that a method is made for."""

    @property
    def actor_part(self) -> str: ...
    @property
    def critic_part(self) -> str: ...
    @property
    def action_mask(self) -> str | None: ...


def make_method(
    world: World,
    config: Config,
    *,
    networks: MakeNetworks | None = None,
    distribution: Distribution | None = None,
    value_function: ValueFunction | None = None,
    actor_objective: ActorObjective | None = None,
    optimizer: MakeOptimizer = make_optimizer,
) -> Method:
    """The functions that a config names, for a world; see `make_train` for what can be given instead.

    Args:
        world: an `envs.Environment` or a `hosts.HostEnvironment`; only its static facts are read.
        config: static settings.
        networks: builds actor and critic.
        distribution: what the actor's outputs mean.
        value_function: how the critic is read and trained.
        actor_objective: a minibatch -> one loss per state.
        optimizer: of the actor and of the critic.

    Raises:
        ValueError: if an observation has not the parts that the networks see, or a distribution gives other actions
            than the world takes.
    """
    distribution = distribution or _distribution(world, config)
    _check_actions(world, distribution)
    networks = networks or networks_from_config(config)
    can_list = distribution.logits is not None
    parts = [
        functools.partial(select_part, part=name) for name in (world.actor_part, world.critic_part)
    ]
    for part in parts:
        part(world.observation)
    return Method(
        config=config,
        networks=masked_networks(networks) if world.action_mask else networks,
        distribution=distribution,
        value_function=value_function or _value_function(config),
        auxiliary=SELF_PREDICTION if config.self_prediction else NO_AUXILIARY_TASK,
        objective=actor_objective or _objective(config, distribution),
        exploration=_exploration(config, distribution),
        state_value=expected_value if can_list else sampled_value,
        advantages=gae_advantages if config.policy_gradient == "score_gae" else no_advantages,
        counts=original.rows_not_truncated if config.mask_truncated else finite_rows,
        normalizer=normalizer(config),
        optimizer=optimizer,
        multipliers=_MULTIPLIERS[config.dual_optimizer],
        action_keys=keys_of_actions,
        target_keys=original.keys_of_the_rollout if config.noise == "reused" else own_key_per_row,
        minibatch_keys=(
            original.no_own_keys if config.noise == "reused" else own_key_per_minibatch
        ),
        actor_part=parts[0],
        critic_part=parts[1],
        actor_part_name=world.actor_part,
        with_mask=mask_of(world.action_mask) if world.action_mask else without_mask,
    )


@functools.cache
def mask_of(part: str) -> AddMask:
    """Puts this part of an observation beside the actor's as its mask; the same function for the same name."""

    def with_mask(own: PyTree[Array], observation: PyTree[ArrayLike]) -> Masked:
        return Masked(own, jnp.asarray(select_part(observation, part)))

    return with_mask


def fields_of(method: Method) -> dict[str, Any]:
    """The fields of a method by name, for a bundle that adds to them."""
    return {field.name: getattr(method, field.name) for field in dataclasses.fields(Method)}


def episode_length_of(world: World, config: Config) -> int:
    """Steps of an episode: the config's, or else the world's own.

    Raises:
        ValueError: if neither says so.
    """
    length = config.episode_length or world.episode_length
    if length is None:
        raise ValueError(
            f"episode_length is not set, and {world.name} has none of its own; "
            "give it in the Config (steps until the time limit)."
        )
    return length


_NORMALIZERS = {
    "iteration": ONCE_PER_ITERATION,
    "step": original.EVERY_STEP,
    "none": NO_NORMALIZATION,
}
_MULTIPLIERS = {"own": OWN_MULTIPLIERS, "actor": original.SHARED_MULTIPLIERS}
_SCALES: dict[str, Callable[[ValueFunction], ValueFunction]] = {
    "fixed": lambda inner: inner,
    "return": functools.partial(scaled_value_function, rule=by_return),
    "spread": functools.partial(scaled_value_function, rule=by_spread),
    "reward": functools.partial(scaled_value_function, rule=by_reward),
    "target": functools.partial(scaled_value_function, rule=by_target),
    "deviation": functools.partial(scaled_value_function, rule=by_target, center=at_mean),
    "range": functools.partial(scaled_value_function, rule=by_target, center=at_lowest),
}
_ACTOR_LOSSES = {"pathwise": pathwise_loss, "score": score_loss, "score_gae": gae_loss}
# Where all actions can be listed, nothing is sampled that can be summed.
_EXACT_LOSSES = {**_ACTOR_LOSSES, "pathwise": expected_loss}


def _hashable(scale: float | Sequence[float]) -> float | tuple[float, ...]:
    return float(scale) if isinstance(scale, int | float) else tuple(map(float, scale))


def normalizer(config: Config) -> Normalizer:
    """The normalizer that a config names."""
    return _NORMALIZERS[config.statistics]


def _value_function(config: Config) -> ValueFunction:
    inner = (
        categorical_value_function(config.num_bins)
        if config.critic == "categorical"
        else squared_value_function()
    )
    return _SCALES[config.value_scale](inner)


def _distribution(world: World, config: Config) -> Distribution:
    if world.num_actions is not None:
        return categorical(world.num_actions)
    return tanh_normal(world.action_size, _hashable(world.action_scale), config.action_limit)


def _check_actions(world: World, distribution: Distribution) -> None:
    """Whether a distribution gives what the world takes: a whole number, or something real."""

    def act(key: Array, outputs: Array) -> PyTree[Array]:
        policy = distribution.policy(outputs, Hyperparameters())
        return distribution.to_environment(distribution.sample(key, policy).action)

    outputs = jax.ShapeDtypeStruct((distribution.num_outputs,), jnp.result_type(float))
    given = jax.eval_shape(act, jax.eval_shape(lambda: jax.random.key(0)), outputs)
    if not isinstance(given, jax.ShapeDtypeStruct):
        return  # of containers: whoever makes them knows what the world takes
    takes, whole = action_spec(world), jnp.issubdtype(given.dtype, jnp.integer)
    same_kind = whole == (world.num_actions is not None)
    counts = distribution.logits is None or distribution.num_outputs == world.num_actions
    if given.shape != takes.shape or not same_kind or not counts:
        kind = f"{world.num_actions} actions" if world.num_actions else "a box of actions"
        raise ValueError(
            f"{world.name} has {kind} ({list(takes.shape)} of {takes.dtype}), but the distribution has "
            f"{distribution.num_outputs} outputs and gives {list(given.shape)} of {given.dtype}."
        )


def _exploration(config: Config, distribution: Distribution) -> Exploration:
    if config.exploration == "none":
        return AS_IT_IS
    if config.policy_gradient == "score_gae":
        raise ValueError(
            f"exploration is {config.exploration!r} and policy_gradient 'score_gae', which weighs actions by the "
            "policy itself; it needs exploration='none'."
        )
    if config.exploration == "correlated":
        if distribution.from_normals is None:
            raise ValueError(
                "exploration is 'correlated', but the distribution takes no noise from outside "
                "(it has no from_normals)."
            )
        return CORRELATED_NOISE
    if distribution.widen is None:
        raise ValueError(
            "exploration is 'noise', but the distribution cannot be widened (it has no widen)."
        )
    return NOISE


def _kl_estimator(config: Config, distribution: Distribution) -> KLEstimator:
    if config.kl_estimator == "exact" or distribution.logits is not None:
        return exact_kl(distribution)
    clip = original.KL_CLIP if config.kl_estimator == "sampled_clipped" else None
    return sampled_kl(distribution, config.num_kl_samples, clip)


def _objective(config: Config, distribution: Distribution) -> ActorObjective:
    losses = _ACTOR_LOSSES if distribution.logits is None else _EXACT_LOSSES
    return make_objective(
        losses[config.policy_gradient],
        distribution,
        _kl_estimator(config, distribution),
        config.kl_constraint,
        original.same_key_twice if config.noise == "reused" else two_keys,
    )
