"""Agents of other packages and ours behind one face: start, iterate, act. For `field.py`.

Everything an agent does is in its own code; what is arranged here is said where it is arranged. Settings are those
their authors chose for the environment, or the nearest there are; sources are named.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from peers import load_purejaxrl, outer_loop, playground_config, restore_removed_functions
from settings import our_settings

import reppo_fx as rx

Policy = Callable[[Any], Any]
"""Observations `[instances, ...]` to deterministic actions in [-1, 1]."""


class Agent(NamedTuple):
    """An algorithm on an environment.

    Attributes:
        start: key to a state.
        iteration: trains a state for `iteration_steps` environment steps; pure.
        policy: of a state.
        iteration_steps: environment steps per iteration.
        settings: what is recorded.
    """

    start: Callable[[Any], Any]
    iteration: Callable[[Any], Any]
    policy: Callable[[Any], Policy]
    iteration_steps: int
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A policy that can be sampled, too.

    Attributes:
        mode: observations to the likeliest actions.
        draw: key and observations to random ones.
    """

    mode: Policy
    draw: Callable[[Any, Any], Any]

    def __call__(self, observation: Any) -> Any:
        return self.mode(observation)

    def sample(self, key: Any, observation: Any) -> Any:
        return self.draw(key, observation)


# Reacher pays minus the distance and minus the squared action; 50 steps per episode.
RANGES = {"reacher": {"v_min": -50.0, "v_max": 0.0}}


def reppo(env: rx.envs.Environment, preset: str, changes: dict[str, Any]) -> Agent:
    """This package: a preset with changes."""
    config, hyperparameters = our_settings(preset, {**changes, **RANGES.get(env.name, {})})
    return _reppo(env, config, hyperparameters)


def reppo_any(env: rx.envs.Environment, steps: int) -> Agent:
    """This package as the command line has it for a task of which nothing is said."""
    return _reppo(env, *rx.preset_for(env, "any", total_steps=steps))


def _reppo(
    env: rx.envs.Environment, config: rx.Config, hyperparameters: rx.Hyperparameters
) -> Agent:
    train = rx.make_train(env, config)
    return Agent(
        start=lambda key: train.init(key, hyperparameters),
        iteration=lambda state: train.iteration(state)[0],
        policy=lambda state: rx.make_policy(train, state),
        iteration_steps=config.steps_per_iteration,
        settings={**vars(config), **hyperparameters._asdict()},
    )


# rejax: what its configs/brax/reacher.yaml says, without the number of steps and evaluations.
REJAX: dict[str, dict[str, Any]] = {
    "ppo": {
        "agent_kwargs": {"activation": "tanh"},
        "num_envs": 128,
        "num_steps": 128,
        "num_epochs": 8,
        "num_minibatches": 64,
        "learning_rate": 0.00027520696850790545,
        "max_grad_norm": 0.1,
        "gamma": 0.95,
        "gae_lambda": 0.95,
        "clip_eps": 0.2,
        "ent_coef": 0.01,
        "vf_coef": 0.5,
        "normalize_observations": True,
    },
    "sac": {
        "agent_kwargs": {"activation": "tanh"},
        "num_envs": 128,
        "buffer_size": 1_000_000,
        "fill_buffer": 10_000,
        "batch_size": 512,
        "learning_rate": 0.0004617429169256732,
        "num_epochs": 128,
        "gamma": 0.95,
        "polyak": 0.99,
        "target_entropy_ratio": 0,
        "normalize_observations": True,
    },
}


# rejax: PPO of its configs/gymnax/*.yaml and, for MinAtar, of its benchmark/breakout_1m.yaml.
_CLASSIC = {
    "agent_kwargs": {"activation": "tanh"},
    "num_envs": 5,
    "num_steps": 100,
    "num_epochs": 5,
    "num_minibatches": 5,
    "learning_rate": 0.00075,
    "max_grad_norm": 0.5,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
}
_MINATAR = {
    **_CLASSIC,
    "num_envs": 32,
    "num_steps": 32,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 0.00025674088686342003,
    "max_grad_norm": 1,
    "gamma": 0.995,
}
REJAX_GYMNAX: dict[str, dict[str, Any]] = {
    "CartPole-v1": _CLASSIC,
    "Acrobot-v1": {**_CLASSIC, "normalize_observations": True},
    "Pendulum-v1": {
        **_CLASSIC,
        "agent_kwargs": {"activation": "swish"},
        "num_envs": 100,
        "num_epochs": 10,
        "num_minibatches": 10,
        "learning_rate": 0.001,
        "max_grad_norm": 10,
        "gamma": 0.995,
        "ent_coef": 0.0,
        "normalize_observations": True,
    },
    "Breakout-MinAtar": _MINATAR,
    "Asterix-MinAtar": _MINATAR,
}


def rejax(env: rx.envs.Environment, name: str) -> Agent:
    """PPO or SAC of rejax (PyPI), on its own wrapper of the Brax environment; on gymnax, PPO."""
    from rejax import get_algo

    if env.name in REJAX_GYMNAX and name == "ppo":
        return _rejax_gymnax(env)
    limit = {"env_params": {"episode_length": env.episode_length}}
    algo = get_algo(name).create(env=f"brax/{env.name}", **limit, **REJAX[name])
    steps = algo.num_envs * (algo.num_steps if name == "ppo" else 1)

    def policy(state: Any) -> Policy:
        def act(observation: Any) -> Any:
            seen = algo.normalize_obs(state.obs_rms_state, observation)
            dist = algo.actor.apply(state.actor_ts.params, seen, method="_action_dist")
            return jnp.tanh(dist.mean()) if name == "sac" else jnp.clip(dist.mean(), -1.0, 1.0)

        return act

    return Agent(algo.init_state, algo.train_iteration, policy, steps, {**REJAX[name], **limit})


