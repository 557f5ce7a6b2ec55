"""From settings to functions: every name in a `Config` is resolved here, and nowhere else."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import PyTree

from ..envs import select_part
from ..learner.auxiliary import NO_AUXILIARY_TASK, SELF_PREDICTION
from ..learner.distributions import Distribution, tanh_normal
from ..learner.method import (
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
    gae_loss,
    make_objective,
    pathwise_loss,
    sampled_kl,
    score_loss,
    two_keys,
)
from ..learner.optimizers import make_optimizer
from ..learner.scales import by_return, by_reward, by_spread, scaled_value_function
from ..learner.targets import gae_advantages, no_advantages
from ..learner.update import OWN_MULTIPLIERS
from ..learner.values import (
    ValueFunction,
    categorical_value_function,
    squared_value_function,
)
from ..settings import Config
from . import original


@runtime_checkable
class World(Protocol):
    """The static facts of an environment, pure or not, that a method is made for."""

    @property
    def name(self) -> str: ...
    @property
    def observation(self) -> PyTree[jax.ShapeDtypeStruct]: ...
    @property
    def action_size(self) -> int: ...
    @property
    def episode_length(self) -> int | None: ...
    @property
    def actor_part(self) -> str: ...
    @property
    def critic_part(self) -> str: ...
    @property
    def action_scale(self) -> float | tuple[float, ...]: ...


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
        ValueError: if an observation has not the parts that the networks see.
    """
    if distribution is None:
        distribution = tanh_normal(
            world.action_size, _hashable(world.action_scale), config.action_limit
        )
    parts = [
        functools.partial(select_part, part=name) for name in (world.actor_part, world.critic_part)
    ]
    for part in parts:
        part(world.observation)
    return Method(
        config=config,
        networks=networks or networks_from_config(config),
        distribution=distribution,
        value_function=value_function or _value_function(config),
        auxiliary=SELF_PREDICTION if config.self_prediction else NO_AUXILIARY_TASK,
        objective=actor_objective or _objective(config, distribution),
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
    )


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
_SCALE_RULES = {"return": by_return, "spread": by_spread, "reward": by_reward}
_ACTOR_LOSSES = {"pathwise": pathwise_loss, "score": score_loss, "score_gae": gae_loss}


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
    rule = _SCALE_RULES.get(config.value_scale)
    return inner if rule is None else scaled_value_function(inner, rule)


def _kl_estimator(config: Config, distribution: Distribution) -> KLEstimator:
    if config.kl_estimator == "exact":
        return exact_kl(distribution)
    clip = original.KL_CLIP if config.kl_estimator == "sampled_clipped" else None
    return sampled_kl(distribution, config.num_kl_samples, clip)


def _objective(config: Config, distribution: Distribution) -> ActorObjective:
    return make_objective(
        _ACTOR_LOSSES[config.policy_gradient],
        distribution,
        _kl_estimator(config, distribution),
        config.kl_constraint,
        original.same_key_twice if config.noise == "reused" else two_keys,
    )
