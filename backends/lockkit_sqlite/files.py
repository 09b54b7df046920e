"""The files of a store: opened by one process at a time, and watched for their removal or replacement.

A process that has a file open keeps using that file, whatever its name; a process that opens the store later finds the files by
name. If somebody removes or replaces a file in between (rm, a cleaner of old files, a restored backup), the two processes use
different files and do not see each other: both may grant the same lock (sqlite.org/howtocorrupt.html, 1.4 and 2.4). Four rules keep
that time short:

- While a process has the database open, the three names belong to the inodes that it opened. SQLite removes log and
  index only when the last connection of all is closed. So another inode under one of the names is damage.
- After damage the database is made anew, so that it has another inode: every process that has the old one open notices
  that, whichever of the files was touched, and opens the new one.
- The database contains its own inode number. A copy (a restored backup) is not taken for the store: its claims ended long ago.
- Opening, opening again after a fork, and making anew are done by one process at a time, under a lock on the folder of FIFOs: a process
  that opens a database has SQLite's lock on it a moment before its log is there, and must not be judged in that moment.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import TypeAlias, TypeVar

from lockkit.namedtuples import NamedTuple
from lockkit_sqlite.connection import OPENING
from lockkit_sqlite.descriptors import Descriptor, opened
from lockkit_sqlite.failures import busy, raise_if_foreign
from lockkit_sqlite.place import Place, make_pulses

__all__ = [
    "FILES",
    "Files",
    "Opened",
    "Stamp",
    "alone",
    "clear",
    "look",
    "looked_at",
    "others_inside",
    "settled",
    "stamp",
    "trouble",
    "turn",
    "watched",
]

T = TypeVar("T")
Inode: TypeAlias = tuple[int, int]
Stamp: TypeAlias = tuple[int, ...]

LOG, SHM = "-wal", "-shm"
_PAUSE = 0.002
_TICK = 50_000_000
"""Nanoseconds that a folder must have been left alone for its time of change to prove that it still is: the second of two
changes within one tick of the kernel's clock for files (1 to 10 ms) leaves no trace."""
_ROUNDED = 10_000_000
_ROUNDED_TICK = 2_000_000_000
"""The same where the time of change is a multiple of 10 ms: the file system may round it, at most to 2 seconds."""
_LOCKS = Path("/proc/locks")
_SHARED = range(0x40000002, 0x40000002 + 510)
"""The bytes of a database on which SQLite locks (SHARED_FIRST in SQLite's os.h)."""
_FLOCK = Struct("hhqqi")
"""Linux's ``struct flock``: kind, origin, first byte, number of bytes, owner."""
_SHARED_LOCK = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _SHARED.start, len(_SHARED), 0)
"""The question of F_GETLK: which lock of another process is in the way of an exclusive one on these bytes?"""


class Opened(NamedTuple):
    """The inodes of the database, its log, and the log's index in shared memory; None for a file that is not there."""

    database: Inode | None
    log: Inode | None
    shm: Inode | None

    @property
    def whole(self) -> bool:
        """Whether all three are there, as they are while a process has them open."""
        return None not in self


