"""How the documentation is built: ``make docs``, which treats every warning as an error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from generate import write_pages

import onnxprune

project = "onnxprune"
author = "The onnxprune maintainers"
copyright = author  # noqa: A001 - Sphinx's name for it
release = onnxprune.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "onnxprune"
autodoc_typehints = "description"
autodoc_member_order = "bysource"


def setup(app: Any) -> None:
    """Write the pages that come from the code before any page is read."""
    app.connect("builder-inited", lambda _: write_pages(Path(__file__).parent))
