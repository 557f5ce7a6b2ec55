"""The method as one frozen bundle of functions: made once by `make_train`, or put together by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree, ScalarLike

from ..ops import Duals, RunningStatistics
from ..settings import Config, Hyperparameters
from .auxiliary import AuxiliaryTask
from .batch import Batch, Successor
from .distributions import Distribution
from .exploration import Exploration
from .masks import without_mask
from .networks import ActorNetwork, MakeNetworks, Networks
from .normalizers import Normalizer
from .objectives import ActorObjective
from .rollout import Rollout, Transition
from .state import KeyStreams, LearnerState, TrainState
from .values import ValueFunction

MakeOptimizer = Callable[[Hyperparameters, Config], optax.GradientTransformation]
"""`(hyperparameters, config) -> optimizer`, built inside the trace."""

Part = Callable[[PyTree[Array]], PyTree[Array]]
"""`observation -> the part of it that a network sees`."""

AddMask = Callable[[PyTree[Array], PyTree[ArrayLike]], PyTree[Array]]
"""`(actor's part, normalized; whole observation as the environment gives it) -> what the actor sees`."""


@runtime_checkable
class StateValue(Protocol):
    """Values of states with any leading axes, from what actor and critic see of them."""

    def __call__(
        self,
        method: Method,
        state: TrainState,
        key: Array,
        inputs: tuple[PyTree[Array], PyTree[Array]],
        num_samples: int,
    ) -> Successor: ...


class Constraint(NamedTuple):
    """What the multipliers are trained by: entropy and KL of a minibatch, and their targets.

    Attributes:
        entropy: per state, in nats.
        kl: per state, in nats.
        target_entropy: `H_target`.
        kl_target: `ε`.
    """

    entropy: Float[Array, "*batch"]
    kl: Float[Array, "*batch"]
    target_entropy: ScalarLike
    kl_target: ScalarLike


class Multipliers(NamedTuple):
    """How actor and multipliers take a gradient step.

    Attributes:
        init: `(method, networks, hyperparameters) -> (actor's optimizer state, duals)`.
        step: `(method, state, actor's gradient, constraint, hyperparameters) -> state`.
    """

    init: Callable[[Method, Networks, Hyperparameters], tuple[optax.OptState, Duals]]
    step: Callable[[Method, LearnerState, ActorNetwork, Constraint, Hyperparameters], LearnerState]


def in_place(minibatch: Batch) -> Batch:
    """A minibatch where it is."""
    return minibatch


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Method:
    """Everything that `collect`, `make_batch`, `update` and `evaluate` call; nothing in it changes while training.

    Attributes:
        config: sizes and loop lengths.
        networks: builds actor and critic.
        distribution: what the actor's outputs mean.
        value_function: what the critic's outputs mean.
        auxiliary: what else the critic predicts.
        objective: a minibatch -> one actor loss per state.
        exploration: how the policy behaves while it collects.
        state_value: `(method, state, key, inputs, num_samples) -> Successor`, values of states.
        advantages: `(method, state, rollout, successor) -> advantages`, or none where the objective needs none.
        counts: `transitions -> rows` that the critic learns from.
        normalizer: of observations.
        optimizer: of the actor and of the critic.
        multipliers: how actor and multipliers step.
        action_keys: `(key streams, T) -> keys`, one per row, for the actions.
        target_keys: `(key streams, T) -> keys`, one per row, for the actions at the successors.
        minibatch_keys: `(key, count) -> keys`, or none where all minibatches of an epoch share the key.
        actor_part: the actor's part of an observation.
        critic_part: the critic's part.
        actor_part_name: what that part is called.
        with_mask: puts the mask of actions beside the actor's part, where there is one.
        place: where a minibatch goes; `spread_environments` lays it over devices.
    """

    config: Config
    networks: MakeNetworks
    distribution: Distribution
    value_function: ValueFunction
    auxiliary: AuxiliaryTask
    objective: ActorObjective
    exploration: Exploration
    state_value: StateValue
    advantages: Callable[[Method, TrainState, Rollout, Successor], Float[Array, "*batch"] | None]
    counts: Callable[[Transition], Bool[Array, "*batch"]]
    normalizer: Normalizer
    optimizer: MakeOptimizer
    multipliers: Multipliers
    action_keys: Callable[[KeyStreams, int], Array]
    target_keys: Callable[[KeyStreams, int], Array]
    minibatch_keys: Callable[[Array, int], Array | None]
    actor_part: Part
    critic_part: Part
    actor_part_name: str
    with_mask: AddMask = without_mask
    place: Callable[[Batch], Batch] = in_place


def network_inputs(
    method: Method,
    hyperparameters: Hyperparameters,
    statistics: RunningStatistics,
    observation: PyTree[Array],
) -> tuple[PyTree[Array], PyTree[Array]]:
    """The actor's and the critic's part of an observation, normalized; with the actor's the mask, as it is.

    Statistics may have a leading axis `[T]`, as those of a rollout may.

    Args:
        method: the functions.
        hyperparameters: the floor of the variance.
        statistics: of observations.
        observation: as the environment gives it, any leading axes.

    Returns:
        What the actor sees, and what the critic sees.
    """
    normalize = method.normalizer.normalize
    if statistics.count.ndim:
        normalize = jax.vmap(normalize, in_axes=(0, 0, None))
    normalized = normalize(statistics, observation, hyperparameters.variance_floor)
    actor_input = method.with_mask(method.actor_part(normalized), observation)
    return actor_input, method.critic_part(normalized)


def policy_of(
    method: Method, actor: ActorNetwork, observation: PyTree[Array], hp: Hyperparameters
) -> PyTree[Array]:
    """Parameters of the policy at normalized observations.

    Args:
        method: the functions.
        actor: the network.
        observation: what it sees; see `network_inputs`.
        hp: the hyperparameters.

    Returns:
        As the distribution's functions take them, e.g. `TanhNormal` or `Categorical`.
    """
    return method.distribution.policy(actor(observation), hp)


def keys_of_actions(streams: KeyStreams, rows: int) -> Array:
    """Keys of collecting's own stream."""
    return jax.random.split(streams.collect, rows)


def own_key_per_row(streams: KeyStreams, rows: int) -> Array:
    """Keys of the targets' own stream."""
    return jax.random.split(streams.targets, rows)


def own_key_per_minibatch(key: Array, count: int) -> Array:
    """Independent keys."""
    return jax.random.split(key, count)


def finite_rows(transitions: Transition) -> Bool[Array, "*batch"]:
    """Every row but those where the simulator failed."""
    return ~transitions.nonfinite
