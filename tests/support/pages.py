"""Pages of the documentation, as tests read them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DOCS", "section", "table"]

DOCS = Path(__file__).parents[2] / "docs"


def section(text: str, title: str) -> str:
    """The text below a heading, up to the next one of its level."""
    level = title.partition(" ")[0]
    return text.partition(f"\n{title}\n")[2].partition(f"\n{level} ")[0]


def table(text: str) -> list[list[str]]:
    """The rows of a section's tables, as cells."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if not row[0].startswith("---")]
