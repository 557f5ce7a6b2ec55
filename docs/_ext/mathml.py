"""Equations as MathML, which browsers draw by themselves: no script, no network. Docutils has the translation."""

import re

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

# Docutils puts the index of an accented letter below the letter.
ACCENTED = re.compile(
    r"<munderover>\s*(<mi[^>]*>[^<]*</mi>)\s*(<mi>[^<]*</mi>)\s*(<mo stretchy=\"false\">[^<]*</mo>)\s*</munderover>"
)
# A line would break between an equation and the comma behind it.
CLOSING = tuple(",.;:!?)")
WORD_JOINER = "&#8288;"


def render(latex: str, as_block: bool) -> str:
    """An equation as a `<math>` element.

    >>> render("x^2", as_block=False).startswith("<math")
    True
    >>> "<msub><mover" in render(r"\\tilde{r}_t", as_block=True)
    True
    """
    tree = latex2mathml.tex2mathml(latex, as_block=as_block)
    text = tree if isinstance(tree, str) else tree.toxml()
    return ACCENTED.sub(r'<msub><mover accent="true">\1\3</mover>\2</msub>', text)


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Within a line."""
    self.body.append(render(node.astext(), as_block=False))
    follows = node.next_node(descend=False, siblings=True)
    if isinstance(follows, nodes.Text) and follows[:1] in CLOSING:
        self.body.append(WORD_JOINER)
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """On a line of its own."""
    self.body.append(f'<div class="math">{render(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Take the place of `sphinx.ext.mathjax`."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(visit_math, None), block_renderers=(visit_math_block, None)
    )
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
