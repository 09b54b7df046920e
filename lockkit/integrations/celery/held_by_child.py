"""The record of the locks that a pool process may hold, for the worker's main process after its death.

The record is memory (memfd_create(2)) shared with the main process: a line of JSON is added before the first
request for a lock, and another one after its release. The process sends its descriptor, pid and time of start
through a socket that the main process made before it forked. No request followed a line that a crash cut
short. Before its first lock in the embedded store it also sends the descriptors that keep a child's claims
alive (``Client.pulse``): the store would free them when it dies, although its children may work on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from lockkit.errors import LockkitError
from lockkit.lib.mutex import Mutex
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.origin import Origin, this_origin
from lockkit.values.identity import process_start

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["Greeting", "Note", "enrol", "open_channel", "read_greeting", "read_notes", "recorded"]

_log = logging.getLogger("lockkit")
_LONGEST = 200
"""Bytes of a greeting, at most."""
_MOST = 4
"""Descriptors that come with a greeting, at most."""
_PATIENCE = 5.0
"""Seconds for which a pool process tries to send its greeting while the main process is busy."""


class Note(NamedTuple):
    """The locks that one run of a task may hold.

    Attributes:
        names: The names of the locks.
        prefix: The beginning of the names of a pool's locks; empty if the run takes from no pool.
        run: The task and its id, as Celery's log has them.
        task_id: The id of the task.
        min_hold: Seconds for which its locks stay blocked from the grant on, whoever dies.
        lock_delay: Seconds for which they stay blocked after the death of the process.
    """

    names: tuple[str, ...] = ()
    prefix: str = ""
    run: str = ""
    task_id: str = ""
    min_hold: float = 0.0
    lock_delay: float = 0.0


class Greeting(NamedTuple):
    """A message of a process to the main process: the first one, or one that brings pulses.

    Attributes:
        pid: The pid of the process.
        started: The time at which it started, in seconds since boot.
        pool: Whether it is a process of the pool, and not one that a task has forked.
        record: The descriptor of its record; None in a message that only brings pulses.
        pulses: The descriptors that keep its claims alive.
    """

    pid: int
    started: float
    pool: bool
    record: int | None
    pulses: tuple[int, ...] = ()


class _Record:
    """The record of this process."""

    def __init__(self, *, pool: bool) -> None:
        self.origin = this_origin()
        self._mutex = Mutex()
        self._open: set[int] = set()
        self._count = 0
        self._end = 0
        self._file = os.memfd_create("lockkit-held", os.MFD_CLOEXEC)
        self._about = {"pid": self.origin.pid, "started": process_start(self.origin.pid) or 0.0, "pool": pool}
        self._lent: weakref.WeakSet[Client] = weakref.WeakSet()
        self._send("record", [self._file])

    def _send(self, what: str, descriptors: Sequence[int]) -> None:
        assert _channel is not None
        _channel.settimeout(_PATIENCE)
        socket.send_fds(_channel, [json.dumps({**self._about, "brings": what}).encode()], descriptors)

    def lend(self, client: Client) -> None:
        """Have the main process keep this process's claims alive until all that it started is known dead."""
        with self._mutex.of_this_process():
            if client in self._lent:
                return
            pulses = client.pulse()
            if pulses:
                self._send("pulses", pulses)
            self._lent.add(client)

    def add(self, note: Note) -> int:
        with self._mutex.of_this_process():
            self._count += 1
            self._write({"add": self._count, **note._asdict()})
            self._open.add(self._count)
            return self._count

    def remove(self, number: int) -> None:
        with self._mutex.of_this_process():
            self._open.discard(number)
            if self._open:
                self._write({"remove": number})
            else:
                os.ftruncate(self._file, 0)
                self._end = 0

    def exits(self) -> None:
        """Note that this process ends by SystemExit, without a release."""
        self._write({"exits": True})

    def _write(self, line: dict[str, object]) -> None:
        data = json.dumps(line).encode() + b"\n"
        if os.pwrite(self._file, data, self._end) == len(data):
            self._end += len(data)


_channel: socket.socket | None = None
_main: Origin | None = None
"""The main process."""
_record: _Record | None = None
_mutex = Mutex()


def open_channel() -> socket.socket:
    """Make the socket of the greetings, in the main process, before it forks. Returns its end of it."""
    global _channel, _main
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.setblocking(False)
    _channel, _main = theirs, this_origin()
    return mine


def enrol(*, pool: bool = False) -> _Record | None:
    """Make this process's record, and notify the main process. None there, and without a channel."""
    global _record  # noqa: PLW0603 (one for each process)
    if _channel is None or (_main is not None and _main.is_here()):
        return None
    with _mutex.of_this_process():
        if _record is None or not _record.origin.is_here():
            try:
                _record = _Record(pool=pool)
            except OSError as error:
                _log.warning("%s", f"cannot tell the worker's main process what this process holds: {error}")
                return None
        return _record


@contextlib.contextmanager
def recorded(client: Client, note: Note) -> Iterator[Callable[[], None] | None]:
    """Keep a note in this process's record. Without one, a dead process's locks lapse after their ttl.

    Yields a function that notes an end without a release; None if nobody would free its locks then.
    """
    record = enrol()
    number = None
    if record is not None:
        with contextlib.suppress(
            OSError, LockkitError
        ):  # a store that is away: the request itself will say so
            record.lend(client)
        with contextlib.suppress(OSError):
            number = record.add(note)
    try:
        yield None if record is None or number is None else record.exits
    finally:
        if record is not None and number is not None:
            with contextlib.suppress(OSError):
                record.remove(number)


def read_greeting(mine: socket.socket) -> Greeting | None:
    """The next greeting; None if there is none now.

    Raises:
        ValueError: The message is none.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(mine, _LONGEST, _MOST)
    except BlockingIOError:
        return None
    try:
        about = json.loads(data)
        pid, started, pool = int(about["pid"]), float(about["started"]), bool(about["pool"])
        if about["brings"] == "pulses":
            return Greeting(pid, started, pool, None, tuple(descriptors))
        return Greeting(pid, started, pool, descriptors[0])
    except (ValueError, TypeError, LookupError):
        for descriptor in descriptors:
            os.close(descriptor)
        raise ValueError("a message in the socket of the pool processes is no greeting") from None


def read_notes(record: int) -> tuple[Collection[Note], bool]:
    """The notes in a record that were not removed, and whether the process noted that it ends."""
    size = os.fstat(record).st_size
    notes: dict[int, Note] = {}
    exits = False
    for line in os.pread(record, size, 0).split(b"\n"):
        try:
            told = json.loads(line)
        except ValueError:
            continue  # the end of the text, or a line that a crash cut short
        if "add" in told:
            fields = {key: value for key, value in told.items() if key not in ("add", "names")}
            notes[told["add"]] = Note(tuple(told["names"]), **fields)
        elif "remove" in told:
            notes.pop(told["remove"], None)
        else:
            exits = True
    return tuple(notes.values()), exits
