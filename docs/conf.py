"""Configuration of the documentation site: ``python -m sphinx -W -b html docs OUT``.

Nothing is loaded from the network, neither by the build nor by its pages.
"""

import os
import re
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "Spinlock"
author = "The Spinlock authors"
copyright = author
version = release = installed_version("spinlock")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
# Single backticks in docstrings name objects of this package, or are code.
default_role = "py:obj"
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "Spinlock"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sphinx = False

# Code blocks without a language are output or file trees.
highlight_language = "none"


def relative_links(app: Sphinx, path: Path, page: str, content: list[str]) -> None:
    """Make the links of an included file of the repository's root relative to this folder."""
    del app, page
    folder = (DOCS / path).resolve().parent

    def moved(link: re.Match[str]) -> str:
        return f"]({os.path.relpath(folder / link[1], DOCS)}{link[2] or ''})"

    content[0] = re.sub(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)", moved, content[0])


def setup(app: Sphinx) -> None:
    """Register the functions of this file."""
    app.connect("include-read", relative_links)
