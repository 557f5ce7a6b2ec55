"""One preset on a suite of tasks by EnvPool; seeds and settings are members of one program. One table, one picture.

python benchmarks/suite.py --suite cheap --preset cpu --label cpu --steps 1000000 --seeds 8
python benchmarks/suite.py --label scaled --set value_scale=return v_min=-100 --vary sigma=0.005,0.015
python benchmarks/suite.py --tasks CheetahRun WalkerRun --label base --steps 500000 --seeds 4 --out /tmp/try
python benchmarks/suite.py --tasks maniskill:PullCube-v1 --env success=continue --without-rendering
python benchmarks/suite.py table                  the table and the picture of what is there

One task after the other, JSON after each; what is there already is left out, so that it can be stopped at any time.
`--set` takes settings of either kind, `--vary` hyperparameters, each of whose values is trained beside the others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
import record
from host_trains import value_of, without_rendering
from settings import our_settings, read_our_changes

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.run.display import SUCCESS
from reppo_fx.run.loop import compile_programs, run_loop
from reppo_fx.run.plan import label_text
from reppo_fx.sweeps.members import flatten_members, label_settings

HERE = record.RESULTS / "suite"
# Mean return of REPPO after 50 M steps, from the result files that its authors publish with their code; a task that
# they have no figure of is measured by the most that it pays.
PUBLISHED = {
    "AcrobotSwingup": 402.2,
    "AcrobotSwingupSparse": 43.3,
    "BallInCupCatch": 926.1,
    "CartpoleBalance": 999.5,
    "CartpoleBalanceSparse": 999.8,
    "CartpoleSwingup": 862.6,
    "CartpoleSwingupSparse": 710.7,
    "CheetahRun": 933.1,
    "FingerSpin": 660.7,
    "FingerTurnEasy": 938.8,
    "FingerTurnHard": 923.1,
    "FishSwim": 677.3,
    "HopperHop": 163.8,
    "HopperStand": 706.3,
    "PendulumSwingup": 627.2,
    "ReacherEasy": 976.5,
    "ReacherHard": 973.8,
    "WalkerRun": 893.6,
    "WalkerWalk": 977.9,
    "WalkerStand": 986.3,
    "HumanoidStand": 705.9,
    "HumanoidWalk": 991.3,
    "HumanoidRun": 748.2,
}
MOST = 1000.0
SUITES = {
    # What two cores step fast enough to judge every change by.
    "cheap": (
        "CartpoleBalance",
        "CartpoleBalanceSparse",
        "CartpoleSwingup",
        "CartpoleSwingupSparse",
        "PendulumSwingup",
        "PointMassEasy",
        "ReacherEasy",
        "ReacherHard",
        "CheetahRun",
        "BallInCupCatch",
    ),
    "dmc": tuple(PUBLISHED),
}
KNOWN = {task for tasks in SUITES.values() for task in tasks}
# Diagnostics that are kept of every evaluation, [settings, seeds].
KEPT = ("entropy", "temperature", "multiplier", "kl", "closed_gate", "q_value", "value_error")
KEPT_OF_TRAINING = ("reward", "target", "value_bias", "outside", "unit", "skipped_updates")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", nargs="?", default="run", choices=("run", "table"))
    parser.add_argument("--suite", default="cheap", choices=SUITES)
    parser.add_argument("--tasks", nargs="*", help="instead of all of the suite")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--label", default="base")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--evals", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--vary", nargs="*", default=[], metavar="NAME=VALUE,VALUE")
    parser.add_argument("--env", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--without-rendering", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args()


def make(arguments: argparse.Namespace, task: str) -> hosts.HostEnvironment:
    """EnvPool's task of that name, or `FAMILY:NAME`."""
    family, _, name = (task if ":" in task else f"envpool:{task}-v1").partition(":")
    options = {k: value_of(v) for k, _, v in (text.partition("=") for text in arguments.env)}
    return hosts.FAMILIES[family].make(name, **options)