class Files:
    """The files of one path as this process has them open, shared by all its stores on that path.

    SQLite shares them as well: a new connection to a database that the process has open already uses the index that is
    mapped, even if another file has its name by then.

    Attributes:
        opened: The files that were opened last.
        generation: Rises when another database is opened; a store of an earlier generation has to open anew.
        users: The stores that opened these files, and have not begun to close.
        forking: The connections are closed for a fork; until they are open again a missing log proves nothing.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.opened: Opened | None = None
        self.generation = 0
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.forking = False
        self._shield: Descriptor | None = None

    def known(self) -> Opened | None:
        """Return the files that this process has open; None if it has none open, or cannot tell after a fork."""
        return self.opened if self.users and not self.forking else None

    def took(self, found: Opened, user: object, *, anew: bool) -> None:
        """Note which files a store has opened; with ``anew`` they are new files, even if the file system has reused the old inode."""
        if anew or self.opened is None or self.opened.database != found.database:
            self.generation += 1
        self.opened = found
        self.forking = False
        self.users.add(user)
        self.bare()
        self._shield = _shield(str(Path(self.path).parent))

    def leave(self, user: object) -> None:
        """Remove a user; after the last one the lock on the folder is released. May be repeated.

        A store leaves before it closes its connections: the last one of all removes log and index, which is no damage.
        """
        shield = self._shield  # not the one that another thread may take for the next user meanwhile
        self.users.discard(user)
        if not self.users and shield is not None:
            shield.close()

    def bare(self) -> None:
        """Release the lock on the folder. A forked child may call this too: the parent keeps its lock."""
        if self._shield is not None:
            self._shield.close()

    def reopened(self, *, inside: bool) -> None:
        """Note log and index after a fork, for which all connections were closed: the last close of all removes both.

        Args:
            inside: Whether a connection of this process is open. Until then log and index may belong to another process, such as
                the child, and go when that process closes them.
        """
        try:
            there = look(self.path, self.path)
        except OSError as error:
            raise_if_foreign(error)
            return
        if self.opened is not None and there.database == self.opened.database:
            if not (there.whole and inside):
                return
            self.opened = there
        self.forking = False


FILES: weakref.WeakValueDictionary[str, Files] = weakref.WeakValueDictionary()


def watched(path: str) -> Files:
    """The files of a path, the same for every store of this process."""
    with OPENING:
        files = FILES.get(path)
        if files is None:
            files = FILES[path] = Files(path)
        return files


def look(given: str, path: str) -> Opened:
    """Find out which files have the names now.

    Args:
        given: The database as its users name it, with symbolic links: a link that leads elsewhere now means a replaced database.
        path: The database, with links resolved: SQLite puts log and index beside it.

    Raises:
        OSError: The look failed; the files may be there.
    """
    return Opened(_inode(given), _inode(path + LOG), _inode(path + SHM))


def _inode(path: str) -> Inode | None:
    try:
        seen = os.stat(path)  # noqa: PTH116 - a microsecond matters: Path.stat takes three
    except (FileNotFoundError, NotADirectoryError) as error:
        raise_if_foreign(error)
        return None
    return seen.st_dev, seen.st_ino


def looked_at(place: Place) -> tuple[str, str]:
    """The arguments of :func:`stamp` for a database: its folder, and its name if that is a link in another folder."""
    named, real = str(place.given.parent), str(Path(place.path).parent)
    try:
        same = named == real or _inode(named) == _inode(real)
    except OSError as error:
        raise_if_foreign(error)
        same = False
    return (named, "") if same else (real, str(place.given))


def stamp(folder: str, link: str = "") -> Stamp | None:
    """A value that changes with every entry of a folder that is added, removed or renamed; None if the look fails.

    The value contains the time of change, which nobody can set, unlike the time of modification.

    Args:
        folder: The folder.
        link: A link from elsewhere to a file in that folder. The value changes also when this leads to another file.
    """
    try:
        seen = os.stat(folder)  # noqa: PTH116
        if link:
            there = os.stat(link)  # noqa: PTH116
            return seen.st_ctime_ns, seen.st_ino, seen.st_dev, there.st_ino, there.st_dev
    except OSError as error:
        raise_if_foreign(error)
        return None
    return seen.st_ctime_ns, seen.st_ino, seen.st_dev


def settled(mark: Stamp | None, before: int) -> Stamp | None:
    """The stamp, if the next change of the folder is certain to change it; None if the stamp is too young for that.

    Args:
        mark: The stamp.
        before: Nanoseconds since 1970, read before the folder was: a process may be stopped for long at any place.
    """
    if mark is None:
        return None
    tick = _TICK if mark[0] % _ROUNDED else _ROUNDED_TICK
    return mark if mark[0] + tick < before else None


def trouble(there: Opened, known: Opened | None, path: str) -> str:
    """The damage to the files, in words; empty if they can be used as they are.

    Args:
        there: The files that have the names.
        known: The files that this process has open, if any.
        path: The database.
    """
    name = Path(path).name
    if there.database is None:
        return f"{name} was removed" if known or there.log or there.shm else ""
    if known is None:
        missing = _those(name, log=there.log is None, shm=there.shm is None)
        return (
            f"{missing} removed under running processes"
            if missing and others_inside(path, there.database)
            else ""
        )
    if there.database != known.database:
        stale = _those(name, log=there.log == known.log, shm=there.shm == known.shm)
        return f"{name} was replaced and the old {stale.rsplit(' ', 1)[0]} left beside it" if stale else ""
    touched = _those(name, log=there.log != known.log, shm=there.shm != known.shm)
    gone = there.log is None or there.shm is None
    return f"{touched} {'removed' if gone else 'replaced'}" if touched else ""


def _those(name: str, *, log: bool, shm: bool) -> str:
    names = [name + suffix for suffix, counts in ((LOG, log), (SHM, shm)) if counts]
    return f"{' and '.join(names)} {'was' if len(names) == 1 else 'were'}" if names else ""


def others_inside(path: str, database: Inode) -> bool:
    """Whether another connection on this host has the database open: then log and index must be there.

    SQLite keeps a shared lock on a database in WAL mode for as long as a connection is open, and fcntl(2) tells of the locks of other
    processes, in every pid namespace. To ask it, the database is opened once more, whose close drops all locks of this process on it. So
    if the process has the database open already (with a connection of its own, beside lockkit), the kernel's list of all locks is read.
    lockkit opens no connection meanwhile. A program that opens lockkit's database itself in another thread, in these microseconds, loses
    that connection's lock.
    """
    if not _open_here(database):
        try:
            descriptor = opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                seen = os.fstat(descriptor.fileno())
                if (seen.st_dev, seen.st_ino) == database:
                    kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, _SHARED_LOCK))[0]
                    # F_WRLCK: the last connection is closed, and the log removed.
                    return kind == fcntl.F_RDLCK
            finally:
                descriptor.close()
        except OSError as error:
            raise_if_foreign(error)
    return _listed(database)


def _open_here(database: Inode) -> bool:
    """Whether this process has a descriptor of the database; True if that cannot be told."""
    try:
        names = os.listdir("/proc/self/fd")  # noqa: PTH208 (names, not paths)
    except OSError as error:
        raise_if_foreign(error)
        return True
    for name in names:
        try:
            seen = os.fstat(int(name))
        except OSError as error:
            raise_if_foreign(error)  # closed meanwhile, as that of the list itself
            continue
        if (seen.st_dev, seen.st_ino) == database:
            return True
    return False


def _listed(database: Inode) -> bool:
    """Whether the kernel's list shows a shared lock on the database; to make the list, the kernel waits some 7 ms.

    The list lacks processes of another pid namespace, and shows some file systems under another device. Such processes find out at
    their next look that their files are gone.
    """
    wanted = f"{os.major(database[0]):02x}:{os.minor(database[0]):02x}:{database[1]}"
    try:
        entries = _LOCKS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise_if_foreign(error)
        return False
    for entry in entries:
        fields = entry.split()
        shared = len(fields) == 8 and fields[1] == "POSIX" and fields[3] == "READ" and fields[5] == wanted
        if shared and fields[6].isdigit() and int(fields[6]) in _SHARED:
            return True
    return False


def _shield(folder: str) -> Descriptor | None:
    """A descriptor of a folder with a shared lock (flock), for which systemd-tmpfiles leaves all in it alone.

    The lock is needed because a database that is only read and written through its log looks unused until somebody copies the log into it. systemd-tmpfiles ignores the lock only on the very folder that it was told to clean: /var/tmp itself, where no store may lie.
    """
    try:
        descriptor = opened(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise_if_foreign(error)
        return None  # the folder may be usable without being readable
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        raise_if_foreign(error)  # if not, somebody else's lock on the folder protects it as well
    return descriptor


def clear(path: str) -> None:
    """Remove what is left of a store that was removed in part, the database first.

    A log alone does no harm. SQLite would copy the log into a new database beside it, so the log has to go before one is made.
    """
    for suffix in ("", LOG, SHM, "-journal"):
        Path(path + suffix).unlink(missing_ok=True)


def alone(place: Place, end: float, do: Callable[[], T]) -> T:
    """Call a function while no other process, and no other thread of this one, opens these files.

    Not a context manager: a generator that a signal handler interrupts may release the lock late, and in another thread.

    Raises:
        Refused: Another process has been opening the files for too long; that process may be stopped.
        OSError: The folder of FIFOs cannot be used.
    """
    while True:
        with OPENING:
            held = _locked(place)
            if held is not None:
                try:
                    return do()
                finally:
                    held.close()
        if time.monotonic() >= end:
            raise busy(place.path)
        time.sleep(_PAUSE)


def turn(place: Place) -> Descriptor | None:
    """Keep other processes from opening these files, until the descriptor is closed; None if another process has the turn, or it cannot be told."""
    try:
        return _locked(place)
    except OSError as error:
        raise_if_foreign(error)
        return None


def _locked(place: Place) -> Descriptor | None:
    """A locked descriptor of the folder of FIFOs, or None. That folder, because only its users can open it."""
    make_pulses(place.pulses, shared=place.shared)
    try:
        folder = opened(place.pulses, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError as error:  # removed this moment
        raise_if_foreign(error)
        return None
    # The traceback of a signal handler's exception may keep the descriptor for long, so the lock ends by hand.
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(folder.fileno())
        if _inode(place.pulses) == (mine.st_dev, mine.st_ino):
            return folder
    except BaseException as error:
        folder.close()
        if not isinstance(error, BlockingIOError) or error.errno is None:
            raise
        return None  # another process has it
    folder.close()
    return None
