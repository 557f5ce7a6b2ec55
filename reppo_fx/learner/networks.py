"""Actor and critic as Equinox modules whose only leaves are arrays; sizes and choices are static fields.

The layers are our own few lines, not `equinox.nn`'s, for two reasons: weights start Lecun-normal as in the
original code, and every module takes any leading axes, so that a batch is one matmul without a `vmap`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from ..settings import Config, Hyperparameters
from .values import ValueFunction

OFFSET_SCALE = 40.0


class Linear(eqx.Module):
    """`x W + b`, Lecun-normal `W`, zero `b`."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, key: Key[Array, ""], inputs: int, outputs: int) -> None:
        self.weight = jax.nn.initializers.lecun_normal()(key, (inputs, outputs))
        self.bias = jnp.zeros((outputs,))

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return x @ self.weight + self.bias


class Norm(eqx.Module):
    """RMSNorm (`"rms"`), LayerNorm (`"layer"`) or nothing (`"none"`) over the last axis, with a learned scale."""

    scale: Float[Array, " size"] | None
    bias: Float[Array, " size"] | None
    kind: str = eqx.field(static=True)

    def __init__(self, size: int, kind: str) -> None:
        self.kind = kind
        self.scale = None if kind == "none" else jnp.ones((size,))
        self.bias = jnp.zeros((size,)) if kind == "layer" else None

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        if self.scale is None:
            return x
        if self.kind == "layer":
            x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale
        return x if self.bias is None else x + self.bias


class MLP(eqx.Module):
    """`depth` linear layers; all but the last are followed by normalization and silu."""

    layers: tuple[Linear, ...]
    norms: tuple[Norm, ...]

    def __init__(
        self, key: Key[Array, ""], inputs: int, outputs: int, width: int, depth: int, norm: str
    ) -> None:
        sizes = [inputs, *[width] * (depth - 1), outputs]
        keys = jax.random.split(key, depth)
        self.layers = tuple(map(Linear, keys, sizes[:-1], sizes[1:]))
        self.norms = tuple(Norm(width, norm) for _ in range(depth - 1))

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            x = jax.nn.silu(norm(layer(x)))
        return self.layers[-1](x)


class Actor(eqx.Module):
    """`num_outputs` numbers per state, from which a `Distribution` makes the policy.

    Attributes:
        trunk: the layers.
    """

    trunk: MLP

    def __init__(
        self,
        key: Key[Array, ""],
        observation_size: int,
        num_outputs: int,
        width: int = 512,
        depth: int = 3,
        norm: str = "rms",
    ) -> None:
        self.trunk = MLP(key, observation_size, num_outputs, width, depth, norm)

    def __call__(self, observation: Float[Array, "*batch o"]) -> Float[Array, "*batch outputs"]:
        return self.trunk(observation)


class CriticOutput(NamedTuple):
    """What the critic says about `(x, a)`; `outputs` are logits or a scalar, read by a `ValueFunction`.

    Where it was asked about all actions at once, `outputs` have an axis of them before their own, and nothing is
    predicted.

    Attributes:
        outputs: `[*batch, outputs]`, or `[*batch, n, outputs]` of all actions.
        embedding: `z`, which the self-prediction of the step before is trained towards.
        predicted_embedding: of the next embedding; none without a prediction.
        predicted_reward: of the reward; none without a prediction.
    """

    outputs: Float[Array, "*batch outputs"] | Float[Array, "*batch n outputs"]
    embedding: Float[Array, "*batch width"]
    predicted_embedding: Float[Array, "*batch width"] | None
    predicted_reward: Float[Array, "*batch"] | None


class Critic(eqx.Module):
    """`z = encoder(x, a)`, value outputs from `head(silu(z))`, self-prediction from `predictor(silu(z))`.

    Attributes:
        encoder: gives `z`, the embedding.
        head: gives the value outputs.
        predictor: gives the next embedding and the reward.
        offset: of the outputs, before the factor 40; none for none.
        trainable_offset: whether gradient steps move it.
    """

    encoder: MLP
    head: MLP
    predictor: MLP
    offset: Float[Array, " outputs"] | None
    trainable_offset: bool = eqx.field(static=True)

    def __init__(
        self,
        key: Key[Array, ""],
        observation_size: int,
        action_size: int,
        num_outputs: int,
        width: int = 512,
        depths: tuple[int, int, int] = (2, 2, 2),
        norm: str = "rms",
        offset: Float[Array, " outputs"] | None = None,
        trainable_offset: bool = True,
    ) -> None:
        encoder_key, head_key, predictor_key = jax.random.split(key, 3)
        encoder_depth, head_depth, predictor_depth = depths
        inputs = observation_size + action_size
        self.encoder = MLP(encoder_key, inputs, width, width, encoder_depth, norm)
        self.head = MLP(head_key, width, num_outputs, width, head_depth, norm)
        self.predictor = MLP(predictor_key, width, width + 1, width, predictor_depth, norm)
        self.offset = offset
        self.trainable_offset = trainable_offset

    def __call__(
        self, observation: Float[Array, "*batch o"], action: Float[Array, "*batch d"]
    ) -> CriticOutput:
        embedding = self.encoder(jnp.concatenate([observation, action], axis=-1))
        features = jax.nn.silu(embedding)
        outputs = _with_offset(self.head(features), self.offset, self.trainable_offset)
        prediction = self.predictor(features)
        return CriticOutput(outputs, embedding, prediction[..., :-1], prediction[..., -1])


