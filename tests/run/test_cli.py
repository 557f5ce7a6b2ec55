"""The command line: any name, any stream, interrupts, warnings; eval and resume with their flags."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from reppo_fx import __main__ as entry
from reppo_fx._errors import ReppoWarning
from reppo_fx.envs import probes
from reppo_fx.run import cli, load_policy, session, worlds
from reppo_fx.run.stopping import no_interrupt_lost
from reppo_fx.training.evaluate import evaluate_policy

from ..sizes import first_quick
from .test_run import TINY, rows

ROOT = Path(__file__).parents[2]
ODD = "lr=3 [bold]$x_'[/] ±"
"""A folder that is an assignment, markup, a variable, a formula, a quote, and not ASCII."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the probe in an odd folder."""
    out = tmp_path_factory.mktemp("runs") / ODD
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "make_world", probe)
        assert cli.main(["train", "probe", *TINY, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """One of another seed."""
    out = tmp_path_factory.mktemp("runs") / "another"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "make_world", probe)
        assert cli.main(["train", "probe", *TINY, "--seed", "7", "--out", str(out)]) == 0
    return out


def probe(name, config=None):
    from reppo_fx.envs import probes

    return probes.match_observation()._replace(episode_length=6)


def copy_of(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / ODD))


# Names.


