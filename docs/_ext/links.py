"""`rx.NAME` in a page's text becomes a link to its entry: a name that is not there breaks a strict build."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

NAME = re.compile(r"(?:rx|reppo_fx)\.((?:\w+\.)*\w+)(?:\(\))?")
MODULES = {"envs", "hosts", "run", "ops", "envs.probes"}


class LinkNames(SphinxTransform):
    """Of Markdown only: docstrings name things by themselves."""

    default_priority = 500

    def apply(self, **kwargs: object) -> None:
        """Literals that are a name."""
        for literal in list(self.document.findall(nodes.literal)):
            found = NAME.fullmatch(literal.astext())
            if found is None or found[1] in MODULES or isinstance(literal.parent, nodes.reference):
                continue
            name = found[1].removeprefix("ops.")
            link = addnodes.pending_xref(
                "",
                refdoc=self.env.docname,
                refdomain="py",
                reftype="obj",
                reftarget=f"reppo_fx.{name}",
                refwarn=True,
            )
            link.source, link.line = literal.source, literal.line
            literal.replace_self(link)
            link += literal


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect."""
    app.add_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
