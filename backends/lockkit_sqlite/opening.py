"""Opening a store's files; a process that is alone with them may create, convert or adopt the store."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from lockkit.config.places import make_folders
from lockkit.lib.clock import jitter
from lockkit.store.spi import OpenOptions, Refused, Unknown
from lockkit_sqlite import statements as sql
from lockkit_sqlite.connection import OPENING, Connection, limit, rows_of, stays
from lockkit_sqlite.failures import (
    busy,
    in_use,
    link,
    linked,
    log_of_other_name,
    no_lock_file,
    no_log,
    not_its_lock_file,
    raise_if_foreign,
)
from lockkit_sqlite.files import FILES, LOG, Carried, Files, clear, look
from lockkit_sqlite.layout import DDL, DERIVED, KEPT, PAGE_SIZE, check_layout, layout_row
from lockkit_sqlite.place import Place, make_file, make_pulses, unusable
from lockkit_sqlite.presence import LOCK, LockFile, Presence, enter, inode, pids, used

__all__ = ["Opening", "mark_anew"]

_SHORTEST, _LONGEST = 0.001, 0.02
_CARRYING = 0.2


class Opening:
    """The opening of the files of a store, in as many attempts as it takes.

    Args:
        place: The place of the database.
        files: The files that this process has open there.
        options: The clock for deadlines, and the owner to note in a new layout.
        user: The store that opens them.
        end: ``time.monotonic()`` at which to give up.
        old: A connection to the files as they were, from which readable fences and records are carried over.
        adopt: Whether to accept a database that records another lock file, if that is not at its path.

    Attributes:
        generation: See :class:`~lockkit_sqlite.files.Files`.
        why: The damage for which the files had to be made anew; empty if they were not.
    """

    def __init__(
        self,
        place: Place,
        files: Files,
        options: OpenOptions,
        user: object,
        end: float,
        *,
        old: Connection | None = None,
        adopt: bool = False,
    ) -> None:
        self._place = place
        self._files = files
        self._options = options
        self._user = user
        self._end = end
        self._old = old
        self._adopt = adopt
        self._trouble = self.why = ""
        self.generation = 0

    def connect(self) -> tuple[Connection, Connection]:
        """Open the files under their names, or new ones; return a connection for callers, one for heartbeats.

        Raises:
            Refused: The files cannot be opened, for instance because other processes have damaged ones open.
            Unknown: SQLite's error leaves open whether anything was done.
        """
        place, pause = self._place, _SHORTEST
        try:
            while True:
                try:
                    with OPENING:
                        opened = self._attempt()
                except FileNotFoundError as error:  # the folder went after it was checked
                    raise_if_foreign(error)
                    opened = None
                    if place.shared:
                        raise
                    make_folders(Path(place.path).parent)
                if opened is not None:
                    return opened
                if time.monotonic() >= self._end:
                    seen = pids(place.path + LOCK)
                    raise in_use(place.path, self._trouble, seen) if self._trouble else busy(place.path, seen)
                time.sleep(pause * (0.5 + jitter()))
                pause = min(2 * pause, _LONGEST)
        except OSError as error:
            raise unusable(place.given, error) from error

    def _attempt(self) -> tuple[Connection, Connection] | None:
        """Open the files; None if others are in the way or a file was removed. The caller has OPENING."""
        files, given = self._files, str(self._place.given)
        self._trouble = ""
        make_pulses(self._place.pulses, shared=self._place.shared)
        damage = files.damage(given) if files.inside else ""
        if damage:
            self._carry(self._old, damage)
            files.abandon()
        presence = files.presence if files.inside else enter(self._place)
        if presence is None:
            return None
        mine: list[Connection] = []
        found = False
        try:
            found = self._enter(presence, mine)
        except (Refused, Unknown) as error:
            if os.path.lexists(self._place.path):  # also a link that leads nowhere, which must be refused
                raise
            self._trouble = str(error)
        finally:
            if not found:
                for each in mine:
                    each.close()
                if presence is not files.presence:
                    presence.close()
        if not found:
            return None
        carried, files.carried = files.carried, None
        self.why, self.generation = carried.why if carried else "", files.generation
        return mine[0], mine[1]

    def _enter(self, presence: Presence, mine: list[Connection]) -> bool:
        """Open the connections while the lock is held; False if the files cannot be used as they are now."""
        files, path, given = self._files, self._place.path, str(self._place.given)
        if presence.alone:
            self._clear()
            make_file(path, self._place)
        planted = link(path)
        if planted is not None:
            raise linked(planted)
        if presence.alone and self._used() and not self._known(presence):
            # By another name it would have another log, and a connection would see another database.
            raise no_lock_file(path, pids(path))
        before = look(given, path)
        newcomer = not presence.alone and not files.inside
        if newcomer and (before.database is None or (not before.whole and self._used())):
            # They are opening the database, or will notice a removed file and leave.
            self._trouble = "its database or log is not there"
            return False
        calls = self._connect(mine)
        if presence.alone and not self._accept_or_create(calls, presence):
            return False
        # Even for a process alone by this lock file: the database may have been adopted by another name.
        if not self._belongs(calls, presence):
            return False
        self._restore_carried(calls)
        self._connect(mine)
        found = look(given, path)
        # A file was replaced meanwhile. A new log is no damage: this process may have made it.
        if newcomer and found.damage(before, path):
            return False
        return found.whole and found.database == inode(path) and files.took(presence, found, self._user)

    def _connect(self, mine: list[Connection]) -> Connection:
        place = self._place
        made = Connection(place, self._options.clock, self._end, self._files)
        mine.append(made)
        return made

    def _clear(self) -> None:
        """Remove a log whose database is gone."""
        path = self._place.path
        left = [Path(path + suffix).name for suffix in ("-wal", "-shm") if os.path.lexists(path + suffix)]
        if left and not os.path.lexists(path):
            if self._files.carried is None:
                self._files.carried = Carried(f"{Path(path).name} was removed")
            clear(path)

    def _carry(self, old: Connection | None, why: str) -> None:
        """Keep a damaged or copied store's fence and records, if legible. Fences follow the clock, too."""
        before = self._files.carried or Carried(why)
        fence, kept = 0, before.records
        if old is not None:
            end = time.monotonic() + _CARRYING
            columns = "namespace, name, version, value, written, v, min_reader"
            records = f"SELECT {columns} FROM records"  # noqa: S608 - also damaged ones, which are not absent
            try:
                ((fence,),) = old.read(sql.NEWEST_FENCE, (), end)
                kept = tuple(old.read(records, (), end)) or kept
                for (token,) in old.read("SELECT token FROM claims", (), end):
                    self._options.suspect(
                        token
                    )  # others may be granted these locks as soon as this process has left
            except (Refused, Unknown, ValueError):
                pass
        self._files.carried = Carried(before.why, max(fence, before.fence), kept)

    def _restore_carried(self, connection: Connection) -> None:
        """Write the fence and records carried over into the store, whichever process created it."""
        carried = self._files.carried
        if carried is None:
            return
        end = self._end
        connection.change(
            "UPDATE entries SET since = max(since, ?1) WHERE namespace = ''", (carried.fence,), end
        )
        for record in carried.records:
            connection.change(
                "INSERT OR IGNORE INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", record, end
            )
        mark_anew(connection, carried.why, self._options, end)

    def _accept_or_create(self, connection: Connection, presence: Presence) -> bool:
        """Accept or lay out the database, alone with the files; False if it was a copy, which is removed."""
        path, meta = self._place.path, _meta(connection, self._end)
        if meta and meta.get("file", _number(path)) != _number(path):
            self._carry(connection, f"{Path(path).name} was a copy of another database")
            connection.close()
            clear(path)
            return False
        if "layout" in meta:
            check_layout(meta["layout"], path)
            self._record_lock_file(connection, meta.get("lock"), presence.file)
            self._change(connection, self._missing(connection))
        else:
            connection.read(f"PRAGMA page_size={PAGE_SIZE}", (), self._end)
            self._change(connection, ("BEGIN IMMEDIATE", *DDL))
            self._change(connection, self._missing(connection))
            self._note(connection, presence.file)
            connection.change("COMMIT", (), self._end)
        # Last, because without a log the notes above are in the database file itself, readable by any name.
        if connection.read("PRAGMA journal_mode=WAL", (), self._end) != [("wal",)]:
            raise no_log(path)
        return True

    def _change(self, connection: Connection, statements: Iterable[str]) -> None:
        for statement in statements:
            connection.change(statement, (), self._end)

    def _missing(self, connection: Connection) -> Iterable[str]:
        """Statements that restore trigger, views and the row of the highest fence, if others changed them."""
        schema = "SELECT sql, type, name FROM sqlite_schema WHERE name IN ('keep_fence', 'high', 'claims')"
        found = {sql: f"DROP {kind} {name}" for sql, kind, name in connection.read(schema, (), self._end)}
        yield from [drop for sql, drop in found.items() if sql not in DERIVED]
        yield from [create for create in DERIVED if create not in found]
        if not connection.read("SELECT 1 FROM entries WHERE namespace = ''", (), self._end):
            yield f"INSERT INTO {KEPT.format(fence=0)} NOTHING"

    def _used(self) -> bool:
        """Whether the database may be open elsewhere, or here by another name. Not to be asked while open."""
        here = inode(self._place.path)
        return any(each.use(here) for each in list(FILES.values())) or used(self._place.path)

    def _known(self, presence: Presence) -> bool:
        """Whether the database file itself, read without its log, records this lock file."""
        try:
            with closing(
                sqlite3.connect(f"file:{quote(self._place.path)}?mode=ro&immutable=1", uri=True)
            ) as found:
                limit(found, [self._end])
                ((stored,),) = rows_of(found, "SELECT value FROM meta WHERE key = 'lock'")
        except (sqlite3.Error, ValueError) as error:
            if time.monotonic() >= self._end:
                raise busy(self._place.path) from error
            return False
        recorded = LockFile.read(stored)
        return recorded is not None and recorded.same(presence.file)

    def _record_lock_file(self, connection: Connection, stored: str | None, here: LockFile) -> None:
        """Record this lock file, once it is certain that nobody uses the database by another one or none.

        Raises:
            Refused: Another process uses the database by another name or with an older version, or may do so.
        """
        path, before = self._place.path, LockFile.read(stored or "")
        if before is not None and before.same(here):
            if before != here:
                self._note(connection, here)
            return
        found, there = before.reach() if before is not None else (False, None)
        try:
            if stored is not None:
                where = before.path if before is not None else ""
                name = where.removesuffix(LOCK)
                if there is None and (found or not self._adopt):
                    raise not_its_lock_file(
                        path, where, pids(name, where) if found else pids(path), used=found
                    )
                if there is not None and os.path.lexists(name + LOG):
                    raise log_of_other_name(path, name)
            try:
                # SQLite gives up the log only if no other connection has the database open, by any name. A
                # later one gives the log back, or waits for this transaction (connection.stays).
                connection.read("PRAGMA journal_mode=DELETE", (), 0.0)
                connection.change("BEGIN EXCLUSIVE", (), 0.0)
            except Refused as error:
                raise no_lock_file(path, pids(path)) from error
            log = connection.read("PRAGMA journal_mode", (), 0.0) != [("delete",)]
            if log or _meta(connection, self._end).get("lock") != stored:
                raise no_lock_file(path, pids(path))
            self._note(connection, here)  # while the other lock file is still locked
            connection.change("COMMIT", (), self._end)
        finally:
            if there is not None:
                there.close()

    def _note(self, connection: Connection, file: LockFile) -> None:
        """Record the lock file and the database's inode. The layout comes last: else all is repeated."""
        notes = {
            "lock": file.text(),
            "file": _number(self._place.path),
            "layout": layout_row(self._options.owner),
        }
        for each in notes.items():
            connection.change("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", each, self._end)

    def _belongs(self, connection: Connection, presence: Presence) -> bool:
        """Whether the database is the one that the other processes with this lock use."""
        path = self._place.path

        def recorded() -> bool:
            meta = _meta(connection, self._end)
            if "layout" in meta:
                check_layout(meta["layout"], path)
            found = LockFile.read(meta.get("lock", ""))
            return found is not None and found.same(presence.file) and meta.get("file") == _number(path)

        if stays(lambda sql: connection.read(sql, (), self._end), recorded, path):
            return True
        self._trouble = "the file that has its name now is another one"
        return False


def _number(path: str) -> str:
    return str(os.stat(path).st_ino)  # noqa: PTH116 - as everywhere here


def _meta(connection: Connection, end: float) -> dict[str, str]:
    found = connection.read("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", (), end)
    return dict(connection.read("SELECT key, value FROM meta", (), end)) if found else {}


def mark_anew(connection: Connection, why: str, options: OpenOptions, end: float) -> None:
    """Note in the store when and why it was made anew, for ``doctor`` and newcomers; the first note stays."""
    row = json.dumps(
        {"at": options.clock.wall(), "why": why, "pid": options.owner.pid}, separators=(",", ":")
    )
    connection.change("INSERT OR IGNORE INTO meta VALUES (?1, ?2)", ("anew", row), end)
