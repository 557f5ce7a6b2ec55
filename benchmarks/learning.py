"""Learning curves on real tasks: train seeds in one program, keep everything measured as JSON.

python benchmarks/learning.py CartpoleBalance --label cpu --preset cpu --seeds 4
python benchmarks/learning.py ReacherHard --label authors --preset authors --seeds 3 --set num_envs=256 ...
python benchmarks/learning.py ReacherHard --label original-code --authors PATH --set num_envs=256 width=128 ...

PATH is a copy of github.com/cvoelcker/reppo; it takes its own names of settings (peers.AUTHORS_SETTINGS) as well as
ours, and evaluates one episode in each of its environments. `width` is that of both networks.
`python benchmarks/table.py` makes the tables from all files.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import record
from peers import (
    AUTHORS_NAMES,
    AUTHORS_SETTINGS,
    authors_config,
    authors_environment,
    authors_settings,
    load_authors,
)
from settings import read_changes, read_our_changes, settings_for

import reppo_fx as rx
from reppo_fx.run.plan import Plan
from reppo_fx.run.records import describe_run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("--label", required=True, help="name of this variant in the tables")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--authors", type=Path, help="run the original code in this copy instead")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict:
    """Train, and give the record of it."""
    changes = read_our_changes(arguments.preset, arguments.set)
    world = rx.envs.make(arguments.task)
    config, hyperparameters = settings_for(world, arguments.preset, changes)
    train = rx.make_train(world, config)
    keys = jax.random.split(jax.random.key(arguments.seed), arguments.seeds)
    started = time.perf_counter()
    state = jax.jit(jax.vmap(train.init, in_axes=(0, None)))(keys, hyperparameters)
    program = jax.jit(jax.vmap(train.round), donate_argnums=0).lower(state).compile()
    compiled = time.perf_counter()
    evaluations = []
    for _ in range(config.num_evals):
        state, metrics = program(state)
        metrics = jax.tree.map(np.asarray, metrics)
        row = {
            "env_steps": int(metrics.env_steps[0]),
            "seconds": round(time.perf_counter() - compiled, 2),
            "eval_return": metrics.eval_return.tolist(),
            **{k: v.tolist() for k, v in metrics.training.learner._asdict().items()},
        }
        evaluations.append(row)
        print(
            f"{arguments.task} {arguments.label} {row['env_steps']:>8} steps  "
            f"return {np.mean(row['eval_return']):7.1f}  kl {np.mean(row['kl']):.3f}  {row['seconds']:.0f} s",
            flush=True,
        )
    plan = Plan(
        task=arguments.task,
        preset=arguments.preset,
        config=config,
        hyperparameters=hyperparameters,
        num_seeds=arguments.seeds,
        seed=arguments.seed,
    )
    return {
        "label": arguments.label,
        **describe_run(train, plan),
        **record.stamp(),
        "compile_seconds": round(compiled - started, 1),
        **record.thinned(evaluations),
    }


def measure_original(arguments: argparse.Namespace) -> dict:
    """The same of the original code, with its own evaluation."""
    authors = load_authors(arguments.authors)
    like = {ours: AUTHORS_SETTINGS[theirs] for ours, theirs in AUTHORS_NAMES.items()}
    changes = read_changes(arguments.set, {**authors_settings(), **like, "width": 512})
    config = authors_config(authors, **changes)
    evaluations: list[dict] = []
    started = time.perf_counter()

    def log(state: Any, metrics: dict[str, Any]) -> None:
        row = {
            "env_steps": int(metrics["time_step"][0]),
            "seconds": round(time.perf_counter() - started, 2),
            "eval_return": np.asarray(metrics["eval/episode_return"], float).tolist(),
            "kl": np.asarray(metrics["train/kl"], float)
            .reshape(arguments.seeds, -1)
            .mean(1)
            .tolist(),
        }
        evaluations.append(row)
        print(
            f"{arguments.task} {arguments.label} {row['env_steps']:>8} steps  "
            f"return {np.mean(row['eval_return']):7.1f}  {row['seconds']:.0f} s",
            flush=True,
        )

    environment = authors_environment(arguments.task, config.max_episode_steps)
    train = authors.make_train_fn(config, environment, log_callback=log, num_seeds=arguments.seeds)
    key = jax.random.PRNGKey(arguments.seed)
    program = jax.jit(train, static_argnums=1).lower(key, config).compile()
    compiled = time.perf_counter()
    started = compiled
    jax.block_until_ready(program(key))
    jax.effects_barrier()
    return {
        "label": arguments.label,
        "task": arguments.task,
        "num_seeds": arguments.seeds,
        "seed": arguments.seed,
        "settings": authors_settings(**changes),
        **record.stamp(),
        **record.thinned(evaluations),
    }


def main() -> None:
    arguments = parse()
    result = measure_original(arguments) if arguments.authors else measure(arguments)
    path = record.learning_file(arguments.out, arguments.label, arguments.task, arguments.seed)
    record.write(result, path)


if __name__ == "__main__":
    main()
