"""Tables from the JSON files in `results/`: return against steps, published or measured figures beside it.

python benchmarks/table.py        # prints, and writes results/learning.md
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

RESULTS = Path(__file__).parent / "results"
# Mean return after 50 M steps with 128 x 1024 batches, from the result files the REPPO authors publish.
PUBLISHED = {
    "CartpoleBalance": 999.5,
    "CartpoleSwingup": 862.6,
    "ReacherEasy": 976.5,
    "ReacherHard": 973.8,
}
COLUMNS = 4


def load() -> dict[tuple[str, str], tuple[list[int], np.ndarray]]:
    """`(task, label) -> (env_steps [evals], returns [evals, seeds])`, seeds of several files together."""
    parts = defaultdict(list)
    for path in sorted(RESULTS.glob("learning_*.json")):
        record = json.loads(path.read_text())
        steps = [row["env_steps"] for row in record["evaluations"]]
        returns = np.array([row["eval_return"] for row in record["evaluations"]])
        parts[record["task"], record["label"]].append((steps, returns))
    return {
        key: (files[0][0], np.concatenate([returns for _, returns in files], axis=1))
        for key, files in parts.items()
    }


def cell(returns: np.ndarray) -> str:
    """Mean with its standard error."""
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else np.nan
    return f"{returns.mean():.0f} ± {error:.0f}"


def interval(returns: np.ndarray) -> str:
    """95 % bootstrap interval of the interquartile mean."""
    iqm = lambda x, axis=-1: stats.trim_mean(x, 0.25, axis=axis)
    result = stats.bootstrap((returns,), iqm, n_resamples=2000, method="percentile", rng=0)
    low, high = result.confidence_interval
    return f"{iqm(returns):.0f} [{low:.0f}, {high:.0f}]"


def table() -> str:
    lines = [
        "# Learning curves",
        "",
        "Mean evaluation return ± standard error over seeds at four points of each run, the interquartile",
        "mean at the end with its 95 % bootstrap interval, and the published return after 50 M steps.",
        "Made by `python benchmarks/table.py` from the JSON files beside it.",
        "",
        "| task | variant | seeds | steps (k) | return at these steps | IQM at the end | published |",
        "|---|---|---|---|---|---|---|",
    ]
    for (task, label), (steps, returns) in sorted(load().items()):
        picks = [round(len(steps) * (i + 1) / COLUMNS) - 1 for i in range(COLUMNS)]
        at = " / ".join(f"{steps[i] / 1000:.0f}" for i in picks)
        values = " / ".join(cell(returns[i]) for i in picks)
        published = PUBLISHED.get(task, "")
        lines.append(
            f"| {task} | {label} | {returns.shape[1]} | {at} | {values} | {interval(returns[-1])} | {published} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    text = table()
    (RESULTS / "learning.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
