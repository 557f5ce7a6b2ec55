"""Agents of other packages and ours behind one face: start, train a stretch, act. For `field.py`.

Everything an agent does is in its own code; what is arranged here is said where it is arranged. Settings are those
their authors chose for the environment, or the nearest there are; sources are named.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock, patch

import jax
import jax.numpy as jnp
from settings import SIZES, our_settings, write_changes

import reppo_fx as rx

Policy = Callable[[Any], Any]
"""Observations `[instances, ...]` to deterministic actions in [-1, 1]."""


class Agent(NamedTuple):
    """An algorithm on an environment.

    Attributes:
        start: key to a state.
        stretch: trains a state for `stretch_steps` environment steps; pure, to be jitted.
        policy: of a state.
        stretch_steps: environment steps per stretch.
        settings: what is recorded.
    """

    start: Callable[[Any], Any]
    stretch: Callable[[Any], Any]
    policy: Callable[[Any], Policy]
    stretch_steps: int
    settings: dict[str, Any]


# Reacher pays minus the distance and minus the squared action; 50 steps per episode.
RANGES = {"reacher": ["v_min=-50.0", "v_max=0.0"]}


def reppo(env: rx.envs.Environment, preset: str, every: int) -> Agent:
    """This package: `"cpu"`, or `"published"` for the published hyperparameters at the size of the curves."""
    if preset == "published":
        changes = [*write_changes(SIZES["curves"]), *write_changes(rx.presets.CLEANER)]
        config, hyperparameters = our_settings("authors", changes + RANGES.get(env.name, []))
    else:
        config, hyperparameters = our_settings(preset, RANGES.get(env.name, []))
    train = rx.make_train(env, config)
    count = max(every // config.steps_per_iteration, 1)
    return Agent(
        start=lambda key: train.init(key, hyperparameters),
        stretch=lambda state: train.iterations(state, count)[0],
        policy=lambda state: rx.make_policy(train, state),
        stretch_steps=count * config.steps_per_iteration,
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


def rejax(env: rx.envs.Environment, name: str, every: int) -> Agent:
    """PPO or SAC of rejax (PyPI), on its own wrapper of the Brax environment."""
    from rejax import get_algo

    limit = {"env_params": {"episode_length": env.episode_length}}
    algo = get_algo(name).create(env=f"brax/{env.name}", **limit, **REJAX[name])
    per_iteration = algo.num_envs * (algo.num_steps if name == "ppo" else 1)
    count = max(every // per_iteration, 1)

    def stretch(state: Any) -> Any:
        return jax.lax.fori_loop(0, count, lambda _, s: algo.train_iteration(s), state)

    def policy(state: Any) -> Policy:
        def act(observation: Any) -> Any:
            seen = algo.normalize_obs(state.obs_rms_state, observation)
            dist = algo.actor.apply(state.actor_ts.params, seen, method="_action_dist")
            return jnp.tanh(dist.mean()) if name == "sac" else jnp.clip(dist.mean(), -1.0, 1.0)

        return act

    settings = {**REJAX[name], **limit}
    return Agent(algo.init_state, stretch, policy, count * per_iteration, settings)


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


class _LoopFoundError(Exception):
    """The first loop that a function runs: its body and what it starts from."""


def outer_loop(module: Any, function: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """Body and start of a function's outermost `scan`, so that it can be stopped for evaluation.

    Only the calls of `module` itself are caught, not those of libraries that it uses.
    """

    def caught(body: Any, start: Any, *_: Any) -> Any:
        raise _LoopFoundError(body, start)

    lax = MagicMock(wraps=jax.lax, scan=caught)
    with patch.object(module, "jax", MagicMock(wraps=jax, lax=lax, vmap=jax.vmap)):
        try:
            function(*arguments)
        except _LoopFoundError as loop:
            return loop.args
    raise ValueError(f"{function} of {module} has no loop.")


def purejaxrl(env: rx.envs.Environment, path: Path, every: int) -> Agent:
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
    per_iteration = settings["NUM_ENVS"] * settings["NUM_STEPS"]
    count = max(every // per_iteration, 1)
    network = module.ActorCritic(env.action_size, activation=settings["ACTIVATION"])

    def stretch(state: Any) -> Any:
        # The body closes over its networks only; any key gives the same.
        body, _ = outer_loop(module, train, jax.random.PRNGKey(0))
        return jax.lax.scan(body, state, None, count)[0]

    def policy(state: Any) -> Policy:
        learner, env_state = state[:2]
        seen = env_state.env_state  # statistics of observations are inside those of rewards

        def act(observation: Any) -> Any:
            scaled = (observation - seen.mean[0]) / jnp.sqrt(seen.var[0] + 1e-8)
            return jnp.clip(network.apply(learner.params, scaled)[0].loc, -1.0, 1.0)

        return act

    def start(key: Any) -> Any:
        body, state = outer_loop(module, train, jax.random.key_data(key))
        # Its sums of rewards begin as integers; a loop makes floats of them.
        types, _ = jax.eval_shape(lambda state: body(state, None), state)
        return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, types)

    return Agent(start, stretch, policy, count * per_iteration, settings)


def load_purejaxrl(path: Path) -> Any:
    """Its module; the grid worlds that it also imports are stood in for where missing.

    Raises:
        SystemExit: if the path does not hold it.
    """
    folder = path / "purejaxrl"
    if not (folder / "ppo_continuous_action.py").is_file():
        raise SystemExit(f"--purejaxrl is {path}; it must hold purejaxrl/ppo_continuous_action.py.")
    if importlib.util.find_spec("navix") is None:
        sys.modules["navix"] = MagicMock()
    sys.path.insert(0, str(folder))
    return importlib.import_module("ppo_continuous_action")


def restore_removed_functions() -> None:
    """Brax 0.14 calls `jax.device_put_replicated`, which jax 0.10 no longer has."""
    if hasattr(jax, "device_put_replicated"):
        return
    copies = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)
    jax.device_put_replicated = copies


def brax_training(
    agent: str, task: str, changes: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Brax's `train` of PPO or SAC on a Playground task, and its settings: Playground's, with changes."""
    from brax.training.agents.ppo import networks as ppo_networks
    from brax.training.agents.ppo import train as ppo
    from brax.training.agents.sac import networks as sac_networks
    from brax.training.agents.sac import train as sac
    from mujoco_playground import registry, wrapper
    from mujoco_playground.config import dm_control_suite_params as params

    restore_removed_functions()
    if agent == "ppo":
        tuned = params.brax_ppo_config(task).to_dict()
        function, make = ppo.train, ppo_networks.make_ppo_networks
    else:
        tuned = params.brax_sac_config(task).to_dict()
        function, make = sac.train, sac_networks.make_sac_networks
        # Its wrappers reset instances by themselves; only PPO's train knows this setting.
        tuned.pop("num_resets_per_eval", None)
    settings = {**tuned, **changes}
    named = {name: value for name, value in settings.items() if name != "network_factory"}
    factory = functools.partial(make, **settings.get("network_factory", {}))
    config = registry.get_default_config(task)
    config.impl = "jax"
    load = lambda: registry.load(task, config=config)
    train = functools.partial(
        function,
        environment=load(),
        eval_env=load(),
        wrap_env_fn=wrapper.wrap_for_brax_training,
        network_factory=factory,
        **named,
    )
    return train, settings
