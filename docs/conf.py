"""Sphinx configuration. Built with -n -W: a reference that leads nowhere fails the build."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

project = "lockkit"
author = "The lockkit maintainers"
copyright = author
release = re.search(r'"(.+)"', (ROOT / "lockkit/_version.py").read_text().split("__version__")[1])[1]
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"lockkit {release}"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "smartquotes"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Links into other projects' documentation would make every build fetch their inventories. So their names are
# not checked; lockkit's own are.
OTHERS = ["click", "msgspec", "pluggy", "pytest", "rich", *sorted(sys.stdlib_module_names)]
nitpick_ignore_regex = [(r"py:.*", rf"(?:{'|'.join(OTHERS)})(?:\..*)?")]

doctest_global_setup = "import lockkit"
