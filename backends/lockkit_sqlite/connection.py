"""One connection to the database file, shared by threads. Each call obeys its own time limit.

No write transaction spans a return to Python: every write is one autocommit statement, finished inside one
call of ``sqlite3_step`` (which releases the GIL). A BEGIN ... COMMIT around Python code stalled every other
process for as long as one thread of this process held the GIL.

No connection is open across a fork: a child would take its parent's locks for its own, and so hold none
(sqlite.org/howtocorrupt.html, 2.6). A fork holds no connection's lock either: it closes the connections one
by one, and until it is over no other thread opens one. To other threads a fork looks like a busy file.

SQLite's busy handler sleeps 1, 2, 5, 10, 15, 20 ms and more for a lock held for 10 us. So it is off, and a
call tries again after fractions of a millisecond (docs/decisions/sqlite-no-second-lock.md), or at once if
another process has only written first: sched_yield(2) costs milliseconds on a busy machine.

A signal handler may fork or use this connection. CPython runs it between two instructions of Python code,
so a statement is run, and its rows are fetched, in one call of C code (:func:`rows_of`). A handler between
the two would find the statement unfinished: a fork could not close the connection, which the child would
inherit, and a call of the handler would see what was stored when that statement began.
"""

from __future__ import annotations

import math
import operator
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

from lockkit.lib.clock import Clock, jitter
from lockkit.lib.forks import Forks
from lockkit.lib.origin import this_origin
from lockkit.store.inherited import inherited
from lockkit.store.spi import Refused, Unknown
from lockkit_sqlite.failures import (
    adopted,
    busy,
    is_busy,
    is_closed,
    is_overtaken,
    link,
    linked,
    mapped,
    no_log,
    retired,
    swapped,
    torn,
)
from lockkit_sqlite.place import Place

__all__ = [
    "OPENING",
    "Connection",
    "Inside",
    "Params",
    "after_fork_in_child",
    "after_fork_in_parent",
    "before_fork",
    "inside",
    "limit",
    "retire",
    "rows_of",
    "stays",
    "take_part",
]

Params: TypeAlias = "tuple[int | str | float | None, ...]"
Rows: TypeAlias = "list[Any]"
T = TypeVar("T")
Inside: TypeAlias = "Sequence[sqlite3.Connection]"
_SHORTEST, _LONGEST = 0.00005, 0.004
_SETTING_UP = 2.0
_RESUMING = 0.5
_CLOCK_EVERY = 100_000
"""Instructions of SQLite's virtual machine, some milliseconds, after which a statement checks its time."""
_CHECKPOINT = 4000
"""Pages of log (8 MB) after which a writer copies it into the file, which costs two fsyncs."""


class Lock(Protocol):
    """The lock of this process on a store."""

    @property
    def inside(self) -> bool:
        """Whether the process has the lock."""

    def recorded(self, stored: str) -> bool:
        """Whether this is how a database records the file that is locked."""


