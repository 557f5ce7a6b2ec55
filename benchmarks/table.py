"""Tables from the JSON files in `results/`, each with what it was made from.

python benchmarks/table.py        # writes every results/*.md
"""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

from ablations import ablations, draw_ablations
from compared import compared, draw_compared
from field import field
from published import PUBLISHED
from record import RESULTS, read_curves
from simulators import draw_hosts, hosts
from suite_pictures import draw_suites
from suite_results import mean_and_error
from suite_tables import explored, pages, scales, sigma, suite

from reppo_fx.run.scores import estimate

COLUMNS = 4


def learning() -> str:
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
    curves = read_curves(RESULTS)
    rows = [(task, label) for task in curves for label in sorted(curves[task])]
    for task, label in rows:
        steps, returns = curves[task][label]
        picks = [round(len(steps) * (i + 1) / COLUMNS) - 1 for i in range(COLUMNS)]
        at = " / ".join(f"{steps[i] / 1000:.0f}" for i in picks)
        values = " / ".join(mean_and_error(returns[i], 0) for i in picks)
        published = PUBLISHED.get(task, "")
        iqm = estimate({task: returns[-1]}).text(0)
        lines.append(
            f"| {task} | {label} | {returns.shape[1]} | {at} | {values} | {iqm} | {published} |"
        )
    return "\n".join(lines) + "\n"


