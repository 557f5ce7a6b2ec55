"""The command line: `reppo-fx train`, `sweep`, `eval`, `plot`. Flags come from the settings' own types, with Tyro.

No postponed annotations here: Tyro reads types that are made while running.
"""

import dataclasses
import math
import os
import sys
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, TextIO

import docstring_parser
import jax
import tyro
from jaxtyping import Array
from rich.console import Console

from .._errors import ReppoWarning
from ..envs import make
from ..settings import CHOICES, Config, Hyperparameters
from ..training.evaluate import evaluate_policy
from ..training.policy import Policy
from ..training.presets import PRESETS, PURPOSES, preset
from .display import count, make_console, print_line, print_table
from .plain import plain, plain_streams, shell_word
from .plan import Plan, label_text
from .policies import load_policies
from .records import read_config

DEFAULT_TASK = "CartpoleBalance"
DEFAULT_PRESET = "cpu"
DEFAULT_SEEDS = 3
INTERRUPTED = 130
PRESET, RESUME = "--preset", "--resume"
TRAINING = ("train", "sweep")
# What a random key takes: more would wrap around, and two seeds would be one.
LARGEST_SEED = 2**32 - 1


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


@typing.runtime_checkable
class Settings(Protocol):
    """What `train` and `sweep` are asked for; the classes are made while running."""

    task: str
    seeds: int
    seed: int
    preset: str
    out: Path | None
    resume: Path | None
    config: Any  # a dataclass with the fields of Config
    hyperparameters: Any  # a dataclass with the leaves of Hyperparameters


class Ahead(NamedTuple):
    """What decides the defaults of the other flags."""

    preset: str | None
    resume: str | None


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


def _commands(
    config: Config, hyperparameters: Hyperparameters, chosen_preset: str, saved: Plan | None
) -> Any:
    """The command types, with the values of the preset, or of the run to resume, as defaults."""
    config_type: Any = _config_flags(config)
    hyperparameter_type: Any = _hyperparameter_flags(hyperparameters)
    preset_type = _preset_flag(saved)

    @dataclasses.dataclass(frozen=True)
    class Common:
        task: tyro.conf.Positional[str] = saved.task if saved else DEFAULT_TASK
        """A MuJoCo Playground task (CartpoleSwingup, WalkerRun, ...) or a Brax environment (hopper, ...)."""
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
    return train | sweep | evaluate | plot


def _look_ahead(arguments: list[str]) -> Ahead:
    """`--preset` and `--resume`, before the rest is read; what is missing or wrong Tyro finds again."""
    found: dict[str, str] = {}
    if arguments[:1] and arguments[0] in TRAINING:
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
            flag, equals, value = argument.partition("=")
            if flag in (PRESET, RESUME):
                found[flag] = value if equals else following
    return Ahead(found.get(PRESET) or None, found.get(RESUME) or None)