class DiscreteCritic(eqx.Module):
    """A critic of `n` actions: `z = encoder(x)`, value outputs of all of them from `head(silu(z))`.

    Asked about an action, it picks that one's outputs, and predicts from `predictor(silu(z), one-hot a)`; about
    none, it gives the outputs of all. They share the start offset, so that the level of all values moves as one.

    Attributes:
        encoder: gives `z`, the embedding.
        head: gives the value outputs.
        predictor: gives the next embedding and the reward.
        offset: of the outputs, before the factor 40; none for none.
        trainable_offset: whether gradient steps move it.
        num_actions: `n`.
    """

    encoder: MLP
    head: MLP
    predictor: MLP
    offset: Float[Array, " outputs"] | None
    trainable_offset: bool = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)

    def __init__(
        self,
        key: Key[Array, ""],
        observation_size: int,
        num_actions: int,
        num_outputs: int,
        width: int = 512,
        depths: tuple[int, int, int] = (2, 2, 2),
        norm: str = "rms",
        offset: Float[Array, " outputs"] | None = None,
        trainable_offset: bool = True,
    ) -> None:
        encoder_key, head_key, predictor_key = jax.random.split(key, 3)
        encoder_depth, head_depth, predictor_depth = depths
        self.encoder = MLP(encoder_key, observation_size, width, width, encoder_depth, norm)
        self.head = MLP(head_key, width, num_actions * num_outputs, width, head_depth, norm)
        predicted = width + 1
        self.predictor = MLP(
            predictor_key, width + num_actions, predicted, width, predictor_depth, norm
        )
        self.offset = offset
        self.trainable_offset = trainable_offset
        self.num_actions = num_actions

    def __call__(
        self, observation: Float[Array, "*batch o"], action: Int[Array, "*batch"] | None = None
    ) -> CriticOutput:
        embedding = self.encoder(observation)
        features = jax.nn.silu(embedding)
        flat = self.head(features)
        num_outputs = flat.shape[-1] // self.num_actions
        of_all = flat.reshape(*flat.shape[:-1], self.num_actions, num_outputs)
        if action is None:
            outputs = _with_offset(of_all, self.offset, self.trainable_offset)
            return CriticOutput(outputs, embedding, None, None)
        of_one = jnp.take_along_axis(of_all, action[..., None, None], axis=-2)[..., 0, :]
        outputs = _with_offset(of_one, self.offset, self.trainable_offset)
        taken = jax.nn.one_hot(action, self.num_actions, dtype=features.dtype)
        prediction = self.predictor(jnp.concatenate([features, taken], axis=-1))
        return CriticOutput(outputs, embedding, prediction[..., :-1], prediction[..., -1])


def _with_offset(outputs: Array, offset: Array | None, trainable: bool) -> Array:
    """Behind the factor, a trained offset moves 40 times faster than a bias would."""
    if offset is None:
        return outputs
    return outputs + OFFSET_SCALE * (offset if trainable else jax.lax.stop_gradient(offset))


@runtime_checkable
class ActorNetwork(Protocol):
    """`observation -> outputs`, `[*batch, distribution.num_outputs]`; a PyTree."""

    def __call__(self, observation: PyTree[Array]) -> Array: ...


@runtime_checkable
class CriticNetwork(Protocol):
    """`(observation, action) -> CriticOutput`, outputs `[*batch, value_function.num_outputs]`; a PyTree.

    Where actions are discrete, `action` is their numbers, or none: then outputs are those of all actions,
    `[*batch, n, value_function.num_outputs]`.
    """

    def __call__(self, observation: PyTree[Array], action: PyTree[Array]) -> CriticOutput: ...


class Networks(NamedTuple):
    """An actor `observation -> outputs` and a critic `(observation, action) -> CriticOutput`."""

    actor: ActorNetwork
    critic: CriticNetwork


