"""The command line: what each command of `reppo-fx` does, and how they end."""

import dataclasses
import math
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jaxtyping import Array
from numpy.typing import NDArray
from rich.console import Console

from .._errors import ReppoWarning, unknown_name
from ..envs import Environment
from ..hosts import SimulatorError
from ..hosts.evaluate import LARGEST_SEED as LARGEST_HOST_SEED
from ..hosts.evaluate import evaluate_policy as evaluate_in_simulator
from ..settings import Config, Hyperparameters
from ..training.evaluate import evaluate_policy
from ..training.policy import Policy
from ..training.presets import preset, settings_to_fit
from . import worlds
from .display import count, make_console, print_line, print_table
from .export.verb import Export, run_export
from .flags import (
    DEFAULT_PRESET,
    TRAINING,
    Eval,
    Plot,
    Settings,
    Tasks,
    command_names,
    commands,
    look_ahead,
    parse_grid,
)
from .listing import List, run_list
from .plain import plain_streams, shell_word
from .plan import LARGEST_SEED, Plan, label_text
from .policies import load_policies
from .records import is_run, read_config
from .render_verb import Render, check_video, leave_video, run_render
from .show import Show, run_show
from .stopping import no_interrupt_lost
from .tasks import tasks_by_family
from .warned import our_warnings

INTERRUPTED = 130


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed is {seed}; it must be from 0 to {LARGEST_SEED}.")


def _run_train(
    arguments: Settings, saved: Plan | None, console: Console, to_fit: Collection[str]
) -> int:
    from .session import resume_in_folder, run_to_folder, summary

    swept = parse_grid(getattr(arguments, "grid", ()))
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
    if arguments.video:
        check_video()
    if arguments.resume is None:
        result = run_to_folder(plan, arguments.out, console, arguments.log, to_fit=to_fit)
    else:
        result = resume_in_folder(arguments.resume, plan, console, arguments.log)
    for line in summary(plan, result, console.encoding).splitlines():
        print_line(console, line)
    if arguments.video and len(result.env_steps):
        leave_video(plan, result.folder, result.returns[-1], console)
    if result.failure is not None:
        raise result.failure
    return 0 if result.signal is None else 128 + result.signal


def _returns(arguments: Eval, plan: Plan, policies: Policy, length: int) -> NDArray[Any]:
    """Of every member and episode."""
    limit, key = plan.config.observation_limit, jax.random.key(arguments.seed)
    world = worlds.make_world(plan.task, dataclasses.replace(plan.config, episode_length=length))
    if not isinstance(world, Environment):
        members = len(plan.labels) * plan.num_seeds
        with world.sized(members * arguments.episodes) as simulator:
            episodes = evaluate_in_simulator(
                simulator,
                policies,
                length,
                seed=arguments.seed & LARGEST_HOST_SEED,
                key=key if arguments.stochastic else None,
                limit=limit,
            )
        return np.asarray(episodes.returns)

    @jax.jit
    def evaluate(policies: Policy, key: Array) -> Array:
        def returns(policy: Policy) -> Array:
            return evaluate_policy(
                world,
                policy,
                key,
                arguments.episodes,
                length,
                stochastic=arguments.stochastic,
                limit=limit,
            ).returns

        return jax.vmap(returns)(policies)

    return np.asarray(evaluate(policies, key))


def _run_eval(arguments: Eval, console: Console) -> int:
    if arguments.episodes < 1:
        raise ValueError(f"episodes is {arguments.episodes}; at least 1 is needed.")
    _check_seed(arguments.seed)
    description = read_config(arguments.run)
    plan = Plan.from_json(description)
    policies = load_policies(arguments.run, best=arguments.best)
    length = description["environment"]["episode_length"]
    returns = _returns(arguments, plan, policies, length)
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


def _run_tasks(arguments: Tasks, console: Console) -> int:
    found = 0
    for family in tasks_by_family(arguments.pattern):
        found += len(family.tasks)
        print_line(console, f"{family.title}: {family.missing or len(family.tasks)}")
        for task in family.tasks:
            print_line(console, f"  {task}")
    if not found:
        raise ValueError(f"pattern is {arguments.pattern!r}, which no task has in its name.")
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


