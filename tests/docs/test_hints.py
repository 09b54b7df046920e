"""Where an error sends somebody to a page, there is that page."""

from __future__ import annotations

import ast
import re

import pytest

NAMED = re.compile(r"\bdocs(?:/[\w/.-]*\w|(?:, \w+)+)")
"""``docs/ops/etcd-role.md``, or in words: ``docs, layout``."""


@pytest.fixture(scope="module")
def named(root):
    """Every page that a text of the code names, but for docstrings, and where it is named."""
    found = {}
    for path in [*(root / "lockkit").rglob("*.py"), *(root / "backends").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and type(node.value) is str and id(node) not in prose:
                for page in NAMED.findall(node.value):
                    found.setdefault(page, set()).add(f"{path.relative_to(root)}:{node.lineno}")
    return found


def test_every_page_that_a_hint_names_exists(named, root):
    missing = {
        page: sorted(places)
        for page, places in named.items()
        if not (root / page).is_file() and not (root / f"{page.replace(', ', '/')}.md").is_file()
    }

    assert missing == {}


def test_each_store_with_logins_names_the_page_of_its_rights(named):
    rights = {page for page in named if page.startswith("docs/ops/")}

    assert rights == {"docs/ops/etcd-role.md", "docs/ops/redis-acl.md", "docs/ops/zookeeper-acl.md"}


@pytest.mark.parametrize("store", ["lockkit_etcd", "lockkit_redis"])
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
