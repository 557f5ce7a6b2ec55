"""The command line: `reppo-fx train`, `sweep`, `eval`, `plot`. Flags come from the settings' own types, with Tyro.

No postponed annotations here: Tyro reads types that are made while running.
"""

import argparse
import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import docstring_parser
import jax
import tyro
from rich.console import Console
from rich.table import Column, Table

from ..envs import make
from ..settings import CHOICES, Config, Hyperparameters
from ..training.evaluate import evaluate_policy
from ..training.presets import PRESETS, preset
from .display import count
from .plan import Plan, label_text
from .policies import load_policies
from .records import read_config

DEFAULT_TASK = "CartpoleBalance"
DEFAULT_PRESET = "cpu"
DEFAULT_SEEDS = 3
INTERRUPTED = 130
RESUME = "--resume"

Flat = tyro.conf.OmitArgPrefixes


@dataclasses.dataclass(frozen=True)
class Eval:
    """Evaluate the policies of a finished run again."""

    run: tyro.conf.Positional[Path]
    """A run's folder, e.g. runs/CartpoleBalance."""
    episodes: int = 32
    """Episodes per policy."""
    seed: int = 0
    """Of the episodes' starts."""


@dataclasses.dataclass(frozen=True)
class Plot:
    """Compare runs: learning curves by task, scores with intervals, profiles, reliability.

    Leaves curves.png, summary.png and summary.json in --out.
    """

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Folders, e.g. runs/CartpoleBalance, or LABEL=FOLDER; those of one task and label are taken together."""
    out: Path = Path("plots")
    """Folder for the pictures."""
    normalizer: float = 1000.0
    """Returns are divided by this before tasks are averaged; 1000 is the most that DMC tasks pay."""
    threshold: float = 0.9
    """Share of a task's best return that counts as reached."""
    last: int = 1
    """Number of evaluations at the end that a run's score is the mean of."""


def _config_flags(config: Config) -> Any:
    """A dataclass like `Config`, whose defaults are the preset's; choices become choices on the command line."""
    help_texts = _help_of(Config)
    fields = []
    for field in dataclasses.fields(Config):
        kind: Any = {"int": int, "float": float, "bool": bool, "str": str}.get(
            str(field.type), int | None
        )
        if field.name in CHOICES:
            kind = tyro.extras.literal_type_from_choices(CHOICES[field.name])
        default = getattr(config, field.name)
        annotated = Annotated[kind, tyro.conf.arg(help=help_texts.get(field.name, ""))]
        fields.append((field.name, annotated, dataclasses.field(default=default)))
    return dataclasses.make_dataclass("Config", fields, frozen=True)


def _hyperparameter_flags(hyperparameters: Hyperparameters) -> Any:
    """A dataclass of floats with the leaves of `Hyperparameters`."""
    help_texts = _help_of(Hyperparameters)
    fields = [
        (
            name,
            Annotated[float, tyro.conf.arg(help=help_texts.get(name, ""))],
            dataclasses.field(default=float(value)),
        )
        for name, value in hyperparameters._asdict().items()
    ]
    return dataclasses.make_dataclass("Hyperparameters", fields, frozen=True)


def _help_of(cls: type) -> dict[str, str]:
    """Help texts from the docstrings, so that they are written once."""
    parsed = docstring_parser.parse_from_object(cls)
    return {p.arg_name: (p.description or "") for p in parsed.params}


def _commands(
    config: Config, hyperparameters: Hyperparameters, chosen_preset: str, saved: Plan | None
) -> Any:
    """The command types, with the values of the preset, or of the run to resume, as defaults."""
    config_type = _config_flags(config)
    hyperparameter_type = _hyperparameter_flags(hyperparameters)

    @dataclasses.dataclass(frozen=True)
    class Common:
        task: tyro.conf.Positional[str] = saved.task if saved else DEFAULT_TASK
        """A MuJoCo Playground task (CartpoleSwingup, WalkerRun, …) or a Brax environment (hopper, …)."""
        seeds: int = saved.num_seeds if saved else DEFAULT_SEEDS
        """Runs with different seeds, trained side by side."""
        seed: int = saved.seed if saved else 0
        """Of the random key that is split into one per run."""
        preset: tyro.extras.literal_type_from_choices(tuple(PRESETS)) = chosen_preset  # type: ignore[valid-type]
        """Where the defaults below come from; cpu is small, dmc and humanoid are the published settings."""
        out: Path | None = None
        """Folder for the results; must be new or empty."""
        resume: Path | None = None
        """Go on with the run in this folder from its latest checkpoint; settings beside it must be its own."""

    @dataclasses.dataclass(frozen=True)
    class Train(Common):
        """Train REPPO on a task by name, with several seeds in one program.

        Leaves config.json, metrics.csv, curve.png, policy.eqx and checkpoints in runs/TASK (or --out).
        """

        config: Flat[config_type] = dataclasses.field(default_factory=config_type)  # type: ignore
        """Static: changing one of these compiles another program."""
        hyperparameters: Flat[hyperparameter_type] = dataclasses.field(  # type: ignore
            default_factory=hyperparameter_type
        )
        """Traced: numbers, which can also be swept in one program."""

    @dataclasses.dataclass(frozen=True)
    class Sweep(Common):
        """Train every combination of some hyperparameters with every seed, in one program.

        Leaves what train leaves, and a picture of return against each swept hyperparameter.
        """

        grid: tuple[str, ...] = ()
        """What to sweep, e.g. --grid learning_rate=1e-4,3e-4 kl_target=0.05,0.1"""
        config: Flat[config_type] = dataclasses.field(default_factory=config_type)  # type: ignore
        """Static: changing one of these compiles another program."""
        hyperparameters: Flat[hyperparameter_type] = dataclasses.field(  # type: ignore
            default_factory=hyperparameter_type
        )
        """Traced: values of what is not swept."""

    train = Annotated[Train, tyro.conf.subcommand("train")]
    sweep = Annotated[Sweep, tyro.conf.subcommand("sweep")]
    evaluate = Annotated[Eval, tyro.conf.subcommand("eval")]
    plot = Annotated[Plot, tyro.conf.subcommand("plot")]
    return train | sweep | evaluate | plot


