"""Learning curves of this package beside the field: Brax, rejax, purejaxrl; at equal steps and at equal seconds.

python benchmarks/field.py CartpoleSwingup --agent reppo-cpu --steps 1048576
python benchmarks/field.py CartpoleSwingup --agent brax-sac --steps 1048576       # Playground's tuned settings
python benchmarks/field.py CartpoleSwingup --agent brax-ppo --steps 1966080 --evals 2 --set num_resets_per_eval=0
python benchmarks/field.py reacher --agent rejax-ppo --steps 1048576              # a Brax environment
python benchmarks/field.py reacher --agent purejaxrl-ppo --purejaxrl PATH --steps 1048576
python benchmarks/field.py Breakout-MinAtar --agent rejax-ppo --steps 393216      # a gymnax environment
python benchmarks/field.py Breakout-MinAtar --agent reppo-any --steps 393216      # no flag but the task
python benchmarks/field.py Breakout-MinAtar --agent reppo-any --steps 983040 --section "Breakout-MinAtar 1 M"

PATH is a copy of github.com/luchris429/purejaxrl; rejax (with gymnax<1 for Brax, with gymnax>=1 for gymnax) and
Brax are from PyPI. Brax PPO learns from 983,040 steps at a time with Playground's settings; with their resets it
could not be evaluated before ten times that. One run after the other, so that its seconds mean something; the file
is written after each run. Several agents at a time need cores of their own (`taskset -c 0 python ...`), as many for
each. Seconds count training only, without compilation or evaluation; beside them is the share of its cores that a
run got. Everybody is evaluated alike (Brax by itself): whole episodes with the deterministic policy, and with the
sampled one where it can be sampled. `python benchmarks/table.py` makes the table from results/field.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import record
from agents import Agent, brax_settings, brax_training, purejaxrl, rejax, reppo, reppo_any
from settings import SIZES, read_changes

import reppo_fx as rx
from reppo_fx.run.scores import estimate, probability_of_improvement
from reppo_fx.training.evaluate import SamplingPolicy, evaluate_policy
from reppo_fx.training.presets import CLEANER

# Whom all others are compared with: the first of which there are results.
OURS = ("reppo-cpu", "reppo-any")
FOLDER = record.RESULTS / "field"
EPISODES = 32
# Of a core: from here on it counts as a run's own.
LEAST_SHARE = 0.97
# Where tasks of a family customarily end; everything else after 1000 steps.
EPISODE_LENGTHS = {"reacher": 50}
PUBLISHED = {**SIZES["curves"], **CLEANER}
AGENTS: dict[str, Callable[[rx.envs.Environment, argparse.Namespace], Agent]] = {
    "reppo-cpu": lambda env, arguments: reppo(env, "cpu", {"total_steps": arguments.steps}),
    "reppo-published": lambda env, arguments: reppo(
        env, "authors", {**PUBLISHED, "total_steps": arguments.steps}
    ),
    "reppo-any": lambda env, arguments: reppo_any(env, arguments.steps),
    "rejax-ppo": lambda env, _: rejax(env, "ppo"),
    "rejax-sac": lambda env, _: rejax(env, "sac"),
    "purejaxrl-ppo": lambda env, arguments: purejaxrl(env, arguments.purejaxrl),
}
BRAX = {"brax-ppo": "ppo", "brax-sac": "sac"}


def field() -> str:
    """Ours beside the field, at the steps that each agent has done and in the seconds that it took."""
    lines = [
        "# Beside the field",
        "",
        f"Interquartile mean of the return [95 % bootstrap interval] over seeds, {EPISODES} episodes each, after",
        "each agent's last step, of the deterministic policy; beside it ours, the first row, at the last",
        "evaluation within as many steps, and at the last within as many seconds. Seconds are medians, of",
        "training alone: without compilation and evaluation. Better: probability that a run of ours ends above",
        "one of the agent at equal steps. Sampled: such episodes with actions drawn, where it was measured.",
        "Cores: how many a run had; where others ran on them, the share of them that it got, so that its seconds",
        "are too many. Made from `field/learning_*.json` (`python benchmarks/field.py`).",
        "",
        "Every agent has the settings that its own authors chose for the task, as they are (purejaxrl: for Brax",
        "hopper; `reppo-published`: the published hyperparameters with 128 x 64 steps per iteration and width 64).",
        "Playground's are for 5 to 60 M steps with up to thousands of instances on a GPU; the preset `cpu` was",
        "chosen on the two Cartpole tasks at 0.3 M steps on two cores. `reppo-any` is one setting for every task,",
        "with nothing given but the task; rejax has its settings for each gymnax task, for Asterix those for",
        "Breakout. So the tables say what one gets on such a machine, not what each method could reach with",
        "settings made for it.",
    ]
    sections: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(FOLDER.glob("learning_*.json")):
        result = record.read(path)
        sections.setdefault(result.get("section", result["task"]), {})[result["label"]] = result
    for section, results in sorted(sections.items()):
        first = next((label for label in OURS if label in results), None)
        if first is None:
            raise SystemExit(
                f"{FOLDER} has no results of {' or '.join(OURS)} on {section}, which all others are compared with."
            )
        ours = results.pop(first)
        lines += [
            "",
            f"## {section}",
            "",
            *HEAD,
            _row(ours, []),
            *(_row(r, _beside(r, ours)) for r in results.values()),
        ]
    return "\n".join(lines) + "\n"


HEAD = (
    "| agent | cores | seeds | steps | seconds | return | ours at equal steps | its seconds | better "
    "| ours at equal seconds | its steps | sampled |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def _row(result: dict[str, Any], beside: list[str]) -> str:
    last = result["evaluations"][-1]
    cells = [
        result["label"],
        f"{result['cores']}{_share(last)}",
        str(result["num_seeds"]),
        f"{last['env_steps']:,}",
        f"{_seconds(last):.0f}",
        _score(last),
        *(beside or [""] * 5),
        _score(last, "sampled_return") if "sampled_return" in last else "",
    ]
    return f"| {' | '.join(cells)} |"


def _beside(result: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Ours at the steps and at the seconds of a result's last evaluation."""
    theirs, rows = result["evaluations"][-1], ours["evaluations"]
    at_steps = [row for row in rows if row["env_steps"] <= theirs["env_steps"]]
    in_time = [row for row in rows if _seconds(row) <= _seconds(theirs)]
    equal, quick = ["none yet", "", ""], ["none yet", ""]
    if at_steps:
        row = at_steps[-1]
        better = probability_of_improvement(_returns(row), _returns(theirs))
        equal = [_score(row), f"{_seconds(row):.0f}", better.text(2)]
    if in_time:
        quick = [_score(in_time[-1]), f"{in_time[-1]['env_steps']:,}"]
    return equal + quick


