"""Actor and critic as Equinox modules whose only leaves are arrays; sizes and choices are static fields.

The layers are our own few lines, not `equinox.nn`'s, for two reasons: weights start Lecun-normal as in the
original code, and every module takes any leading axes, so that a batch is one matmul without a `vmap`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, ScalarLike

from ..ops import (
    cross_entropy,
    hl_gauss_support,
    hl_gauss_targets,
    hl_gauss_value,
    squared_value_loss,
)

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
    """Gaussian policy before squashing: `mean(x)` and `std(x) = exp(log_std(x)) + min_std`."""

    trunk: MLP

    def __init__(
        self,
        key: Key[Array, ""],
        observation_size: int,
        action_size: int,
        width: int = 512,
        depth: int = 3,
        norm: str = "rms",
    ) -> None:
        self.trunk = MLP(key, observation_size, 2 * action_size, width, depth, norm)

    def __call__(
        self, observation: Float[Array, "*batch o"], min_std: ScalarLike
    ) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch d"]]:
        """Mean and standard deviation of `u`, where the action is `tanh(u)`."""
        mean, log_std = jnp.split(self.trunk(observation), 2, axis=-1)
        return mean, jnp.exp(log_std) + min_std


class CriticOutput(NamedTuple):
    """What the critic says about `(x, a)`; `outputs` are logits or a scalar, read by a `ValueFunction`."""

    outputs: Float[Array, "*batch outputs"]
    embedding: Float[Array, "*batch width"]
    predicted_embedding: Float[Array, "*batch width"]
    predicted_reward: Float[Array, "*batch"]


class Critic(eqx.Module):
    """`z = encoder(x, a)`, value outputs from `head(silu(z))`, self-prediction from `predictor(silu(z))`."""

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
        outputs = self.head(features)
        if self.offset is not None:
            offset = self.offset if self.trainable_offset else jax.lax.stop_gradient(self.offset)
            # Behind the factor, a trained offset moves 40 times faster than a bias would.
            outputs = outputs + OFFSET_SCALE * offset
        prediction = self.predictor(features)
        return CriticOutput(outputs, embedding, prediction[..., :-1], prediction[..., -1])


class ValueFunction(NamedTuple):
    """How a critic's outputs are read and trained; nothing else knows whether it is categorical.

    `offset(hyperparameters)` is the critic's start offset (or none), `value(outputs, hyperparameters)` the
    scalar value, `labels(targets, hyperparameters)` what the outputs are trained towards, made once per
    iteration, and `loss(outputs, labels)` one loss per target. Of the hyperparameters only `v_min` and `v_max`
    are read.
    """

    num_outputs: int
    offset: Callable[[Any], Array | None]
    value: Callable[[Array, Any], Array]
    labels: Callable[[Array, Any], Array]
    loss: Callable[[Array, Array], Array]


def categorical_value_function(num_bins: int = 151) -> ValueFunction:
    """HL-Gauss critic: `num_bins` logits on `[v_min, v_max]`, starting near value 0."""

    def support(hp: Any) -> Array:
        return hl_gauss_support(hp.v_min, hp.v_max, num_bins)

    return ValueFunction(
        num_outputs=num_bins,
        offset=lambda hp: hl_gauss_targets(jnp.zeros(()), support(hp)),
        value=lambda outputs, hp: hl_gauss_value(outputs, support(hp)),
        # Apart from the loss: Gaussian tails would take a tenth of every gradient step.
        labels=lambda targets, hp: hl_gauss_targets(targets, support(hp)),
        loss=cross_entropy,
    )


def squared_value_function() -> ValueFunction:
    """Scalar critic with squared error: the ablation without HL-Gauss."""
    return ValueFunction(
        num_outputs=1,
        offset=lambda hp: None,
        value=lambda outputs, hp: outputs[..., 0],
        labels=lambda targets, hp: targets,
        loss=lambda outputs, labels: squared_value_loss(outputs[..., 0], labels),
    )


class Networks(NamedTuple):
    """An actor `(observation, min_std) -> (mean, std)` and a critic `(observation, action) -> CriticOutput`."""

    actor: Any
    critic: Any


@runtime_checkable
class MakeNetworks(Protocol):
    """Builds the networks from a key, the sizes of what they see, the value function and the settings."""

    def __call__(
        self,
        key: Array,
        sizes: NetworkSizes,
        value_function: ValueFunction,
        hyperparameters: Any,
    ) -> Networks: ...


class NetworkSizes(NamedTuple):
    """Sizes of what the networks see and do, from the environment."""

    actor_observation: int
    critic_observation: int
    action: int


def make_networks(
    key: Key[Array, ""],
    sizes: NetworkSizes,
    value_function: ValueFunction,
    hyperparameters: Any,
    *,
    actor_width: int = 512,
    actor_depth: int = 3,
    critic_width: int = 512,
    critic_depths: tuple[int, int, int] = (2, 2, 2),
    norm: str = "rms",
    trainable_offset: bool = True,
) -> Networks:
    """The paper's networks. `make_train(..., networks=...)` takes anything with the first four arguments.

    >>> from reppo_fx import Hyperparameters
    >>> sizes = NetworkSizes(actor_observation=3, critic_observation=3, action=1)
    >>> hp = Hyperparameters(v_min=0.0, v_max=150.0)
    >>> values = categorical_value_function(51)
    >>> nets = make_networks(jax.random.key(0), sizes, values, hp, critic_width=64, actor_width=64)
    >>> out = nets.critic(jnp.zeros((8, 3)), jnp.zeros((8, 1)))
    >>> out.outputs.shape, out.embedding.shape
    ((8, 51), (8, 64))
    """
    actor_key, critic_key = jax.random.split(key)
    actor = Actor(actor_key, sizes.actor_observation, sizes.action, actor_width, actor_depth, norm)
    critic = Critic(
        critic_key,
        sizes.critic_observation,
        sizes.action,
        value_function.num_outputs,
        critic_width,
        critic_depths,
        norm,
        value_function.offset(hyperparameters),
        trainable_offset,
    )
    return Networks(actor, critic)


def networks_from_config(config: Any) -> MakeNetworks:
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