def run_task(arguments: argparse.Namespace, task: str) -> dict[str, Any]:
    """Curves of every setting and seed on a task."""
    sizes = [f"total_steps={arguments.steps}", f"num_evals={arguments.evals}", "num_eval_envs=8"]
    changes = read_our_changes(arguments.preset, [*sizes, *arguments.set])
    config, hp = our_settings(arguments.preset, changes)
    env = make(arguments, task)
    if arguments.preset == "any" and not any("discount=" in text for text in arguments.set):
        hp = hp._replace(discount=rx.preset_for(env)[1].discount)
    axes = {
        name: [float(value) for value in values.split(",")]
        for name, _, values in (text.partition("=") for text in arguments.vary)
    }
    settings = rx.grid(hp, **axes)
    keys, members = flatten_members(settings, arguments.seeds, jax.random.key(0))
    started, rows = time.perf_counter(), []
    with rx.make_host_train(env, config) as train:
        programs = compile_programs(train, keys, members)
        state = programs.init(keys, members)
        for progress in run_loop(train, programs, state):
            if progress.metrics is not None:
                rows.append(row(progress.env_steps, progress.seconds, progress.metrics, arguments))
                show(task, arguments, rows[-1])
    return {
        "task": task,
        "label": arguments.label,
        "preset": arguments.preset,
        "seeds": arguments.seeds,
        "changes": arguments.set,
        "settings": label_settings(settings, axes),
        "seconds": round(time.perf_counter() - started, 1),
        **record.thinned(rows),
    }


def row(steps: int, seconds: float, metrics: rx.Metrics, arguments: argparse.Namespace) -> Any:
    def of(leaf: Any) -> Any:
        return np.asarray(leaf, float).reshape(-1, arguments.seeds).round(4).tolist()

    training = metrics.training
    return {
        "env_steps": steps,
        "seconds": round(seconds, 1),
        "eval_return": of(metrics.eval_return),
        **{name: of(m.last) for name, m in metrics.eval_metrics.items() if name in SUCCESS},
        **{name: of(getattr(training.learner, name)) for name in KEPT},
        **{name: of(getattr(training, name)) for name in KEPT_OF_TRAINING},
    }