def _parse_grid(texts: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
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


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed is {seed}; it must be from 0 to {LARGEST_SEED}.")


def _run_train(arguments: Settings, saved: Plan | None, console: Console) -> int:
    from .session import resume_in_folder, run_to_folder, summary

    swept = _parse_grid(getattr(arguments, "grid", ()))
    if hasattr(arguments, "grid") and not swept and saved is None:
        raise ValueError("grid is empty; give what to sweep: --grid NAME=NUMBER,NUMBER,…")
    _check_seed(arguments.seed)
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
    if arguments.resume is None:
        result = run_to_folder(plan, arguments.out, console)
    else:
        result = resume_in_folder(arguments.resume, plan, console)
    for line in summary(plan, result, console.encoding).splitlines():
        print_line(console, line)
    return 0 if result.signal is None else 128 + result.signal


def _run_eval(arguments: Eval, console: Console) -> int:
    if arguments.episodes < 1:
        raise ValueError(f"episodes is {arguments.episodes}; at least 1 is needed.")
    _check_seed(arguments.seed)
    description = read_config(arguments.run)
    plan = Plan.from_json(description)
    policies = load_policies(arguments.run, best=arguments.best)
    env = make(plan.task)
    length = description["environment"]["episode_length"]

    @jax.jit
    def evaluate(policies: Policy, key: Array) -> Array:
        def returns(policy: Policy) -> Array:
            return evaluate_policy(
                env,
                policy,
                key,
                arguments.episodes,
                length,
                stochastic=arguments.stochastic,
                limit=plan.config.observation_limit,
            ).returns

        return jax.vmap(returns)(policies)

    returns = jax.device_get(evaluate(policies, jax.random.key(arguments.seed)))
    means = returns.mean(1).reshape(-1, plan.num_seeds)
    spreads = returns.std(1).reshape(-1, plan.num_seeds)
    what = {"best policies": arguments.best, "sampled actions": arguments.stochastic}
    how = "".join(f", {text}" for text, chosen in what.items() if chosen)
    for setting, label in enumerate(plan.labels):
        name = f"{label_text(label)}, " if label else ""
        for seed in range(plan.num_seeds):
            print_line(
                console,
                f"{name}seed {seed}: return {means[setting, seed]:.1f} ± {spreads[setting, seed]:.1f} "
                f"over {arguments.episodes} episodes{how}",
            )
        print_line(
            console,
            f"{plan.task}: {name}return {means[setting].mean():.1f} ± {means[setting].std():.1f} "
            f"over {plan.num_seeds} seeds{how}",
        )
    return 0


def _run_plot(arguments: Plot, console: Console) -> int:
    from .report import notes, write_report

    if not arguments.runs:
        raise ValueError("runs is empty; give at least one folder.")
    summaries = write_report(
        arguments.runs,
        arguments.out,
        arguments.normalizer,
        arguments.threshold,
        arguments.last,
        arguments.floor,
    )
    headings = ["", "IQM", "mean", "P(> first)", f"steps to {arguments.threshold:g}"]
    rows = []
    for label, summary in summaries.items():
        better = summary.improvement.text() if summary.improvement else ""
        steps = count(summary.steps) if math.isfinite(summary.steps) else "never"
        rows.append([label, summary.iqm.text(), summary.mean.text(), better, steps])
    print_table(console, headings, rows)
    for note in notes(summaries):
        print_line(console, note)
    print_line(
        console, f"Pictures and figures are in {shell_word(f'{arguments.out}/', console.encoding)}"
    )
    return 0


def _keep_compilations() -> None:
    """Compile each program once per machine: JAX's persistent cache, unless its own settings say otherwise."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        caches = named if named.is_absolute() else Path.home() / ".cache"
        folder = caches / "reppo_fx" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # the second: there is no home
        warnings.warn(
            f"compiled programs are not kept for the next run: {_first_line(error)}. "
            "JAX_COMPILATION_CACHE_DIR may name a folder for them.",
            ReppoWarning,
            stacklevel=2,
        )
        return
    update: Callable[[str, str], None] = jax.config.update
    update("jax_compilation_cache_dir", str(folder))


def _saved_plan(arguments: list[str]) -> tuple[Plan | None, str]:
    """The plan of the run to resume, if any, and the preset whose values are the defaults otherwise."""
    ahead = _look_ahead(arguments)
    if ahead.resume is None:
        return None, ahead.preset or DEFAULT_PRESET
    saved = Plan.from_json(read_config(Path(ahead.resume)))
    if ahead.preset not in (None, saved.preset):
        raise ValueError(
            f"preset is {ahead.preset!r}, but the run in {ahead.resume} was made with {saved.preset!r}; "
            "a resumed run keeps its settings, so leave --preset out."
        )
    return saved, saved.preset


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Our own warnings are shown once each, on standard error, which a live display puts above itself."""
    shown: set[str] = set()
    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, ReppoWarning):
            others(message, category, filename, lineno, file, line)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"reppo-fx: {message}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", ReppoWarning)
        warnings.showwarning = show
        yield


def _run(arguments: list[str], console: Console) -> int:
    saved, chosen = _saved_plan(arguments)
    settings = preset(chosen) if saved is None else (saved.config, saved.hyperparameters)
    parsed: Any = tyro.cli(
        _commands(*settings, chosen, saved),
        args=arguments,
        prog="reppo-fx",
        description="REPPO in JAX: train on robot tasks, many seeds in one program.",
    )
    if isinstance(parsed, Plot):
        return _run_plot(parsed, console)
    _keep_compilations()
    if isinstance(parsed, Eval):
        return _run_eval(parsed, console)
    return _run_train(parsed, saved, console)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `reppo-fx`; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with plain_streams(), _warnings_as_sentences():
        try:
            return _run(arguments, make_console())
        except ModuleNotFoundError:
            raise  # see __main__
        except (ValueError, ImportError) as error:
            return _fail(str(error), 2)
        except OSError as error:
            return _fail(_first_line(error), 2)
        except KeyboardInterrupt as error:
            otherwise = "interrupted"
            if arguments[:1] and arguments[0] in TRAINING:
                otherwise += " at once; metrics.csv and the checkpoints have what was done"
            return _fail(f"{str(error) or otherwise}.", INTERRUPTED)


def _fail(sentence: str, code: int) -> int:
    print_line(make_console(stderr=True), f"reppo-fx: {sentence}", style="red")
    return code


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