class Connection:
    """One connection. Thread-safe: one statement at a time; other threads may try while a call waits.

    Attributes:
        path: The database.
        whole: Says whether the files are still those that were opened. Called after an error: if the files
            were removed or replaced, the error says nothing about the request.
    """

    def __init__(
        self,
        place: Place,
        clock: Clock,
        end: float = math.inf,
        lock: Lock | None = None,
    ) -> None:
        """Open a database that exists.

        Args:
            place: The place of the database.
            clock: The clock for deadlines.
            end: ``time.monotonic()`` at which to give up at the latest.
            lock: The process's lock on the store, which is kept until the connection is closed.

        Raises:
            Refused, Unknown: See :mod:`lockkit_sqlite.failures`.
        """
        self.path = place.path
        self._place = place
        self._origin = this_origin()
        self._clock = clock
        self.whole: Callable[[], bool] = lambda: True
        # Held only while SQLite runs, and only by ``with``, which Ctrl-C cannot tear: a lock acquired with a
        # timeout stays taken for good if the signal comes before its result is looked at. Reentrant, for
        # calls of signal handlers. A fork waits for it once: SQLite's mutexes, if held then, would stay
        # locked in the child, and a store opened there would hang.
        self._inside = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._beside: list[sqlite3.Connection] = []
        """Connections that are being opened or closed: dropped, they would stay open until collected."""
        self._resting = True
        """Whether the connection is not open yet, or was closed for a fork and is not open again."""
        self._retired = False
        self._lock = lock
        self._ends = [math.inf]
        """``time.monotonic()`` at which the statement that is being run is broken off."""
        with OPENING:
            if self.path in _torn:
                raise torn(self.path)
            _connections.add(self)
            self._perform(self._wake, min(end, time.monotonic() + _SETTING_UP))

    def _connect(self) -> sqlite3.Connection:
        # The path has no links, so a present one was planted. SQLite itself follows no link to log and index.
        self._refuse_links()
        # mode=rw: SQLite creates nothing. What it creates has the modes that the umask leaves.
        uri = f"file:{quote(self.path)}?mode=rw"
        connect = partial(sqlite3.connect, timeout=0, isolation_level=None, check_same_thread=False, uri=True)
        try:
            # One call of C code, so that a handler that forks finds the connection, and closes it.
            next(map(self._beside.append, map(connect, (uri,))))
            connection = self._beside[-1]
            limit(connection, self._ends)
            rows_of(connection, f"PRAGMA synchronous={self._place.synchronous}")
            rows_of(connection, f"PRAGMA wal_autocheckpoint={_CHECKPOINT}")
            rows_of(connection, "PRAGMA temp_store=MEMORY")
            # Only a read of the database opens its log and index.
            tables = rows_of(connection, "SELECT name FROM sqlite_schema")
            self._refuse_links()  # it may have been planted while SQLite opened the database
            if self._lock is not None and self._lock.inside and ("meta",) in tables:
                self._refuse_adopted(connection, self._lock)
            return connection
        except BaseException:
            self._close_beside()
            raise

    def _refuse_links(self) -> None:
        found = link(self.path)
        if found is not None:
            raise linked(found)

    def _refuse_adopted(self, connection: sqlite3.Connection, lock: Lock) -> None:
        """Refuse a database adopted by another name while a fork had closed all connections."""

        def recorded() -> bool:
            found = rows_of(connection, "SELECT value FROM meta WHERE key = 'lock'")
            return all(lock.recorded(stored) for (stored,) in found)

        if not stays(partial(rows_of, connection), recorded, self.path):
            raise adopted(self.path)

    def write(self, sql: str, params: Callable[[int], Params], end: float) -> tuple[int, int]:
        """Run one statement that writes.

        Args:
            sql: The statement.
            params: Makes its parameters from CLOCK_BOOTTIME microseconds. Called anew for each try: after a
                second of waiting for the file, an earlier deadline would be a second short.
            end: ``time.monotonic()`` at which to give up.

        Returns:
            How many rows it changed, and the time that ``params`` was given.

        Raises:
            Refused, Unknown: See :mod:`lockkit_sqlite.failures`.
        """

        def step() -> tuple[int, int]:
            now = int(self._clock.now() * 1e6)
            connection = self._connection or self._live()
            return connection.execute(sql, params(now)).rowcount, now

        return self._perform(step, end)

    def change(self, sql: str, params: Params, end: float) -> int:
        """Run one statement that writes and does not depend on the time; how many rows it changed."""
        return self.write(sql, lambda _: params, end)[0]

    def read(self, sql: str, params: Params, end: float) -> Rows:
        """Run one statement that reads, and fetch all its rows."""
        return self._perform(lambda: rows_of(self._live(), sql, params), end)

    def _perform(self, step: Callable[[], T], end: float) -> T:
        """Perform a step inside SQLite; while the file is busy and there is time, wait and try again."""
        pause = _SHORTEST
        while True:
            try:
                with self._inside:
                    self._ends[0] = end
                    return step()
            except sqlite3.Error as error:
                if is_closed(error) and time.monotonic() < end:  # by a signal handler that forked
                    continue
                if not is_busy(error):
                    raise (mapped(error, self.path) if self.whole() else swapped(self.path, error)) from error
                left = end - time.monotonic()
                if left <= 0:
                    raise busy(self.path) from error
                if is_overtaken(error):
                    continue
            time.sleep(min(left, pause * (0.5 + 0.5 * jitter())))
            pause = min(2 * pause, _LONGEST)

    def close(self) -> None:
        """Close the connection, after the call in progress."""
        if not self._origin.is_here():
            return
        with self._inside:
            self._resting = False
            self._let_go()

    def rest(self) -> None:
        """Close for a fork that is about to start, after the call in progress. May be repeated."""
        with self._inside:
            if self._connection is not None:
                # Set this first: a connection that is closed and does not rest counts as closed for good.
                self._resting = True
            self._let_go()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._beside.append(self._connection)
            self._connection = None
        self._close_beside()

    def _close_beside(self) -> None:
        for each in list(self._beside):
            each.close()
        self._beside.clear()

    def resume(self) -> None:
        """Open again after a fork, in the parent; if that fails, the next call tries. May be repeated."""
        try:
            self._perform(self._wake, time.monotonic() + _RESUMING)
        except (Refused, Unknown):
            pass

    def retire(self) -> None:
        """Close for good, after the call in progress: the files are damaged, and later calls are refused."""
        with self._inside:
            self._retired = True
            self._resting = False
            self._let_go()

    def _wake(self) -> None:
        """Open the database unless it is open. The store's lock keeps others from creating it anew."""
        while self._resting and self._connection is None:
            opened = self._connect()
            # No call in between: a handler that forked has closed it and emptied the list.
            if opened in self._beside and self._connection is None:
                self._connection = opened
            self._beside.clear()
        self._resting = False

    @property
    def open(self) -> sqlite3.Connection | None:
        """SQLite's connection while it is open."""
        return self._connection

    def __del__(self) -> None:
        for connection in (getattr(self, "_connection", None), *getattr(self, "_beside", ())):
            if connection is not None:
                connection.close()  # without a warning: the client warns if it was never closed

    def park(self) -> None:
        """In a forked child, give up an inherited connection, which must be neither used nor closed.

        There is one only if :func:`before_fork` did not complete: something other than Python forked, or a
        signal handler interrupted every attempt. It is leaked, beyond the interpreter's shutdown too, and the
        process can never open that database: SQLite would take the parent's locks for its own.
        """
        prepared = _forks is not None and _forks.prepared()
        kept = [each for each in (self._connection, *self._beside) if each is not None]
        if kept or (self._resting and not prepared):
            _torn.add(self.path)
        for connection in kept:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self._connection = None
        self._beside = []
        self._resting = False
        self._inside = threading.RLock()

    def _live(self) -> sqlite3.Connection:
        if self._connection is None and self._resting and self._origin.is_here():
            if _forks is not None and _forks.elsewhere():
                raise _Busy("another thread is forking this process")
            self._wake()
        connection = self._connection
        if connection is None:
            raise retired(self.path) if self._retired else inherited(self.path)
        return connection