def speed() -> str:
    lines = [
        "# Speed, compile time, memory",
        "",
        "Medians over alternating turns in fresh processes [lowest, highest]; evaluation left out. The ratio",
        "is that of the speeds, turn by turn; in parentheses, everything else over the original's. Compile",
        "time and time until the first iteration is done are of the first turn, with an empty cache. Program:",
        "what one iteration holds at once, from XLA's assignment of buffers, so without compiler and",
        "libraries, which the process's peak counts too. Made from `speed_*.json` (`python",
        "benchmarks/speed.py`); those of another machine carry a label.",
        "",
    ]
    found = {path: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*speed_*.json"))}
    label = lambda path: path.name.partition("speed_")[0].strip("_")
    order = lambda path: (label(path), found[path]["size"], found[path]["members"])
    for path in sorted(found, key=order):
        lines += _speed_of(found[path], label(path))
    return "\n".join(lines)


def _speed_of(result: dict[str, Any], label: str) -> list[str]:
    steps = result["num_envs"] * result["num_steps"] * result["members"]
    heading = f"{label}: " if label else ""
    lines = [
        f"## {heading}{result['task']}, {result['num_envs']} x {result['num_steps']}, width {result['width']}, "
        f"{result['members']} member(s){', on an axis' if result.get('axis') else ''}",
        "",
        f"{result['num_epochs']} epochs x {result['num_minibatches']} minibatches; {_machine(result)}",
        "",
        "| | steps/s | ratio | environment's share | compile s | first iteration s | program MiB "
        "| peak GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    sides: dict[str, list[dict[str, Any]]] = {}
    for turn in result["turns"]:
        sides.setdefault(turn["side"], []).append(turn)
    middle = lambda rows, name: statistics.median(row[name] for row in rows)
    originals = sides.get("original", [])
    theirs = {turn["repeat"]: turn["seconds_per_iteration"] for turn in originals}
    costs = _costs(originals) if originals else (math.nan,) * 4
    for side, rows in sides.items():
        speeds = [steps / row["seconds_per_iteration"] for row in rows]
        seconds = middle(rows, "seconds_per_iteration")
        share = middle(rows, "environment_seconds") / seconds
        # Turns of one repeat are minutes apart, and this machine is not equally fast all day.
        ratios = [
            theirs.get(row["repeat"], math.nan) / row["seconds_per_iteration"] for row in rows
        ]
        cells = [side, _spread(speeds, ",.0f"), _spread(ratios, ".2f"), f"{share:.0%}"]
        for own, base, digits in zip(
            _costs(rows), costs, (".0f", ".0f", ".0f", ".2f"), strict=True
        ):
            cells.append(f"{own:{digits}}" + ("" if math.isnan(base) else f" ({own / base:.2f})"))
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    if together := result.get("compiled_side_by_side"):
        seconds = ", ".join(f"{side} {seconds:.0f} s" for side, seconds in together.items())
        lines += [
            f"Compiled while all of `gpu.py`'s programs were, and above taken from the cache: {seconds}.",
            "",
        ]
    for side, rows in sides.items():
        if "floor" in rows[0]:
            lines += [f"{side}: {_floor_of(rows, theirs, result['members'])}", ""]
    return lines


def _costs(rows: list[dict[str, Any]]) -> tuple[float, float, float, float]:
    """Seconds to compile and until the first iteration is done, the program's MiB, the process's GiB."""
    first, peak = rows[0], statistics.median(row["peak_bytes"] for row in rows)
    seconds = (first["compile_seconds"], first["to_first_iteration_done"])
    return *seconds, first["program_bytes"] / 2**20, peak / 2**30


def _spread(values: list[float], digits: str) -> str:
    """The median with the lowest and the highest; a dash where there is nothing to hold it against."""
    middle = statistics.median(values)
    if math.isnan(middle):
        return "–"
    return f"{middle:{digits}} [{min(values):{digits}}, {max(values):{digits}}]"


def _floor_of(rows: list[dict[str, Any]], theirs: dict[int, float], members: int) -> str:
    """How far an iteration is from its update's matrix products, and the ratio that there is to win."""
    middle = lambda name: statistics.median(row["floor"][name] for row in rows)
    seconds = statistics.median(row["seconds_per_iteration"] for row in rows)
    least, taken = members * middle("floor_seconds"), middle("update_seconds")
    text = (
        f"the update's matrix products are {members * middle('update_flops') / 1e9:.1f} GFLOP; at the measured "
        f"{middle('matrix_flops_per_second') / 1e9:.0f} GFLOP/s they take {least:.2f} s, an iteration "
        f"{seconds / least:.1f} times that."
    )
    if members == 1:
        text += f" The update takes {taken:.2f} s."
        if theirs:
            most = statistics.median(theirs.values()) / (seconds - taken + least)
            text += f" Nothing but these products in it would make the ratio {most:.1f}."
    return text


def sweep() -> str:
    lines = [
        "# Sweeps",
        "",
        "Steps per second summed over members, without compilation or evaluation; seconds from the command to the",
        "first result, compilation included; peak memory of all processes; processor cores kept busy. Made from",
        "`sweep_*.json` (`python benchmarks/sweep.py`).",
    ]
    for path in sorted(RESULTS.glob("sweep_*.json")):
        result = json.loads(path.read_text())
        lines += [
            "",
            f"## {result['task']}",
            "",
            _machine(result),
            "",
            "| members | | steps/s | first result s | peak GiB | cores busy | collecting |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in result["rows"]:
            share = f"{row['collecting_share']:.0%}" if "collecting_share" in row else ""
            lines.append(
                f"| {row['members']} | {row['way']} | {row['steps_per_second']:,.0f} "
                f"| {row['first_result_seconds']:.0f} | {row['peak_bytes'] / 2**30:.2f} "
                f"| {row['cores_busy']:.2f} | {share} |"
            )
        lines += ["", "| compilation | to first step s | start | training | environment alone |"]
        lines.append("|---|---|---|---|---|")
        for name, seconds in result["compilation"].items():
            parts = ("to_first_step", "init_program", "training_program", "environment_alone")
            lines.append(f"| {name} | {' | '.join(f'{seconds[part]:.1f}' for part in parts)} |")
    return "\n".join(lines) + "\n"


DIFFERENCES = """\
## Differences that stay, and why

- **Terminated steps.** The original adds the entropy of the next action to the reward after an episode has ended
  for good; there is no next action, so here it is not added (term "reward after termination").
- **The last row of a rollout** bootstraps in the original even where the episode has just terminated; here
  nothing follows a termination.
- **Truncated steps.** The original never sees the true successor of a step that a time limit cut. It leaves the
  step out of the critic's loss, and the step before it bootstraps fully from the value of the state between them.
  Here the cut step bootstraps from its true successor and the trace is cut at it. The mask can be kept
  (`mask_truncated`, as the `authors` preset does), the shifted cut is not.
  The term "λ-returns, random ends" expresses the original's convention in our arguments.
- **Starts.** The original returns to the same stored first state at every reset; here starts are drawn anew.
- **First episodes** start at random ages in both, from different streams of random numbers.
"""


def estimators() -> str:
    result = json.loads((RESULTS / "estimators.json").read_text())
    lines = [
        "# Gradient estimators",
        "",
        f"A Gaussian with standard deviation {result['std']} on the six-hump camel function,",
        f"{result['samples']} samples per step, Adam with {result['learning_rate']} for {result['steps']} steps, "
        f"{result['starts']} starts.",
        "Variance (trace, mean) and bias (root mean square) of the gradient are over the starts, before any step;",
        "the true gradient is by quadrature. Some starts lead to local minima, whatever the estimator.",
        "Distance to the nearest global minimum at the end: median [quartiles]; reached: nearer than 0.1.",
        "Made from `estimators.json` (`python benchmarks/estimators.py`), which also draws the picture.",
        "",
        "| estimator | variance | bias | distance at the end | reached |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        low, middle, high = row["distance"]
        lines.append(
            f"| {row['estimator']} | {row['variance']:.3g} | {row['bias']:.2g} "
            f"| {middle:.3f} [{low:.3f}, {high:.3f}] | {row['reached']:.0%} |"
        )
    return "\n".join(lines) + "\n\n![descents](estimators.png)\n"


def equivalence() -> str:
    results = json.loads((RESULTS / "equivalence.json").read_text())
    single, double = results["float32"], results["float64"]
    lines = [
        "# The same numbers as the original code",
        "",
        "Same parameters, batch and random numbers; error = largest difference / largest entry. Made from",
        "`equivalence.json` (`python benchmarks/equivalence.py --authors PATH`).",
        "",
        _machine(single),
        "",
        "| | term | float32 | float64 |",
        "|---|---|---|---|",
    ]
    for a, b in zip(single["rows"], double["rows"], strict=True):
        lines.append(f"| {a['group']} | {a['term']} | {a['error']:.1e} | {b['error']:.1e} |")
    return "\n".join(lines) + "\n\n" + DIFFERENCES


def _machine(result: dict[str, Any]) -> str:
    device, versions = result["device"]["kind"], result["versions"]
    processor = f" ({result['processor']})" if "processor" in result else ""
    return (
        f"{device}, {result['cpu_count']} cores{processor}, jax {versions['jax']}, Python {versions['python']}, "
        f"commit {result['commit']}, {result['date']}"
    )


TABLES = {
    learning: "learning_*.json",
    compared: "compared/learning_*.json",
    ablations: "ablations/learning_*.json",
    field: "field/learning_*.json",
    speed: "*speed_*.json",
    sweep: "sweep_*.json",
    equivalence: "equivalence.json",
    estimators: "estimators.json",
    hosts: "hosts/*.json",
    suite: "suite/*.json",
    explored: "explored/*.json",
    scales: "scales/*.json",
    sigma: "sigma/*.json",
}


def tables() -> dict[str, str]:
    """Every table there are results for, by file name."""
    made = {
        f"{table.__name__}.md": table()
        for table, results in TABLES.items()
        if any(RESULTS.glob(results))
    }
    return {**made, **pages()}


def main() -> None:
    for name, text in tables().items():
        (RESULTS / name).write_text(text)
        print(text)
    draw_compared()
    draw_ablations()
    draw_hosts()
    draw_suites()


if __name__ == "__main__":
    main()
