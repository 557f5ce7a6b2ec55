"""Learning curves of this package beside the field: Brax, rejax, purejaxrl; at equal steps and at equal seconds.

python benchmarks/field.py CartpoleSwingup --agent reppo-cpu --steps 1048576
python benchmarks/field.py CartpoleSwingup --agent brax-sac --steps 1048576       # Playground's tuned settings
python benchmarks/field.py CartpoleSwingup --agent brax-ppo --steps 1966080 --evals 2 --set num_resets_per_eval=0
python benchmarks/field.py reacher --agent rejax-ppo --steps 1048576              # a Brax environment
python benchmarks/field.py reacher --agent purejaxrl-ppo --purejaxrl PATH --steps 1048576

PATH is a copy of github.com/luchris429/purejaxrl; rejax (with gymnax<1) and Brax are from PyPI. Brax PPO learns
from 983,040 steps at a time with Playground's settings; with their resets it could not be evaluated before ten
times that. One run after the other, each alone on the machine, so that its seconds mean something; the file is
written after each run. Seconds count training only, without compilation or evaluation. Everybody is evaluated
alike (Brax by itself): whole episodes with the deterministic policy. `python benchmarks/table.py` makes the
table from results/field.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import record
from agents import Agent, brax_settings, brax_training, purejaxrl, rejax, reppo
from settings import SIZES, read_changes

import reppo_fx as rx
from reppo_fx.evaluate import evaluate_policy
from reppo_fx.run.statistics import estimate, probability_of_improvement

OURS = "reppo-cpu"
FOLDER = record.RESULTS / "field"
EPISODES = 128
# Where tasks of a family customarily end; everything else after 1000 steps.
EPISODE_LENGTHS = {"reacher": 50}
PUBLISHED = {**SIZES["curves"], **rx.presets.CLEANER}
AGENTS: dict[str, Callable[[rx.envs.Environment, argparse.Namespace], Agent]] = {
    "reppo-cpu": lambda env, _: reppo(env, "cpu", {}),
    "reppo-published": lambda env, _: reppo(env, "authors", PUBLISHED),
    "rejax-ppo": lambda env, _: rejax(env, "ppo"),
    "rejax-sac": lambda env, _: rejax(env, "sac"),
    "purejaxrl-ppo": lambda env, arguments: purejaxrl(env, arguments.purejaxrl),
}
BRAX = {"brax-ppo": "ppo", "brax-sac": "sac"}


def field() -> str:
    """Ours beside the field, at the steps that all have done and in the seconds that ours needs for them."""
    lines = [
        "# Beside the field",
        "",
        "One run after the other, alone on two cores. Interquartile mean of the return [95 % bootstrap interval]",
        "at the last evaluation within the steps that every agent of the task has done, and within the seconds",
        f"that `{OURS}` needs for them; training alone counts, without compilation and evaluation. Every agent has",
        "the settings that its own authors chose for the task (purejaxrl: for Brax hopper; `reppo-published`: the",
        "published hyperparameters with 128 x 64 steps per iteration and width 64). Better: probability that a run",
        f"of `{OURS}` ends above one of the agent, at equal steps. Made from `field/learning_*.json`",
        "(`python benchmarks/field.py`).",
    ]
    tasks: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(FOLDER.glob("learning_*.json")):
        result = json.loads(path.read_text())
        tasks.setdefault(result["task"], []).append(result)
    for task, results in sorted(tasks.items()):
        results.sort(key=lambda result: (result["label"] != OURS, result["label"]))
        lines += ["", f"## {task}", "", *_field_of(results)]
    return "\n".join(lines) + "\n"


def _field_of(results: list[dict[str, Any]]) -> list[str]:
    steps = min(result["evaluations"][-1]["env_steps"] for result in results)
    within = lambda result, limit: [
        row for row in result["evaluations"] if row["env_steps"] <= limit
    ]
    median = lambda row: statistics.median(row["seconds"])
    ours = within(results[0], steps)[-1]
    limit = median(ours)
    lines = [
        f"| agent | seeds | return at {steps:,} steps | seconds | better | return in {limit:.0f} s |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        last = within(result, steps)[-1]
        in_time = [row for row in result["evaluations"] if median(row) <= limit]
        score = {"": np.array(last["eval_return"])}
        better = ""
        if last is not ours:
            better = probability_of_improvement({"": np.array(ours["eval_return"])}, score).text(2)
        quick = "none yet"
        if in_time:
            quick = estimate({"": np.array(in_time[-1]["eval_return"])}).text(1)
        lines.append(
            f"| {result['label']} | {result['num_seeds']} | {estimate(score).text(1)} | {median(last):.0f} "
            f"| {better} | {quick} |"
        )
    return lines


def make_runs(arguments: argparse.Namespace) -> tuple[Callable[[int], list[dict]], dict[str, Any]]:
    """`seed -> rows` with steps, seconds and return, and the settings."""
    env = rx.envs.make(arguments.task)
    length = EPISODE_LENGTHS.get(arguments.task, env.episode_length)
    env = env._replace(episode_length=length)
    agent = AGENTS[arguments.agent](env, arguments)
    iterations = max(arguments.steps // arguments.evals // agent.iteration_steps, 1)
    stretch_steps = iterations * agent.iteration_steps
    start = jax.jit(agent.start)

    @functools.partial(jax.jit, donate_argnums=0)
    def stretch(state: Any) -> Any:
        return jax.lax.fori_loop(0, iterations, lambda _, s: agent.iteration(s), state)

    @jax.jit
    def evaluate(state: Any, key: Any) -> Any:
        policy = agent.policy(state)
        return evaluate_policy(env, policy, key, EPISODES, length).returns.mean()

    def run(seed: int) -> list[dict]:
        key, eval_key = jax.random.split(jax.random.key(seed))
        state = start(key)
        program = stretch.lower(state).compile()
        rows, seconds = [], 0.0
        for count in range(1, math.ceil(arguments.steps / stretch_steps) + 1):
            before = time.perf_counter()
            state = jax.block_until_ready(program(state))
            seconds += time.perf_counter() - before
            row = {
                "env_steps": count * stretch_steps,
                "seconds": seconds,
                "eval_return": float(evaluate(state, eval_key)),
            }
            rows.append(row)
            show(arguments, seed, row)
        return rows

    return run, agent.settings


def make_brax_runs(
    arguments: argparse.Namespace,
) -> tuple[Callable[[int], list[dict]], dict[str, Any]]:
    """The same of Brax's own `train`, which calls back."""
    if arguments.evals < 2:
        raise SystemExit(
            f"--evals is {arguments.evals}; Brax compiles in its first stretch, so give at least 2."
        )
    agent = BRAX[arguments.agent]
    settings = brax_settings(agent, arguments.task)
    settings.update(num_timesteps=arguments.steps, num_evals=arguments.evals + 1)
    settings.update(read_changes(arguments.set, settings))
    train = brax_training(agent, arguments.task, settings)

    def run(seed: int) -> list[dict]:
        rows: list[dict] = []

        def progress(env_steps: int, metrics: dict[str, Any]) -> None:
            if not env_steps:  # before training
                return
            row = {
                "env_steps": int(env_steps),
                "seconds": float(metrics["training/walltime"]),
                "eval_return": float(metrics["eval/episode_reward"]),
            }
            rows.append(row)
            show(arguments, seed, row)

        train(num_eval_envs=EPISODES, seed=seed, progress_fn=progress)
        return without_compilation(rows)

    return run, settings


