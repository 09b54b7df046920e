"""A table whose rows change in place: the cursor stays on its claim, and only visible cells are redrawn."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import DataTable

from lockkit.cli.top.cells import Column, Entry
from lockkit.lib.printable import printable

__all__ = ["LiveTable"]

_AROUND = 20
"""Rows kept up to date above and below the visible ones, so that moving the cursor shows no old text."""


class LiveTable(DataTable[Text]):
    """A table of entries. At its first row the cursor stays at the top; elsewhere it follows its entry."""

    def __init__(self, identity: str) -> None:
        super().__init__(id=identity, cursor_type="row", zebra_stripes=False, cell_padding=0)
        self.entries: Sequence[Entry] = ()
        self._shown: dict[str, Sequence[str]] = {}
        self._columns_shown: Sequence[Column] = ()

    @property
    def entry(self) -> Entry | None:
        """The entry under the cursor."""
        return self.entries[self.cursor_row] if 0 <= self.cursor_row < len(self.entries) else None

    def put(self, columns: Sequence[Column], entries: Sequence[Entry]) -> None:
        """Show these entries in place of those before."""
        before = self.entry
        place, scrolled = self.cursor_row, self.scroll_y
        same = list(columns) == list(self._columns_shown) and [entry.key for entry in entries] == [
            *self._shown
        ]
        self.entries = entries
        if same:
            self.fresh()
            return
        if list(columns) != list(self._columns_shown):
            self.clear(columns=True)
            for column in columns:
                self.add_column(Text(column.label), width=column.width + 1, key=column.key)
            self._columns_shown = columns
        else:
            self.clear()
        self._shown = {entry.key: entry.cells for entry in entries}
        for entry in entries:
            self.add_row(*_texts(entry), key=entry.key)
        if before is not None and place > 0:
            found = next(
                (number for number, entry in enumerate(entries) if entry.key == before.key),
                min(place, len(entries) - 1),
            )
            self.scroll_to(y=scrolled, animate=False, immediate=True)
            self.move_cursor(row=found)

    def fresh(self) -> None:
        """Bring the rows that are seen up to date."""
        first = max(int(self.scroll_y) - _AROUND, 0)
        for entry in self.entries[first : int(self.scroll_y) + self.size.height + _AROUND]:
            old = self._shown[entry.key]
            if old == entry.cells:
                continue
            self._shown[entry.key] = entry.cells
            for column, before, text in zip(self._columns_shown, old, _texts(entry), strict=True):
                if before != text.plain:
                    self.update_cell(entry.key, column.key, text)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self.fresh()


def _texts(entry: Entry) -> list[Text]:
    """The cells, unprintable characters escaped, as names and owners come from outside. Never markup."""
    return [
        Text(printable(cell), style=entry.style, no_wrap=True, overflow="ellipsis") for cell in entry.cells
    ]
