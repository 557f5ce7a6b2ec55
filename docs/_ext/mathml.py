"""Equations as MathML, which browsers draw by themselves: no script, no network. Docutils has the translation."""

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def render(latex: str, as_block: bool) -> str:
    """An equation as a `<math>` element.

    >>> render("x^2", as_block=False).startswith("<math")
    True
    """
    tree = latex2mathml.tex2mathml(latex, as_block=as_block)
    return tree if isinstance(tree, str) else tree.toxml()


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Within a line."""
    self.body.append(render(node.astext(), as_block=False))
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