def show(task: str, arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    means = np.mean(found["eval_return"], axis=1)
    texts = " ".join(f"{mean:.0f}" for mean in means)
    success = next((found[name] for name in SUCCESS if name in found), None)
    if success is not None:
        texts += "  success " + " ".join(f"{np.mean(seeds):.2f}" for seeds in success)
    print(
        f"{task} {arguments.label} {found['env_steps']:>8} {found['seconds']:.0f} s: {texts}",
        flush=True,
    )


class Scores(NamedTuple):
    """Of one setting on one task: returns by evaluation and seed, steps, and success where it is known."""

    steps: np.ndarray
    returns: np.ndarray
    success: np.ndarray | None

    def cell(self) -> str:
        """Mean over seeds in the last quarter of the evaluations ± standard error, and success there."""
        last = last_quarter(self.returns)
        text = f"{last.mean():.0f} ± {last.std(ddof=1) / len(last) ** 0.5:.0f}"
        if self.success is None:
            return text
        return f"{text}, success {last_quarter(self.success).mean():.2f}"


def last_quarter(values: np.ndarray) -> np.ndarray:
    """Per seed, the mean of the last quarter of the evaluations."""
    return values[-max(1, len(values) // 4) :].mean(0)


def read(folder: Path) -> dict[str, dict[str, Scores]]:
    """By variant and task."""
    found: dict[str, dict[str, Scores]] = {}
    for path in sorted(folder.glob("*.json")):
        result = record.read(path)
        rows = result["evaluations"]
        steps = np.array([r["env_steps"] for r in rows])
        returns = np.array([r["eval_return"] for r in rows])
        for i, setting in enumerate(result["settings"]):
            label = f"{result['label']}, {label_text(setting)}" if setting else result["label"]
            said = next((name for name in SUCCESS if name in rows[0]), None)
            success = None if said is None else np.array([r[said] for r in rows])[:, i]
            found.setdefault(label, {})[result["task"]] = Scores(steps, returns[:, i], success)
    return found


def tasks_of(found: dict[str, dict[str, Scores]]) -> list[str]:
    every = {task for tasks in found.values() for task in tasks}
    known = [task for tasks in SUITES.values() for task in tasks]
    return [task for task in dict.fromkeys([*known, *sorted(every)]) if task in every]


def lines(folder: Path) -> Iterator[str]:
    found = read(folder)
    tasks = tasks_of(found)
    yield "| variant | seeds | steps (k) | score | lowest | " + " | ".join(tasks) + " |"
    yield "|---|---|---|---|---|" + "---|" * len(tasks)
    for label, by_task in found.items():
        shares, cells = [], []
        for task in tasks:
            if task not in by_task:
                cells.append("")
                continue
            last = last_quarter(by_task[task].returns)
            if task in KNOWN:
                shares.append(last.mean() / PUBLISHED.get(task, MOST))
            cells.append(by_task[task].cell())
        one = next(iter(by_task.values()))
        score = f"{np.mean(shares):.3f} | {min(shares):.2f}" if shares else " | "
        yield (
            f"| {label} | {one.returns.shape[1]} | {one.steps[-1] / 1000:.0f} | {score} | "
            f"{' | '.join(cells)} |"
        )


def suite(folder: Path = HERE) -> str:
    """The suite's table, from what is there."""
    return "\n".join(
        [
            "# The suite",
            "",
            "Made by `python benchmarks/table.py` from the JSON files in `suite/`, which have commit and machine.",
            "Returns in the last quarter of each run, mean over seeds ± standard error. Score: mean over tasks of",
            "return by the published one after 50 M steps (1000 where there is none); lowest: of these.",
            "",
            *lines(folder),
            "",
            "![curves](suite_curves.png)",
            "",
        ]
    )


def draw(folder: Path, path: Path) -> None:
    """A panel a task, a line a variant, the published return dashed."""
    found = read(folder)
    tasks = tasks_of(found)
    columns = min(5, len(tasks))
    shape = (-(-len(tasks) // columns), columns)
    figure, axes = plt.subplots(*shape, figsize=(3.2 * columns, 2.6 * shape[0]), squeeze=False)
    for panel in axes.ravel()[len(tasks) :]:
        panel.set_axis_off()
    for panel, task in zip(axes.ravel(), tasks, strict=False):
        for number, (label, by_task) in enumerate(found.items()):
            if task not in by_task:
                continue
            steps, returns, _ = by_task[task]
            mean, error = returns.mean(1), returns.std(1, ddof=1) / returns.shape[1] ** 0.5
            color = f"C{number % 10}"
            panel.plot(steps / 1e6, mean, color=color, label=label)
            panel.fill_between(
                steps / 1e6, mean - error, mean + error, color=color, alpha=0.2, lw=0
            )
        panel.axhline(PUBLISHED.get(task, MOST), color="gray", ls="--", lw=0.8)
        panel.set_title(task, fontsize=9)
        panel.tick_params(labelsize=7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=4, fontsize=7)
    figure.supxlabel("million environment steps of each seed", fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_suite() -> None:
    """The picture of the results that are kept."""
    draw(HERE, HERE.parent / "suite_curves.png")


def main() -> None:
    arguments = parse()
    if arguments.command == "table":
        print(suite(arguments.out))
        draw(arguments.out, arguments.out.parent / f"{arguments.out.name}_curves.png")
        return
    if arguments.without_rendering:
        without_rendering()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task in arguments.tasks or SUITES[arguments.suite]:
        path = arguments.out / f"{arguments.label}_{task.replace(':', '-')}.json"
        if not path.exists():
            record.write({**record.stamp(), **run_task(arguments, task)}, path)


if __name__ == "__main__":
    main()
