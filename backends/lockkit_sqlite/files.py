"""The files that this process has open for a store, and the detection of their removal or replacement.

A process that has a file open keeps using it, whatever its name; a later process finds the files by name. If
somebody removes or replaces a file in between (rm, a cleaner of old files, a restored backup), the two use
different files and do not see each other: both may grant the same lock (sqlite.org/howtocorrupt.html, 1.4 and
2.4). Three rules keep that time short:

- While a process has the database open, the four names belong to the inodes that it opened. SQLite removes
  log and index only when the last connection of all is closed. So another inode under a name proves damage.
- The process that notices damage removes the name of the database. Every process that has the old one open
  notices that, whichever file was touched, and closes the files. A process that is then alone with the rest,
  by the lock of :mod:`lockkit_sqlite.presence`, creates the store anew.
- The database records its own inode number and its lock file, so that a copy (a restored backup) is
  recognized. Its claims must not be used, because they ended long ago.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path
from typing import Any

from lockkit.lib.namedtuples import NamedTuple
from lockkit_sqlite import connection as connections
from lockkit_sqlite.connection import OPENING
from lockkit_sqlite.descriptors import Descriptor, opened
from lockkit_sqlite.failures import raise_if_foreign
from lockkit_sqlite.presence import LOCK, Inode, LockFile, Presence, inode

__all__ = [
    "FILES",
    "Carried",
    "Files",
    "Opened",
    "clear",
    "look",
    "watched",
]

LOG, SHM = "-wal", "-shm"


class Carried(NamedTuple):
    """The highest fence and the records of a store, kept when it is created anew, and the reason."""

    why: str
    fence: int = 0
    records: tuple[Any, ...] = ()


class Opened(NamedTuple):
    """The inodes of the database, its lock file, its log, and the log's index; None for an absent file."""

    database: Inode | None
    lock: Inode | None
    log: Inode | None
    shm: Inode | None

    @property
    def whole(self) -> bool:
        """Whether all are there, as they are while a process has them open."""
        return None not in self

    def damage(self, known: Opened, path: str) -> str:
        """The differences from the known files, in words; empty if none. None in ``known`` fits any file."""
        name = Path(path).name
        names = (name, name + LOCK, name + LOG, name + SHM)
        other = [
            each for each, was, now in zip(names, known, self, strict=True) if was is not None and was != now
        ]
        if not other:
            return ""
        how = "removed" if None in self else "replaced"
        return f"{' and '.join(other)} {'was' if len(other) == 1 else 'were'} {how}"


class Files:
    """The files of one path as this process has them open, shared by all its stores on that path.

    SQLite shares them as well: a new connection to a database that is open already uses the mapped index,
    even if another file has its name by then.

    Attributes:
        presence: The lock of this process, while it has the files open.
        opened: The files that were opened last.
        generation: Rises when other files are opened; a store of an earlier generation has to open anew.
        users: The stores that opened these files, and are not closed.
        carried: The data to carry over from files that are gone.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.presence: Presence | None = None
        self.opened = Opened(None, None, None, None)
        self.generation = 0
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.carried: Carried | None = None
        self._witnesses: connections.Inside = ()
        """The connections that were open when the inodes of log and index were noted. While one is open,
        other inodes are damage. A fork closes them all, and then SQLite may have removed both files."""
        self._shield: Descriptor | None = None

    @property
    def inside(self) -> bool:
        """Whether the process has the lock, so that nobody else is alone with the files."""
        return self.presence is not None and not self.presence.over

    def use(self, database: Inode | None) -> bool:
        """Whether this process has a database open, or opens it again after a fork. The caller has OPENING.

        The number proves nothing: a fork closes the file, and if it was removed, a new file gets its number.
        """
        if not self.inside or self.opened.database != database:
            return False
        return bool(connections.inside(self.path)) or inode(self.path) == database

    def recorded(self, stored: str) -> bool:
        """Whether this is how a database records the lock file that this process has locked."""
        known, presence = LockFile.read(stored), self.presence
        return known is not None and presence is not None and known.same(presence.file)

    def took(self, presence: Presence, found: Opened, user: object) -> bool:
        """Note which files a store has opened, and share the lock; False if lost. The caller has OPENING."""
        try:
            presence.share()
        except OSError as error:
            raise_if_foreign(error)
            return False
        if presence.over:  # a signal handler closed the last store of this process
            return False
        if self.presence is not presence:
            self.generation += 1
            self.presence = presence
        self.opened, self._witnesses = found, connections.inside(self.path)
        self.users.add(user)
        if self._shield is None or self._shield.closed:
            self._shield = _shield(str(Path(self.path).parent))
        return True

    def leave(self, user: object) -> None:
        """Remove a user that has closed its connections; the last one releases the locks. May be repeated."""
        with OPENING:
            self.users.discard(user)
            if not self.users:
                self.bare()

    def bare(self) -> None:
        """Close the descriptors. A forked child may call this too: the parent keeps its locks."""
        for each in (self.presence, self._shield):
            if each is not None:
                each.close()

    def damage(self, given: str) -> str:
        """The damage to the files, in words; empty if none is proved. The caller has OPENING.

        Raises:
            OSError: The look failed; the files may be there.
        """
        before = connections.inside(self.path)
        there = look(given, self.path)
        now = connections.inside(self.path)
        open_throughout = any(each in now for each in before)
        known = self.opened
        if not any(each in now for each in self._witnesses):
            known = known._replace(log=None, shm=None)
            if open_throughout and not there.damage(known, self.path):
                # An open connection has both files open. If they are not there, somebody has removed them.
                known = self.opened = there if there.whole else known._replace(log=(0, 0), shm=(0, 0))
                self._witnesses = now
        return there.damage(known, self.path)

    def abandon(self) -> None:
        """Close damaged files, so that all processes notice. Stores here open others at their next call.

        Raises:
            OSError: The name of the database cannot be removed.
        """
        self.generation += 1
        if inode(self.path) == self.opened.database:
            Path(self.path).unlink(missing_ok=True)
        # Only now: with the last connection SQLite removes the log by its name, maybe another store's by
        # then, unless the database has lost its own name.
        connections.retire(self.path)
        self.bare()


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
        given: The database as named, with symbolic links: a link that leads elsewhere means a replaced one.
        path: The database, with links resolved: SQLite puts log and index beside it.

    Raises:
        OSError: The look failed; the files may be there.
    """
    return Opened(inode(given), inode(path + LOCK), inode(path + LOG), inode(path + SHM))


def _shield(folder: str) -> Descriptor | None:
    """A descriptor of a folder with a shared lock (flock), for which systemd-tmpfiles leaves all in it alone.

    The lock is needed because a database looks unused to it until the log is copied into it. The lock on the
    lock file protects only that file. systemd-tmpfiles ignores the lock only on the folder that it was sent
    to clean: /var/tmp itself, where no store may be.
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
    """Remove what is left of a store: the database first, because a log alone does no harm."""
    for suffix in ("", LOG, SHM, "-journal"):
        Path(path + suffix).unlink(missing_ok=True)
