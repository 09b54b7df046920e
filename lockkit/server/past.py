"""The endpoint about the past: who held what and when, by the event journals of the server's host."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec.structs import astuple

from lockkit.config.store_names import store_of
from lockkit.observe.appending import rotated
from lockkit.observe.history import journals, read_history
from lockkit.observe.past import ENDS, History
from lockkit.server.problems import HttpProblem
from lockkit.views import documents
from lockkit.views import history as views

if TYPE_CHECKING:
    from lockkit.observe.past import Happening, PastHold, PastWait
    from lockkit.server.calls import Call

__all__ = ["history"]

T = TypeVar("T", "PastHold", "PastWait", "Happening")
_LARGEST: Final = 512 * 1024 * 1024
"""The most bytes of journals read for an answer, a million rows: what a host keeps by default."""
_PATIENCE: Final = 10.0
_reading = threading.Lock()
"""Journals are read by one thread at a time."""


def history(call: Call) -> documents.History:
    """A page of the past of the store's locks, in order of time. The first page has the newest rows."""
    query, client = call.query, call.store.client
    files = journals(client.config)
    if not files:
        nothing = views.document(History())
        nothing.reason = "there is no event journal on the server's host; journal = true keeps one"
        return nothing
    if sum(_size(path) for path in files) > _LARGEST:
        raise HttpProblem(
            501,
            "too_large",
            f"the event journals have more than {_LARGEST >> 20} MiB",
            hint="on the server's host: lockkit history",
        )
    if not _reading.acquire(timeout=_PATIENCE):
        raise HttpProblem(503, "busy", "the journals are being read", headers={"retry-after": "5"})
    try:
        every = read_history(config=client.config, name=query.name, since=query.since)
        found = every.only(store_of(client.config), client.namespace)
    finally:
        _reading.release()

    words = query.search.casefold().split()

    def page(rows: Sequence[T]) -> tuple[T, ...]:
        if words:
            rows = [row for row in rows if all(word in _said(row) for word in words)]
        end = max(len(rows) - query.offset, 0)
        return tuple(rows[max(end - query.limit, 0) : end])

    return views.document(
        found._replace(holds=page(found.holds), waits=page(found.waits), happenings=page(found.happenings))
    )


def _said(row: PastHold | PastWait | Happening) -> str:
    """The texts of a row, as a search compares them."""
    told = [value for value in astuple(row) if isinstance(value, str)]
    return "\n".join((*told, ENDS.get(getattr(row, "end", None) or "", ""), str(row.owner))).casefold()


def _size(path: Path) -> int:
    """The bytes of a journal and its renamed files. A file that is just being renamed counts as 0."""
    total = 0
    for each in (path, *rotated(path)):
        try:
            total += each.stat().st_size
        except OSError:
            continue
    return total
