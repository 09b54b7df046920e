"""The names in the code of the stores: those of the glossary, one meaning each; and private names of libraries in one place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

BACKENDS = Path(__file__).parents[2] / "backends"
PACKAGES = ["lockkit_etcd", "lockkit_etcd3", "lockkit_redis", "lockkit_zookeeper"]
DIALECT = {"wire", "link", "line", "router", "room", "ear", "stated", "slots", "chores", "asking", "drowsy"}
"""Words that once had a private meaning here. Slots of a Cluster are Redis's own word, and never a name of ours."""


def files(package):
    return sorted((BACKENDS / package).glob("*.py"))


def words(name):
    """The words of a name: ``SharedWatch`` and ``shared_watches`` have two."""
    return {each.lower() for each in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def names(tree):
    """Classes, functions, and attributes that are not private."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.ClassDef):
            yield from (
                each.target.id
                for each in node.body
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_of_a_store_is_no_private_dialect(package):
    found = {
        f"{path.name}: {name}"
        for path in files(package)
        for name in (path.stem, *names(ast.parse(path.read_text())))
        if words(name) & DIALECT and not name.startswith("__")
    }
    assert found == set()


def test_at_most_one_class_is_called_store():
    root = BACKENDS.parent
    found = [
        path
        for folder in ("lockkit", "backends")
        for path in (root / folder).rglob("*.py")
        if re.search(r"^class Store\b", path.read_text(), re.MULTILINE)
    ]
    assert len(found) <= 1, found


@pytest.mark.parametrize("package", ["lockkit_etcd3", "lockkit_redis", "lockkit_zookeeper"])
def test_private_names_of_a_library_stand_in_one_file(package):
    """Lines that ask the linter for leave to use a private name; names of Python itself may stand elsewhere."""
    inside = re.compile(r"noqa: SLF001|kazoo\.protocol\.(?:serialization|connection)|redis\.crc|etcdrpc")
    found = [
        f"{path.name}: {line.strip()}"
        for path in files(package)
        if path.stem != "private"
        for line in path.read_text().splitlines()
        if inside.search(line) and "sys._current_frames" not in line
    ]
    assert found == []
