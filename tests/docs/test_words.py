"""Docstrings that can be read without the code below them begin with a noun or a verb, not with a pronoun that stands for one."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "lockkit"
SWEPT = ("*.py", "cli/**/*.py", "plugins/*.py")
"""The parts of the code that keep to it so far."""
NOT_YET = {"client.py", "opening.py"}

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
    files = [path for part in SWEPT for path in PACKAGE.glob(part) if path.name not in NOT_YET]
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text[:60]}"
        for path in files
        for line, text in docstrings(path)
        if text.split(maxsplit=1)[0] in PRONOUNS
    ]

    assert len(files) > 60
    assert found == []
