"""Learning curves beside the original code's, at equal settings: the runs, their table and their pictures.

python benchmarks/compared.py --authors PATH                           # original, authors, cleaner on every task
python benchmarks/compared.py --tasks CartpoleSwingup --variants no-kl no-norm score

PATH is a copy of github.com/cvoelcker/reppo; without it the original is left out. Every run is a `learning.py` in a
process of its own; those whose file lies in results/compared already are left out, so that it can be stopped at
any time. `python benchmarks/table.py` makes the table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from record import RESULTS, learning_file, read_curves
from settings import SIZES, write_changes

from reppo_fx.run.plots import plot_comparison, plot_curves
from reppo_fx.run.report import final_returns, summarize
from reppo_fx.run.statistics import (
    estimate,
    mean_score,
    probability_of_improvement,
    reliability,
)

FOLDER = RESULTS / "compared"
# Of the best return on a task; as in the paper's figure on reliability.
THRESHOLD = 0.9
# Evaluations in the last quarter of a run.
LAST = 4
TASKS = ("CartpoleSwingup", "CartpoleBalance", "ReacherHard", "PendulumSwingup", "AcrobotSwingup")
SEEDS = 8
EQUAL = {**SIZES["curves"], "total_steps": 1_048_576, "num_evals": 16}
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


def compared() -> str:
    """Ours beside the original code at equal settings."""
    curves = read_curves(FOLDER)
    summaries = summarize(curves, threshold=THRESHOLD, last=LAST)
    lines = [
        "# Beside the original code, at equal settings",
        "",
        "Same tasks, environment steps, data per update (128 x 64), widths (64), 8 epochs of 16 minibatches,",
        "hyperparameters of the published setting; 128 evaluation episodes. `authors`: this package with the",
        "original's choices; `cleaner`: with its own (`presets.CLEANER`); others change one choice of `authors`.",
        "Made from `compared/learning_*.json` (`python benchmarks/compared.py`).",
        "",
        "| task | variant | seeds | steps (k) | IQM at the end | mean | better "
        "| IQM, last quarter | mean | better | reliable |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, labels in curves.items():
        goal = THRESHOLD * max(float(curve.returns.max()) for curve in labels.values())
        for label, curve in labels.items():
            cells = [task, label, f"{curve.returns.shape[1]}", f"{curve.env_steps[-1] / 1000:.0f}"]
            for last in (1, LAST):
                final = {task: final_returns(curve, last)}
                cells += [estimate(final).text(0), estimate(final, mean_score).text(0)]
                if label == "original" or "original" not in labels:
                    cells.append("")
                    continue
                baseline = {task: final_returns(labels["original"], last)}
                cells.append(probability_of_improvement(final, baseline).text(2))
            reliable = f"{reliability(curve.returns, goal)[-1]:.0%}"
            lines.append(f"| {' | '.join([*cells, reliable])} |")
    lines += [
        "",
        f"Last quarter: a run's mean over its last {LAST} evaluations, which swing less than one.",
        "Better: probability that a run of the variant ends above a run of the original. Reliable: share of runs",
        f"at or above {THRESHOLD} of the best return seen on the task, at the last evaluation.",
        "Intervals: 95 % bootstrap.",
        "",
        "All tasks together, returns in the last quarter divided by 1000:",
        "",
        "| variant | tasks | IQM | mean | better |",
        "|---|---|---|---|---|",
    ]
    for label, summary in summaries.items():
        better = "" if summary.improvement is None else summary.improvement.text(2)
        lines.append(
            f"| {label} | {len(summary.runs)} | {summary.iqm.text()} "
            f"| {summary.mean.text()} | {better} |"
        )
    pictures = ["", "![curves](compared_curves.png)", "![summary](compared_summary.png)"]
    return "\n".join(lines + pictures) + "\n"


def draw_compared() -> None:
    """The pictures of `compared`."""
    curves = read_curves(FOLDER)
    if not curves:
        return
    plot_curves(RESULTS / "compared_curves.png", curves)
    plot_comparison(
        RESULTS / "compared_summary.png",
        curves,
        summarize(curves, threshold=THRESHOLD, last=LAST),
        THRESHOLD,
    )


def train(task: str, label: str, authors: Path | None, python: str) -> None:
    """One variant on one task, unless its results are there."""
    if learning_file(FOLDER, label, task).exists():
        return
    command = [python, str(Path(__file__).with_name("learning.py")), task, "--label", label]
    command += ["--seeds", str(SEEDS), "--out", str(FOLDER)]
    if authors:
        command += ["--authors", str(authors), "--set", *write_changes(EQUAL)]
    else:
        # As many evaluation episodes as the original has instances.
        own = ["num_eval_envs=128", *VARIANTS[label].split()]
        command += ["--preset", "authors", "--set", *write_changes(EQUAL), *own]
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
