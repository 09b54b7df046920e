"""Docstrings that can be read without the code below them begin with a noun or a verb, not with a pronoun that stands for one."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("lockkit", "backends", "tests", "docs")

PRONOUNS = {
    "It",
    "Its",
    "Nobody",
    "Of",
    "That",
    "Those",
    "What",
    "Whatever",
    "Which",
    "Who",
    "Whoever",
    "Whose",
}


def docstrings(path):
    """Every text that stands alone as a statement, with its place."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.lineno, node.value.value


def test_no_docstring_begins_with_a_pronoun():
    files = [path for part in CODE for path in (ROOT / part).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:60]}"
        for path in files
        for line, text in docstrings(path)
        if text.split(maxsplit=1)[0] in PRONOUNS
    ]

    assert len(files) > 200
    assert found == []
