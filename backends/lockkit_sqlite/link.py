"""One connection to the file, shared by threads, with its own patience.

No write transaction spans a return to Python: every write is one autocommit statement, finished inside one call of
``sqlite3_step`` (which releases the GIL). A BEGIN ... COMMIT around Python code stalled every other process for as
long as one thread of this process held the GIL.

SQLite's own busy handler sleeps 1, 2, 5, 10, 15, 20 ms and more; the lock it waits for is held for some 10 us. So it
is off, and this one tries again at once, then after fractions of a millisecond.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from lockkit.clock import Clock, jitter
from lockkit_sqlite.failures import busy, inherited, is_busy, mapped

__all__ = ["Link", "Params", "after_fork_in_child", "after_fork_in_parent", "before_fork"]

Params: TypeAlias = "tuple[int | str | float | None, ...]"
Rows: TypeAlias = "list[Any]"
_YIELDS = 3
_SHORTEST, _LONGEST = 0.00005, 0.004
_SETTING_UP = 2.0
_CHECKPOINT = 4000
"""Pages of log (8 MB) after which a writer copies it into the file, which costs two fsyncs."""


class Link:
    """One connection. Thread-safe: one statement at a time, and whoever waits for the file lets the others try.

    ``_inside`` is held only while SQLite runs, and only by ``with``, which Ctrl-C cannot tear: a lock that is acquired with
    a timeout stays taken for good if the signal lands before the result is looked at. It is reentrant for a signal handler
    that makes a call in the middle of another. A fork waits for it: SQLite's own mutexes, if a thread held one at that
    moment, would stay locked in the child for ever, and a store opened there would hang.
    """

    def __init__(self, path: str, clock: Clock, *, synchronous: str = "NORMAL") -> None:
        self.path = path
        self._clock = clock
        self._inside = threading.RLock()
        with _opening:
            try:
                self._connection: sqlite3.Connection | None = sqlite3.connect(
                    path, timeout=0, isolation_level=None, check_same_thread=False
                )
            except sqlite3.Error as error:
                raise mapped(error, path) from error
            _links.add(self)
        end = time.monotonic() + _SETTING_UP
        self.read(f"PRAGMA synchronous={synchronous}", (), end)
        self.read(f"PRAGMA wal_autocheckpoint={_CHECKPOINT}", (), end)
        self.read("PRAGMA temp_store=MEMORY", (), end)

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
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()  # whether a forgotten client deserves a warning is for the client to say

    def park(self) -> None:
        """In a forked child: never use the inherited connection, and never close it either.

        "Do not open an SQLite database connection, then fork(2), then try to use that connection in the child"
        (sqlite.org/howtocorrupt.html, 2.6). So it is leaked, beyond the reach of the interpreter's shutdown too.
        """
        connection, self._connection = self._connection, None
        self._inside = threading.RLock()
        if connection is not None:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def _live(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is None:
            raise inherited(self.path)
        return connection

    def _pause(self, error: sqlite3.Error, tries: int, end: float) -> int:
        """Wait a moment if the file is busy and there is time; else raise."""
        if not is_busy(error):
            raise mapped(error, self.path) from error
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


def before_fork() -> None:
    """Wait until no thread is inside SQLite, and keep it so."""
    _opening.acquire()
    for link in list(_links):
        link._inside.acquire()  # noqa: SLF001
        _held.append(link._inside)  # noqa: SLF001


def after_fork_in_parent() -> None:
    """Let them go on."""
    while _held:
        _held.pop().release()
    _opening.release()


def after_fork_in_child() -> None:
    """Park every inherited connection."""
    global _opening  # noqa: PLW0603
    _opening = threading.RLock()
    _held.clear()
    for link in list(_links):
        link.park()
