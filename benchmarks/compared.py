"""Learning curves beside the original code's, at equal settings: the runs, their table and their pictures.

python benchmarks/compared.py --authors PATH                           # original, authors, cleaner on every task
python benchmarks/compared.py --tasks CartpoleSwingup --variants no-kl no-norm score

PATH is a copy of github.com/cvoelcker/reppo; without it the original is left out. Every run is a `learning.py` in a
process of its own; those whose file lies in results/compared already are left out, so that it can be stopped at
any time. `python benchmarks/table.py` makes the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from record import RESULTS

from reppo_fx.run.plots import plot_comparison, plot_curves
from reppo_fx.run.report import Curve, summarize
from reppo_fx.run.statistics import (
    Estimate,
    estimate,
    mean_score,
    probability_of_improvement,
    reliability,
)

FOLDER = RESULTS / "compared"
# Of the best return on a task; as in the paper's figure on reliability.
THRESHOLD = 0.9
TASKS = ("CartpoleSwingup", "CartpoleBalance", "ReacherHard", "PendulumSwingup", "AcrobotSwingup")
SEEDS = 8
# The published setting, made small enough for two cores; names are ours, and the original's.
EQUAL = (
    "num_envs=128 num_steps=64 num_minibatches=16 num_epochs=8 actor_width=64 critic_width=64 "
    "total_steps=1048576 num_evals=16 num_eval_envs=128"
)
EQUAL_ORIGINAL = (
    "num_envs=128 num_steps=64 num_mini_batches=16 num_epochs=8 width=64 "
    "total_time_steps=1048576 num_eval=16"
)
# Each changes something of the `authors` preset.
VARIANTS = {
    "authors": "",
    "cleaner": "kl_estimator=exact statistics=iteration dual_optimizer=own noise=independent mask_truncated=False",
    # The choices of `cleaner` one by one, and the open ones.
    "exact-kl": "kl_estimator=exact",
    "iteration-statistics": "statistics=iteration",
    "own-dual-optimizer": "dual_optimizer=own",
    "independent-noise": "noise=independent",
    "no-mask": "mask_truncated=False",
    "four-values": "num_value_samples=4",
    "layer-norm": "norm=layer",
    "half-aux": "aux_weight=0.5",
    "min-std": "min_std=0.05",
    # The paper's Figure 7 and its score-function rows.
    "no-aux": "self_prediction=False",
    "no-norm": "norm=none",
    "no-hl-gauss": "critic=squared",
    "no-kl": "kl_constraint=none",
    "penalty-kl": "kl_constraint=penalty",
    "score": "policy_gradient=score",
    "score-gae": "policy_gradient=score_gae",
}


def compared_curves() -> dict[str, dict[str, Curve]]:
    """Curves in `results/compared/`, by task and label, the original code first."""
    curves: dict[str, dict[str, Curve]] = {}
    for path in sorted(FOLDER.glob("learning_*.json")):
        record = json.loads(path.read_text())
        steps = np.array([row["env_steps"] for row in record["evaluations"]])
        returns = np.array([row["eval_return"] for row in record["evaluations"]])
        labels = curves.setdefault(record["task"], {})
        if record["label"] in labels:
            returns = np.concatenate([labels[record["label"]].returns, returns], axis=1)
        labels[record["label"]] = Curve(steps, returns)
    first = lambda label: (label != "original", label)
    return {
        task: {label: labels[label] for label in sorted(labels, key=first)}
        for task, labels in curves.items()
    }


def compared() -> str:
    """Ours beside the original code at equal settings."""
    curves = compared_curves()
    summaries = summarize(curves, threshold=THRESHOLD)
    lines = [
        "# Beside the original code, at equal settings",
        "",
        "Same tasks, environment steps, data per update (128 x 64), widths (64), 8 epochs of 16 minibatches,",
        "hyperparameters of the published setting; 128 evaluation episodes. `authors`: this package with the",
        "original's choices; `cleaner`: with its own (`presets.CLEANER`); others change one choice of `authors`.",
        "Made from `compared/learning_*.json` (`python benchmarks/compared.py`).",
        "",
        "| task | variant | seeds | steps (k) | IQM at the end | mean at the end | better | reliable |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, labels in curves.items():
        goal = THRESHOLD * max(float(curve.returns.max()) for curve in labels.values())
        for label, curve in labels.items():
            final = {task: curve.returns[-1]}
            better = ""
            if label != "original" and "original" in labels:
                baseline = {task: labels["original"].returns[-1]}
                better = _estimate(probability_of_improvement(final, baseline), 2)
            lines.append(
                f"| {task} | {label} | {curve.returns.shape[1]} | {curve.env_steps[-1] / 1000:.0f} "
                f"| {_estimate(estimate(final))} | {_estimate(estimate(final, mean_score))} "
                f"| {better} | {reliability(curve.returns, goal)[-1]:.0%} |"
            )
    lines += [
        "",
        "Better: probability that a run of the variant ends above a run of the original. Reliable: share of runs",
        f"at or above {THRESHOLD} of the best return seen on the task, at the last evaluation.",
        "Intervals: 95 % bootstrap.",
        "",
        "All tasks together, returns divided by 1000:",
        "",
        "| variant | tasks | IQM | mean | better |",
        "|---|---|---|---|---|",
    ]
    for label, summary in summaries.items():
        better = "" if summary.improvement is None else _estimate(summary.improvement, 2)
        lines.append(
            f"| {label} | {len(summary.runs)} | {_estimate(summary.iqm, 3)} "
            f"| {_estimate(summary.mean, 3)} | {better} |"
        )
    pictures = ["", "![curves](compared_curves.png)", "![summary](compared_summary.png)"]
    return "\n".join(lines + pictures) + "\n"


def draw_compared() -> None:
    """The pictures of `compared`."""
    curves = compared_curves()
    if not curves:
        return
    plot_curves(RESULTS / "compared_curves.png", curves)
    plot_comparison(
        RESULTS / "compared_summary.png", curves, summarize(curves, threshold=THRESHOLD), THRESHOLD
    )


def _estimate(x: Estimate, digits: int = 0) -> str:
    return f"{x.value:.{digits}f} [{x.low:.{digits}f}, {x.high:.{digits}f}]"


def train(task: str, label: str, authors: Path | None, python: str) -> None:
    """One variant on one task, unless its results are there."""
    if (FOLDER / f"learning_{label}_{task}_0.json").exists():
        return
    command = [python, str(Path(__file__).with_name("learning.py")), task, "--label", label]
    command += ["--seeds", str(SEEDS), "--out", str(FOLDER)]
    if authors:
        command += ["--authors", str(authors), "--set", *EQUAL_ORIGINAL.split()]
    else:
        command += ["--preset", "authors", "--set", *EQUAL.split(), *VARIANTS[label].split()]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--authors", type=Path, help="also run the original code in this copy")
    parser.add_argument("--authors-python", default=sys.executable, help="interpreter for it")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument(
        "--variants", nargs="*", choices=list(VARIANTS), default=["cleaner", "authors"]
    )
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for task in arguments.tasks:
        if arguments.authors:
            train(task, "original", arguments.authors, arguments.authors_python)
        for label in arguments.variants:
            train(task, label, None, sys.executable)


if __name__ == "__main__":
    main()
