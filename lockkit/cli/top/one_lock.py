"""The screen of one lock: what ``lockkit explain`` says of it, and its whole queue."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Static

from lockkit.cli import traces
from lockkit.cli.commands.explain import failed_words, sentences
from lockkit.cli.top.cells import claim_columns, claim_entries
from lockkit.cli.top.live_table import LiveTable
from lockkit.cli.top.polling import View
from lockkit.cli.top.screens import Live
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.noted import RESERVED
from lockkit.lib.printable import printable

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, LockInfo
    from lockkit.sync.client import Client

__all__ = ["OneLock"]


class _Found(NamedTuple):
    """A lock, and sentences about it."""

    info: LockInfo
    told: Sequence[str]


def _read(client: Client, name: str, options: str, first: str) -> _Found:
    info = client.inspect(name)
    now = time.time()
    found = None if info.claims else traces.traces(client, name)
    told = sentences(info, now, options, first, queue=False)
    told += [note for claim in info.holders if (note := _note(claim))]
    told += traces.sentences(found, now, options, first) if found else []
    failed = traces.failures(client, name) if found is None else found.failed
    told += failed_words(client, failed, name, options)
    return _Found(info, told)


def _note(claim: ClaimInfo) -> str:
    """The sentence about the note of a claim, without what the sentences say already."""
    note = {key: value for key, value in claim.note.items() if key != RESERVED}
    if not note:
        return ""
    return (
        f"Its note{f' (claim {claim.claim_id})' if note else ''}: "
        f"{json.dumps(note, ensure_ascii=False, default=str)}"
    )


class OneLock(Live):
    """The screen of one lock."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,backspace", "app.pop_screen", "Back", key_display="Esc"),
    ]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._lock = name
        self._view: View | None = None

    @property
    def view(self) -> View:
        """The lock and its queue."""
        if self._view is None:
            client, name, (options, first) = self.top.client, self._lock, self.top.suggested
            self._view = View(lambda: _read(client, name, options, first), self._show)
        return self._view

    @property
    def table(self) -> LiveTable:
        """The queue."""
        return self.query_one(LiveTable)

    def compose(self) -> ComposeResult:
        """The sentences above the queue."""
        yield from self.head()
        with VerticalScroll(id="told"):
            yield Static("reading ...", id="sentences", markup=False)
        yield LiveTable("queue")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin at the queue."""
        self.table.focus()

    def _show(self, found: _Found, at: float) -> None:
        width = self.app.size.width
        self.query_one("#sentences", Static).update(printable("\n".join(found.told), lines=True))
        columns = claim_columns(width)
        self.table.put(columns, claim_entries(found.info, columns, at))
