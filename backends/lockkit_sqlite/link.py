"""One connection to the file, shared by threads, with its own patience.

No write transaction spans a return to Python: every write is one autocommit statement, finished inside one call of
``sqlite3_step`` (which releases the GIL). A BEGIN ... COMMIT around Python code stalled every other process for as
long as one thread of this process held the GIL.

No connection is open across a fork: a child would take its parent's locks for its own, and so hold none
(sqlite.org/howtocorrupt.html, 2.6).

SQLite's own busy handler sleeps 1, 2, 5, 10, 15, 20 ms and more; the lock it waits for is held for some 10 us. So it
is off, and this one tries again at once, then after fractions of a millisecond.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias
from urllib.parse import quote

from lockkit.clock import Clock, jitter
from lockkit_sqlite.failures import busy, inherited, is_busy, mapped, swapped

__all__ = ["Link", "Params", "after_fork_in_child", "after_fork_in_parent", "before_fork", "opening"]

Params: TypeAlias = "tuple[int | str | float | None, ...]"
Rows: TypeAlias = "list[Any]"
_YIELDS = 3
_SHORTEST, _LONGEST = 0.00005, 0.004
_SETTING_UP = 2.0
_RESUMING = 0.5
_CHECKPOINT = 4000
"""Pages of log (8 MB) after which a writer copies it into the file, which costs two fsyncs."""


class Link:
    """One connection. Thread-safe: one statement at a time, and whoever waits for the file lets the others try.

    ``_inside`` is held only while SQLite runs, and only by ``with``, which Ctrl-C cannot tear: a lock that is acquired with
    a timeout stays taken for good if the signal lands before the result is looked at. It is reentrant for a signal handler
    that makes a call in the middle of another. A fork waits for it: SQLite's own mutexes, if a thread held one at that
    moment, would stay locked in the child for ever, and a store opened there would hang.
    """

    def __init__(
        self,
        path: str,
        clock: Clock,
        *,
        synchronous: str = "NORMAL",
    ) -> None:
        """Open a database that is there.

        Args:
            path: The database.
            clock: What deadlines are reckoned by.
            synchronous: SQLite's setting of that name.

        Raises:
            Refused, Unknown: See :mod:`lockkit_sqlite.failures`.
        """
        self.path = path
        self._clock = clock
        self._synchronous = synchronous
        self.whole: Callable[[], bool] = lambda: True
        """Whether the files are still those that were opened. Asked after an error: one that comes of files that were removed
        or replaced says nothing of the request."""
        self._inside = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._resting = False
        """Whether the connection was closed for a fork and could not be opened again at once."""
        with opening():
            end = time.monotonic() + _SETTING_UP
            tries = 0
            while True:
                try:
                    self._connection = self._connect()
                    break
                except sqlite3.Error as error:
                    tries = self._pause(error, tries, end)
            _links.add(self)

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: SQLite creates nothing. What it creates has the modes that the umask leaves.
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode=rw",
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT}")
            connection.execute("PRAGMA temp_store=MEMORY")
            # Only a read of the database opens its log and index.
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def write(self, sql: str, params: Callable[[int], Params], end: float) -> tuple[int, int]:
        """Run one statement that writes.

        Args:
            sql: The statement.
            params: Makes its parameters from CLOCK_BOOTTIME microseconds. Called anew for each try: after a second of
                waiting for the file, a deadline reckoned before it would be a second short.
            end: ``time.monotonic()`` at which to give up.

        Returns:
            How many rows it changed, and the time that ``params`` was given.

        Raises:
            Refused, Unknown: See :mod:`lockkit_sqlite.failures`.
        """
        tries = 0
        while True:
            try:
                with self._inside:
                    now = int(self._clock.now() * 1e6)
                    connection = self._connection or self._live()
                    return connection.execute(sql, params(now)).rowcount, now
            except sqlite3.Error as error:
                tries = self._pause(error, tries, end)

    def read(self, sql: str, params: Params, end: float) -> Rows:
        """Run one statement that reads, and fetch all its rows."""
        tries = 0
        while True:
            try:
                with self._inside:
                    return self._live().execute(sql, params).fetchall()
            except sqlite3.Error as error:
                tries = self._pause(error, tries, end)

    def close(self) -> None:
        """Close the connection, after the call in progress."""
        with self._inside:
            self._resting = False
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def rest(self) -> None:
        """Before a fork: close the connection. Under the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._resting = True
            connection.close()

    def resume(self) -> None:
        """After a fork, in the parent: open the connection again; if that fails, the next call tries. Under the lock."""
        end = time.monotonic() + _RESUMING
        while self._resting:
            try:
                self._connection = self._connect()
                self._resting = False
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() > end:
                    return
                time.sleep(_SHORTEST)

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()  # whether a forgotten client deserves a warning is for the client to say

    def park(self) -> None:
        """In a forked child: never use an inherited connection, and never close it either.

        There is one only where something else than Python forked, without :func:`before_fork`. It is leaked, beyond the
        reach of the interpreter's shutdown too.
        """
        connection, self._connection = self._connection, None
        self._resting = False
        self._inside = threading.RLock()
        if connection is not None:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def _live(self) -> sqlite3.Connection:
        if self._connection is None and self._resting:
            self._connection = self._connect()
            self._resting = False
        connection = self._connection
        if connection is None:
            raise inherited(self.path)
        return connection

    def _pause(self, error: sqlite3.Error, tries: int, end: float) -> int:
        """Wait a moment if the file is busy and there is time; else raise."""
        if not is_busy(error):
            raise (mapped(error, self.path) if self.whole() else swapped(self.path, error)) from error
        left = end - time.monotonic()
        if left <= 0:
            raise busy(self.path)
        if tries < _YIELDS:
            os.sched_yield()
        else:
            longest = min(_LONGEST, _SHORTEST * 2.0 ** (tries - _YIELDS))
            time.sleep(min(left, longest * (0.5 + 0.5 * jitter())))
        return tries + 1


