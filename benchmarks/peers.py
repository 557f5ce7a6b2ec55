"""Other people's code, run from the reader's own copy; nothing of it is kept here."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import jax
import jax.numpy as jnp

# What the original code's training module needs beside this package, and what it imports for logging and
# hyperparameter search only.
NEEDED = ("flax", "distrax", "gymnax", "brax", "omegaconf", "mujoco_playground")
UNUSED = ("hydra", "optuna", "plotly", "plotly.graph_objs", "wandb")


def load_authors(path: Path) -> Any:
    """The JAX training module of github.com/cvoelcker/reppo, from a copy of it.

    Needs flax, distrax, gymnax, brax, omegaconf and playground here. Two things are arranged, and nothing
    else: packages that it does not need are stood in for where missing, and current flax is told to take plain
    lists as attributes of modules.

    Raises:
        SystemExit: if the path does not hold it.
    """
    if not holds_authors(path):
        raise SystemExit(f"--authors is {path}; it must hold src/jaxrl/reppo.py.")
    import flax

    if hasattr(flax.config, "flax_pytree_module"):  # what flax older than that setting did anyway
        flax.config.update("flax_pytree_module", False)
    if "hydra" in stand_in(*UNUSED):
        sys.modules["hydra"].main = lambda **_: lambda function: function
    sys.path.insert(0, str(path))
    return importlib.import_module("src.jaxrl.reppo")


def holds_authors(path: Path) -> bool:
    """Whether there is a copy of the original code."""
    return (path / "src" / "jaxrl" / "reppo.py").is_file()


def missing_for_authors(python: str) -> list[str]:
    """The packages that the original code needs and an interpreter does not have."""
    find = f"import importlib.util as u; print(*(n for n in {NEEDED} if u.find_spec(n) is None))"
    found = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True)
    return found.stdout.split()


def stand_in(*names: str) -> list[str]:
    """Put empty modules where packages are missing that are imported and not needed; which ones."""
    missing = [name for name in names if importlib.util.find_spec(name.split(".")[0]) is None]
    sys.modules.update({name: MagicMock() for name in missing})
    return missing


def load_purejaxrl(path: Path) -> Any:
    """The continuous PPO of github.com/luchris429/purejaxrl, from a copy of it.

    Raises:
        SystemExit: if the path does not hold it.
    """
    folder = path / "purejaxrl"
    if not (folder / "ppo_continuous_action.py").is_file():
        raise SystemExit(f"--purejaxrl is {path}; it must hold purejaxrl/ppo_continuous_action.py.")
    stand_in("navix")
    sys.path.insert(0, str(folder))
    return importlib.import_module("ppo_continuous_action")


def restore_removed_functions() -> None:
    """Brax 0.14 calls `jax.device_put_replicated`, which jax 0.10 no longer has."""
    if hasattr(jax, "device_put_replicated"):
        return
    copies = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)
    jax.device_put_replicated = copies


# What its configuration files say for MuJoCo Playground's control suite.
AUTHORS_SETTINGS: dict[str, Any] = {
    "lr": 3e-4,
    "anneal_lr": False,
    "max_grad_norm": 0.5,
    "gamma": 0.99,
    "lmbda": 0.95,
    "lmbda_min": 0.5,
    "total_time_steps": 50_000_000,
    "num_envs": 1024,
    "num_steps": 128,
    "num_mini_batches": 64,
    "num_epochs": 8,
    "num_eval": 20,
    "max_episode_steps": 1000,
    "normalize_env": True,
    "polyak": 1.0,
    "exploration_noise_min": 1.0,
    "exploration_noise_max": 1.0,
    "exploration_base_envs": 0,
    "ent_start": 0.01,
    "ent_target_mult": 0.5,
    "kl_start": 0.01,
    "kl_bound": 0.1,
    "aux_loss_mult": 1.0,
    "vmin": 0,
    "vmax": 150,
    "num_bins": 151,
    "hl_gauss": True,
    "num_critic_encoder_layers": 2,
    "num_critic_head_layers": 2,
    "num_critic_pred_layers": 2,
    "num_actor_layers": 3,
    "actor_kl_clip_mode": "clipped",
}


# What this package calls differently.
AUTHORS_NAMES = {
    "num_minibatches": "num_mini_batches",
    "total_steps": "total_time_steps",
    "num_evals": "num_eval",
}


def authors_settings(**changes: Any) -> dict[str, Any]:
    """Its published setting, with changes by its names or ours; `width` is that of both networks."""
    width = changes.pop("width", 512)
    widths = {"actor_hidden_dim": width, "critic_hidden_dim": width}
    changes = {AUTHORS_NAMES.get(name, name): value for name, value in changes.items()}
    return {**AUTHORS_SETTINGS, **widths, **changes}


def authors_config(authors: Any, **changes: Any) -> Any:
    """`authors_settings` as the original code takes them."""
    return authors.ReppoConfig(**authors_settings(**changes))


def authors_environment(task: str, episode_length: int = 1000) -> Any:
    """A Playground task in its wrapper."""
    from src.env_utils.jax_wrappers import MjxGymnaxWrapper  # on the path since load_authors

    return MjxGymnaxWrapper(task, episode_length=episode_length, config=playground_config(task))


def playground_config(task: str) -> Any:
    """A Playground task's settings, on the implementation that runs everywhere."""
    from mujoco_playground import registry

    config = registry.get_default_config(task)
    config.impl = "jax"
    return config


def closure(function: Callable[..., Any], name: str) -> Any:
    """What a function defined inside another one sees under a name."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))[
        name
    ].cell_contents


def inner_function(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function that is defined inside another one, which has not been called."""
    code = next(c for c in function.__code__.co_consts if getattr(c, "co_name", "") == name)
    seen = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells = tuple(seen[free] for free in code.co_freevars)
    return types.FunctionType(code, function.__globals__, name, None, cells)


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
