"""Learning curves on real tasks: train seeds in one program, keep everything measured as JSON.

python benchmarks/learning.py CartpoleBalance --label cpu --preset cpu --seeds 4
python benchmarks/learning.py ReacherHard --label authors --preset authors --seeds 3 --set num_envs=256 ...

`python benchmarks/table.py` makes the tables from all files.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
import record

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
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> tuple[rx.Config, rx.Hyperparameters]:
    """The preset with the changes given on the command line."""
    config, hyperparameters = rx.preset(arguments.preset)
    for change in arguments.set:
        name, text = change.split("=", 1)
        if name in rx.Hyperparameters._fields:
            hyperparameters = hyperparameters._replace(**{name: float(text)})
            continue
        kind = type(getattr(config, name))
        value = text == "True" if kind is bool else kind(text)
        config = dataclasses.replace(config, **{name: value})
    return config, hyperparameters


def measure(arguments: argparse.Namespace) -> dict:
    """Train, and give the record of it."""
    config, hyperparameters = settings(arguments)
    train = rx.make_train(rx.envs.make(arguments.task), config)
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
        "evaluations": evaluations,
    }


def main() -> None:
    arguments = parse()
    name = f"learning_{arguments.label}_{arguments.task}_{arguments.seed}.json"
    record.write(measure(arguments), arguments.out / name)


if __name__ == "__main__":
    main()
