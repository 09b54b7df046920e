"""The guarantees page: every number that is cited is defined there, and every proof that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lockkit.testing.machines import MACHINES
from lockkit.testing.stage import registered

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/guarantees.md").read_text()
SECTIONS = dict(re.findall(r"^### ([SL]\d+) [^\n]*\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
READ = {".py", ".md", ".lua", ".sql", ".toml", ".ini"}
NOT_OURS = {"_build", ".pytest_cache", "__pycache__"}

INVENTED = {"S99": "tests/kit/test_kit.py"}
"""A guarantee that does not exist on purpose, and the test that uses it."""


def citations():
    """Every citation of a guarantee in code, comments, scenario ids and pages: the number, and the file."""
    for folder in ("lockkit", "backends", "docs", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in READ and not NOT_OURS & set(path.parts):
                where = str(path.relative_to(ROOT))
                yield from ((number, where) for number in re.findall(r"\b[SL]\d{1,2}\b", path.read_text()))


def test_there_are_twelve_of_safety_and_seven_of_progress():
    assert list(SECTIONS) == [*(f"S{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 8))]


def test_every_citation_is_defined():
    cited = set(citations())
    unknown = {(number, where) for number, where in cited if number not in SECTIONS}

    assert unknown - set(INVENTED.items()) - {("S99", "tests/docs/test_guarantees.py")} == set()
    assert len(cited) > 100


@pytest.mark.parametrize("guarantee", SECTIONS)
def test_each_has_its_limit_and_its_proofs(guarantee):
    text = SECTIONS[guarantee]

    assert re.search(r"^\*Limits?:\*", text, re.MULTILINE)
    assert "- **Kit**: " in text
    assert "- **Tests**: " in text


def test_every_file_of_tests_that_is_named_exists():
    named = re.findall(r"`(tests/[\w./]+)`", PAGE)

    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_scenario_that_any_page_names_exists(pages):
    ids = {scenario.name for scenario in registered()} | set(MACHINES)
    told = {
        (name, page)
        for page, text in pages.items()
        for name in re.findall(r"`((?:[SL]\d+|CAP)-[a-z0-9-]+)`", text)
    }

    # The invariants of the simulation are named in the same way; the tables' own test compares those.
    simulated = set(re.findall(r"`([^`]+)`", " ".join(re.findall(r"\*\*Simulation\*\*: (.*)", PAGE))))
    assert {(name, page) for name, page in told if name not in ids | simulated} == set()
