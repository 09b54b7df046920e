"""The pulse and the bell: one FIFO per process and store file.

A process keeps its FIFO open for reading from before its first claim to its end. So anybody can ask whether it lives:
opening for writing without waiting succeeds, or fails with ENXIO once the last reader is gone (fifo(7)), which the
kernel sees to at kill -9 too. ENOENT says nothing (somebody tidied the folder): then the ttl rules. What is written to
it is a bell: the claim ids of waiters who should ask again.

flock and POSIX locks are no pulse: LOCK_UN in a forked child, or any close of the file, lets go of the parent's.

The owner opens its FIFO for reading *and* writing, so that poll(2) does not report a hang-up after each bell. A child
that inherits the descriptor keeps the pulse alive beyond its parent; descriptors are close-on-exec and closed in forked
children, so this happens only to children that are meant to (``lockkit run``).
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
import time
from collections.abc import Iterator
from typing import Literal

from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Refused
from lockkit_sqlite.place import make_pulses

__all__ = [
    "ALIVE",
    "DEAD",
    "RING",
    "UNKNOWN",
    "Health",
    "Pulse",
    "new_pulse",
    "open_bell",
    "probe",
    "stale",
    "still_read",
]

Health = Literal["ALIVE", "DEAD", "UNKNOWN"]
ALIVE: Literal["ALIVE"] = "ALIVE"
DEAD: Literal["DEAD"] = "DEAD"
UNKNOWN: Literal["UNKNOWN"] = "UNKNOWN"

RING = 6
"""Bytes of one ring: a claim id. Writes this short are never torn (pipe(7), PIPE_BUF)."""
_NAME = re.compile(r"[0-9a-f]{24}")
_UNBORN = ".new"
_ABANDONED = 3600.0
"""Seconds after which a FIFO that was created and never named belonged to a process that died in between."""


class Pulse:
    """This process's FIFO for one store file."""

    __slots__ = ("_mode", "descriptor", "folder", "name")

    def __init__(self, folder: str, mode: int) -> None:
        self.folder = folder
        self.name = os.urandom(12).hex()
        self._mode = mode
        self.descriptor = self._born()

    def _born(self) -> int:
        # Named only once it has a reader: nobody ever sees it without one while its process lives.
        path = f"{self.folder}/{self.name}"
        make_pulses(self.folder, shared=self._mode != 0o600)  # somebody may have removed it
        os.mkfifo(path + _UNBORN, self._mode)
        try:
            os.chmod(path + _UNBORN, self._mode)  # noqa: PTH101
            descriptor = os.open(path + _UNBORN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            os.rename(path + _UNBORN, path)  # noqa: PTH104
        except OSError:
            os.unlink(path + _UNBORN)  # noqa: PTH108
            raise
        return descriptor

    def heal(self) -> int | None:
        """Put the FIFO back if somebody removed it: the descriptor that the new one replaces, or None."""
        try:
            there = os.stat(f"{self.folder}/{self.name}")  # noqa: PTH116
            mine = os.fstat(self.descriptor)
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return None
            os.unlink(f"{self.folder}/{self.name}")  # noqa: PTH108
        except FileNotFoundError:
            pass
        except OSError:
            return None
        try:
            old, self.descriptor = self.descriptor, self._born()
        except (OSError, Refused):
            return None
        return old

    def retire(self) -> None:
        """Remove the file. Only when no claim names it."""
        try:
            os.unlink(f"{self.folder}/{self.name}")  # noqa: PTH108
        except OSError:
            pass

    def rings(self) -> tuple[set[bytes], bool]:
        """Read the bell: who was rung for, and whether it was garbled (then everybody should ask)."""
        try:
            heard = os.read(self.descriptor, 65536)
        except OSError:
            return set(), False
        return {heard[at : at + RING] for at in range(0, len(heard), RING)}, len(heard) % RING != 0


def new_pulse(folder: str, mode: int) -> Pulse:
    """Create this process's FIFO.

    Raises:
        Refused: The folder does not take one.
    """
    try:
        return Pulse(folder, mode)
    except OSError as error:
        raise Refused(
            BackendUnavailable(
                f"cannot create a FIFO in {folder}: {error.strerror}",
                hint="check its owner and mode, and that its file system knows FIFOs",
            ),
            retry=False,
        ) from error


def open_bell(folder: str, name: str) -> tuple[int | None, Health]:
    """Open somebody's FIFO for writing: the descriptor, or None and what that says about its owner."""
    if not _NAME.fullmatch(name):
        return None, UNKNOWN
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(f"{folder}/{name}", flags)
    except OSError as error:
        return None, DEAD if error.errno == errno.ENXIO else UNKNOWN
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None, UNKNOWN
    return descriptor, ALIVE


def probe(folder: str, name: str) -> Health:
    """Ask whether the owner of a FIFO lives."""
    descriptor, health = open_bell(folder, name)
    if descriptor is not None:
        os.close(descriptor)
    return health


def still_read(descriptor: int) -> bool:
    """Whether a FIFO that is open for writing still has a reader."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return not poll.poll(0)


def stale(folder: str, most: int) -> Iterator[str]:
    """Names of FIFOs whose processes are dead, among the first ``most`` of the folder.

    A FIFO still under its first name may belong to a process that is about to open it, and is left alone for an hour.
    """
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(most), entries, strict=False):
                if _NAME.fullmatch(entry.name):
                    if probe(folder, entry.name) == DEAD:
                        yield entry.name
                elif entry.name.endswith(_UNBORN) and time.time() - entry.stat().st_mtime > _ABANDONED:
                    os.unlink(entry.path)  # noqa: PTH108
    except OSError:
        return
