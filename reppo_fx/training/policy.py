"""A trained policy as a PyTree: what evaluation uses, what a run saves, what a robot runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, ScalarLike

from ..envs import select_part
from ..envs.base import describe_shapes
from ..learner.distributions import Distribution
from ..learner.masks import without_mask
from ..learner.method import AddMask, Method
from ..learner.networks import ActorNetwork
from ..learner.state import TrainState
from ..ops import RunningStatistics
from ..settings import Hyperparameters


class Policy(eqx.Module):
    """`observation -> action`, deterministic, with the observation statistics inside; any leading axes.

    It needs the actor's part of an observation alone: a whole observation with that part in it, or the part itself.
    Where the environment masks actions it needs the mask, too: an observation with both parts in it.
    All leaves are arrays, so it can be vmapped (a policy per seed), saved, and loaded without the trainer.

    Jit a function that takes it, as below: the policy of another seed or a later state then compiles nothing.
    `jax.jit(policy)` is a TypeError, for jax keeps functions by their hash, and arrays have none;
    `equinox.filter_jit(policy)` works.

    Attributes:
        actor: the network.
        statistics: of the actor's part.
        hyperparameters: those it was trained with.
        part: name of the actor's part.
        distribution: what the actor's outputs mean.
        normalize: how the statistics are applied.
        with_mask: puts the mask of actions beside the actor's part, where there is one.

    >>> from reppo_fx import Config, make_train
    >>> from reppo_fx.envs import probes
    >>> train = make_train(probes.match_observation(), Config(episode_length=8, actor_width=8, critic_width=8))
    >>> policy = jax.eval_shape(lambda key: make_policy(train, train.init(key)), jax.random.key(0))
    >>> act = jax.jit(lambda policy, observation: policy(observation))
    >>> jax.eval_shape(act, policy, jnp.zeros((4, 1))).shape
    (4, 1)
    """

    actor: ActorNetwork
    statistics: RunningStatistics
    hyperparameters: Hyperparameters
    part: str = eqx.field(static=True)
    distribution: Distribution = eqx.field(static=True)
    normalize: Callable[[RunningStatistics, PyTree[Array], ScalarLike], PyTree[Array]] = eqx.field(
        static=True
    )
    with_mask: AddMask = eqx.field(static=True, default=without_mask)

    def __repr__(self) -> str:
        axes = [*getattr(self.statistics.count, "shape", ())]
        sizes = [getattr(leaf, "size", 0) for leaf in jax.tree.leaves(self.actor)]
        outputs = f"{self.distribution.num_outputs} outputs, {sum(sizes) // max(1, math.prod(axes)):,} parameters"
        seen = describe_shapes(self.statistics.mean, len(axes))
        return f"Policy(observation {seen} -> {outputs}{f', stacked {axes}' if axes else ''})"

    def __call__(self, observation: PyTree[ArrayLike]) -> PyTree[Array]:
        """The mode of the policy, as the environment gets it."""
        return self.distribution.to_environment(self.distribution.mode(self.at(observation)))

    def sample(self, key: Array, observation: PyTree[ArrayLike]) -> PyTree[Array]:
        """A random action of the policy, as the environment gets it."""
        draw = self.distribution.sample(key, self.at(observation))
        return self.distribution.to_environment(draw.action)

    def at(self, observation: PyTree[ArrayLike]) -> PyTree[Array]:
        """Parameters of the policy at an observation, for `distribution`."""
        own = jax.tree.map(jnp.asarray, select_part(observation, self.part))
        hp = self.hyperparameters
        own = self.normalize(self.statistics, own, hp.variance_floor)
        return self.distribution.policy(self.actor(self.with_mask(own, observation)), hp)


def make_policy(method: Method, state: TrainState) -> Policy:
    """The policy of a state, to evaluate, save or deploy.

    Args:
        method: the functions; what `make_train` gives is one.
        state: of the run.

    Returns:
        The policy: arrays and functions, `observation -> action`.
    """
    return Policy(
        actor=state.learner.networks.actor,
        statistics=_of_actor(method, state.rollout.statistics),
        hyperparameters=state.hyperparameters,
        part=method.actor_part_name,
        distribution=method.distribution,
        normalize=method.normalizer.normalize,
        with_mask=method.with_mask,
    )


def with_statistics(method: Method, policy: Policy, statistics: RunningStatistics) -> Policy:
    """The policy with other statistics, those of whole observations."""
    return dataclasses.replace(policy, statistics=_of_actor(method, statistics))


def _of_actor(method: Method, statistics: RunningStatistics) -> RunningStatistics:
    return statistics._replace(
        mean=method.actor_part(statistics.mean), var=method.actor_part(statistics.var)
    )
