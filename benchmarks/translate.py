"""The original code and ours in the same situation: environment, sizes, parameters, state, random keys.

For `equivalence.py`. `Original` holds the original's functions and makes its states; `our_train`, `our_state` and
`action_keys` give this package the same.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from peers import authors_config, closure

import reppo_fx as rx
from reppo_fx.learner.update import learner_init
from reppo_fx.ops import DualParams, statistics_init, statistics_update

# So small that a few gradient steps bring states to either side of it.
KL_BOUND = 1e-4
OBSERVATION, ACTION, WIDTH, BINS = 5, 2, 32, 129
ENVS, STEPS = 32, 16


def dynamics(x: Any, action: Any) -> tuple[Any, Any]:
    """A smooth system without ends: next state and reward."""
    pushed = jnp.roll(x, 1, -1).at[..., :ACTION].add(0.3 * action)
    new = jnp.tanh(0.9 * pushed) + 0.1 * x
    return new, 1.0 + new[..., 0] - 0.1 * jnp.square(action).sum(-1)


class TheirState(NamedTuple):
    """What the original's wrappers read from a simulator's state."""

    x: Any
    info: dict[str, Any]


class TheirEnvironment:
    """`dynamics` for all instances, as the original code wants environments."""

    def __init__(self, start: Any) -> None:
        self.start = start

    def action_space(self, params: Any) -> Any:
        return argparse.Namespace(shape=(ACTION,))

    def reset(self, key: Any) -> Any:
        zeros = jnp.zeros(ENVS, self.start.dtype)
        return self.start, self.start, TheirState(self.start, {"truncation": zeros})

    def step(self, key: Any, state: TheirState, action: Any) -> Any:
        x, reward = dynamics(state.x, action)
        return x, x, TheirState(x, state.info), reward, jnp.zeros(ENVS, bool), {}


def our_environment(dtype: Any) -> Any:
    """`dynamics` for one instance, as this package wants environments."""

    def step(x: Any, action: Any) -> Any:
        new, reward = dynamics(x, action)
        no = jnp.asarray(False)
        return new, rx.envs.TimeStep(new, new, reward, no, no, {})

    start = jnp.zeros(OBSERVATION, dtype)
    spec = jax.ShapeDtypeStruct((OBSERVATION,), dtype)
    return rx.envs.Environment("smooth", lambda key: (start, start), step, spec, ACTION, 10_000)


def put(module: Any, **values: Any) -> Any:
    """A module with other values of some fields."""
    names = list(values)
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in names], module, list(values.values())
    )


def our_mlp(like: Any, module: Any, last_first: bool = False) -> Any:
    """Their network's arrays in ours; `last_first` where they put the last output first."""

    parts = [module.input_layer, *module.main_layers, module.output_layer]
    linears = [part.layers[0] for part in parts]
    weights = [(linear.kernel[...], linear.bias[...]) for linear in linears]
    if last_first:
        weights[-1] = tuple(jnp.roll(x, -1, -1) for x in weights[-1])
    layers = tuple(
        put(layer, weight=weight, bias=bias)
        for layer, (weight, bias) in zip(like.layers, weights, strict=True)
    )
    norms = tuple(
        put(norm, scale=part.layers[1].scale[...])
        for norm, part in zip(like.norms, parts[:-1], strict=True)
    )
    return put(like, layers=layers, norms=norms)


def our_actor(like: Any, module: Any) -> Any:
    """Actor and multipliers."""

    duals = DualParams(module.temperature_log_param[...][0], module.lagrangian_log_param[...][0])
    return put(like, trunk=our_mlp(like.trunk, module.actor_module)), duals


def our_critic(like: Any, module: Any) -> Any:
    return put(
        like,
        encoder=our_mlp(like.encoder, module.feature_module),
        head=our_mlp(like.head, module.critic_module),
        predictor=our_mlp(like.predictor, module.pred_module, last_first=True),
        offset=module.zero_dist[...].reshape(BINS),
    )


def keep_gradients() -> Any:
    """An optimizer that changes nothing and whose state is the last gradient."""

    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
    return optax.GradientTransformation(zeros, lambda g, state, params=None: (zeros(g), g))


