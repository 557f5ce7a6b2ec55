"""A short training behind Isaac Lab's interface: mjlab on Warp's CPU device, in the environment of its own.

benchmarks/environments/mjlab.sh && .venv-mjlab/bin/python benchmarks/lab.py
.venv-mjlab/bin/python benchmarks/lab.py Mjlab-Cartpole-Swingup --instances 1024 --steps 1000000
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

import jax
import numpy as np
import record

import reppo_fx as rx


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", nargs="?", default="Mjlab-Cartpole-Balance")
    parser.add_argument("--instances", type=int, default=256)
    parser.add_argument("--length", type=int, default=200, help="steps of an episode")
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "hosts")
    return parser.parse_args()


def make_environment(task: str, instances: int, length: int, seed: int) -> rx.hosts.HostEnvironment:
    """The task with the setting that keeps true successors, and rewards between 0 and 1 a step."""
    importlib.import_module("mjlab.tasks")
    registry = importlib.import_module("mjlab.tasks.registry")
    cfg = registry.load_env_cfg(task)
    cfg.scene.num_envs, cfg.seed = instances, seed
    cfg.auto_reset, cfg.scale_rewards_by_dt = False, False
    cfg.episode_length_s = length * cfg.decimation * cfg.sim.mujoco.timestep
    environments = importlib.import_module("mjlab.envs")
    return rx.hosts.isaaclab(environments.ManagerBasedRlEnv(cfg, device="cpu"))


def main() -> None:
    arguments = parse()
    env = make_environment(arguments.task, arguments.instances, arguments.length, arguments.seed)
    config, hp = rx.preset(
        "cpu",
        total_steps=arguments.steps,
        num_envs=arguments.instances,
        num_evals=8,
        num_eval_envs=min(arguments.instances, 64),
    )
    with rx.make_host_train(env, config) as train:
        state = train.init(jax.random.key(arguments.seed), hp)
        started, rows = time.perf_counter(), []
        for count in config.iterations_between_evaluations:
            state, metrics = train.round(state, count)
            metrics = jax.tree.map(np.asarray, metrics)
            rows.append(
                {
                    "env_steps": int(metrics.env_steps),
                    "seconds": round(time.perf_counter() - started, 1),
                    "eval_return": float(metrics.eval_return),
                    "eval_length": float(metrics.eval_length),
                }
            )
            print(arguments.task, rows[-1], flush=True)
    result = {"task": arguments.task, "instances": arguments.instances, "evaluations": rows}
    path = arguments.out / f"mjlab_{arguments.task}_{arguments.seed}.json"
    record.write({**record.stamp(), **result}, path)


if __name__ == "__main__":
    main()
