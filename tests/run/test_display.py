"""What a person sees while a run goes on, in a terminal, in a pipe, and where only some characters exist."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from reppo_fx.run.display import (
    Display,
    best_first,
    count,
    make_console,
    plain_table,
    print_line,
    print_table,
)

LABELS = [{"kl_target": value} for value in (0.1, 0.2, 0.4)]
RETURNS = np.array([[1.0, 3.0], [np.nan, 9.0], [4.0, 6.0]])
NAME = "[bold]$x_[/] :smile: ±名"


def screen(encoding="utf-8", terminal=True, width=100):
    """A console whose stream takes nothing that it cannot encode."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
    return Console(
        file=file,
        force_terminal=terminal,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )


def shown(console):
    text = console.file.buffer.getvalue().decode(console.file.encoding)
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


def show_a_run(console, task="probe", total=1000, steps=500):
    display = Display(console, task, total, LABELS, num_seeds=2)
    with display.compiling():
        pass
    with display.training():
        display.update(steps, 2.0)
        display.evaluated(steps, 2.0, RETURNS)
    return shown(console)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize(
    ("encoding", "plus_minus", "dots"),
    [("ascii", "+-", "..."), ("latin-1", "±", "..."), ("cp1252", "±", "…"), ("utf-8", "±", "…")],
)
def test_it_is_shown_in_the_characters_that_there_are(terminal, encoding, plus_minus, dots):
    text = show_a_run(screen(encoding, terminal))
    assert f"Compiling probe for 6 members {dots}" in text
    assert f"best return 5.0 {plus_minus} 1.0" in text
    assert "500/1k steps" in text
    assert "1.5k steps/s" in text
    assert (f"{plus_minus} over seeds" in text) == terminal


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_a_task_is_neither_markup_nor_emoji(terminal):
    assert NAME in show_a_run(screen(terminal=terminal, width=200), NAME)
    assert "[bold]$x_[/] :smile: +-?" in show_a_run(screen("ascii", terminal, 200), NAME)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_steps_beyond_what_32_bits_hold(terminal):
    text = show_a_run(screen(terminal=terminal), total=6 * 10**9, steps=5 * 10**9)
    assert "5G/6G steps" in text
    assert "15G steps/s" in text


def test_a_resumed_run_is_as_fast_as_it_is():
    console = screen(terminal=False)
    display = Display(console, "probe", 1000, [{}], num_seeds=1)
    with display.training(start=900):
        display.evaluated(1000, 2.0, np.array([[1.0]]))
    assert "1k/1k steps  50 steps/s  2 s  return 1.0 ± 0.0" in shown(console)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1k"),
        (1000, "1k"),
        (-1500, "-1.5k"),
        (2**31 - 1, "2.15G"),
        (2**31, "2.15G"),
        (5_000_000_000, "5G"),
        (2**63, "9.22e+03P"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_counts_of_any_size(number, text):
    assert count(number) == text


def test_settings_are_ordered_with_what_is_not_finite_last():
    assert best_first(RETURNS) == [2, 0, 1]
    assert best_first(np.array([[np.inf], [-5.0]])) == [1, 0]


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_an_interrupt_while_compiling_says_so(terminal):
    display = Display(screen(terminal=terminal), "probe", 10, [{}], num_seeds=1)
    message = "interrupted while compiling, before any training"
    with pytest.raises(KeyboardInterrupt, match=message), display.compiling():
        raise KeyboardInterrupt


def test_a_line_is_as_it_is_and_never_wrapped():
    console = screen(terminal=False, width=20)
    print_line(console, NAME * 5, style="red")
    assert shown(console) == f"{NAME * 5}\n"
    assert make_console(stderr=True).stderr


def test_a_table_is_as_wide_as_its_labels():
    console = screen(terminal=False, width=20)
    rows = [["x" * 100, "1.0"], ["[/]", "2.0"]]
    print_table(console, ["", "IQM"], rows)
    lines = shown(console).splitlines()
    assert [line.split() for line in lines] == [["IQM"], *rows]
    assert (
        len({line.rindex(end) + 3 for line, end in zip(lines, ("IQM", "1.0", "2.0"), strict=True)})
        == 1
    )
    assert plain_table(console, ["a"], []).row_count == 0
