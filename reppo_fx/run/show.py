"""`reppo-fx show`: what a run is, in one screen."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from .._errors import counted
from ..training.presets import PRESETS
from .chart import chart
from .checkpoints import CHECKPOINTS
from .display import best_first, count, print_line, print_table
from .facts import DONE, RUNNING, Facts, number, read_facts
from .plain import shell_word
from .plan import Plan, label_text, settings_apart
from .policies import BEST_POLICY, POLICY
from .render import VIDEO
from .table import METRICS

SETTINGS_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Show:
    """Say what a run is: settings, curve, returns, warnings, where things are, and how to go on."""

    run: tyro.conf.Positional[Path]
    """A run's folder, e.g. runs/CartpoleBalance."""


def run_show(arguments: Show, console: Console, verbs: Collection[str]) -> int:
    """Print it; the exit code.

    Args:
        arguments: as typed.
        console: where to print.
        verbs: the commands that there are; others are not advised.

    Raises:
        ValueError: if the folder holds no run.
    """
    facts = read_facts(arguments.run)
    print_line(console, _heading(facts), style="bold")
    _print_settings(console, facts.plan)
    _print_returns(console, facts)
    for warned in facts.warned:
        when = "" if warned.env_steps is None else f" at {count(warned.env_steps)} steps"
        print_line(console, f"Warning{when}: {warned.sentence}", style="yellow")
    print_line(console, f"In {facts.folder}/", style="bold")
    _print_pairs(console, list(_places(facts)))
    print_line(console, "Go on", style="bold")
    known = [pair for pair in next_commands(facts, console.encoding) if pair[1].split()[1] in verbs]
    _print_pairs(console, known)
    return 0


def _heading(facts: Facts) -> str:
    plan, device = facts.plan, facts.description.get("device")
    seeds = counted(plan.num_seeds, "seed")
    members = f"{counted(len(plan.labels), 'setting')} × {seeds}" if plan.grid else seeds
    done, total = count(facts.done_steps), count(facts.total_steps)
    steps = f"{done} steps each" if facts.state == DONE else f"{done} of {total} steps each"
    seconds = f", {facts.seconds:.0f} s of training" if facts.seconds else ""
    where = f" on {_device(device)}" if isinstance(device, dict) else ""
    return f"{plan.task}, preset {plan.preset}, {members}: {facts.state}, {steps}{seconds}{where}"


def _device(device: dict[str, Any]) -> str:
    """`cpu`, or `4 × NVIDIA H100 (gpu)`."""
    backend, kind, number = (device.get(name) for name in ("backend", "kind", "count"))
    name = f"{kind}" if kind == backend else f"{kind} ({backend})"
    return name if number == 1 else f"{number} × {name}"


def _print_settings(console: Console, plan: Plan) -> None:
    if plan.preset not in PRESETS:
        print_line(console, f"Its preset, {plan.preset!r}, is none that this package has.")
        return
    changes = settings_apart(plan, *PRESETS[plan.preset])
    if not changes:
        print_line(console, f"All settings are those of the preset {plan.preset}.")
    else:
        print_line(console, f"Settings that differ from the preset {plan.preset}", style="bold")
        _print_pairs(console, [(name, f"{own} instead of {was}") for name, was, own in changes])
    for name, values in plan.grid.items():
        print_line(console, f"Swept: {name} {', '.join(f'{value:g}' for value in values)}")


def _print_returns(console: Console, facts: Facts) -> None:
    last, best, plan = facts.last, facts.best, facts.plan
    if last is None:
        print_line(console, "No evaluation has been made yet.")
        return
    seeds = "" if plan.num_seeds == 1 else f", mean of {plan.num_seeds} seeds"
    which = f" of the best setting ({label_text(plan.labels[facts.setting])})"
    print_line(console, f"Return{which if plan.grid else ''}{seeds}", style="bold")
    curve = facts.returns[:, facts.setting].mean(1)
    for line in chart(facts.env_steps, curve, ("0", f"{count(last.env_steps)} steps")):
        print_line(console, line)
    highest = f"; best {best.text} at {count(best.env_steps)} steps" if best else ""
    print_line(console, f"Last {last.text} at {count(last.env_steps)} steps{highest}")
    if plan.grid:
        _print_swept(console, plan, facts.returns[-1])


def _print_swept(console: Console, plan: Plan, returns: Any) -> None:
    """The last returns `[settings, seeds]`, best first."""
    order = best_first(returns)
    rows = [
        [*(f"{value:g}" for value in plan.labels[i].values()), *_cells(returns[i])]
        for i in order[:SETTINGS_SHOWN]
    ]
    print_table(console, [*plan.grid, "last return", "± over seeds"], rows)
    if len(order) > SETTINGS_SHOWN:
        print_line(console, f"… {len(order) - SETTINGS_SHOWN} more settings")


def _cells(seeds: Any) -> list[str]:
    return [number(seeds.mean()), number(seeds.std(), seeds.mean())]


def _places(facts: Facts) -> Iterator[tuple[str, str]]:
    """Files and what is in them, of those that are there."""
    saved = ", ".join(map(str, facts.checkpoints))
    what = {
        "config.json": "all settings, versions and the device",
        METRICS: f"{len(facts.env_steps)} evaluations of {facts.returns[:1].size} member(s)",
        "curve.png": "the curve, and what explains it",
        VIDEO: "the policy at work",
        POLICY: "the last policies",
        BEST_POLICY: "each member's policy at its best evaluation",
        CHECKPOINTS: f"after iterations {saved}" if saved else "none yet",
    }
    for name, text in what.items():
        if (facts.folder / name).exists():
            yield name, text


def next_commands(facts: Facts, encoding: str) -> Iterator[tuple[str, str]]:
    """What can be done next, and the command to paste."""
    folder = shell_word(str(facts.folder), encoding)
    resume = f"reppo-fx {'sweep' if facts.plan.grid else 'train'} --resume {folder}"
    if facts.state == DONE:
        yield "train longer", f"{resume} --total-steps {2 * facts.plan.config.total_steps}"
    elif facts.state != RUNNING:
        yield "resume", resume
    best = " --best" if (facts.folder / BEST_POLICY).is_file() else ""
    if best or (facts.folder / POLICY).is_file():
        yield "evaluate again", f"reppo-fx eval {folder}{best}"
    if len(facts.env_steps):
        yield "score, compare", f"reppo-fx plot {folder}"
    if best or (facts.folder / POLICY).is_file():
        yield "make a video", f"reppo-fx render {folder}"
        yield "take it elsewhere", f"reppo-fx export {folder}{best}"


def _print_pairs(console: Console, pairs: list[tuple[str, str]]) -> None:
    """Two columns."""
    width = max((len(first) for first, _ in pairs), default=0)
    for first, second in pairs:
        print_line(console, f"  {first:<{width}}  {second}")