class Original:
    """The original code at one size: its networks, its state, its functions out of their closures."""

    def __init__(self, authors: Any, start: Any, epochs: int, minibatches: int) -> None:
        self.module, self.start = authors, start
        self.config = authors_config(
            authors,
            total_time_steps=ENVS * STEPS,
            num_envs=ENVS,
            num_steps=STEPS,
            num_mini_batches=minibatches,
            num_epochs=epochs,
            width=WIDTH,
            vmax=128,  # with this and 129 bins every edge is exact, also in float32
            num_bins=BINS,
            kl_bound=KL_BOUND,
        )
        train = authors.make_train_fn(self.config, TheirEnvironment(start))

        self.learn_step = closure(train, "learn_step")
        self.collect = closure(train, "collect_rollout")
        self.env = closure(self.collect, "env")

    def networks(self, seed: int) -> tuple[Any, Any]:
        """Actor and critic, with parameters of the run's precision."""
        from flax import nnx

        config = self.config
        actor = self.module.SACActorNetworks(
            obs_dim=OBSERVATION,
            action_dim=ACTION,
            hidden_dim=WIDTH,
            ent_start=config.ent_start,
            kl_start=config.kl_start,
            layers=config.num_actor_layers,
            rngs=nnx.Rngs(seed),
        )
        critic = self.module.CategoricalCriticNetwork(
            obs_dim=OBSERVATION,
            action_dim=ACTION,
            hidden_dim=WIDTH,
            num_bins=BINS,
            vmin=config.vmin,
            vmax=config.vmax,
            encoder_layers=2,
            head_layers=2,
            pred_layers=2,
            rngs=nnx.Rngs(seed + 1),
        )
        noise = np.random.default_rng(seed)
        for module in (actor, critic):
            # Away from zeros and ones, so that no term drops out.
            state = nnx.state(module)

            shaken = jax.tree.map(
                lambda x: jnp.asarray(x + 0.05 * noise.normal(size=x.shape), self.start.dtype),
                state,
            )
            nnx.update(module, shaken)
        return actor, critic

    def state(self, actor: Any, critic: Any, optimizer: Any) -> Any:
        """Their training state from networks."""
        from flax import nnx

        create = lambda module, tx: nnx.TrainState.create(
            graphdef=nnx.graphdef(module), params=nnx.state(module), tx=tx
        )
        key = jax.random.PRNGKey(0)
        observation, critic_observation, env_state = self.env.reset(key)
        action = jnp.zeros((ENVS, ACTION), self.start.dtype)
        stepped = jax.eval_shape(self.env.step, key, env_state, action)[2]
        env_state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), env_state, stepped)
        return self.module.SACTrainState(
            actor=create(actor, optimizer),
            actor_target=create(actor, optax.set_to_zero()),
            critic=create(critic, optimizer),
            iteration=0,
            time_steps=0,
            last_env_state=env_state,
            last_obs=observation,
            last_critic_obs=critic_observation,
        )

    def optimizer(self) -> Any:
        config = self.config
        return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.lr))


def merged(train_state: Any, params: Any = None) -> Any:
    """A module with the parameters (or gradients) of a training state."""
    from flax import nnx

    return nnx.merge(train_state.graphdef, train_state.params if params is None else params)


def our_train(original: Original) -> tuple[Any, Any]:
    """The same setting here."""

    config = original.config
    ours, hyperparameters = rx.preset(
        "authors",
        total_steps=ENVS * STEPS,
        num_envs=ENVS,
        num_steps=STEPS,
        num_epochs=config.num_epochs,
        num_minibatches=config.num_mini_batches,
        num_evals=1,
        actor_width=WIDTH,
        critic_width=WIDTH,
        num_bins=BINS,
    )
    hyperparameters = hyperparameters._replace(v_max=128.0, kl_target=KL_BOUND)
    return rx.make_train(our_environment(original.start.dtype), ours), hyperparameters


def our_state(train: Any, hyperparameters: Any, start: Any, actor: Any, critic: Any) -> Any:
    """Our training state with their networks, at the same start."""
    state = train.init(jax.random.key(0), hyperparameters)
    ours, duals = our_actor(state.learner.networks.actor, actor)
    networks = state.learner.networks._replace(
        actor=ours, critic=our_critic(state.learner.networks.critic, critic)
    )
    learner = learner_init(train, networks, state.hyperparameters)
    learner = learner._replace(duals=learner.duals._replace(params=duals))
    outer = state.rollout.env_state  # auto_reset, contain_nan, time_limit
    inner = outer.inner._replace(inner=outer.inner.inner._replace(inner=start), observation=start)
    statistics = statistics_update(statistics_init(train.env.observation), start)
    rollout = state.rollout._replace(
        env_state=outer._replace(inner=inner), observation=start, statistics=statistics
    )
    return state._replace(learner=learner, rollout=rollout)


def action_keys(key: Any) -> tuple[Any, Any]:
    """The keys of their rollout, one per step, and of their update, as ours takes them."""

    _, rollout_key, learn_key = jax.random.split(key, 3)
    keys = []
    for _ in range(STEPS):
        rollout_key, act_key, _ = jax.random.split(rollout_key, 3)
        keys.append(act_key)
    _, update_key = jax.random.split(learn_key)
    typed = jax.random.wrap_key_data
    return typed(jax.numpy.stack(keys)), typed(update_key)
