"""Where an error sends somebody to a page of the documentation, `lockkit docs` has one of that topic."""

from __future__ import annotations

import ast
import re

import pytest

from lockkit.cli.topics import topics

NAMED = re.compile(r"\blockkit docs ([a-z][\w-]*)")
IN_WORDS = re.compile(r"lockkit'?s? documentation|\bthe docs\b")
FILE = re.compile(r"\bdocs(?:/[\w/.-]*\w|(?:, \w+)+)")
"""``docs/ops/etcd-role.md``, or in words: ``docs, layout``. An installed lockkit has no such file."""


@pytest.fixture(scope="module")
def texts(root):
    """Every text of the code but docstrings, and where it is."""
    return list(_texts(root))


def _texts(root):
    for path in [*(root / "lockkit").rglob("*.py"), *(root / "backends").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and type(node.value) is str and id(node) not in prose:
                yield node.value, f"{path.relative_to(root)}:{node.lineno}"


@pytest.fixture(scope="module")
def named(texts):
    """The topics that hints name."""
    return {topic for text, _ in texts for topic in NAMED.findall(text)}


def test_every_topic_that_a_hint_names_exists(named):
    assert len(named) > 4
    assert named - topics().keys() == set()


def test_no_hint_speaks_of_the_documentation_without_a_topic(texts):
    assert [(text, where) for text, where in texts if IN_WORDS.search(text)] == []


def test_no_hint_names_a_file_of_the_documentation(texts):
    assert [(text, where) for text, where in texts if FILE.search(text)] == []


def test_each_store_with_logins_names_the_page_of_its_rights(named):
    assert {"etcd-role", "redis-acl", "zookeeper-acl"} <= named


@pytest.mark.parametrize("store", ["lockkit_etcd", "lockkit_redis", "lockkit_sqlite", "lockkit_zookeeper"])
def test_every_error_of_a_server_says_what_to_do_next(root, store):
    """As docs/reference/errors.md says."""
    kinds = {"BackendUnavailable", "IncompatibleLayout", "OutcomeUnknown", "PermissionDenied"}
    calls = [
        (f"{path.name}:{node.lineno}", {word.arg for word in node.keywords})
        for path in (root / "backends" / store).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds
    ]

    assert len(calls) > 5
    assert [place for place, words in calls if "hint" not in words] == []
