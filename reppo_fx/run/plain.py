"""Text for whatever stream there is: plain characters where a terminal or pipe has no others, commands to paste."""

from __future__ import annotations

import codecs
import os
import shlex
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

ERRORS = "reppo_fx.plain"
"""The name under which `codecs` knows how to replace a character that an encoding does not have."""

PLAIN = {
    "±": "+-",
    "…": "...",
    "×": "x",
    "·": "*",
    "≥": ">=",
    "≤": "<=",
    "−": "-",
    "–": "-",
    "—": "-",
    "→": "->",
    "∞": "inf",
    "²": "^2",
    "‖": "||",
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "λ": "lambda",
    "μ": "mu",
    "π": "pi",
    "ρ": "rho",
    "ξ": "xi",
    "σ": "sigma",
    "Σ": "sum",
    "Φ": "Phi",
    "≈": "~",
    "∝": "~",
    "∘": "o",
    "⌊": "floor(",
    "⌋": ")",
    "\u0302": "",  # a hat and a tilde over the letter before
    "\u0303": "",
    "₀": "0",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "•": "*",
    "│": "|",
    "━": "-",
    "─": "-",
    "╸": "-",
    "╺": "-",
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼", "+"),
    **dict.fromkeys("▁▂▃", "."),
    **dict.fromkeys("▄▅▆", ":"),
    **dict.fromkeys("▇█", "#"),
}
# Bytes of a name that is not text reach Python as these, and leave it as the bytes they were.
ESCAPED_BYTES = range(0xDC80, 0xDD00)


def plain(text: str, encoding: str) -> str:
    """The text with what an encoding does not have in plain characters.

    >>> plain("return 1.0 ± 0.5 …", "ascii"), plain("± …", "latin-1"), plain("± …", "utf-8")
    ('return 1.0 +- 0.5 ...', '± ...', '± …')
    """
    return text.encode(encoding, ERRORS).decode(encoding, "surrogateescape")


def is_unicode(encoding: str) -> bool:
    """Whether an encoding has every character.

    >>> is_unicode("UTF-8"), is_unicode("cp1252")
    (True, False)
    """
    return codecs.lookup(encoding).name.startswith("utf")


def shell_word(text: str, encoding: str = "utf-8") -> str:
    """A name as one word of a command that can be pasted into a shell.

    >>> print(shell_word("runs/mine"), shell_word("my runs/$x"), shell_word("-x"), shell_word("a\\n"))
    runs/mine 'my runs/$x' ./-x $'a\\x0a'
    """
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable() and plain(text, encoding) == text:
        return shlex.quote(text)
    characters = (chr(byte) if _is_simple(byte) else f"\\x{byte:02x}" for byte in os.fsencode(text))
    return f"$'{''.join(characters)}'"


@contextmanager
def plain_streams() -> Iterator[None]:
    """Standard output and error take any text: characters that they do not have are written as plain ones."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=ERRORS)
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            if not stream.closed:
                stream.reconfigure(errors=errors)


def _is_simple(byte: int) -> bool:
    return 0x20 <= byte < 0x7F and chr(byte) not in "\\'"


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """What `codecs` calls for characters that an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if ord(character) in ESCAPED_BYTES:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    base = unicodedata.normalize("NFKD", character)[0]
    return PLAIN.get(character, base if base.isascii() else "?"), error.start + 1


codecs.register_error(ERRORS, _replace)
