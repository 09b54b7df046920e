"""The descriptors that this process listens to, and what to do when something happens on one of them."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from lockkit_sqlite.descriptors import Descriptor
from lockkit_sqlite.failures import raise_if_foreign

__all__ = ["Deaf", "Events", "Reading", "Ring"]

Ring: TypeAlias = Callable[[], None]
Reading: TypeAlias = Callable[[], Sequence[Ring]]
"""The function to call when something happens on a descriptor; it returns the bells to ring."""


class Deaf(Exception):
    """Raised when the program closed the epoll descriptor (``os.closerange``): nothing is heard any more."""


class Events:
    """An epoll(7) object, and the readings of its descriptors. One thread at a time hears.

    Args:
        lock: Guards the readings, which are called under it.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._epoll: select.epoll | None = None
        self._readings: dict[int, Reading] = {}
        self._nudges: Descriptor | None = None

    def listen(self, descriptor: Descriptor, reading: Reading, events: int = 0) -> None:
        """Call ``reading`` on such events, or once the last reader of the FIFO is gone. Needs the lock."""
        self._readings[descriptor.fileno()] = reading
        try:
            self._open().register(descriptor, events)
        except FileExistsError as error:
            raise_if_foreign(error)

    def ignore(self, descriptor: Descriptor) -> None:
        """Listen to a descriptor no more, and leave it open. Under the lock. May be repeated."""
        if not descriptor.closed:
            self._drop(descriptor.fileno())

    def close(self, descriptor: Descriptor) -> None:
        """Close a descriptor that is listened to. Under the lock. May be repeated."""
        self.ignore(descriptor)
        descriptor.close()

    def hear(self, seconds: float | None = None) -> None:
        """Wait for events or :meth:`nudge`, at most this long (None: for ever), and ring what they are for.

        Raises:
            Deaf: Nothing can be heard any more.
        """
        for descriptor, _ in self._wait(seconds):
            with self._lock:
                reading = self._readings.get(descriptor, tuple)
                rings = reading()
                if reading is tuple:
                    self._drop(descriptor)
            for ring in rings:
                ring()

    def nudge(self) -> None:
        """End the present or next :meth:`hear`. Never blocks; raises only what a signal handler raises."""
        nudges = self._nudges
        if nudges is not None:
            try:
                os.eventfd_write(nudges.fileno(), 1)
            except ValueError:  # closed
                pass
            except OSError as error:  # closed
                raise_if_foreign(error)

    def forget(self) -> None:
        """In a forked child, close the inherited descriptors. Removing entries would change the parent's."""
        epoll, nudges = self._epoll, self._nudges
        self._epoll = self._nudges = None
        self._readings = {}
        for each in (epoll, nudges):
            if each is not None:
                each.close()

    def _wait(self, seconds: float | None) -> list[tuple[int, int]]:
        with self._lock:
            epoll = self._open()
        try:
            return epoll.poll(seconds)
        except OSError as error:
            raise_if_foreign(error)
            raise Deaf from error
        except ValueError as error:
            if not epoll.closed:
                raise  # of a signal handler
            raise Deaf from error

    def _open(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        if self._nudges is None:
            flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
            # One call of C code, as in descriptors.py.
            self._nudges = next(map(select.epoll.fromfd, map(os.eventfd, (0,), (flags,))))
            self._readings[self._nudges.fileno()] = self._nudged
            self._epoll.register(self._nudges, select.EPOLLIN)
        return self._epoll

    def _nudged(self) -> Sequence[Ring]:
        if self._nudges is not None:
            try:
                os.eventfd_read(self._nudges.fileno())
            except OSError as error:
                raise_if_foreign(error)
        return ()

    def _drop(self, descriptor: int) -> None:
        self._readings.pop(descriptor, None)
        if self._epoll is not None:
            try:
                self._epoll.unregister(descriptor)
            except OSError as error:
                raise_if_foreign(error)