def test_an_odd_folder_works_in_every_command(probe_task, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    assert cli.main(["train", "--resume", ODD]) == 0
    assert f"see {ODD}/" in capsys.readouterr().out
    assert cli.main(["eval", ODD, "--episodes", "2"]) == 0
    out = tmp_path / ODD
    assert cli.main(["plot", ODD, f"{ODD}={ODD}", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"\n {ODD} " in printed
    assert {path.name for path in out.iterdir()} == {"curves.png", "summary.png", "summary.json"}
    pasted = subprocess.run(
        ["bash", "-c", f"printf %s {printed.rpartition(' are in ')[2]}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert pasted.stdout == f"{out}/"


@pytest.mark.parametrize("encoding", first_quick(["ascii", "utf-8"]))
def test_the_printed_command_goes_on_when_it_is_pasted(
    probe_task, tmp_path, capfdbinary, monkeypatch, encoding
):
    update = session.Display.update

    def interrupt(self, env_steps, seconds):
        update(self, env_steps, seconds)
        if env_steps == 32:
            session.Display.update = update  # once
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(session.Display, "update", interrupt)
        stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
        patch.setattr(sys, "stdout", stdout)
        out = tmp_path / ODD
        assert cli.main(["train", "probe", *TINY, "--out", str(out)]) == 130
        stdout.close()
    printed = capfdbinary.readouterr().out.decode(encoding)
    command = re.search(r"^Go on with: (reppo-fx .*)$", printed, re.MULTILINE).group(1)
    shell = f'reppo-fx() {{ printf "%s\\0" "$@"; }}\n{command}'.encode(encoding)
    pasted = subprocess.run(["bash", "-c", shell], capture_output=True, check=True).stdout
    arguments = pasted.decode().split("\0")[:-1]
    assert arguments == ["train", "--resume", str(out)]
    assert cli.main(arguments) == 0
    assert rows(out)[-1]["env_steps"] == "256"


@pytest.mark.parametrize("name", ["[/]", "[bold]x", ":smile:", "no ±", "a\nb"])
def test_an_odd_name_is_named_as_it_is(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["eval", name]) == 2
    assert f"reppo-fx: {name} is not a run" in capsys.readouterr().err


# Streams. One process for each, as starting one takes longer than what it does.

SCRIPT = """
import json, sys
from reppo_fx.envs import probes
from reppo_fx.run import cli, worlds
worlds.make_world = lambda name, config: probes.match_observation()._replace(episode_length=6)
codes = []
for arguments in json.loads(sys.argv[2]):
    try:
        codes.append(cli.main(arguments))
    except SystemExit as error:
        codes.append(error.code)
    print("=next=")
    print("=next=", file=sys.stderr)
open(sys.argv[1], "w").write(json.dumps(codes))
"""
STREAMS = {
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "ascii", "+-", "..."),
    "latin-1": ({"PYTHONIOENCODING": "latin-1"}, "latin-1", "\xb1", "..."),
    "C": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii", "+-", "..."),
}


@pytest.mark.parametrize("name", first_quick(STREAMS))
def test_output_is_written_in_the_characters_that_a_stream_has(tmp_path, name):
    changes, encoding, plus_minus, dots = STREAMS[name]
    grid = ["--grid", "learning_rate=1e-3,1e-2"]
    commands = {
        "train": ["train", "probe", *TINY, "--out", "r"],
        "sweep": ["sweep", "probe", *TINY, *grid, "--out", "s"],
        "eval": ["eval", "r", "--episodes", "2"],
        "plot": ["plot", "r", "±=s"],
        "help": ["train", "--help"],
        "overview": ["--help"],
        "error": ["train", "probe", "--discount", "±"],
        "sentence": ["sweep", "probe", "--grid", "±=x"],
        "warning": ["train", "probe", *TINY, "--total-steps", "8", "--out", "w"],
    }
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "codes.json", json.dumps([*commands.values()])],
        capture_output=True,
        env={**environment, "PYTHONPATH": str(ROOT), **changes},
        cwd=tmp_path,
        check=False,
    )
    error = done.stderr.decode(encoding)
    assert done.returncode == 0, error
    assert json.loads((tmp_path / "codes.json").read_text()) == [0, 0, 0, 0, 0, 0, 2, 2, 0]
    assert "Traceback" not in error
    out = dict(zip(commands, done.stdout.decode(encoding).split("=next=\n"), strict=False))
    err = dict(zip(commands, error.split("=next=\n"), strict=False))
    assert f"Compiling probe for 2 members {dots}" in out["train"]
    assert f"({plus_minus} " in out["train"]
    assert "best of 2 settings" in out["sweep"]
    assert f" {plus_minus} " in out["eval"]
    assert f"{plus_minus}: learning_rate 0.001" in out["plot"]
    assert "--learning-rate FLOAT" in out["help"]
    assert "plot" in out["overview"]
    assert plus_minus in err["error"]
    assert f"grid is '{plus_minus}=x'; it must be NAME=NUMBER,NUMBER,{dots}" in err["sentence"]
    assert err["warning"].count("total_steps is 8") == 1


# What a machine may lack.


@pytest.fixture
def no_cache_named(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir
    yield before
    jax.config.update("jax_compilation_cache_dir", before)


def test_without_a_home_nothing_is_kept_and_that_is_said(no_cache_named, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.warns(ReppoWarning, match="not kept for the next run: Could not determine home"):
        cli._keep_compilations()
    assert jax.config.jax_compilation_cache_dir == no_cache_named


@pytest.mark.parametrize("kind", ["file", "proc"])
def test_a_cache_that_cannot_be_written_is_named(no_cache_named, tmp_path, monkeypatch, kind):
    (tmp_path / "file").write_text("")
    caches = tmp_path / "file" if kind == "file" else Path("/proc/self")
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    with pytest.warns(ReppoWarning, match=f"not kept for the next run: {caches}/reppo_fx"):
        cli._keep_compilations()
    assert jax.config.jax_compilation_cache_dir == no_cache_named


def test_compilations_are_kept_where_caches_are(no_cache_named, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli._keep_compilations()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "reppo_fx" / "jax")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be ignored, says the XDG standard
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cli._keep_compilations()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "home/.cache/reppo_fx/jax")


@pytest.mark.parametrize("package", ["tyro", "matplotlib"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path):
    script = f"import sys; sys.modules['{package}'] = None; sys.argv[1:] = ['train', 'probe']\n"
    script += "from reppo_fx.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert package in done.stderr
    assert "install it with: pip install 'reppo_fx[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


# Interrupts.


def interrupted(*arguments, **named):
    raise KeyboardInterrupt


def test_an_interrupt_while_compiling_is_a_sentence(probe_task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(session, "compile_programs", interrupted)
    assert cli.main(["train", "probe", *TINY, "--out", str(tmp_path / "run")]) == 130
    expected = "reppo-fx: interrupted while compiling, before any training.\n"
    assert capsys.readouterr().err == expected


def test_a_second_interrupt_says_what_is_left(probe_task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(session.Display, "update", interrupted)
    assert cli.main(["train", "probe", *TINY, "--out", str(tmp_path / "run")]) == 130
    expected = (
        "reppo-fx: interrupted at once; metrics.csv and the checkpoints have what was done.\n"
    )
    assert capsys.readouterr().err == expected


def test_an_interrupt_elsewhere_is_a_word(capsys, monkeypatch):
    monkeypatch.setattr(cli, "read_config", interrupted)
    assert cli.main(["eval", "run"]) == 130
    assert capsys.readouterr().err == "reppo-fx: interrupted.\n"
    monkeypatch.setattr(cli, "main", interrupted)  # before the command line was there
    assert entry.main() == 130
    assert capsys.readouterr().err == "reppo-fx: interrupted.\n"


COMPILING = """
import signal, sys, threading, time
from reppo_fx.envs import probes
from reppo_fx.run import loop, session, worlds
from reppo_fx.__main__ import main
worlds.make_world = lambda name, config: probes.match_observation()._replace(episode_length=6)
session.compile_programs = lambda *_: loop._in_threads([lambda: time.sleep(60)])
def press():
    time.sleep(1.0)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
wait = session.Display.compiling
def compiling(self):
    threading.Thread(target=press, daemon=True).start()
    return wait(self)
session.Display.compiling = compiling
sys.exit(main())
"""


def test_a_process_that_compiles_ends_at_once(tmp_path):
    """An interpreter that ends while XLA's thread is at work aborts, or waits for it."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILING, "train", "probe", *TINY, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        130,
        "reppo-fx: interrupted while compiling, before any training.\n",
    )


class Dropping:
    """Interrupted where Python drops what is raised, as in jax's callback of the collector."""

    def __del__(self):
        raise KeyboardInterrupt


def test_an_interrupt_that_python_drops_is_repeated(capsys):
    @no_interrupt_lost()
    def dropped():
        Dropping()
        time.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        dropped()
    assert capsys.readouterr().err == ""


def test_other_things_that_python_drops_are_reported(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: reported.append(dropped.exc_type))
    with no_interrupt_lost():
        patched = sys.unraisablehook
        patched(SimpleNamespace(exc_type=ZeroDivisionError))
    assert reported == [ZeroDivisionError]
    assert sys.unraisablehook is not patched


# Warnings.


def test_our_warnings_are_shown_once_as_sentences(probe_task, tmp_path, capsys):
    arguments = [*TINY, "--total-steps", "8", "--out", str(tmp_path / "run")]
    assert cli.main(["train", "probe", *arguments]) == 0
    expected = (
        "reppo-fx: total_steps is 8, but one iteration is num_envs * num_steps = 32 steps, and"
    )
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "total_steps" in line] == [
        f"{expected} that many are trained."
    ]


def test_others_warnings_go_their_own_way(capsys):
    @cli._warnings_as_sentences()
    def warn():
        for _ in range(2):
            warnings.warn("ours", ReppoWarning, stacklevel=1)
            warnings.warn("theirs", FutureWarning, stacklevel=1)

    with pytest.warns(FutureWarning, match="theirs") as theirs:
        warn()
    assert capsys.readouterr().err == "reppo-fx: ours\n"
    assert len(theirs) == 2


# Evaluating again, going on.


def printed_returns(capsys):
    return re.findall(r"seed \d: return ([\d.-]+) ", capsys.readouterr().out)


def expected_returns(run, best=False, stochastic=False):
    key = jax.random.key(5)
    policies = [load_policy(run, seed=seed, best=best) for seed in (0, 1)]
    episodes = [
        evaluate_policy(probe("probe"), policy, key, 3, 6, stochastic=stochastic)
        for policy in policies
    ]
    return [f"{one.returns.mean():.1f}" for one in episodes]


@pytest.mark.parametrize(
    "chosen", first_quick([(True, True), (False, False), (True, False), (False, True)]), ids=str
)
def test_eval_takes_the_policies_and_the_actions_asked_for(
    probe_task, tmp_path, run, another, capsys, chosen
):
    best, stochastic = chosen
    out = copy_of(run, tmp_path)
    # Another policy than the last one, whatever the training did.
    shutil.copy(another / "policy-best.eqx", out / "policy-best.eqx")
    flags = [*(["--best"] if best else []), *(["--stochastic"] if stochastic else [])]
    assert cli.main(["eval", str(out), "--episodes", "3", "--seed", "5", *flags]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"seed \d: return ([\d.-]+) ", text) == expected_returns(
        out, best, stochastic
    )
    assert ("best policies" in text, "sampled actions" in text) == (best, stochastic)
    other_way = expected_returns(out, best, not stochastic)
    assert expected_returns(out, best, stochastic) != other_way
    assert expected_returns(out, best, stochastic) != expected_returns(out, not best, stochastic)


def test_eval_contains_what_training_contains(run, tmp_path, capsys, monkeypatch):
    """An observation beyond the limit of the run's config ends the episode, as in its own evaluations."""
    env = probe("probe")

    def step(state, action):
        state, timestep = env.step(state, action)
        seen = timestep.next_observation * 1e4
        return state, timestep._replace(observation=seen, next_observation=seen)

    monkeypatch.setattr(worlds, "make_world", lambda name, config: env._replace(step=step))
    out = copy_of(run, tmp_path)
    limits = []
    for limit in (1e3, 1e6):
        config = json.loads((out / "config.json").read_text())
        config["config"]["observation_limit"] = limit
        (out / "config.json").write_text(json.dumps(config))
        assert cli.main(["eval", str(out), "--episodes", "3"]) == 0
        limits.append(printed_returns(capsys))
    assert limits[0] != limits[1]


def test_eval_without_a_best_policy_says_so(run, tmp_path, capsys):
    out = copy_of(run, tmp_path)
    (out / "policy-best.eqx").unlink()
    assert cli.main(["eval", str(out), "--best"]) == 2
    assert "has no policy-best.eqx" in capsys.readouterr().err


def test_a_preset_beside_resume_must_be_its_own(probe_task, run, tmp_path, capsys):
    out = copy_of(run, tmp_path)
    for arguments in (
        ["--preset", "dmc", "--resume", str(out)],
        [f"--resume={out}", "--preset=dmc"],
    ):
        assert cli.main(["train", *arguments]) == 2
        error = capsys.readouterr().err
        assert f"preset is 'dmc', but the run in {out} was made with 'any'" in error
    assert cli.main(["train", "--preset", "any", "--resume", str(out)]) == 0


def test_a_finished_run_goes_on(probe_task, run, tmp_path, capsys):
    out = copy_of(run, tmp_path)
    assert cli.main(["train", "--resume", str(out), "--total-steps", "384"]) == 0
    assert "goes on to 384 steps instead of 256" in capsys.readouterr().out
    steps = [int(row["env_steps"]) for row in rows(out)]
    assert steps == [64, 64, 128, 128, 192, 192, 256, 256, 320, 320, 384, 384]
    assert rows(out)[:8] == rows(run)
    assert cli.main(["train", "--resume", str(out)]) == 0  # its length is its own now
    assert cli.main(["train", "--resume", str(out), "--total-steps", "320"]) == 2
    assert "has already done 384 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--seed", "-1"], "seed is -1; it must be from 0 to 4294967295."),
        (["train", "--seed", "4294967296"], "seed is 4294967296; it must be from 0 to 4294967295."),
        (
            ["sweep", "--grid", "kl_target=0.1", "kl-target=0.2"],
            "grid names kl_target twice; give all its values together",
        ),
        (["train", "--preset", "±"], "unknown preset '±'"),
        (["plot", "no=where"], "runs has 'no=where'; neither that nor what follows"),
        (["train", "--resume"], None),
    ],
)
def test_what_cannot_be_is_a_sentence(
    probe_task, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    if message is None:
        with pytest.raises(SystemExit) as error:
            cli.main(arguments)
        assert error.value.code == 2
        message = "--resume"
    else:
        assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_episodes_and_seeds_of_eval_are_checked(run, capsys):
    assert cli.main(["eval", str(run), "--episodes", "0"]) == 2
    assert "episodes is 0; at least 1 is needed" in capsys.readouterr().err
    assert cli.main(["eval", str(run), "--seed", "-3"]) == 2
    assert "seed is -3; it must be from 0" in capsys.readouterr().err


def test_a_run_of_the_largest_seed(probe_task, run, capsys):
    assert cli.main(["eval", str(run), "--episodes", "2", "--seed", str(2**32 - 1)]) == 0
    assert np.all([float(value) <= 6.0 for value in printed_returns(capsys)])


@pytest.fixture
def planned(monkeypatch):
    """What is to be trained in a world with these flags, as it is where the run would begin."""

    def plan_for(world, *flags, command="train"):
        made = []

        def note(train, plan, *rest):
            made.append((train, plan))
            raise ValueError("seen")

        monkeypatch.setattr(worlds, "make_world", lambda name, config: world)
        monkeypatch.setattr(session, "new_run", note)
        assert cli.main([command, "probe", *flags]) != 0
        return made[0]

    return plan_for


@pytest.mark.parametrize(
    ("flags", "discount", "limit"),
    [
        ([], 0.95, 6),
        (["--preset", "any"], 0.95, 6),  # a probe's episodes are of 6 steps
        (["--preset", "any", "--episode-length", "400"], 0.975, 200),
        (["--preset=any", "--discount=0.9"], 0.9, 6),
        (["--preset=any", "--training-time-limit=5"], 0.95, 5),
        (["--preset=any", "--training_time_limit=5"], 0.95, 5),
        (["--preset=any", "--training-time-limit", "5", "--discount", "0.9"], 0.9, 5),
        (["--preset", "cpu"], 0.98, None),
    ],
)
def test_the_preset_for_unknown_tasks_is_fitted_to_their_episodes(planned, flags, discount, limit):
    train, plan = planned(probes.match_observation()._replace(episode_length=6), *flags)
    assert plan.hyperparameters.discount == discount
    assert plan.config.training_time_limit == train.config.training_time_limit == limit


@pytest.mark.parametrize(
    ("flags", "lowest"),
    [([], 0.02), (["--min-temperature", "0.05"], 0.05), (["--preset", "cpu"], 0)],
)
def test_the_bound_under_the_temperature_is_fitted_to_the_size_of_actions(planned, flags, lowest):
    wide = probes.match_observation()._replace(action_size=5, episode_length=6)
    assert planned(wide, *flags)[1].hyperparameters.min_temperature == lowest


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (0.8, 1.0, 0.99)),
        (["--temperature-rate", "0.5"], (0.8, 0.5, 0.99)),
        (["--discount", "0.9"], (0.8, 1.0, 0.9)),
        (["--preset", "cpu"], (0.8, 1.0, 0.98)),
        (["--preset", "dmc"], (0.01, 1.0, 0.99)),
    ],
)
def test_the_preset_for_unknown_tasks_is_fitted_to_discrete_actions(planned, flags, expected):
    _, plan = planned(probes.bandit()._replace(episode_length=6), *flags)
    found = plan.hyperparameters
    assert (found.initial_temperature, found.temperature_rate, found.discount) == expected


