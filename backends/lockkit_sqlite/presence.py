"""The lock file, which proves who has a store open: each process keeps a shared lock on it.

The lock (flock(2)) belongs to the open file description. A forked child inherits it without a gap, the kernel
drops it when the last copy of the descriptor is closed, also after kill -9, and it works between containers.
So a process that gets the lock exclusively is alone with the files: it may remove what was left behind, or
create the store anew. Without it a process draws no conclusions: if there is no log, another one may just be
forking. Two rules keep the proof true:

- No process unlocks (LOCK_UN) or turns its shared lock into an exclusive one. Unlocking would drop the lock
  of a parent or child as well, and a failed attempt at the exclusive lock drops the shared one. A lock ends
  when its descriptor is closed.
- A process closes its SQLite connections before the descriptor. For a fork it closes the connections, and
  keeps the lock.

The content of the file is a random name, which the database records: see :class:`LockFile`.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path
from struct import Struct
from typing import TypeAlias

from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.untrusted import object_in
from lockkit_sqlite.descriptors import Descriptor, opened
from lockkit_sqlite.failures import raise_if_foreign
from lockkit_sqlite.place import Place, make_file

__all__ = ["LOCK", "Inode", "LockFile", "Presence", "enter", "inode", "pids", "used"]

LOCK = "-lock"
"""The end of the name of a lock file, after that of its database."""
_NAME = 12
"""Bytes of a random name."""
_LOCKS = Path("/proc/locks")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

_FLOCK = Struct("hhqqi")
"""Linux's ``struct flock``: kind, origin, first byte, number of bytes, owner."""
_SHARED_LOCK = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0x40000002, 510, 0)
"""The argument of F_GETLK for any lock on the bytes that SQLite locks (SHARED_FIRST in its os.h)."""

Inode: TypeAlias = tuple[int, int]


class Presence:
    """This process's lock on a lock file.

    Attributes:
        file: The identity of the lock file, as the database records it.
        alone: Whether the lock is exclusive: no other process has the store open.
    """

    __slots__ = ("_descriptor", "alone", "file")

    def __init__(self, descriptor: Descriptor, file: LockFile, *, alone: bool) -> None:
        self._descriptor = descriptor
        self.file = file
        self.alone = alone

    @property
    def over(self) -> bool:
        """Whether the descriptor is closed."""
        return self._descriptor.closed

    def share(self) -> None:
        """Make an exclusive lock a shared one, so that other processes can open the store.

        Raises:
            OSError: Another process got the lock in between, as flock(2) allows; Linux does not do that.
        """
        if self.alone:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self.alone = False

    def close(self) -> None:
        """End the lock. A forked child may call this too: its parent keeps the lock."""
        _touch(self._descriptor)
        self._descriptor.close()


class LockFile(NamedTuple):
    """The identity of a database's lock file. A second name of the database has another lock file.

    Attributes:
        name: The random name, which is the content of the lock file.
        inode: The inode number of the lock file, which differs in a copy. The device is left out, because its
            number may change at a restart.
        path: The path of the lock file when the database recorded it, at which to look for other users.
    """

    name: str
    inode: int
    path: str

    def same(self, other: LockFile) -> bool:
        """Whether both are one file. Paths are ignored: the folder may be renamed, or mounted elsewhere."""
        return self[:2] == other[:2]

    def text(self) -> str:
        """The identity as it is stored."""
        return json.dumps(self._asdict(), separators=(",", ":"))

    @classmethod
    def read(cls, stored: str) -> LockFile | None:
        """The stored identity; None if malformed. Others may have written anything, also a device's name."""
        found = object_in(stored) or {}
        name, number, path = map(found.get, LockFile._fields)
        if not (isinstance(name, str) and isinstance(number, int) and isinstance(path, str)):
            return None
        try:
            fit = path.endswith(LOCK) and b"\0" not in os.fsencode(path)
        except ValueError:
            return None
        return cls(name, number, path) if fit else None

    def reach(self) -> tuple[bool, Presence | None]:
        """Whether the file is at its path, and an exclusive lock on it; None if it is not there or in use."""
        try:
            with opened(self.path, _FLAGS) as file:
                if not _identity(file, self.path).same(
                    self
                ):  # the number of a file that was removed is given away again
                    return False, None
            presence = _lock(self.path, fcntl.LOCK_EX)
        except OSError as error:
            raise_if_foreign(error)
            return False, None
        if presence is not None and not presence.file.same(self):  # replaced just now
            presence.close()
            return True, None
        return True, presence


