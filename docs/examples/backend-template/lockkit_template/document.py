"""One queue as data, and the folder of all queues. TODO: replace ``Folder`` by your store, with its methods ``change``, ``read`` and ``all``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lockkit.clock import Clock
from lockkit.errors import BackendUnavailable
from lockkit.facts import Record
from lockkit.names import digest
from lockkit.store.owners import owner_of, packed_owner
from lockkit.store.rowqueue import RowQueue
from lockkit.store.rows import Row
from lockkit.store.spi import Refused, Terms
from lockkit.store.tombstones import Tombstones

__all__ = ["Document", "Folder"]

_SOON = 0.002


class Document:
    """The data of one name. The document stays when the last claim is gone, because the fence must never fall.

    Attributes:
        queue: The claims, and the effect of each call on them; see lockkit.store.rowqueue.
        fence: The last fence.
        gone: The tokens that were given up.
        record: See :meth:`lockkit.store.spi.Backend.put_record`; None if there is none.
    """

    def __init__(self, name: str, clock: Clock, stored: Mapping[str, Any]) -> None:
        self.clock = clock
        self.fence: int = stored.get("fence", 0)
        self.gone = Tombstones(stored.get("gone"))
        self.record = Record(name, *stored["record"]) if stored.get("record") else None
        self.queue = RowQueue(name, self)
        for row in map(_row, stored.get("rows", ())):
            self.queue.rows[row.token] = row
        self.queue.next_lapse = 0.0  # the next call checks all deadlines

    def next_fence(self) -> int:
        """A fence higher than all others that the name has had."""
        self.fence += 1
        return self.fence

    def stored(self) -> dict[str, Any]:
        """The document as JSON."""
        return {
            "name": self.queue.name,
            "fence": self.fence,
            "gone": self.gone.stones,
            "record": self.record and self.record[1:],
            "rows": [_stored(row) for row in self.queue.rows.values()],
        }


def _stored(row: Row) -> dict[str, Any]:
    terms = row.terms._asdict() | {"owner": packed_owner(row.terms.owner)}
    return asdict(row) | {"terms": terms}


def _row(stored: dict[str, Any]) -> Row:
    terms = Terms(**stored["terms"])
    return Row(**stored | {"terms": terms._replace(owner=owner_of(terms.owner))})


class Folder:
    """A store of documents: a folder, in which a lock on a file makes a change atomic.

    Your store must be able to change one document in one atomic step: no other call sees half of a change, and two changes
    take place one after the other. A transaction, a script on the server, or a repeated compare-and-swap can do that.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def change(self, name: str, end: float) -> Iterator[Document]:
        """A document to change. It is written if the body raises nothing. Meanwhile other calls wait, until ``time.monotonic()`` is ``end``.

        Raises:
            Refused: Other calls had the document all the time; nothing was done. TODO: see the docstring of backend.py.
        """
        # A name may be any text. Hash or encode it; never use it unchanged in a path or a statement.
        path = self._folder / digest(name)
        guard = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise Refused(
                            BackendUnavailable(
                                f"{path} is locked by another process", hint="see which process has it open"
                            )
                        ) from None
                    time.sleep(_SOON)
            document = self._load(path, name)
            before = json.dumps(document.stored())
            yield document
            if (after := json.dumps(document.stored())) != before:
                fresh = path.with_suffix(".new")
                fresh.write_text(after)
                fresh.replace(path)
        finally:
            os.close(guard)  # which unlocks it

    def read(self, name: str) -> Document:
        """Read a document."""
        return self._load(self._folder / digest(name), name)

    def all(self) -> list[Document]:
        """Read all documents."""
        return [self._load(path) for path in self._folder.iterdir() if not path.suffix]

    def _load(self, path: Path, name: str = "") -> Document:
        try:
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            stored = {}
        return Document(stored.get("name", name), self._clock, stored)
