"""Tables, drawn by rich on a terminal and written as plain aligned columns elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lockkit.cli import output
from lockkit.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["PIPE_WIDTH", "add", "show", "table", "width"]

PIPE_WIDTH = 200
"""Columns for which a table is made in a pipe. Rows may be longer there, because a program may parse them: nothing is cut."""


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
            justify="right" if column in ("fence", "waiters") else "left",
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
        for row in _aligned(made):
            sys.stdout.write(f"{row}\n")
        return
    from rich.console import Console

    console = Console(
        color_system="auto" if output.colour() else None, highlight=False, markup=False, emoji=False
    )
    # Not printed by rich itself, which exits with code 1 when the pipe is closed.
    with console.capture() as captured:
        console.print(made)
    sys.stdout.write(captured.get())


def _aligned(made: Table) -> Iterator[str]:
    """The rows of a table as aligned columns. Of thousands of rows, rich would take a second."""
    from rich.cells import cell_len

    columns = [[str(column.header), *map(str, column.cells)] for column in made.columns]
    widths = [max(map(cell_len, cells)) for cells in columns]
    right = [column.justify == "right" for column in made.columns]
    for row in zip(*columns, strict=True):
        blanks = [" " * (width - cell_len(cell)) for width, cell in zip(widths, row, strict=True)]
        cells = [
            blank + cell if to_right else cell + blank
            for cell, blank, to_right in zip(row, blanks, right, strict=True)
        ]
        yield "  ".join(cells).rstrip()