_links: weakref.WeakSet[Link] = weakref.WeakSet()
_opening = threading.RLock()
_held: list[Any] = []
_braces: list[int] = []
_SHARED_FIRST = 0x40000002
"""The first byte of a database on which SQLite holds a shared lock while a connection is open (os.h)."""


def opening() -> AbstractContextManager[bool]:
    """The lock under which connections are opened, one at a time; a fork waits for it."""
    return _opening


def before_fork() -> None:
    """Wait until no thread is inside SQLite, keep it so, and close every connection."""
    _opening.acquire()
    for link in list(_links):
        link._inside.acquire()  # noqa: SLF001
        _held.append(link._inside)  # noqa: SLF001
    _braces.extend(_brace(path) for path in {link.path for link in _links})
    for link in list(_links):
        link.rest()


def _brace(path: str) -> int:
    """A descriptor of a database with a lock that keeps a close from being the last: -1 if there is none.

    The last close copies the log into the database and removes it, at two fsyncs; the fork would wait for them. An open
    file description's lock counts against those of its own process, too (fcntl(2)).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except OSError:
        pass  # the fork takes longer
    return descriptor


def _unbrace() -> None:
    """Release the lock. Only while no connection is open: any close of the file drops this process's other locks on it."""
    while _braces:
        descriptor = _braces.pop()
        if descriptor >= 0:
            os.close(descriptor)


def after_fork_in_parent() -> None:
    """Open the connections again, and let the threads go on, whatever a signal handler raises meanwhile."""
    try:
        _unbrace()
        for link in list(_links):
            link.resume()
    finally:
        while _held:
            _held.pop().release()
        _opening.release()


def after_fork_in_child() -> None:
    """Park every inherited connection."""
    global _opening  # noqa: PLW0603
    _unbrace()
    _opening = threading.RLock()
    _held.clear()
    for link in list(_links):
        link.park()