def stays(read: Callable[[str], Rows], recorded: Callable[[], bool], path: str) -> bool:
    """Whether a database is that of the lock file that this process has locked, while connected to it.

    A connection to a database with a log keeps SQLite's shared lock, so nobody can adopt it under another
    name. Without a log the database is being adopted, or somebody ran ``PRAGMA journal_mode=DELETE`` while no
    connection was open. Then it gets its log back. That is always safe: adopting it records the new lock
    file in one transaction without a log. Before, the log stops that; afterwards, the record shows here.

    Args:
        read: Runs a statement with the connection.
        recorded: Looks whether the database records the lock file.
        path: The database.

    Raises:
        Refused: The file system does not support a log.
    """
    log = [("wal",)]
    if read("PRAGMA journal_mode") != log:
        if not recorded():
            return False
        if read("PRAGMA journal_mode=WAL") != log:
            raise no_log(path)
    return recorded()


def rows_of(connection: sqlite3.Connection, sql: str, params: Params = ()) -> Rows:
    """Run one statement and fetch its rows, without a moment in which a signal handler could run."""
    try:
        return next(map(list, map(connection.execute, (sql,), (params,))))
    except sqlite3.OperationalError as error:
        if "UTF-8" not in str(error):
            raise
    connection.text_factory = _text  # slower, so it is only used once somebody has written what is no text
    return next(map(list, map(connection.execute, (sql,), (params,))))


def limit(connection: sqlite3.Connection, ends: Sequence[float]) -> None:
    """Have SQLite break off statements at ``ends[0]``, of ``time.monotonic()``."""
    # Without a step in Python, in which a signal handler might raise: SQLite would clear the exception.
    late = map(operator.lt, map(ends.__getitem__, repeat(0)), iter(time.monotonic, None))
    connection.set_progress_handler(late.__next__, _CLOCK_EVERY)


def _text(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


class _Busy(sqlite3.OperationalError):
    """Raised while another thread forks this process; it counts as a busy file."""

    sqlite_errorname = "SQLITE_BUSY"


OPENING = threading.RLock()
"""Held while connections are opened, one at a time; a fork takes it, so it waits for them."""
_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_torn: set[str] = set()
"""Databases of which this process has connections that its parent opened."""
_forks: Forks | None = None


def inside(path: str) -> Inside:
    """The connections to a database that this process has open."""
    there = [connection.open for connection in list(_connections) if connection.path == path]
    return [each for each in there if each is not None]


def retire(path: str) -> None:
    """Close all connections to a database for good."""
    for connection in list(_connections):
        if connection.path == path:
            connection.retire()


def take_part(forks: Forks) -> None:
    """Keep all other threads from opening connections while one thread forks."""
    global _forks  # noqa: PLW0603
    _forks = forks


def before_fork() -> None:
    """Wait for each connection until no thread is inside SQLite, and close it. May be repeated."""
    for connection in list(_connections):
        connection.rest()


def after_fork_in_parent() -> None:
    """Open the connections again. May be repeated; a connection left out is opened by its next call."""
    for connection in list(_connections):
        connection.resume()


def after_fork_in_child() -> None:
    """Give up every inherited connection."""
    for connection in list(_connections):
        connection.park()
