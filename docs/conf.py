"""Sphinx configuration. Built with -n -W: a reference that leads nowhere fails the build."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit import LockInfo

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))  # an example runs the simulation, which the tests keep to themselves

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
exclude_patterns = ["_build", "examples"]  # the examples are plugins, shown by the how-to pages

html_theme = "furo"
html_title = f"lockkit {release}"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
smartquotes = False  # what is quoted is meant to be copied
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # otherwise a NamedTuple documents its fields twice
napoleon_attr_annotations = False  # it cannot split Literal["a", "b"]

# Links into other projects' documentation would make every build fetch their inventories. So their names are
# not checked; lockkit's own are.
OTHERS = [
    "celery",
    "click",
    "msgspec",
    "pluggy",
    "opentelemetry",
    "prometheus_client",
    "pytest",
    "rich",
    *sorted(sys.stdlib_module_names),
]
nitpick_ignore_regex = [
    (r"py:.*", rf"(?:{'|'.join(OTHERS)})(?:\..*)?"),
    (r"py:.*", r"(?:lockkit\.[\w.]+\.)?(?:P|R|C|K|L|S|_?T)"),  # type variables
    (
        r"py:.*",
        r"OnWait|Exchange|End|Reason|Severity|(?:Release)?Answer|lockkit\.plugins\.providers\.DeviceProvider",
    ),  # aliases that only annotations name
    (
        r"py:.*",
        r"DbApiConnection|SqlAlchemy|Redis|RedisCluster|KazooClient|ObjectStore|Family",
    ),  # clients of others
]

# The examples run in a state folder of their own, whatever this user has configured.
doctest_global_setup = """
import os, tempfile
os.environ["LOCKKIT_STATE_DIR"] = tempfile.mkdtemp(prefix="lockkit-docs-")
os.environ["LOCKKIT_CONFIG"] = os.devnull
import lockkit
"""
doctest_global_cleanup = """
import shutil
shutil.rmtree(os.environ["LOCKKIT_STATE_DIR"])
"""


def _skip_bare(
    _app: object, _what: str, name: str, obj: object, _skip: object, _options: object
) -> bool | None:
    # Exceptions, protocols and abstract classes have a constructor that says nothing: (*args, **kwargs).
    if name == "__new__":  # a named tuple's: its fields are listed anyway
        return True
    if name != "__init__":
        return None
    try:
        parameters = list(inspect.signature(obj).parameters.values())
    except (TypeError, ValueError):
        return True
    return all(each.name in ("self", "args", "kwargs", "type") for each in parameters) or None


_NAMED = LockInfo.__base__
_COLON = "\ue000"


def _hide_colon(
    _app: object, what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    # Napoleon reads "why: because" in a property's first line as a type and its meaning.
    if what in ("attribute", "data", "property") and lines:
        lines[0] = re.sub(r"(?<!:):(?=\s)", _COLON, lines[0])


def _hide_number(
    _app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    # A named tuple's field that says nothing of itself says its number.
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def _show_tuple(_app: object, _name: str, _obj: object, _options: object, bases: list[object]) -> None:
    # The base of lockkit.lib.namedtuples, which only makes the classes sooner.
    bases[:] = [tuple if base is _NAMED else base for base in bases]


def _show_colon(
    _app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", _skip_bare)
    app.connect("autodoc-process-bases", _show_tuple)
    app.connect("autodoc-process-docstring", _hide_number, priority=300)
    app.connect("autodoc-process-docstring", _hide_colon, priority=400)
    app.connect("autodoc-process-docstring", _show_colon, priority=600)