def enter(place: Place) -> Presence | None:
    """Lock the lock file of a database: exclusively if no other process has the store open, else shared.

    The file is created if it is missing.

    Returns:
        The lock, or None while another process is alone with the files.

    Raises:
        OSError: The lock file cannot be created or opened.
    """
    path = place.path + LOCK
    make_file(path, place, os.urandom(_NAME).hex())
    return _lock(path, fcntl.LOCK_EX) or _lock(path, fcntl.LOCK_SH)


def _lock(path: str, kind: int) -> Presence | None:
    """A lock of this kind; None if another process is in the way, or the file lost its name meanwhile."""
    descriptor = opened(path, _FLAGS)
    # A traceback of a signal handler's exception may keep the descriptor, so it is closed explicitly.
    try:
        seen, file = os.fstat(descriptor.fileno()), _identity(descriptor, path)
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        if inode(path) == (seen.st_dev, seen.st_ino):
            _touch(descriptor)
            return Presence(descriptor, file, alone=kind == fcntl.LOCK_EX)
    except BaseException as error:
        descriptor.close()
        if isinstance(error, BlockingIOError) and error.errno is not None:
            return None
        raise
    descriptor.close()
    return None


def _identity(descriptor: Descriptor, path: str) -> LockFile:
    """The lock file that is open, as a database would name it.

    Raises:
        OSError: No file, but a FIFO or the like.
    """
    seen = os.fstat(descriptor.fileno())
    if not stat.S_ISREG(seen.st_mode):
        raise OSError(0, "not a file", path)
    name = os.pread(descriptor.fileno(), 2 * _NAME, 0).decode("ascii", "replace")
    return LockFile(name, seen.st_ino, path)


def _touch(descriptor: Descriptor) -> None:
    """Keep the lock file as young as the database, lest a cleaner of old files remove it alone."""
    try:
        os.utime(descriptor.fileno())
    except (
        OSError,
        ValueError,
    ) as error:  # a file system that is read-only now; or a descriptor that is closed
        if isinstance(error, OSError):
            raise_if_foreign(error)


def inode(path: str) -> Inode | None:
    """The device and number of a file; None if it is not there.

    Raises:
        OSError: The look failed; the file may be there.
    """
    try:
        seen = os.stat(path)  # noqa: PTH116 - a microsecond matters: Path.stat takes three
    except (FileNotFoundError, NotADirectoryError) as error:
        raise_if_foreign(error)
        return None
    return seen.st_dev, seen.st_ino


def used(path: str) -> bool:
    """Whether another process may have a database open with SQLite. False is a proof.

    SQLite keeps a shared lock (fcntl(2)) on a database that it has open. To query that lock, the database is
    opened once more, and closing it drops all such locks of this process. So the answer is True, unqueried,
    if this process has it open with a connection that is not lockkit's. If another thread opens it in these
    very microseconds, not through lockkit, its connection loses its lock.

    Raises:
        OSError: The database cannot be opened.
    """
    database = inode(path)
    if database is None or _has("self", {Path(path).name}, {database}):
        return True
    descriptor = opened(path, _FLAGS)
    try:
        kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, _SHARED_LOCK))[0]
        return kind != fcntl.F_UNLCK
    finally:
        descriptor.close()


def pids(*paths: str) -> list[int]:
    """The sorted pids of other processes that have one of these files open, as far as this one can see.

    The kernel's list of locks has processes of other users as well, but none of other pid namespaces. A
    process that inherited its lock is not in the list; it is found by its open descriptor.
    """
    found: set[int] = set()
    try:
        wanted = {each for each in map(inode, paths) if each is not None}
        listed = {f"{os.major(device):02x}:{os.minor(device):02x}:{number}" for device, number in wanted}
        for line in _LOCKS.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split()
            if len(fields) == 8 and fields[5] in listed and fields[4].isdigit():
                found.add(int(fields[4]))
        names = {Path(path).name for path in paths}
        running = filter(str.isdigit, os.listdir("/proc"))  # noqa: PTH208
        found.update(int(pid) for pid in running if _has(pid, names, wanted))
    except OSError as error:
        raise_if_foreign(error)
    return sorted(found - {os.getpid()})


def _has(pid: str, names: set[str], wanted: set[Inode]) -> bool:
    try:
        for each in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            link = f"/proc/{pid}/fd/{each}"
            # stat(2) of a file on a network file system may hang, so only wanted names are looked at.
            if os.readlink(link).rpartition("/")[2] in names and inode(link) in wanted:  # noqa: PTH115
                return True
    except OSError as error:  # it has ended, or is another user's
        raise_if_foreign(error)
    return False
