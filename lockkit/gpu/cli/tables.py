"""The GPUs of a host as commands show them: a table that fits the terminal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lockkit.lib.printable import printable
from lockkit.values.sizes import show as size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from lockkit.gpu.states import Card
    from lockkit.gpu.views import GpuLook
    from lockkit.sync.client import Client

__all__ = ["below", "screen", "table_of"]

_COLOURS = {
    "free": "green",
    "busy": "yellow",
    "dirty": "yellow",
    "faulty": "red",
    "quarantined": "red",
    "sliced": "dim",
}
_WIDE, _NARROW = 120, 60
"""Columns."""
_SHORT = len("GPU-54a033e8")
_LEAST = {"model": len("model"), "state": len("quarantined"), "user": len("user")}
"""Columns that a cell may take at least, however little room there is."""


def screen(client: Client, simulate: int | None) -> Callable[[], Callable[[int], Table]]:
    """The GPUs of this host, for ``lockkit top``: a function that looks at them, and returns one that draws.

    The function that draws takes the columns of the terminal.

    Args:
        client: The client.
        simulate: The number of GPUs to simulate; None for what the configuration says.
    """
    from lockkit.gpu.views import HostView

    view = HostView(client, simulate)
    return lambda: partial(_drawn, view.look())


def _drawn(seen: GpuLook, width: int) -> Table:
    from rich.text import Text

    table = table_of(seen.cards, width, seen.hosts)
    table.caption = Text(printable("\n".join(below(seen)), lines=True))
    return table


def table_of(found: Sequence[Card], width: int, hosts: Sequence[str] = ()) -> Table:
    """A table of all columns if they fit, or else of short rows; ``hosts`` has the host of each card.

    At 80 columns there are no UUIDs, and one model of all cards is the title. Rows are short below 60
    columns, and where a word would be broken.
    """
    from lockkit.cli.tables import PIPE_WIDTH

    made = _table(found, width, hosts, narrow=width < _NARROW)
    fits = width < _NARROW or width >= PIPE_WIDTH or _least(made) <= width
    return made if fits else _table(found, width, hosts, narrow=True)


def _least(made: Table) -> int:
    """The columns of a terminal that a table needs so that no word of it is broken."""
    from rich.cells import cell_len

    count = len(made.columns)
    between = 2 * count - 2 if made.box is None else 3 * count - 1
    words = 0
    for column in made.columns:
        cells = [str(column.header), *map(str, column.cells)]
        words += max(
            cell_len(part) for cell in cells for part in ([cell] if column.no_wrap else cell.split() or [""])
        )
    return words + between


def _table(found: Sequence[Card], width: int, hosts: Sequence[str], *, narrow: bool) -> Table:
    from rich.markup import escape

    from lockkit.cli.tables import add, table

    columns: tuple[str, ...] = ("gpu", "model", "state", "user", "memory", "use", "why")
    if width >= _WIDE:
        columns = (*columns, "uuid")
    if hosts:
        columns = ("host", *columns)
    models = {card.device.name for card in found}
    title = None
    if not narrow and width < _WIDE and len(models) == 1 and "" not in models:
        columns = tuple(column for column in columns if column != "model")
        title = f"model: {printable(*models)}"
    short = _short_uuids(found)
    rows = [
        _cells(card, hosts[number] if hosts else "", short.get(card.device.uuid, "-"))
        for number, card in enumerate(found)
    ]
    made = table(*(("gpus",) if narrow else columns))
    made.title, made.title_justify, made.title_style = title and escape(title), "left", ""
    for column in made.columns:
        name = str(column.header)
        if name in ("host", "gpu", "memory", "use", "uuid"):
            column.no_wrap = True
        elif name in ("model", "state", "user") and width < _WIDE:  # so that why has the room
            words = (word for cells in rows for word in cells[name].split())
            room = max(_LEAST[name], *map(len, words), 0)
            # A width, because rich makes a column narrower than a maximum where another one is wide.
            column.no_wrap, column.width = (
                False,
                min(room, max(len(name), *(len(cells[name]) for cells in rows))),
            )
    for card, cells in zip(found, rows, strict=True):
        row = [_stacked(cells)] if narrow else [cells[column] for column in columns]
        add(made, *row, style=_COLOURS.get(card.state))
    return made


def below(seen: GpuLook) -> list[str]:
    """The rows below the table: how many cards there are in which state, and what could not be found out."""
    from lockkit.gpu.joining import request_words
    from lockkit.gpu.states import summary

    told = summary(seen.cards, seen.waiting)
    if seen.each is not None:
        count = len(set(seen.hosts))
        told = f"{count} hosts; {told}" if count != 1 else f"1 host; {told}"
        told = told if seen.cards else "no host has used GPUs with this store"
        busy = [f"{number} on {host}" for host, number in seen.waits.items() if number]
        if seen.cards and busy and count > 1:
            told += f" ({', '.join(busy)})"
    first = [] if seen.first is None else [f"first in the queue: {request_words(seen.first)}"]
    return [*first, told, *seen.snapshot.remarks]


def _cells(card: Card, host: str, uuid: str) -> dict[str, str]:
    """The cells of a card, by column."""
    from lockkit.gpu.states import STATES

    device = card.device
    index = str(device.index) if device.index >= 0 else "?"
    return {
        "host": host,
        "gpu": f"  {index}" if device.parent else index,
        "model": device.name or "-",
        "state": STATES[card.state],
        "user": ", ".join(_people(card)) or "-",
        "memory": _memory(card),
        "use": "-" if device.utilisation is None else f"{device.utilisation} %",
        "why": "; ".join((*card.reasons, *_wait_words(card))),
        "uuid": uuid,
    }


def _people(card: Card) -> list[str]:
    """The users of a card: its holders, and those without a lock, marked as such on a held card."""
    mark = " (no lock)" if card.users else ""
    return [*card.users, *(f"{user}{mark}" for user in card.unmanaged)]


def _wait_words(card: Card) -> list[str]:
    """The number of requests that wait for a card."""
    return [f"{card.waiting} wait{'s' if card.waiting == 1 else ''} for it"] if card.waiting else []


def _memory(card: Card) -> str:
    """Memory in use of what programs can share."""
    used, usable = card.device.used, card.device.usable
    whole = "?" if usable is None else size(usable)
    if not used:
        return f"{'?' if used is None else 0}/{whole}"
    part, _, unit = size(used).partition(" ")
    return f"{part}/{whole}" if whole.endswith(f" {unit}") else f"{part} {unit}/{whole}"


def _short_uuids(found: Sequence[Card]) -> dict[str, str]:
    """The beginning of each UUID (``GPU-54a033e8``); the whole of one that starts like another."""
    uuids = {card.device.uuid for card in found if card.device.uuid}
    begins = [uuid[:_SHORT] for uuid in uuids]
    return {uuid: uuid[:_SHORT] if begins.count(uuid[:_SHORT]) == 1 else uuid for uuid in uuids}


def _stacked(cells: dict[str, str]) -> str:
    first = (
        f"{cells['host']} {cells['gpu']} {cells['model']}"
        if cells["host"]
        else f"{cells['gpu']} {cells['model']}"
    )
    who = "" if cells["user"] == "-" else f", {cells['user']}"
    rows = [first, f"  {cells['state']}{who}, {cells['memory']}, {cells['use']}"]
    return "\n".join([*rows, *([f"  {cells['why']}"] if cells["why"] else []), f"  {cells['uuid']}"])
