"""Sphinx: it builds strictly (every name of a signature must be found), its autodoc imports the package, so that
jaxtyping's shapes are shown as written, and mkdocs-material is in maintenance mode. Nothing is fetched."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import reppo_fx

project = "reppo_fx"
author = "The reppo_fx developers"
copyright = author
version = release = reppo_fx.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sections",
    "myst_parser",
    "public_names",
    "mathml",
    "links",
]
exclude_patterns = ["README.md"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

# Backticks in docstrings hold equations and code.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
napoleon_custom_sections = [("Source", "returns_style"), ("Warns", "returns_style")]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
add_module_names = False
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

nitpicky = True
# Names of other packages, which have no inventory here; and as annotations have them that were never evaluated.
nitpick_ignore_regex = [
    *(
        (r"py:.*", rf"{package}(\..*)?")
        for package in (
            *("abc", "collections", "jax", "jaxlib", "jaxtyping", "numpy", "np", "optax"),
            *("pandas", "pathlib", "rich", "types", "typing"),
        )
    ),
    (r"py:.*", r"Array|ArrayLike|Bool|DTypeLike|Float|Int|Key|NDArray|PyTree|ScalarLike|UInt8"),
    (r"py:.*", r"Console|Mesh|ModuleType|Path|T|ndarray"),
]

html_theme = "furo"
html_title = "reppo_fx"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False
