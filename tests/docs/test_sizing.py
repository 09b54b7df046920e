"""docs/ops/sizing.md: its tables match measurements, within the variation of names and server versions."""

from __future__ import annotations

import re

import pytest

from lockkit.testing.processes import ServerMissing
from support import sizing
from support.pages import DOCS, section

pytestmark = pytest.mark.full  # on servers, and what is measured changes rarely
PAGE = (DOCS / "ops/sizing.md").read_text()


def figures(cell):
    return [float(figure) for figure in re.findall(r"[\d.]+", cell)]


def near(shown, measured, room):
    """Whether a page's figure is that of the measurement, up to a half and a few of the smallest units."""
    return measured / 1.5 - room <= shown <= measured * 1.5 + room


def columns(rows):
    """The cells of a table, by column and row."""
    head, *body = rows
    return {store: {row[0]: figures(row[at]) for row in body} for at, store in enumerate(head[1:], start=1)}


def compare(shown, measured, room):
    wrong = [
        (what, figure, now)
        for what, row in measured.items()
        for figure, now, free in zip(shown[what], row, room, strict=True)
        if not near(figure, now, free)
    ]
    assert wrong == [], "measure again: cd tests; python -m support.sizing"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("store", sizing.STORES)
def test_the_requests_and_bytes_of_a_store_are_those_of_the_page(store):
    shown = columns(cells(section(PAGE, "## Requests and bytes on the network")))[store]
    try:
        made = sizing.table_of_requests({store: sizing.measured(store)})
    except ServerMissing as missing:
        pytest.skip(str(missing))

    compare(shown, columns(cells(made))[store], room=(3.0, 600.0, 1200.0))


def test_the_bytes_in_each_store_are_those_of_the_page():
    shown = columns(cells(section(PAGE, "## Bytes in the store")))
    try:
        made = columns(cells(sizing.table_of_memory(sizing.memory())))
    except ServerMissing as missing:
        pytest.skip(str(missing))

    for store, rows in made.items():
        compare(shown[store], rows, room=(60.0,))


def cells(text):
    """The rows of a table whose first cell of the head is empty."""
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    return [row for row in rows if not row[0].startswith("---")]
