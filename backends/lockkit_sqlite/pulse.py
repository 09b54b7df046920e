"""The pulse and the bell: one FIFO per process and store file.

A process keeps its FIFO open for reading from before its first claim to its end. So all processes can find
out whether it is alive: opening the FIFO for writing without waiting succeeds, or fails with ENXIO once the
last reader is gone (fifo(7)), also after kill -9. ENOENT proves nothing, because somebody may have removed
the file: then the ttl decides. Writes are a bell: the claim ids of the waiters that should ask again.

flock and POSIX locks cannot be a pulse: LOCK_UN in a child, or any close of the file, releases the parent's.

The owner opens its FIFO for reading *and* writing, so that poll(2) does not report a hang-up after each bell.
A child that inherits the descriptor keeps the pulse alive beyond its parent; descriptors are close-on-exec
and closed in forked children, so this happens only to children that are meant to (``lockkit run``).
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Iterator
from typing import Literal

from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Refused
from lockkit_sqlite.descriptors import Descriptor, inside, opened, set_mode
from lockkit_sqlite.failures import raise_if_foreign
from lockkit_sqlite.place import make_pulses

__all__ = [
    "ALIVE",
    "DEAD",
    "RING",
    "UNKNOWN",
    "Health",
    "Pulse",
    "eviction",
    "open_bell",
    "probe",
    "remove",
    "stale",
    "still_read",
]

Health = Literal["ALIVE", "DEAD", "UNKNOWN"]
ALIVE: Literal["ALIVE"] = "ALIVE"
DEAD: Literal["DEAD"] = "DEAD"
UNKNOWN: Literal["UNKNOWN"] = "UNKNOWN"

RING = 6
"""Bytes of one ring: a claim id. Writes this short are never torn (pipe(7), PIPE_BUF)."""
_FULL = 4096 - 16 * RING
"""Bytes in a FIFO that may have been full. The smallest holds 4096 (pipe(7), pipe-user-pages-soft)."""
_DIGITS = 24
_UNBORN = ".new"
_ABANDONED = 3600.0
"""Age in seconds of a FIFO without its final name at which its process must have died before renaming it."""


class Pulse:
    """This process's FIFO for one store file.

    Args:
        folder: The folder of the FIFOs.
        mode: The mode of the FIFO.

    Attributes:
        name: The random name of the FIFO.
        descriptor: The end for reading.

    Raises:
        Refused: The FIFO cannot be created.
    """

    __slots__ = ("_folder", "_mode", "descriptor", "name")

    def __init__(self, folder: str, mode: int) -> None:
        self.name = os.urandom(12).hex()
        self._folder = folder
        self._mode = mode
        try:
            self.descriptor = self._create()
        except OSError as error:
            raise_if_foreign(error)
            raise Refused(
                BackendUnavailable(
                    f"cannot create a FIFO in {folder}: {error.strerror}",
                    hint="check its owner and mode, and that its file system supports FIFOs",
                ),
                retry=False,
            ) from error

    def _create(self) -> Descriptor:
        # The FIFO gets its name only once it has a reader: nobody sees it unread while its process lives.
        unborn = self.name + _UNBORN
        make_pulses(self._folder, shared=self._mode != 0o600)  # somebody may have removed it
        with inside(self._folder) as folder:
            at = folder.fileno()
            os.mkfifo(unborn, self._mode, dir_fd=at)
            try:
                set_mode(unborn, self._mode, folder)
                descriptor = opened(unborn, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW, folder=folder)
                os.rename(unborn, self.name, src_dir_fd=at, dst_dir_fd=at)
            except OSError:
                os.unlink(unborn, dir_fd=at)
                raise
        return descriptor

    def heal(self) -> Descriptor | None:
        """Put the FIFO back if somebody removed it: the descriptor that the new one replaces, or None."""
        try:
            with inside(self._folder) as folder:
                there = os.stat(self.name, dir_fd=folder.fileno(), follow_symlinks=False)
                mine = os.fstat(self.descriptor.fileno())
                if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                    return None
                os.unlink(self.name, dir_fd=folder.fileno())
        except OSError as error:
            raise_if_foreign(error)
            if not isinstance(error, FileNotFoundError):
                return None
        try:
            old, self.descriptor = self.descriptor, self._create()
        except OSError as error:
            raise_if_foreign(error)
            return None
        except Refused:
            return None
        return old

    def retire(self) -> None:
        """Remove the file. Only when no claim names it."""
        remove(self._folder, self.name)

    def rings(self) -> tuple[set[bytes], bool]:
        """Read the bell: the claim ids in it, and whether some may be missing (then every waiter should ask).

        Nobody reads the bell while nobody waits, so it may be full of rings for claims that are gone.
        """
        try:
            read = os.read(self.descriptor.fileno(), 65536)
        except OSError as error:
            raise_if_foreign(error)
            return set(), False
        return {read[at : at + RING] for at in range(0, len(read), RING)}, len(read) % RING != 0 or len(
            read
        ) >= _FULL


def eviction(claim: str) -> bytes:
    """The message that announces the eviction of a claim: the complement of its id, which wakes no waiter."""
    return bytes(0xFF - each for each in bytes.fromhex(claim))


def _is_name(name: str) -> bool:
    """Whether a name has the form of a FIFO's: 24 hex digits."""
    return len(name) == _DIGITS and not name.strip("0123456789abcdef")


def remove(folder: str, name: str) -> None:
    """Remove a FIFO whose process is dead or no longer needs it. Errors are ignored."""
    if not _is_name(name):
        return
    try:
        with inside(folder) as at:
            os.unlink(name, dir_fd=at.fileno())
    except OSError as error:
        raise_if_foreign(error)


def open_bell(folder: str, name: str) -> tuple[Descriptor | None, Health]:
    """Open another process's FIFO for writing; return the descriptor, or None, and the process's health."""
    if not _is_name(name):
        return None, UNKNOWN
    try:
        with inside(folder) as at:
            descriptor = opened(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW, folder=at)
    except OSError as error:
        raise_if_foreign(error)
        return None, DEAD if error.errno == errno.ENXIO else UNKNOWN
    if not stat.S_ISFIFO(os.fstat(descriptor.fileno()).st_mode):
        return None, UNKNOWN
    return descriptor, ALIVE


def probe(folder: str, name: str) -> Health:
    """Find out whether the owner of a FIFO is alive."""
    return open_bell(folder, name)[1]


def still_read(descriptor: Descriptor) -> bool:
    """Whether a FIFO that is open for writing still has a reader."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return not poll.poll(0)


def stale(folder: str, most: int) -> Iterator[str]:
    """Names of FIFOs of dead processes, among the first ``most``; unborn ones only after an hour."""
    try:
        with inside(folder, os.O_RDONLY) as at, os.scandir(at.fileno()) as entries:
            for _, entry in zip(range(most), entries, strict=False):
                if _is_name(entry.name):
                    if probe(folder, entry.name) == DEAD:
                        yield entry.name
                elif entry.name.endswith(_UNBORN):
                    seen = entry.stat(follow_symlinks=False)
                    if stat.S_ISFIFO(seen.st_mode) and time.time() - seen.st_mtime > _ABANDONED:
                        os.unlink(entry.name, dir_fd=at.fileno())
    except OSError as error:
        raise_if_foreign(error)
        return
