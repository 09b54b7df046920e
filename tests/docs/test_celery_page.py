"""docs/howto/celery.md has a row for each option, pool and reason."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("celery")

from lockkit.integrations.celery import endings, options
from support.pages import section

PAGE = "docs/howto/celery.md"


def first_cells(text):
    return "\n".join(line.split(" | ")[0] for line in text.splitlines() if line.startswith("|"))


def test_each_option_has_a_row(pages):
    rows = first_cells(section(pages[PAGE], "## Options"))
    assert [name for name in options.NAMES if f"`{name}`" not in rows] == []


def test_each_way_to_go_on_has_a_row(pages):
    rows = first_cells(section(pages[PAGE], "## When the lock is busy"))
    assert set(re.findall(r"`(\w+)`", rows)) - {"on_busy"} == {"retry", "wait", "skip", "fail"}


def test_each_reason_has_a_row(pages):
    text = section(pages[PAGE], "## How a run ends")
    assert [reason for _, reason in endings._REASONS if f"| `{reason}` |" not in text] == []
