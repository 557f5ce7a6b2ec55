"""What a run says while it compiles, and that a second one of the same shapes takes its programs from the cache."""

import jax
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.run.display import Display, loading
from reppo_fx.run.loop import Built, compile_programs
from reppo_fx.run.plan import Plan
from reppo_fx.run.worlds import init_shapes
from reppo_fx.training.train import Train

from ..sizes import HP, tiny
from .test_display import screen, shown

STAGES = [
    *[("tracing", name) for name in ("start", "training", "evaluation")],
    ("compiling", None),
    *[("compiled", number) for number in (1, 2, 3)],
]


@pytest.fixture(scope="module")
def built():
    """What two runs of the same shapes told, one after the other, and how often the first state was traced."""
    config = tiny(num_envs=6)  # of no other test, so that nothing has compiled it before
    members = Plan("probe", "cpu", config, HP).members()
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    told, traced = [], []
    init = Train.init
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Train, "init", lambda *args: traced.append(1) or init(*args))
        for _ in range(2):
            train = rx.make_train(probes.match_observation()._replace(episode_length=6), config)
            told.append([])
            compile_programs(train, *members, told[-1].append)
            init_shapes(train, *members)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    return told, len(traced)


def test_it_is_told_what_is_traced_and_compiled(built):
    for told in built[0]:
        found = [(b.stage, b.number if b.stage == "compiled" else b.name) for b in told]
        assert found == STAGES
        assert {b.name for b in told[4:]} == {"start", "training", "evaluation"}
        assert told[3].seconds >= told[2].seconds > 0.0  # of tracing
        assert {b.total for b in told} == {3}


def test_a_second_run_of_the_same_shapes_is_from_the_cache(built):
    first, second = ([b.cached for b in told[4:]] for told in built[0])
    assert first == [False] * 3
    assert second == [True] * 3


def test_the_first_state_is_traced_once_for_all_who_need_its_shapes(built):
    assert built[1] == 2  # of two runs


def show(console):
    display = Display(console, "probe", 10, [{}], num_seeds=2)
    with display.compiling() as tell:
        tell(Built("tracing", "start", 1, 2, 0.0))
        tell(Built("compiling", None, 0, 2, 1.25))
        tell(Built("compiled", "start", 1, 2, 0.5, True))
        tell(Built("compiled", "training", 2, 2, 61.04))
    return shown(console)


def test_a_pipe_gets_a_line_for_what_is_done():
    assert show(screen(terminal=False)).splitlines() == [
        "Compiling probe for 2 members …",
        "  traced in 1.2 s, compiling 2 programs …",
        "  1 of 2 ready (start, from the cache) after 0.5 s",
        "  2 of 2 ready (training, compiled) after 61.0 s",
    ]


def test_a_terminal_keeps_one_line_in_the_end():
    text = show(screen())
    assert "Compiling probe for 2 members … " in text
    last = text.rstrip().splitlines()[-1]
    assert last.endswith("Traced in 1.2 s, compiled in 61.0 s, 1 of 2 programs from the cache")


def test_a_terminal_says_what_is_going_on():
    console = screen()
    display = Display(console, "probe", 10, [{}], num_seeds=2)
    told = []
    for built in (None, Built("tracing", "training", 2, 3, 0.0), Built("compiled", "x", 1, 3, 2.0)):
        told += [] if built is None else [built]
        with display._spinning("Compiling probe", told) as live:
            live.refresh()
    text = shown(console)
    assert "Compiling probe … 0 s" in text
    assert "Compiling probe … tracing 2 of 3 (training)  0 s" in text
    assert "Compiling probe … 1 of 3 ready (x, compiled)  0 s" in text


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_a_terminal_says_that_a_simulator_is_loaded(terminal):
    console = screen(terminal=terminal)
    with loading(console, "[bold]probe"):
        pass
    assert ("Loading [bold]probe …" in shown(console)) == terminal
