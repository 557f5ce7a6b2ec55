"""Docstrings as this package writes them: equations in lines of their own, no types before a colon in Returns, and
annotations as they stand in the code (`Float[Array, "T *batch"]`, not what they evaluate to)."""

import re

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util import inspect

EQUATION = re.compile(r"`[^`]+`[.,]?")


class _AsWritten(GoogleDocstring):
    def _consume_returns_section(
        self, preprocess_types: bool = False
    ) -> list[tuple[str, str, list[str]]]:
        del preprocess_types
        return [("", "", self._dedent(self._consume_to_next_section()))]

    def _consume_inline_attribute(self) -> tuple[str, list[str]]:
        return "", self._dedent(self._consume_to_end())


def set_equations(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """A paragraph of nothing but backticks, one pair a line, is shown as it stands.

    >>> lines = ["What.", "", "`a = b`", "`  + c`", "", "with `b`."]
    >>> set_equations(None, "", "", None, None, lines)
    >>> lines[2:7]
    ['.. code-block:: none', '', '   a = b', '     + c', '']
    """
    paragraphs = "\n".join(lines).split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        rows = paragraph.strip("\n").split("\n")
        if all(EQUATION.fullmatch(row) for row in rows):
            block = "\n".join(f"   {row.replace('`', '')}" for row in rows)
            paragraphs[number] = f".. code-block:: none\n\n{block}"
    lines[:] = "\n\n".join(paragraphs).split("\n")


def _not_evaluated(aliases: object) -> None:
    raise TypeError("autodoc then takes annotations as they are")


def setup(app: Sphinx) -> dict[str, bool]:
    """Napoleon makes its parser by name: the two methods are replaced in it. Autodoc has no such setting either."""
    inspect.TypeAliasNamespace = _not_evaluated
    for name in ("_consume_returns_section", "_consume_inline_attribute"):
        setattr(GoogleDocstring, name, vars(_AsWritten)[name])
    app.connect("autodoc-process-docstring", set_equations, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