def test_what_is_given_and_does_not_go_with_what_is_fitted_is_refused_before_anything_is_written(
    monkeypatch, tmp_path, capsys
):
    discrete = probes.bandit()._replace(episode_length=6)
    monkeypatch.setattr(worlds, "make_world", lambda name, config: discrete)
    out = tmp_path / "run"
    given = ["train", "probe", "--initial-temperature", "0.15", "--out", str(out)]
    assert cli.main(given) == 2
    assert "min_temperature is 0.2 and initial_temperature is 0.15;" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("world", "command", "flags", "found"),
    [
        # The preset's own first temperature is 0.1, its own bound 0.1.
        (probes.bandit(), "train", ["--min-temperature", "0.4"], ([0.4], [0.8])),
        (probes.bandit(), "sweep", ["--grid", "min_temperature=0.2,0.4"], ([0.2, 0.4], [0.8, 0.8])),
        (
            probes.match_observation()._replace(action_size=5),
            "train",
            ["--initial-temperature", "0.05"],
            ([0.02], [0.05]),
        ),
        (
            probes.bandit(),
            "sweep",
            ["--min-temperature", "0.9", "--grid", "initial_temperature=1,2"],
            ([0.9, 0.9], [1.0, 2.0]),
        ),
    ],
)
def test_what_is_given_is_held_against_what_fits_the_task_and_not_against_the_preset(
    planned, world, command, flags, found
):
    _, plan = planned(world._replace(episode_length=6), *flags, command=command)
    settings = plan.settings()
    lowest, first = settings.min_temperature, settings.initial_temperature
    np.testing.assert_allclose((lowest, first), found, rtol=1e-6)
