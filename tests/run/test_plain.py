"""Text for any stream, and names for any shell."""

import codecs
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import reppo_fx as rx
from reppo_fx.run.plain import is_unicode, plain, plain_streams, shell_word

SOURCES = sorted(Path(rx.__file__).parent.rglob("*.py"))
NAMES = [
    "runs/lr=3",
    "my runs",
    "$HOME `id` \"x\" 'y' \\ ! * ?",
    "[bold]x[/]",
    "-x",
    "~",
    "ünï±名",
    "a\nb\tc",
    "'\x1b[31m",
    os.fsdecode(b"\xff not text \xfe"),
]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_character_of_ours_has_a_plain_form(encoding):
    characters = {c for path in SOURCES for c in path.read_text("utf-8") if not c.isascii()}
    assert "±" in characters
    for character in characters:
        text = plain(character, encoding)
        text.encode(encoding)
        assert text != "?", character


def test_what_has_no_plain_form_is_a_question_mark():
    assert plain("é名 ½", "ascii") == "e? 1"
    assert plain("é名", "latin-1") == "é?"
    assert plain(NAMES[-1], "ascii") == NAMES[-1]  # bytes stay the bytes that they are


def test_which_encodings_have_every_character():
    assert is_unicode("utf-8")
    assert is_unicode("UTF8")
    assert is_unicode("utf-16-le")
    assert not any(is_unicode(name) for name in ("ascii", "latin-1", "ANSI_X3.4-1968", "cp437"))


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", "+- ... ?"), ("latin-1", "± ... ?"), ("utf-8", "± … 名")]
)
def test_streams_take_any_text_and_are_left_as_they_were(monkeypatch, encoding, expected):
    out, err = stream(encoding), stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    @plain_streams()
    def fail():
        print("± … 名", file=out)
        print(os.fsdecode(b"\xff"), file=err)
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    out.flush()
    err.flush()
    assert out.buffer.getvalue() == f"{expected}\n".encode(encoding)
    if encoding != "latin-1":
        assert err.buffer.getvalue() == b"\xff\n"
    assert (out.errors, err.errors) == ("strict", "strict")


def test_other_streams_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    with plain_streams():
        print("±")
        assert sys.stdout.getvalue() == "±\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_pasted_word_is_the_name(name, encoding):
    word = shell_word(name, encoding)
    shown = plain(word, encoding)  # as it reaches the screen
    assert shown == word
    assert "\n" not in word
    shell = subprocess.run(
        ["bash", "-c", f"printf %s {word}"], capture_output=True, check=True, cwd="/"
    )
    assert os.path.normpath(shell.stdout) == os.path.normpath(os.fsencode(name))


def test_the_replacement_is_for_writing_only():
    with pytest.raises(UnicodeDecodeError):
        codecs.decode(b"\xff", "ascii", "reppo_fx.plain")