def _rejax_gymnax(env: rx.envs.Environment) -> Agent:
    """PPO of rejax on gymnax >= 1 by the five values of a step that it knows: one `done` for both ends."""
    import gymnax
    from gymnax.wrappers import LegacyStepAPIWrapper
    from rejax import get_algo

    class FiveValues(LegacyStepAPIWrapper):  # type: ignore[misc]
        """rejax copies its configuration deeply, which the wrapper itself does not survive."""

        def __deepcopy__(self, memo: Any) -> FiveValues:
            return self

    task, params = gymnax.make(env.name)
    settings = REJAX_GYMNAX[env.name]
    algo = get_algo("ppo").create(env=FiveValues(task), env_params=params, **settings)
    shape, space = task.observation_space(params).shape, task.action_space(params)

    def distribution(state: Any, observation: Any) -> Any:
        seen = observation.reshape(-1, *shape)
        if algo.normalize_observations:
            seen = algo.normalize_obs(state.obs_rms_state, seen)
        return algo.actor.apply(state.actor_ts.params, seen, method="_action_dist")

    def to_ours(action: Any) -> Any:
        if algo.discrete:
            return action.astype(jnp.int32)
        middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
        return jnp.clip((action - middle) / half, -1.0, 1.0)

    def policy(state: Any) -> Sampled:
        return Sampled(
            lambda observation: to_ours(distribution(state, observation).mode()),
            lambda key, observation: to_ours(distribution(state, observation).sample(seed=key)),
        )

    steps = algo.num_envs * algo.num_steps
    return Agent(algo.init_state, algo.train_iteration, policy, steps, settings)


# purejaxrl: what its ppo_continuous_action.py says; it was chosen for Brax hopper.
PUREJAXRL: dict[str, Any] = {
    "LR": 3e-4,
    "NUM_ENVS": 2048,
    "NUM_STEPS": 10,
    "UPDATE_EPOCHS": 4,
    "NUM_MINIBATCHES": 32,
    "GAMMA": 0.99,
    "GAE_LAMBDA": 0.95,
    "CLIP_EPS": 0.2,
    "ENT_COEF": 0.0,
    "VF_COEF": 0.5,
    "MAX_GRAD_NORM": 0.5,
    "ACTIVATION": "tanh",
    "ANNEAL_LR": False,
    "NORMALIZE_ENV": True,
}


def purejaxrl(env: rx.envs.Environment, path: Path) -> Agent:
    """Its continuous PPO from a copy of github.com/luchris429/purejaxrl.

    Its Brax wrapper takes neither backend nor episode length from outside, so both are given here.
    """
    module = load_purejaxrl(path)
    import wrappers  # on the path since load_purejaxrl
    from brax.envs.wrappers import training

    limit = lambda task, **rest: training.EpisodeWrapper(
        task, **{**rest, "episode_length": env.episode_length}
    )
    wrappers.EpisodeWrapper = limit
    module.BraxGymnaxWrapper = functools.partial(wrappers.BraxGymnaxWrapper, backend="generalized")
    settings = {**PUREJAXRL, "ENV_NAME": env.name, "TOTAL_TIMESTEPS": 5e7}
    train = module.make_train(dict(settings))
    network = module.ActorCritic(env.action_size, activation=settings["ACTIVATION"])

    def iteration(state: Any) -> Any:
        # The body closes over its networks only; any key gives the same.
        body, _ = outer_loop(module, train, jax.random.PRNGKey(0))
        return body(state, None)[0]

    def policy(state: Any) -> Policy:
        learner, env_state = state[:2]
        seen = env_state.env_state  # statistics of observations are inside those of rewards

        def act(observation: Any) -> Any:
            scaled = (observation - seen.mean[0]) / jnp.sqrt(seen.var[0] + 1e-8)
            return jnp.clip(network.apply(learner.params, scaled)[0].loc, -1.0, 1.0)

        return act

    def start(key: Any) -> Any:
        _, state = outer_loop(module, train, jax.random.key_data(key))
        # Its sums of rewards begin as integers; a loop makes floats of them.
        types = jax.eval_shape(iteration, state)
        return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, types)

    steps = settings["NUM_ENVS"] * settings["NUM_STEPS"]
    return Agent(start, iteration, policy, steps, settings)


def brax_settings(agent: str, task: str) -> dict[str, Any]:
    """What Playground tuned for Brax's PPO or SAC on a task."""
    from mujoco_playground.config import dm_control_suite_params as params

    if agent == "ppo":
        return params.brax_ppo_config(task).to_dict()
    settings = params.brax_sac_config(task).to_dict()
    # Its wrappers reset instances by themselves; only PPO's train knows this setting.
    settings.pop("num_resets_per_eval", None)
    return settings


def brax_training(agent: str, task: str, settings: dict[str, Any]) -> Callable[..., Any]:
    """Brax's `train` of PPO or SAC on a Playground task."""
    from brax.training.agents.ppo import networks as ppo_networks
    from brax.training.agents.ppo import train as ppo
    from brax.training.agents.sac import networks as sac_networks
    from brax.training.agents.sac import train as sac
    from mujoco_playground import registry, wrapper

    restore_removed_functions()
    function, make = {
        "ppo": (ppo.train, ppo_networks.make_ppo_networks),
        "sac": (sac.train, sac_networks.make_sac_networks),
    }[agent]
    named = {name: value for name, value in settings.items() if name != "network_factory"}
    load = lambda: registry.load(task, config=playground_config(task))
    return functools.partial(
        function,
        environment=load(),
        eval_env=load(),
        wrap_env_fn=wrapper.wrap_for_brax_training,
        network_factory=functools.partial(make, **settings.get("network_factory", {})),
        **named,
    )