def _seconds(row: dict[str, Any]) -> float:
    return statistics.median(row["seconds"])


def _share(row: dict[str, Any]) -> str:
    """Of its cores, where it was less than nearly all."""
    share = statistics.median(row.get("core_share", [1.0]))
    return f", {share:.0%}" if share < LEAST_SHARE else ""


def _returns(row: dict[str, Any], name: str = "eval_return") -> dict[str, np.ndarray]:
    return {"": np.array(row[name])}


def _score(row: dict[str, Any], name: str = "eval_return") -> str:
    return estimate(_returns(row, name)).text(1)


def make_runs(arguments: argparse.Namespace) -> tuple[Callable[[int], list[dict]], dict[str, Any]]:
    """`seed -> rows` with steps, seconds and return, and the settings."""
    env = rx.envs.make(arguments.task)
    length = EPISODE_LENGTHS.get(arguments.task, env.episode_length)
    env = env._replace(episode_length=length)
    agent = AGENTS[arguments.agent](env, arguments)
    iterations = max(arguments.steps // arguments.evals // agent.iteration_steps, 1)
    stretch_steps = iterations * agent.iteration_steps
    start = jax.jit(agent.start)
    cores = len(os.sched_getaffinity(0))

    @functools.partial(jax.jit, donate_argnums=0)
    def stretch(state: Any) -> Any:
        return jax.lax.fori_loop(0, iterations, lambda _, s: agent.iteration(s), state)

    @jax.jit
    def evaluate(state: Any, key: Any) -> dict[str, Any]:
        policy = agent.policy(state)
        returns = functools.partial(_mean_return, env, policy, key, length)
        if not isinstance(policy, SamplingPolicy):
            return {"eval_return": returns()}
        return {"eval_return": returns(), "sampled_return": returns(stochastic=True)}

    @functools.cache
    def program() -> Any:
        return stretch.lower(start(jax.random.key(0))).compile()

    def run(seed: int) -> list[dict]:
        key, eval_key = jax.random.split(jax.random.key(seed))
        state = start(key)
        rows: list[dict] = []
        seconds = busy = 0.0
        for count in range(1, math.ceil(arguments.steps / stretch_steps) + 1):
            train = program()
            before, worked = time.perf_counter(), time.process_time()
            state = jax.block_until_ready(train(state))
            seconds += time.perf_counter() - before
            busy += time.process_time() - worked
            returns = {name: float(mean) for name, mean in evaluate(state, eval_key).items()}
            row = {
                "env_steps": count * stretch_steps,
                "seconds": seconds,
                "core_share": round(min(busy / (cores * seconds), 1.0), 3),
                **returns,
            }
            rows.append(row)
            show(arguments, seed, row)
        return rows

    return run, agent.settings


def _mean_return(env: Any, policy: Any, key: Any, length: Any, **how: bool) -> Any:
    return evaluate_policy(env, policy, key, EPISODES, length, **how).returns.mean()


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
        {"env_steps": rows[0]["env_steps"]}
        | {name: [row[name] for row in rows] for name in rows[0] if name != "env_steps"}
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
    parser.add_argument("--section", help="of the table, if another than the task")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    run, settings = (make_brax_runs if arguments.agent in BRAX else make_runs)(arguments)
    section = arguments.section or arguments.task
    path = record.learning_file(arguments.out, arguments.agent, section.replace(" ", "-"))
    runs: list[list[dict]] = []
    for seed in range(arguments.seeds):
        runs.append(run(seed))
        result = {
            "label": arguments.agent,
            "task": arguments.task,
            "section": section,
            "num_seeds": len(runs),
            "settings": settings,
            "cores": len(os.sched_getaffinity(0)),
            **record.stamp(),
            "evaluations": together(runs),
        }
        record.write(result, path)


if __name__ == "__main__":
    main()
