"""Tables, drawn by rich on a terminal and written as plain aligned columns elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from lockkit.cli import output
from lockkit.lib.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["PIPE_WIDTH", "add", "show", "table", "width", "write"]

PIPE_WIDTH = 200
"""Columns for a table in a pipe. Rows may be longer: nothing is cut, because a program may parse them."""

_NUMBERS = ("fence", "waiters")


def table(*columns: str) -> Table:
    """An empty table. Names and holders are shown in full as long as they fit."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, highlight=False)
    made.caption_justify = "left"
    for column in columns:
        made.add_column(
            column,
            overflow="fold",
            justify="right" if column in _NUMBERS else "left",
            no_wrap=column in ("claim", "state", "since", "fence", "waiters"),
        )
    return made


def add(made: Table, *cells: str, style: str | None = None) -> None:
    """Add a row. Characters that do not print are escaped, because names and owners come from outside."""
    made.add_row(*(printable(cell, lines=True) for cell in cells), style=style)


def width() -> int:
    """The columns that are available for a table."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else PIPE_WIDTH


def show(made: Table) -> None:
    """Print a table. In a pipe no cell is folded or cut, however long it is."""
    if not sys.stdout.isatty():
        columns = [str(column.header) for column in made.columns]
        right = {str(column.header) for column in made.columns if column.justify == "right"}
        write(columns, lambda: zip(*(map(str, column.cells) for column in made.columns), strict=True), right)
        return
    from rich.console import Console

    console = Console(
        color_system="auto" if output.colour() else None, highlight=False, markup=False, emoji=False
    )
    # Not printed by rich itself, which exits with code 1 when the pipe is closed.
    with console.capture() as captured:
        console.print(made)
    sys.stdout.write(captured.get())


def write(
    columns: Sequence[str],
    rows: Callable[[], Iterable[Sequence[str]]],
    right: Collection[str] = _NUMBERS,
) -> None:
    """Print aligned columns to a pipe. Of thousands of rows, rich would take a second.

    ``rows`` is called twice, for widths and for texts, so that memory need not hold them all.
    """
    from rich.cells import cell_len

    def size(cell: str) -> int:
        return len(cell) if cell.isascii() else cell_len(cell)

    widths = list(map(size, columns))
    for row in rows():
        widths = list(map(max, widths, map(size, row)))
    ends = [column in right for column in columns]
    for row in chain([columns], rows()):
        blanks = [" " * (width - size(cell)) for width, cell in zip(widths, row, strict=True)]
        cells = [
            blank + cell if flush else cell + blank
            for blank, cell, flush in zip(blanks, row, ends, strict=True)
        ]
        sys.stdout.write(f"{'  '.join(cells).rstrip()}\n")
