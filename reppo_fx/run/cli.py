"""The command line: `reppo-fx train`, `reppo-fx eval`. Flags come from the settings' own types, with Tyro.

No postponed annotations here: Tyro reads types that are made while running.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import docstring_parser
import jax
import tyro
from rich.console import Console

from ..envs import make
from ..evaluate import evaluate_policy
from ..presets import PRESETS, preset
from ..settings import CHOICES, Config, Hyperparameters
from .records import load_policies, read_config

DEFAULT_TASK = "CartpoleBalance"
DEFAULT_PRESET = "cpu"
DEFAULT_SEEDS = 3
INTERRUPTED = 130

Flat = tyro.conf.OmitArgPrefixes


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


def _commands(config: Config, hyperparameters: Hyperparameters, chosen_preset: str) -> Any:
    """The command types, with the preset's values as defaults."""
    config_type = _config_flags(config)
    hyperparameter_type = _hyperparameter_flags(hyperparameters)

    @dataclasses.dataclass(frozen=True)
    class Train:
        """Train REPPO on a task by name, with several seeds in one program.

        Leaves config.json, metrics.csv, curve.png and policy.eqx in runs/TASK (or --out).
        """

        task: tyro.conf.Positional[str] = DEFAULT_TASK
        """A MuJoCo Playground task (CartpoleSwingup, WalkerRun, …) or a Brax environment (hopper, …)."""
        seeds: int = DEFAULT_SEEDS
        """Runs with different seeds, trained side by side."""
        seed: int = 0
        """Of the random key that is split into one per run."""
        preset: tyro.extras.literal_type_from_choices(tuple(PRESETS)) = chosen_preset  # type: ignore[valid-type]
        """Where the defaults below come from; cpu is small, dmc and humanoid are the published settings."""
        out: Path | None = None
        """Folder for the results; must be new or empty."""
        config: Flat[config_type] = dataclasses.field(default_factory=config_type)  # type: ignore
        """Static: changing one of these compiles another program."""
        hyperparameters: Flat[hyperparameter_type] = dataclasses.field(  # type: ignore
            default_factory=hyperparameter_type
        )
        """Traced: numbers, which can also be swept in one program from Python (rx.grid)."""

    @dataclasses.dataclass(frozen=True)
    class Eval:
        """Evaluate the policies of a finished run again."""

        run: tyro.conf.Positional[Path]
        """A run's folder, e.g. runs/CartpoleBalance."""
        episodes: int = 32
        """Episodes per policy."""
        seed: int = 0
        """Of the episodes' starts."""

    train = Annotated[Train, tyro.conf.subcommand("train")]
    evaluate = Annotated[Eval, tyro.conf.subcommand("eval")]
    return train | evaluate


def _chosen_preset(arguments: list[str]) -> str:
    """Look ahead for `--preset`, because it decides the defaults of the other flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    found, _ = parser.parse_known_args(arguments)
    return found.preset


def _run_train(arguments: Any, console: Console) -> int:
    from .session import summary, train_to_folder

    result = train_to_folder(
        task=arguments.task,
        preset=arguments.preset,
        config=Config(**dataclasses.asdict(arguments.config)),
        hyperparameters=Hyperparameters(**dataclasses.asdict(arguments.hyperparameters)),
        num_seeds=arguments.seeds,
        seed=arguments.seed,
        out=arguments.out,
        console=console,
    )
    console.print(summary(arguments.task, result), soft_wrap=True, highlight=False)
    return INTERRUPTED if result.interrupted else 0


def _run_eval(arguments: Any, console: Console) -> int:
    description = read_config(arguments.run)
    policies = load_policies(arguments.run)
    env = make(description["task"])
    length = description["environment"]["episode_length"]

    @jax.jit
    def evaluate(policies: Any, key: jax.Array) -> Any:
        return jax.vmap(
            lambda policy: evaluate_policy(env, policy, key, arguments.episodes, length)
        )(policies)

    episodes = evaluate(policies, jax.random.key(arguments.seed))
    means = episodes.returns.mean(1)
    for index, (mean, std) in enumerate(zip(means, episodes.returns.std(1), strict=True)):
        console.print(
            f"seed {index}: return {mean:.1f} ± {std:.1f} over {arguments.episodes} episodes"
        )
    console.print(
        f"{description['task']}: return {means.mean():.1f} ± {means.std():.1f} over {len(means)} seeds"
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `reppo-fx`; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console()
    try:
        chosen = _chosen_preset(arguments)
        commands = _commands(*preset(chosen), chosen)
        parsed = tyro.cli(
            commands,
            args=arguments,
            prog="reppo-fx",
            description="REPPO in JAX: train on robot tasks, many seeds in one program.",
        )
        return _run_eval(parsed, console) if hasattr(parsed, "run") else _run_train(parsed, console)
    except (ValueError, ImportError) as error:
        Console(stderr=True).print(f"reppo-fx: {error}", style="red", soft_wrap=True, markup=False)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print(
            "reppo-fx: interrupted at once; metrics.csv has what was measured.", style="red"
        )
        return INTERRUPTED
