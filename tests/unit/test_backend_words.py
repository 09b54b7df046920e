"""The names in the code: the glossary's, with one meaning each; and libraries' private names in one place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BACKENDS = ROOT / "backends"
FOLDERS = [
    "lockkit",
    *sorted(f"backends/{each.name}" for each in BACKENDS.glob("lockkit_*")),
    "tests/support",
]
DIALECT = {"wire", "link", "line", "router", "room", "ear", "stated", "slots", "chores", "asking", "drowsy"}
"""Words that once had a private meaning here. Slots of a Cluster are Redis's own word, never a name here."""
OF_TEXTS_AND_FILES = {
    *(
        "_line",
        "_lines",
        "_Lines",
        "_line_open",
        "command_line",
        "explain_line",
        "f_trace_lines",
        "tls_lines",
    ),
    *("link", "_refuse_links", "_without_link"),
}
LINES = {"waiting.py: line", "checks.py: line"}
"""Fields that are a line of a text, in files that know no connections."""
"""Names in which a line is one of a text, and a link one of the file system or of a page."""


def words(name):
    """The words of a name, without the ``s`` of a plural: ``SharedWatch`` and ``shared_watches`` have two."""
    found = {each.lower() for each in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    return found | {each.removesuffix("s") for each in found}


def names(tree):
    """Classes, functions, and attributes that are not private."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        if isinstance(node, ast.ClassDef):
            yield from (
                each.target.id
                for each in node.body
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            )


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_name_is_no_private_dialect(folder):
    found = {
        f"{path.name}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in (path.stem, *names(ast.parse(path.read_text())))
        if words(name) & DIALECT and not name.startswith("__") and name not in OF_TEXTS_AND_FILES
    }
    assert found - LINES == set()


def test_at_most_one_class_is_called_store():
    found = [
        path
        for folder in ("lockkit", "backends")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^class Store\b", path.read_text(), re.MULTILINE)
    ]
    assert len(found) <= 1, found


@pytest.mark.parametrize("package", ["lockkit_etcd3", "lockkit_redis", "lockkit_zookeeper"])
def test_private_names_of_a_library_stand_in_one_file(package):
    """Lines with a linter exemption for a private name; Python's own names may be in other files."""
    inside = re.compile(r"noqa: SLF001|kazoo\.protocol\.(?:serialization|connection)|redis\.crc|etcdrpc")
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted((BACKENDS / package).glob("*.py"))
        if path.stem != "private"
        for line in path.read_text().splitlines()
        if inside.search(line) and "sys._current_frames" not in line
    ]
    assert found == []