def _check_device() -> None:
    """Whether jax can compute at all: its own faults are not always sentences."""
    try:
        jax.devices()
    except Exception as error:  # an assertion, where a driver is missing
        asked = os.environ.get("JAX_PLATFORMS", "")
        why = "" if isinstance(error, AssertionError) else f" ({_first_line(error)})"
        raise ValueError(
            f"jax finds no device: JAX_PLATFORMS is {asked!r}, and that is not here, or has no driver{why}. "
            "JAX_PLATFORMS=cpu computes on the processor; without it jax takes what there is."
        ) from error


def _saved_plan(arguments: list[str]) -> tuple[Plan | None, str]:
    """The plan of the run to resume, if any, and the preset whose values are the defaults otherwise."""
    ahead = look_ahead(arguments)
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

    def take(sentence: str, _: Callable[[], None]) -> None:
        if sentence not in shown:
            shown.add(sentence)
            print(f"reppo-fx: {sentence}", file=sys.stderr, flush=True)

    with our_warnings(take):
        warnings.simplefilter("always", ReppoWarning)
        yield


def _run(arguments: list[str], console: Console) -> int:
    if not {"-h", "--help"} & {*arguments}:
        _check_device()
    saved, chosen = _saved_plan(arguments)
    settings = preset(chosen) if saved is None else (saved.config, saved.hyperparameters)
    kinds = commands(*settings, chosen, saved)
    if arguments and not arguments[0].startswith("-"):
        known = command_names(kinds)
        if arguments[0] not in known:
            raise ValueError(f"{unknown_name('command', arguments[0], known)} See reppo-fx --help.")
    parsed: Any = tyro.cli(
        kinds,
        args=arguments,
        prog="reppo-fx",
        description="REPPO in JAX: train on robot tasks, many seeds in one program.",
    )
    if isinstance(parsed, Plot):
        return _run_plot(parsed, console)
    if isinstance(parsed, Tasks):
        return _run_tasks(parsed, console)
    if isinstance(parsed, Show):
        return run_show(parsed, console, command_names(kinds))
    if isinstance(parsed, List):
        return run_list(parsed, console)
    if isinstance(parsed, Export):
        return run_export(parsed, console)
    _keep_compilations()
    if isinstance(parsed, Render):
        return run_render(parsed, console)
    if isinstance(parsed, Eval):
        return _run_eval(parsed, console)
    to_fit = settings_to_fit(parsed.preset, look_ahead(arguments).given)
    return _run_train(parsed, saved, console, to_fit)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `reppo-fx`; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with plain_streams(), _warnings_as_sentences(), no_interrupt_lost():
        try:
            code = _run(arguments, make_console())
            sys.stdout.flush()
            return code
        except SimulatorError as error:
            return _fail_in_simulator(error)
        except ModuleNotFoundError:
            raise  # see __main__
        except (ValueError, ImportError) as error:
            return _fail(str(error), 2)
        except OSError as error:
            in_a_run = error.filename is not None and is_run(Path(error.filename).parent)
            training = in_a_run and arguments[0] in TRAINING
            kept = "; what was done before is kept, and goes on with --resume" if training else ""
            return _fail(f"{_first_line(error)}{kept}.", 2)
        except KeyboardInterrupt as error:
            otherwise = "interrupted"
            if arguments[:1] and arguments[0] in TRAINING:
                otherwise += " at once; metrics.csv and the checkpoints have what was done"
            return _fail(f"{str(error) or otherwise}.", INTERRUPTED)


def _fail_in_simulator(error: SimulatorError) -> int:
    """What the simulator itself said."""
    if error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    return _fail(str(error), 1)


def _fail(sentence: str, code: int) -> int:
    print_line(make_console(stderr=True), f"reppo-fx: {sentence}", style="red")
    return code


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