class NetworkShapes(NamedTuple):
    """What the networks see and give, from the environment and the distribution.

    Attributes:
        actor_observation: shape and dtype of every leaf of the actor's part of one observation, as
            `jax.ShapeDtypeStruct`; any containers and ranks.
        critic_observation: the same of the critic's part.
        action: dimension of an action, as the critic sees it.
        policy_outputs: what the actor gives per state.
        num_actions: `n` where actions are discrete; then a critic answers for all of them at once, too.
    """

    actor_observation: PyTree[jax.ShapeDtypeStruct]
    critic_observation: PyTree[jax.ShapeDtypeStruct]
    action: int
    policy_outputs: int
    num_actions: int | None = None


@runtime_checkable
class MakeNetworks(Protocol):
    """Builds the networks from a key, the shapes of what they see and give, the value function and the settings."""

    def __call__(
        self,
        key: Array,
        shapes: NetworkShapes,
        value_function: ValueFunction,
        hyperparameters: Hyperparameters,
    ) -> Networks: ...


def make_networks(
    key: Key[Array, ""],
    shapes: NetworkShapes,
    value_function: ValueFunction,
    hyperparameters: Hyperparameters,
    *,
    actor_width: int = 512,
    actor_depth: int = 3,
    critic_width: int = 512,
    critic_depths: tuple[int, int, int] = (2, 2, 2),
    norm: str = "rms",
    trainable_offset: bool = True,
) -> Networks:
    """The paper's networks. `make_train(..., networks=...)` takes anything with the first four arguments.

    Args:
        key: a random key.
        shapes: what the networks see and give; both observations flat.
        value_function: how many outputs the critic has, and where they start.
        hyperparameters: numbers of that start.
        actor_width: units per hidden layer of the actor.
        actor_depth: its linear layers, the last one included.
        critic_width: units per hidden layer of the critic, and size of its embedding.
        critic_depths: linear layers of encoder, value head and predictor.
        norm: `"rms"`, `"layer"` or `"none"`.
        trainable_offset: whether the critic's start offset is trained.

    Returns:
        Actor and critic; the critic is a `DiscreteCritic` where actions are.

    Raises:
        ValueError: if an observation is not a single flat array; networks of your own take any.

    >>> from reppo_fx import Hyperparameters, categorical_value_function
    >>> flat = jax.ShapeDtypeStruct((3,), jnp.float32)
    >>> shapes = NetworkShapes(flat, flat, action=1, policy_outputs=2)
    >>> values = categorical_value_function(51)
    >>> hp = Hyperparameters(v_min=0.0, v_max=150.0)
    >>> make = lambda key: make_networks(key, shapes, values, hp, critic_width=64, actor_width=64)
    >>> look = lambda key: make(key).critic(jnp.zeros((8, 3)), jnp.zeros((8, 1)))
    >>> out = jax.eval_shape(look, jax.random.key(0))
    >>> out.outputs.shape, out.embedding.shape
    ((8, 51), (8, 64))
    """
    actor_key, critic_key = jax.random.split(key)
    actor_size = _flat_size("actor", shapes.actor_observation)
    critic_size = _flat_size("critic", shapes.critic_observation)
    actor = Actor(actor_key, actor_size, shapes.policy_outputs, actor_width, actor_depth, norm)
    is_box = shapes.num_actions is None
    kind: type[Critic] | type[DiscreteCritic] = Critic if is_box else DiscreteCritic
    critic: CriticNetwork = kind(
        critic_key,
        critic_size,
        shapes.num_actions or shapes.action,
        value_function.num_outputs,
        critic_width,
        critic_depths,
        norm,
        value_function.offset(hyperparameters),
        trainable_offset,
    )
    return Networks(actor, critic)


def networks_from_config(config: Config) -> MakeNetworks:
    """`make_networks` with the sizes of a `Config` bound."""
    return functools.partial(
        make_networks,
        actor_width=config.actor_width,
        actor_depth=config.actor_depth,
        critic_width=config.critic_width,
        critic_depths=(config.encoder_depth, config.head_depth, config.predictor_depth),
        norm=config.norm,
        trainable_offset=config.critic_offset == "trainable",
    )


def _flat_size(network: str, observation: PyTree[jax.ShapeDtypeStruct]) -> int:
    shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(observation)]
    if len(shapes) != 1 or len(shapes[0]) != 1 or not isinstance(observation, jax.ShapeDtypeStruct):
        shown = ", ".join(str(list(shape)) for shape in shapes)
        raise ValueError(
            f"the {network}'s observation is {shown}; these networks take a single flat array, [size]: flatten it "
            "(envs.flatten_observation), or give networks of your own to make_train(networks=...)."
        )
    return int(shapes[0][0])
