"""What each choice is worth: the preset `cpu` with the published bins and one thing changed; the paper's Figure 7.

python benchmarks/ablations.py
python benchmarks/ablations.py --tasks CartpoleBalance --variants no-norm score

The preset learns these tasks within its 0.3 M steps on two cores, so that a change that matters shows; at the
published hyperparameters runs of that length only begin to learn. What has results in results/ablations already is
left out. `python benchmarks/table.py` makes the table.
"""

from __future__ import annotations

from published import RETURNS
from record import RESULTS, read_curves
from study import Study, by_task, draw, each_alone, over_tasks, parser, train_variant

import reppo_fx as rx
from reppo_fx.run.curves import Curves
from reppo_fx.training.presets import CLEANER

BASELINE = "baseline"
# The choices of the original code one by one where the preset makes cleaner ones, and those that are open.
CHOICES = {
    **each_alone({name: getattr(rx.preset("authors")[0], name) for name in CLEANER}),
    "four-values": "num_value_samples=4",
    "layer-norm": "norm=layer",
    "half-aux": "aux_weight=0.5",
    "published-min-std": "min_std=0.1",
}
FIGURE7 = {
    "no-aux": "self_prediction=False",
    "no-norm": "norm=none",
    "no-hl-gauss": "critic=squared",
    "no-kl": "kl_constraint=none",
    "penalty-kl": "kl_constraint=penalty",
    "score": "policy_gradient=score",
    "score-gae": "policy_gradient=score_gae exploration=none",
}
BINS = {f"{count}-bins": f"num_bins={count}" for count in (11, 21, 31, 51)}
SECTIONS = {
    "The choices": ("choices", CHOICES),
    "The paper's Figure 7": ("figure7", FIGURE7),
    "How many bins": ("bins", BINS),
}
STUDY = Study(
    folder=RESULTS / "ablations",
    preset="cpu",
    settings={"num_evals": 16, "num_eval_envs": 16, "num_bins": 151, "sigma": 0.005},
    variants={BASELINE: "", **CHOICES, **FIGURE7, **BINS},
    tasks=("CartpoleBalance", "CartpoleSwingup"),
)
# Where the baseline's published returns are; a variant's are under its own label.
PUBLISHED_AS = {BASELINE: "reppo"}


def ablations() -> str:
    """One change at a time."""
    curves = read_curves(STUDY.folder)
    lines = [
        "# One change at a time",
        "",
        "Preset `cpu` with the published 151 bins, 0.3 M steps, 16 episodes per evaluation. Made from",
        "`ablations/learning_*.json` (`python benchmarks/ablations.py`).",
    ]
    for title, (name, variants) in SECTIONS.items():
        part = only(curves, variants)
        lines += ["", f"## {title}", "", *by_task(part, BASELINE), "", *over_tasks(part), ""]
        lines.append(f"![summary]({picture(name)})")
    return "\n".join([*lines, "", *published()]) + "\n"


def published() -> list[str]:
    """The published figures."""
    return [
        "Published for Figure 7's variants (50 M steps, 128 x 1024 per update, width 512):",
        "",
        f"| variant | {' | '.join(STUDY.tasks)} |",
        "|---|---|---|",
        *(
            f"| {label} | {' | '.join(str(RETURNS[task][method]) for task in STUDY.tasks)} |"
            for label in (BASELINE, *FIGURE7)
            if (method := PUBLISHED_AS.get(label, label)) in RETURNS[STUDY.tasks[0]]
        ),
    ]


def only(curves: Curves, variants: dict[str, str]) -> Curves:
    """The baseline and some variants, in this order, on tasks where any of them was run."""
    order = [BASELINE, *variants]
    return {
        task: {label: labels[label] for label in order if label in labels}
        for task, labels in curves.items()
        if labels.keys() & variants.keys()
    }


def picture(name: str) -> str:
    return f"ablations_{name}.png"


def draw_ablations() -> None:
    """The pictures of `ablations`."""
    curves = read_curves(STUDY.folder)
    for name, variants in SECTIONS.values() if curves else ():
        draw(RESULTS / picture(name), only(curves, variants))


def main() -> None:
    arguments = parser(__doc__, STUDY, list(STUDY.variants)).parse_args()
    for label in arguments.variants:
        for task in arguments.tasks:
            train_variant(STUDY, task, label)


if __name__ == "__main__":
    main()