def without_compilation(rows: list[dict]) -> list[dict]:
    """Brax's first stretch compiles; it is given the median duration of the others."""
    times = [row["seconds"] for row in rows]
    surplus = times[0] - statistics.median(b - a for a, b in itertools.pairwise(times))
    return [{**row, "seconds": row["seconds"] - surplus} for row in rows]


def show(arguments: argparse.Namespace, seed: int, row: dict[str, Any]) -> None:
    print(
        f"{arguments.task} {arguments.agent} seed {seed} {row['env_steps']:>9} steps  "
        f"return {row['eval_return']:8.2f}  {row['seconds']:.0f} s",
        flush=True,
    )


def together(runs: list[list[dict]]) -> list[dict]:
    """Rows of every run as rows with a list each, as `learning.py` writes them."""
    return [
        {
            "env_steps": rows[0]["env_steps"],
            "seconds": [row["seconds"] for row in rows],
            "eval_return": [row["eval_return"] for row in rows],
        }
        for rows in zip(*runs, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("--agent", choices=[*AGENTS, *BRAX], required=True)
    parser.add_argument("--steps", type=int, default=1_048_576)
    parser.add_argument("--evals", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--purejaxrl", type=Path, help="a copy of it")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of Brax only")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    run, settings = (make_brax_runs if arguments.agent in BRAX else make_runs)(arguments)
    path = record.learning_file(arguments.out, arguments.agent, arguments.task)
    runs: list[list[dict]] = []
    for seed in range(arguments.seeds):
        runs.append(run(seed))
        result = {
            "label": arguments.agent,
            "task": arguments.task,
            "num_seeds": len(runs),
            "settings": settings,
            **record.stamp(),
            "evaluations": together(runs),
        }
        record.write(result, path)


if __name__ == "__main__":
    main()