def _look_ahead(arguments: list[str]) -> Any:
    """`--preset` and `--resume`, before the rest is read: they decide the defaults of the other flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default=None)
    parser.add_argument(RESUME, default=None)
    found, _ = parser.parse_known_args(arguments)
    return found


def _parse_grid(texts: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    values: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, equals, numbers = text.partition("=")
        try:
            values[name.replace("-", "_")] = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            equals = ""
        if not equals:
            raise ValueError(f"grid is {text!r}; it must be NAME=NUMBER,NUMBER,…")
    return values


def _run_train(arguments: Any, saved: Plan | None, console: Console) -> int:
    from .session import resume_in_folder, run_to_folder, summary

    swept = _parse_grid(getattr(arguments, "grid", ()))
    if hasattr(arguments, "grid") and not swept and saved is None:
        raise ValueError("grid is empty; give what to sweep: --grid NAME=NUMBER,NUMBER,…")
    plan = Plan(
        task=arguments.task,
        preset=arguments.preset,
        config=Config(**dataclasses.asdict(arguments.config)),
        hyperparameters=Hyperparameters(**dataclasses.asdict(arguments.hyperparameters)),
        grid=swept or (saved.grid if saved is not None else {}),
        num_seeds=arguments.seeds,
        seed=arguments.seed,
    )
    if saved is not None and arguments.out is not None:
        raise ValueError(f"out is {str(arguments.out)!r}, but a resumed run stays in its folder.")
    if saved is None:
        result = run_to_folder(plan, arguments.out, console)
    else:
        result = resume_in_folder(arguments.resume, plan, console)
    console.print(summary(plan, result), soft_wrap=True, highlight=False)
    return 0 if result.signal is None else 128 + result.signal


def _run_eval(arguments: Any, console: Console) -> int:
    description = read_config(arguments.run)
    plan = Plan.from_json(description)
    policies = load_policies(arguments.run)
    env = make(plan.task)
    length = description["environment"]["episode_length"]

    @jax.jit
    def evaluate(policies: Any, key: jax.Array) -> Any:
        return jax.vmap(
            lambda policy: evaluate_policy(env, policy, key, arguments.episodes, length)
        )(policies)

    returns = evaluate(policies, jax.random.key(arguments.seed)).returns
    means = returns.mean(1).reshape(-1, plan.num_seeds)
    spreads = returns.std(1).reshape(-1, plan.num_seeds)
    for setting, label in enumerate(plan.labels):
        name = f"{label_text(label)}, " if label else ""
        for seed in range(plan.num_seeds):
            console.print(
                f"{name}seed {seed}: return {means[setting, seed]:.1f} ± {spreads[setting, seed]:.1f} "
                f"over {arguments.episodes} episodes"
            )
        console.print(
            f"{plan.task}: {name}return {means[setting].mean():.1f} ± {means[setting].std():.1f} "
            f"over {plan.num_seeds} seeds"
        )
    return 0


def _run_plot(arguments: Any, console: Console) -> int:
    from .report import write_report

    if not arguments.runs:
        raise ValueError("runs is empty; give at least one folder.")
    summaries = write_report(
        arguments.runs, arguments.out, arguments.normalizer, arguments.threshold, arguments.last
    )
    headings = ("", "IQM", "mean", "P(> first)", f"steps to {arguments.threshold:g}")
    table = Table(*(Column(heading, no_wrap=True) for heading in headings), box=None)
    for label, summary in summaries.items():
        better = summary.improvement.text() if summary.improvement else ""
        steps = count(summary.steps) if math.isfinite(summary.steps) else "never"
        table.add_row(label, summary.iqm.text(), summary.mean.text(), better, steps)
    console.print(table)
    console.print(f"Pictures and figures are in {arguments.out}/", soft_wrap=True, highlight=False)
    return 0


def _keep_compilations() -> None:
    """Compile each program once per machine: JAX's persistent cache, unless its own settings say otherwise."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "reppo_fx" / "jax"))


def _saved_plan(arguments: list[str]) -> tuple[Plan | None, str]:
    """The plan of the run to resume, if any, and the preset whose values are the defaults otherwise."""
    ahead = _look_ahead(arguments)
    if ahead.resume is None:
        return None, ahead.preset or DEFAULT_PRESET
    saved = Plan.from_json(read_config(Path(ahead.resume)))
    return saved, ahead.preset or saved.preset


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `reppo-fx`; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console()
    try:
        saved, chosen = _saved_plan(arguments)
        settings = preset(chosen) if saved is None else (saved.config, saved.hyperparameters)
        commands = _commands(*settings, chosen, saved)
        parsed = tyro.cli(
            commands,
            args=arguments,
            prog="reppo-fx",
            description="REPPO in JAX: train on robot tasks, many seeds in one program.",
        )
        if hasattr(parsed, "runs"):
            return _run_plot(parsed, console)
        _keep_compilations()
        if hasattr(parsed, "run"):
            return _run_eval(parsed, console)
        return _run_train(parsed, saved, console)
    except (ValueError, ImportError) as error:
        Console(stderr=True).print(f"reppo-fx: {error}", style="red", soft_wrap=True, markup=False)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print(
            "reppo-fx: interrupted at once; metrics.csv and the checkpoints have what was done.",
            style="red",
        )
        return INTERRUPTED
