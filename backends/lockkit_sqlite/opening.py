"""Opening the files of a store, and making them anew where somebody removed or replaced some of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from lockkit.errors import BackendUnavailable
from lockkit.namedtuples import NamedTuple
from lockkit.places import make_folders
from lockkit.store.spi import OpenOptions, Refused, Unknown
from lockkit_sqlite import statements as sql
from lockkit_sqlite.connection import Connection
from lockkit_sqlite.failures import no_log, raise_if_foreign
from lockkit_sqlite.files import Files, alone, clear, look, trouble
from lockkit_sqlite.layout import DDL, PAGE_SIZE, check_layout, layout_row
from lockkit_sqlite.place import Place, create, unusable

__all__ = ["Carried", "Connections", "mark_anew", "open_files"]

_PATIENCE, _MOVING = 2.0, 0.4
"""Seconds to wait for another process that opens the files: when a store is opened, and in the middle of a call."""
_ATTEMPTS = 8
_LOOKS = (0.005, 0.02, 0.0)
"""Seconds between looks that must all find the same damage."""
_LOOKS_AT_OTHERS = (0.005, 0.02, 0.05, 0.1, 0.15, 0.0)
"""The same if only the lock of another process speaks for damage: any program has its lock a moment before its log."""
_CARRYING = 0.2


class Carried(NamedTuple):
    """The highest fence and the records of a store, which outlive its claims when it is made anew."""

    fence: int = 0
    records: tuple[Any, ...] = ()


class Connections(NamedTuple):
    """The connections of a store.

    Attributes:
        calls: For callers.
        beats: For the heartbeat.
        why: The damage for which the files had to be made anew; empty if they were not.
    """

    calls: Connection
    beats: Connection
    why: str = ""


def open_files(
    place: Place, files: Files, options: OpenOptions, user: object, old: Connection | None = None
) -> Connections:
    """Open the files under their names, or make them anew.

    Args:
        place: The place of the database.
        files: The files that this process has open there.
        options: The clock for deadlines, and the owner to note in a new layout.
        user: The store that opens them.
        old: A connection to the files as they were, from which readable fences and records are carried over.

    Raises:
        Refused: The files cannot be opened, or somebody goes on removing them.
        Unknown: SQLite's error does not tell whether anything was done.
    """
    opening = _Opening(place, files, options, user, old)
    try:
        for _ in range(_ATTEMPTS):
            try:
                opened = alone(place, opening.end, opening.attempt)
            except FileNotFoundError as error:  # the folder went after it was checked
                raise_if_foreign(error)
                if place.shared:
                    raise
                make_folders(Path(place.path).parent)
                continue
            if opened is not None:
                return opened
    except OSError as error:
        raise unusable(place.given, error) from error
    raise Refused(
        BackendUnavailable(
            f"the files of {place.path} are removed again and again",
            hint="keep cleaners and backups away from them",
        )
    )


class _Opening:
    """The opening of the files, in as many attempts as it takes."""

    def __init__(
        self, place: Place, files: Files, options: OpenOptions, user: object, old: Connection | None
    ) -> None:
        self._place = place
        self._files = files
        self._options = options
        self._user = user
        self._old = old
        self._carried = Carried()
        self._why = ""
        self.end = time.monotonic() + (_PATIENCE if old is None else _MOVING)

    def attempt(self) -> Connections | None:
        """Open the files; None if somebody removed one of them meanwhile, or if they were a copy and are removed now."""
        path = self._place.path
        damage = self._damage()
        if damage:
            self._begin_anew(self._old, damage)
        calls = beats = None
        try:
            create(self._place)
            calls = self._connect()
            if not self._lay(calls):
                self._begin_anew(calls, f"{Path(path).name} was a copy of another database")
                return None
            beats = self._connect()
            found = look(str(self._place.given), path)
            if found.whole and found.database == look(path, path).database:
                self._files.took(found, self._user, anew=bool(self._why))
                return Connections(calls, beats, self._why)
        except (Refused, Unknown, FileNotFoundError) as error:
            _close(calls, beats)
            if isinstance(error, FileNotFoundError):
                raise_if_foreign(error)
            elif os.path.lexists(path):  # a planted link that leads nowhere is refused, too
                raise
            return None
        _close(calls, beats)
        return None

    def _connect(self) -> Connection:
        return Connection(self._place.path, self._options.clock, self._place.synchronous)

    def _damage(self) -> str:
        """The damage to the files, if several looks agree on damage; else empty."""
        found = ""
        known = self._files.known()
        for pause in _LOOKS if known else _LOOKS_AT_OTHERS:
            there = look(str(self._place.given), self._place.path)
            found = trouble(there, known, self._place.path)
            if not found:
                break
            time.sleep(pause)
        return found

    def _begin_anew(self, old: Connection | None, why: str) -> None:
        """Remove the files, and keep what can be read of them. Best effort: fences rise by the wall clock, too."""
        self._why = self._why or why
        if old is not None:
            end = time.monotonic() + _CARRYING
            columns = "namespace, name, version, value, written, v, min_reader"
            records = f"SELECT {columns} FROM records WHERE json_valid(value)"  # noqa: S608
            try:
                ((fence,),) = old.read(sql.NEWEST_FENCE, (), end)
                before, kept = self._carried, tuple(old.read(records, (), end))
                self._carried = Carried(max(fence, before.fence), kept or before.records)
            except (Refused, Unknown, ValueError):
                pass
            if old is not self._old:
                old.close()
        clear(self._place.path)

    def _lay(self, connection: Connection) -> bool:
        """Check the layout, or write it into a new file; False if the database is a copy, because another inode is noted in it."""
        end, options = self.end, self._options
        inode = str(os.stat(self._place.path).st_ino)  # noqa: PTH116 - as everywhere here
        found = connection.read("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", (), end)
        meta = _meta(connection, end) if found else {}
        if "layout" not in meta:
            connection.read(f"PRAGMA page_size={PAGE_SIZE}", (), end)
            if connection.read("PRAGMA journal_mode=WAL", (), end) != [("wal",)]:
                raise no_log(self._place.path)
            for statement in DDL:
                connection.change(statement, (), end)
            fence, records = self._carried
            connection.change("UPDATE entries SET since = max(since, ?1) WHERE namespace = ''", (fence,), end)
            for record in records:
                connection.change(
                    "INSERT OR IGNORE INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", record, end
                )
            if self._why:
                mark_anew(connection, self._why, options, end)
            _note(connection, "file", inode, end)
            _note(connection, "layout", layout_row(options.owner), end)
            meta = _meta(connection, end)
        check_layout(meta["layout"], self._place.path)
        return meta.get("file", inode) == inode


def _close(*connections: Connection | None) -> None:
    for connection in connections:
        if connection is not None:
            connection.close()


def _meta(connection: Connection, end: float) -> dict[str, str]:
    return dict(connection.read("SELECT key, value FROM meta", (), end))


def _note(connection: Connection, key: str, value: str, end: float) -> None:
    connection.change("INSERT OR IGNORE INTO meta VALUES (?1, ?2)", (key, value), end)


def mark_anew(connection: Connection, why: str, options: OpenOptions, end: float) -> None:
    """Note in the store when and why it was made anew, for ``doctor`` and for newcomers; an earlier note stays."""
    row = json.dumps(
        {"at": options.clock.wall(), "why": why, "pid": options.owner.pid}, separators=(",", ":")
    )
    _note(connection, "anew", row, end)
