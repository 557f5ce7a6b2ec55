"""What can be typed: the commands and their flags, made from the settings' own types, with Tyro.

No postponed annotations here: Tyro reads types that are made while running.
"""

import dataclasses
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import docstring_parser
import tyro

from ..settings import CHOICES, Config, Hyperparameters
from ..training.presets import FITTED, PRESETS, PURPOSES
from .export.verb import Export
from .listing import List
from .logs import LOGS
from .plain import plain
from .plan import Plan
from .render_verb import Render
from .show import Show

DEFAULT_TASK = "CartpoleBalance"
DEFAULT_PRESET = FITTED
DEFAULT_SEEDS = 3
TRAINING = ("train", "sweep")


@dataclasses.dataclass(frozen=True)
class Eval:
    """Evaluate the policies of a finished run again."""

    run: tyro.conf.Positional[Path]
    """A run's folder, e.g. runs/CartpoleBalance."""
    episodes: int = 32
    """Episodes per policy."""
    seed: int = 0
    """Of the episodes' starts, and of the actions where they are sampled."""
    best: tyro.conf.FlagCreatePairsOff[bool] = False
    """The policies of the best evaluation instead of the last."""
    stochastic: tyro.conf.FlagCreatePairsOff[bool] = False
    """Sample actions, as in training, instead of taking the most likely ones."""


@dataclasses.dataclass(frozen=True)
class Plot:
    """Compare runs: learning curves by task, scores with intervals, profiles, reliability.

    Leaves curves.png, summary.png and summary.json in --out. Tasks weigh equally in all figures.
    """

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Folders, e.g. runs/CartpoleBalance, or LABEL=FOLDER; those of one task and label are taken together."""
    out: Path = Path("plots")
    """Folder for the pictures."""
    normalizer: float = 1000.0
    """Returns are divided by this before tasks are averaged; 1000 is the most that DMC tasks pay. Negative returns
    stay negative."""
    threshold: float = 0.9
    """Share of the way from a task's floor to its best return that counts as reached."""
    floor: float | None = None
    """Return from which that way is measured. If not given: 0 where no return is negative, elsewhere the lowest
    mean at a first evaluation."""
    last: int = 1
    """Number of evaluations at the end that a run's score is the mean of."""


@dataclasses.dataclass(frozen=True)
class Tasks:
    """List what can be trained with what is installed, by family."""

    pattern: tyro.conf.Positional[str] = ""
    """Part of a name, upper or lower case."""


@typing.runtime_checkable
class Settings(Protocol):
    """What `train` and `sweep` are asked for; the classes are made while running."""

    task: str
    seeds: int
    seed: int
    preset: str
    out: Path | None
    resume: Path | None
    log: tuple[str, ...]
    video: bool
    config: Any  # a dataclass with the fields of Config
    hyperparameters: Any  # a dataclass with the leaves of Hyperparameters


class Ahead(NamedTuple):
    """What decides the defaults of the other flags, and the names of all that are given."""

    preset: str | None
    resume: str | None
    given: frozenset[str]


def _config_flags(config: Config) -> type:
    """A dataclass like `Config`, whose defaults are the preset's; choices become choices on the command line."""
    help_texts, kinds = _help_of(Config), typing.get_type_hints(Config)
    fields = []
    for field in dataclasses.fields(Config):
        kind: Any = kinds[field.name]
        if field.name in CHOICES:
            kind = tyro.extras.literal_type_from_choices(CHOICES[field.name])
        annotated: Any = Annotated[kind, tyro.conf.arg(help=help_texts.get(field.name, ""))]
        default = dataclasses.field(default=getattr(config, field.name))
        fields.append((field.name, annotated, default))
    return dataclasses.make_dataclass("Config", fields, frozen=True)


def _hyperparameter_flags(hyperparameters: Hyperparameters) -> type:
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
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return {p.arg_name: plain(p.description or "", encoding) for p in parsed.params}


def _preset_flag(saved: Plan | None) -> Any:
    """The type of `--preset`: one of the names, or what a resumed run says it was made with."""
    names = dict.fromkeys([*PRESETS, *([saved.preset] if saved else [])])
    purposes = [f"{name} ({PURPOSES[name]})" for name in names if name in PURPOSES]
    help_text = f"Where the defaults below come from: {'; '.join(purposes)}."
    kind = tyro.extras.literal_type_from_choices(tuple(names))
    return Annotated[kind, tyro.conf.arg(help=help_text)]


