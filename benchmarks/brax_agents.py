"""Learning curves of Brax PPO and SAC with MuJoCo Playground's own tuned settings, in the format of `learning.py`.

python benchmarks/brax_agents.py CartpoleSwingup --agent ppo --steps 10000000
python benchmarks/brax_agents.py CartpoleSwingup --agent sac --steps 1048576

One seed after the other (Brax trains one run per call); the file is written after each. Seconds are as Brax counts
them: training without evaluation, the first stretch with its compilation.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import record


def restore_removed_functions() -> None:
    """Brax 0.14 calls `jax.device_put_replicated`, which jax 0.10 no longer has."""
    if hasattr(jax, "device_put_replicated"):
        return
    copies = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)
    jax.device_put_replicated = copies


def trainer(agent: str, task: str, changes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Brax's `train` for a task, and its settings: Playground's, with changes."""
    from brax.training.agents.ppo import networks as ppo_networks
    from brax.training.agents.ppo import train as ppo
    from brax.training.agents.sac import networks as sac_networks
    from brax.training.agents.sac import train as sac
    from mujoco_playground.config import dm_control_suite_params as params

    if agent == "ppo":
        tuned = params.brax_ppo_config(task).to_dict()
        function, make = ppo.train, ppo_networks.make_ppo_networks
    else:
        tuned = params.brax_sac_config(task).to_dict()
        function, make = sac.train, sac_networks.make_sac_networks
        # Its wrappers reset instances by themselves; only PPO's train knows this setting.
        tuned.pop("num_resets_per_eval", None)
    settings = {**tuned, **changes}
    factory = functools.partial(make, **settings.pop("network_factory", {}))
    return functools.partial(function, network_factory=factory), settings


def train_seed(arguments: argparse.Namespace, seed: int) -> tuple[list[dict], dict[str, Any]]:
    """One run: rows of steps, seconds and return."""
    from mujoco_playground import registry, wrapper

    changes: dict[str, Any] = {"num_timesteps": arguments.steps, "num_evals": arguments.evals}
    train, settings = trainer(arguments.agent, arguments.task, changes)
    env_config = registry.get_default_config(arguments.task)
    env_config.impl = "jax"
    load = lambda: registry.load(arguments.task, config=env_config)
    rows: list[dict] = []
    started = time.perf_counter()

    def progress(env_steps: int, metrics: dict[str, Any]) -> None:
        rows.append(
            {
                "env_steps": int(env_steps),
                "training_seconds": float(metrics.get("training/walltime", 0.0)),
                "eval_return": float(metrics["eval/episode_reward"]),
            }
        )
        print(
            f"{arguments.task} brax-{arguments.agent} seed {seed} {env_steps:>9} steps  return "
            f"{rows[-1]['eval_return']:7.1f}  {time.perf_counter() - started:.0f} s",
            flush=True,
        )

    train(
        environment=load(),
        eval_env=load(),
        wrap_env_fn=wrapper.wrap_for_brax_training,
        num_eval_envs=128,
        seed=seed,
        progress_fn=progress,
        **settings,
    )
    return rows, settings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("--agent", choices=("ppo", "sac"), required=True)
    parser.add_argument("--steps", type=int, default=1_048_576)
    parser.add_argument("--evals", type=int, default=11, help="the first one is before training")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "brax")
    arguments = parser.parse_args()
    restore_removed_functions()
    path = arguments.out / f"brax_{arguments.agent}_{arguments.task}.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs: list[list[dict]] = []
    for seed in range(arguments.seeds):
        rows, settings = train_seed(arguments, seed)
        runs.append(rows)
        result = {
            "label": f"brax-{arguments.agent}",
            "task": arguments.task,
            "num_seeds": len(runs),
            "settings": settings,
            **record.stamp(),
            "runs": runs,
        }
        record.write(result, path)


if __name__ == "__main__":
    main()
