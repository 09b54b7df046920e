"""The store: rows of one SQL table, each with the document of a queue and its version.

lockkit.store.documents builds all of lockkit's calls on three methods here: read, compare-and-swap, read all.
TODO: replace the statements and the connection by those of your server.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lockkit.errors import BackendUnavailable, ConfigError, LockkitError, OutcomeUnknown
from lockkit.facts import Finding
from lockkit.store.document import Stored
from lockkit.store.documents import DocumentBackend
from lockkit.store.spi import OpenOptions, Refused, Unknown
from lockkit.values.names import check_namespace
from lockkit_template import CAPABILITIES

__all__ = ["TemplateBackend"]

_TABLE = """
CREATE TABLE IF NOT EXISTS queues (
    namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (namespace, name)
)
"""
_READ = "SELECT document, version FROM queues WHERE namespace = ? AND name = ?"
_READ_ALL = "SELECT document, version FROM queues WHERE namespace = ?"
_CREATE = "INSERT INTO queues (namespace, name, version, document) VALUES (?, ?, 1, ?) ON CONFLICT DO NOTHING"
_SWAP = (
    "UPDATE queues SET version = version + 1, document = ? WHERE namespace = ? AND name = ? AND version = ?"
)

# TODO: one line for each error code of your server by which it says that it has not executed the statement.
_NOT_DONE = {
    sqlite3.SQLITE_BUSY: "other programs use {where} all the time",
    sqlite3.SQLITE_CANTOPEN: "{where} cannot be opened",
    sqlite3.SQLITE_FULL: "the disk of {where} is full",
    sqlite3.SQLITE_READONLY: "{where} may not be written",
}


class TemplateBackend(DocumentBackend):
    """One open store. Thread-safe, because no two calls use a connection at the same time."""

    capabilities = CAPABILITIES

    def __init__(self, url: str, options: OpenOptions) -> None:
        """Open the store. TODO: connect here, so that a wrong address or password is reported now."""
        path = url.partition(":")[2]
        if not path.startswith("/"):
            raise ConfigError(f"not an absolute path: {path!r}", hint="write template:/some/file")
        super().__init__(options, path)
        self._path = path
        self._namespace = check_namespace(options.namespace)
        self._free: list[sqlite3.Connection] = []
        self._closed = False
        end = time.monotonic() + options.budget
        self._use_log(end)
        self._run(_TABLE, (), end)

    def _use_log(self, end: float) -> None:
        """Have SQLite write to a log first, so that a reader that is stopped blocks no writer.

        SQLite does not wait for this, as it does elsewhere, while another program is creating the file.
        """
        while True:
            try:
                self._run("PRAGMA journal_mode = WAL", (), end)
                return
            except Refused as refused:
                busy = getattr(refused.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() >= end:
                    raise
            time.sleep(0.01)

    def read(self, name: str, end: float) -> Stored:
        # TODO: if several hosts use the store, also read the server's time: Stored(text, version, time).
        rows, _ = self._run(_READ, (self._namespace, name), end)
        return Stored(*rows[0]) if rows else Stored(None, 0)

    def write(self, name: str, text: str, version: Hashable, end: float) -> bool:
        if version == 0:
            _, changed = self._run(_CREATE, (self._namespace, name, text), end)
        else:
            _, changed = self._run(_SWAP, (text, self._namespace, name, version), end)
        return changed == 1

    def read_all(self, end: float) -> Iterable[Stored]:
        rows, _ = self._run(_READ_ALL, (self._namespace,), end)
        return [Stored(*row) for row in rows]

    def check(self, budget: float) -> Sequence[Finding]:
        """TODO: check the role of the server, its durability, and the user's rights."""
        self._run("SELECT 1", (), time.monotonic() + budget)
        return [
            Finding("template", "warning", "this store is a template", "write a store of your own with it")
        ]

    def _run(self, statement: str, words: Sequence[object], end: float) -> tuple[list[Any], int]:
        """Execute one statement before ``end``. Returns the rows that it reads, and how many it changes.

        Raises:
            Refused: The statement was definitely not executed.
            Unknown: The statement may have been executed.
        """
        try:
            with self._connection() as connection:
                connection.execute(f"PRAGMA busy_timeout = {max(int((end - time.monotonic()) * 1000), 0)}")
                cursor = connection.execute(statement, words)
                return cursor.fetchall(), cursor.rowcount
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for this call alone. TODO: lockkit.store.connections has a pool that also tests."""
        try:
            connection = self._free.pop()
        except IndexError:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._free.append(connection)
        if self._closed:  # while this call was under way
            self.close()

    def close(self) -> None:
        """Close the connections; those in use close when their call ends. A forked child closes none."""
        self._closed = True
        super().close()
        while self._free and not self.inherited:
            try:
                self._free.pop().close()
            except IndexError:  # another thread was faster
                return

    def _trouble(self, error: sqlite3.Error) -> Refused | Unknown:
        """Map an error of the client library to Refused or Unknown. An unlisted error is Unknown."""
        code = getattr(error, "sqlite_errorcode", None)
        known = _NOT_DONE.get(code & 0xFF) if code is not None else None
        if known is None:
            found: LockkitError = OutcomeUnknown(f"{self._path}: {error}")
            return Unknown(found)
        return Refused(
            BackendUnavailable(known.format(where=self._path), hint="see which programs have it open")
        )
