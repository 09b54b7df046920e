"""One queue as data, and where it lies. TODO: replace ``Folder`` by your store; it needs no more than ``change`` and ``read``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lockkit.errors import BackendUnavailable
from lockkit.facts import ClaimState
from lockkit.names import digest
from lockkit.store.spi import Refused

__all__ = ["Document", "Folder", "Row"]

_SOON = 0.002


@dataclass
class Row:
    """One claim. Times in seconds on the store's clock. The rules rely on these fields; add what your store needs."""

    token: str
    fence: int
    weight: int
    capacity: int
    ttl: float
    max_hold: float | None
    min_hold: float
    lock_delay: float
    since: float
    renewed: float
    deadline: float
    kind: str
    owner: dict[str, object]
    note: dict[str, object]
    state: ClaimState = "WAITING"
    evicted: bool = False
    replayed: bool = False
    asked: bool = False

    @property
    def holding(self) -> bool:
        """Whether it takes room."""
        return self.state in ("HELD", "LINGERING")


@dataclass
class Document:
    """All that is kept of one name. It stays when the last claim goes, for the fence must never fall.

    Attributes:
        fence: The last one given out.
        rows: The claims, in order of arrival.
        gone: Tombstones: tokens that were given up, and until when that is remembered.
        record: See :meth:`lockkit.store.spi.Backend.put_record`.
    """

    name: str
    fence: int = 0
    rows: list[Row] = field(default_factory=list)
    gone: dict[str, float] = field(default_factory=dict)
    record: dict[str, object] = field(default_factory=dict)
    version: int = 0
    written: float = 0.0


class Folder:
    """A store of documents: a folder, in which a lock on a file makes a change atomic.

    What a store has to be able to do is this: change one document so that nobody ever sees half a change, and so that of two
    changes at once one comes after the other. A transaction does, a script on the server, or a compare-and-swap that is
    tried again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def change(self, name: str, end: float) -> Iterator[Document]:
        """A document to change; kept when the body ends well. Others wait, but not beyond ``time.monotonic()`` = ``end``.

        Raises:
            Refused: Others were at it all the time; nothing was done. TODO: see the table in backend.py.
        """
        # A name is somebody's text: hashed or encoded, never part of a path or a statement as it is.
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
                            BackendUnavailable(f"{self._folder} is busy", hint="who has it open?")
                        ) from None
                    time.sleep(_SOON)
            document = self._load(path) or Document(name)
            before = asdict(document)
            yield document
            if (after := asdict(document)) != before:
                fresh = path.with_suffix(".new")
                fresh.write_text(json.dumps(after))
                fresh.replace(path)
        finally:
            os.close(guard)  # which unlocks it

    def read(self, name: str) -> Document:
        """A document to look at."""
        return self._load(self._folder / digest(name)) or Document(name)

    def names(self) -> list[str]:
        """Every name that has a document."""
        found = [self._load(path) for path in self._folder.iterdir() if not path.suffix]
        return [document.name for document in found if document is not None]

    def _load(self, path: Path) -> Document | None:
        try:
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        stored["rows"] = [Row(**row) for row in stored["rows"]]
        return Document(**stored)