def commands(
    config: Config, hyperparameters: Hyperparameters, chosen_preset: str, saved: Plan | None
) -> Any:
    """The command types, with the values of the preset, or of the run to resume, as defaults."""
    config_type: Any = _config_flags(config)
    hyperparameter_type: Any = _hyperparameter_flags(hyperparameters)
    preset_type = _preset_flag(saved)
    log_name: Any = tyro.extras.literal_type_from_choices(tuple(LOGS))
    log_type: Any = tyro.conf.UseAppendAction[tuple[log_name, ...]]

    @dataclasses.dataclass(frozen=True)
    class Common:
        task: tyro.conf.Positional[str] = saved.task if saved else DEFAULT_TASK
        """A MuJoCo Playground task (CartpoleSwingup, WalkerRun, ...), a Brax environment (hopper, ...), or a
        simulator's task with its family in front (envpool:CheetahRun-v1, gymnasium:HalfCheetah-v5, ...)."""
        seeds: int = saved.num_seeds if saved else DEFAULT_SEEDS
        """Runs with different seeds, trained side by side."""
        seed: int = saved.seed if saved else 0
        """Of the random key that is split into one per run."""
        preset: preset_type = chosen_preset  # type: ignore[valid-type]
        out: Path | None = None
        """Folder for the results; must be new or empty."""
        resume: Path | None = None
        """Go on with the run in this folder from its latest checkpoint; settings beside it must be its own,
        but for a larger --total-steps, which trains it longer."""
        log: log_type = ()
        """Follow it in TensorBoard or Weights & Biases (needs the extra of that name), one run per seed and
        setting; can be given twice. A resumed run goes on in its own logs without."""

        video: tyro.conf.FlagCreatePairsOff[bool] = False
        """Leave video.mp4 of all seeds (of the best setting) at the end; needs the extra video."""

    @dataclasses.dataclass(frozen=True)
    class Train(Common):
        """Train REPPO on a task by name, with several seeds in one program.

        Leaves config.json, metrics.csv, curve.png, policy.eqx and checkpoints in runs/TASK (or --out).
        """

        config: tyro.conf.OmitArgPrefixes[config_type] = dataclasses.field(
            default_factory=config_type
        )
        """Static: changing one of these compiles another program."""
        hyperparameters: tyro.conf.OmitArgPrefixes[hyperparameter_type] = dataclasses.field(
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
        config: tyro.conf.OmitArgPrefixes[config_type] = dataclasses.field(
            default_factory=config_type
        )
        """Static: changing one of these compiles another program."""
        hyperparameters: tyro.conf.OmitArgPrefixes[hyperparameter_type] = dataclasses.field(
            default_factory=hyperparameter_type
        )
        """Traced: values of what is not swept."""

    train = Annotated[Train, tyro.conf.subcommand("train")]
    sweep = Annotated[Sweep, tyro.conf.subcommand("sweep")]
    evaluate = Annotated[Eval, tyro.conf.subcommand("eval")]
    plot = Annotated[Plot, tyro.conf.subcommand("plot")]
    export = Annotated[Export, tyro.conf.subcommand("export")]
    tasks = Annotated[Tasks, tyro.conf.subcommand("tasks")]
    render = Annotated[Render, tyro.conf.subcommand("render")]
    show = Annotated[Show, tyro.conf.subcommand("show")]
    list_ = Annotated[List, tyro.conf.subcommand("list")]
    return train | sweep | evaluate | plot | export | render | tasks | show | list_


def command_names(kinds: Any) -> list[str]:
    """What can be typed first, of the types that `commands` gives."""
    return [note.name for kind in typing.get_args(kinds) for note in kind.__metadata__]


def look_ahead(arguments: list[str]) -> Ahead:
    """`--preset` and `--resume`, before the rest is read; what is missing or wrong Tyro finds again."""
    found: dict[str, str] = {}
    if arguments[:1] and arguments[0] in TRAINING:
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
            flag, equals, value = argument.partition("=")
            if flag.startswith("--"):  # Tyro takes either stroke between words
                found[flag[2:].replace("-", "_")] = value if equals else following
    return Ahead(found.get("preset") or None, found.get("resume") or None, frozenset(found))


def parse_grid(texts: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """What `--grid NAME=NUMBER,NUMBER,...` says.

    Raises:
        ValueError: for a text of another form, or a name given twice.
    """
    values: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, equals, numbers = text.partition("=")
        name = name.replace("-", "_")
        if name in values:
            raise ValueError(f"grid names {name} twice; give all its values together.")
        try:
            values[name] = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            equals = ""
        if not equals:
            raise ValueError(f"grid is {text!r}; it must be NAME=NUMBER,NUMBER,…")
    return values
