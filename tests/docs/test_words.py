"""Docstrings that can be read without the code below them start with a noun or a verb, not a pronoun."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def texts():
    files = [path for part in CODE for path in (ROOT / part).rglob("*.py")]
    assert len(files) > 400
    return [(f"{path.relative_to(ROOT)}:{line}", text) for path in files for line, text in docstrings(path)]


def test_no_docstring_begins_with_a_pronoun(texts):
    assert [(where, text[:60]) for where, text in texts if text.split(maxsplit=1)[0] in PRONOUNS] == []


def test_nor_does_what_a_docstring_says_of_an_argument_or_an_error(texts):
    """An entry that begins with What may do as a noun: "What to do next"."""
    begins = re.compile(
        rf"^ +[\w, ]+: ((?:{'|'.join(sorted(PRONOUNS - {'What', 'Whatever'}))})\b.*)", re.MULTILINE
    )

    assert [(where, found[1]) for where, text in texts for found in begins.finditer(text)] == []
