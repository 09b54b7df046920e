"""The page has all 28 scenarios and the seven planned ones, each played on every store; readers find it."""

from __future__ import annotations

import ast
import re

import pytest

PLAYED = "tests/scenarios/test_the_28.py"


@pytest.fixture(scope="module")
def plays(root):
    """The docstring of each scenario, by the number in its name."""
    tree = ast.parse((root / PLAYED).read_text())
    named = {each.name: ast.get_docstring(each) for each in tree.body if isinstance(each, ast.FunctionDef)}
    return {int(name.split("_")[1]): text for name, text in named.items() if name.startswith("test_")}


def test_every_scenario_is_there_under_its_number(plays):
    assert [*plays] == [*range(1, 36)]
    assert [number for number, text in plays.items() if not text.startswith(f"{number}. ")] == []


def test_the_page_has_a_row_of_each(pages):
    rows = re.findall(r"^\| (\d+) \| .+ \| .+ \| .+ \|$", pages["docs/the-28-scenarios.md"], re.MULTILINE)

    assert [int(number) for number in rows] == [*range(1, 36)]


def test_every_store_plays_them(root):
    stores = [re.search(r"^STORES = (.+)$", path.read_text(), re.MULTILINE)[1] for path in played(root)]

    assert sorted(name for one in stores for name in ast.literal_eval(one)) == [
        "etcd",
        "etcd3",
        "memory",
        "redis",
        "sqlite",
        "zookeeper",
    ]


def played(root):
    return [root / PLAYED, *(root / "tests" / "backends").glob("test_*_the_28.py")]


def test_readers_of_the_index_and_of_the_page_about_the_old_lock_are_told(pages):
    assert "the-28-scenarios.md" in pages["docs/index.md"]
    assert "../the-28-scenarios.md" in pages["docs/howto/from-the-old-gpu-lock.md"]
