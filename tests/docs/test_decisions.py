"""The decision records: one page each, all in the index, each with its context, reason and cost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs/decisions"
RECORDS = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "index")


def test_the_index_lists_every_record():
    listed = re.search(r":maxdepth: 1\n\n(.*?)```", (FOLDER / "index.md").read_text(), re.DOTALL)[1].split()

    assert sorted(listed) == RECORDS
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_says_what_was_decided_why_and_at_what_cost(record):
    text = (FOLDER / f"{record}.md").read_text()

    assert re.match(r"# \S", text)
    assert re.findall(r"^\*\*(\w+)\.\*\* ", text, re.MULTILINE) == ["Context", "Decision", "Why", "Cost"]
