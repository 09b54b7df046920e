"""Connections to one server: a socket with a time limit for each call, and a pool that lends connections."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from lockkit.errors import BackendUnavailable
from lockkit.lib.bell import Bell
from lockkit.lib.origin import Origin, this_origin
from lockkit.store.inherited import inherited
from lockkit.store.spi import Refused
from lockkit.store.starting import OneThread

__all__ = ["Connection", "ConnectionPool", "Timed"]

_RESET = struct.pack("ii", 1, 0)
_BLOCK = 65_536
_LEAST = 0.005
_SLACK = 0.005
"""Seconds by which a call may exceed its end, so as not to set the socket's timeout again for less."""
_PART = 4.0
"""The socket's timeout is kept if it is at least the time left divided by this: setting it is a system call,
waiting a second time is cheap."""
_IDLE = 1.0
_FEW, _SURPLUS = 2, 5.0
"""How many free connections stay open, and the seconds after which any other unused one is closed."""


class Timed:
    """A connected socket, used by one call at a time, each of which has an end on ``time.monotonic()``.

    A call that raises leaves the socket unusable: the next bytes may belong to the answer of that call.
    """

    __slots__ = ("_allowed", "_encrypted", "_origin", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._encrypted = isinstance(connected, ssl.SSLSocket)
        self._origin = this_origin()
        self._allowed = -1.0
        """The socket's timeout; -1 if the next call has to set it again."""

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    def _until(self, end: float) -> None:
        """Limit the socket's next wait to an end."""
        rest = end - time.monotonic()
        if rest <= 0.0:
            raise TimeoutError("timed out")
        self._allowed = max(rest, _LEAST)
        self._socket.settimeout(None if rest == float("inf") else self._allowed)

    def send(self, packed: bytes, end: float) -> None:
        """Send a request.

        Raises:
            OSError: The request could not be sent in time.
        """
        if time.monotonic() >= end:
            raise TimeoutError("timed out")
        try:
            sent = 0
            if not self._encrypted:  # the socket's own methods would first ask if the host takes anything
                try:
                    sent = os.write(self._socket.fileno(), packed)
                except BlockingIOError:
                    pass
            if sent < len(packed):
                self._allowed = -1.0  # a long send takes its time, and cannot continue after a timeout
                self._until(end)
                self._socket.sendall(packed[sent:])
        except OSError:
            self._not_sent(end)
            raise

    def _not_sent(self, end: float) -> None:
        """Raise the reason that the server gave before it hung up, if the protocol has reasons."""

    def receive(self, end: float, most: int = _BLOCK) -> bytes:
        """The next bytes, at most ``most``; that much memory is reserved while the call waits.

        Raises:
            OSError: None came in time (TimeoutError), or none will come.
        """
        while True:
            rest = end - time.monotonic()
            if rest <= 0.0 or not rest / _PART <= self._allowed <= rest + _SLACK:
                self._until(end)
            try:
                block = self._socket.recv(most)
            except TimeoutError:  # which may have come before the end
                continue
            if not block:
                raise ConnectionError("the server has closed the connection")
            return block

    def fileno(self) -> int:
        """The file descriptor, for ``select`` and the like."""
        return self._socket.fileno()

    def quiet(self) -> bool:
        """True if there is nothing to read. Otherwise the server has probably closed the connection."""
        self._allowed = -1.0
        try:
            self._socket.setblocking(False)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def interrupt(self) -> None:
        """End a call that is running in another thread."""
        if self._origin.is_here():  # otherwise the socket belongs to the parent process
            try:
                # Bypass TLS, which the other thread is using.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                pass

    def reset(self) -> None:
        """Close the socket and drop this host's buffers, so that no abandoned request arrives later."""
        try:
            if self._origin.is_here() and self._socket.family != socket.AF_UNIX:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        """Close the socket. No request may be under way."""
        try:
            self._socket.close()
        except OSError:
            pass


class Connection(Protocol):
    """A connection that a pool can lend."""

    def quiet(self) -> bool:
        """True if there is nothing to read."""

    def reset(self) -> None:
        """Close the connection and drop the data in this host's buffers."""

    def close(self) -> None:
        """Close the connection. No request may be under way."""


C = TypeVar("C", bound=Connection)


class ConnectionPool(Generic[C]):
    """The free connections to one server, as many as calls have run at once.

    A call takes a connection and gives it back when every request on it was answered. A connection that
    still owes an answer is reset instead: a later call must not read it. A thread closes what a burst of
    calls left, once it was unused for some seconds, and then ends.

    Args:
        make: Makes a connection within a budget; raises Refused.
        where: The server, for errors.
        origin: The process that the connections belong to; None for this one.
        idle: Seconds after which a free connection is checked before use: the server may have closed it.
    """

    def __init__(
        self, make: Callable[[float], C], where: str, *, origin: Origin | None = None, idle: float = _IDLE
    ) -> None:
        self._make = make
        self._where = where
        self._free: list[tuple[C, float]] = []
        self._closed = False
        self._idle = idle
        self._bell = Bell()
        # Without a reference to the pool: the connections of an unused pool end with it.
        self._reaper = OneThread(partial(_reap, self._free, self._bell), "lockkit-connections")
        self.origin = this_origin() if origin is None else origin

    def at_hand(self) -> C | None:
        """A connection that was in use a moment ago; None if :meth:`take` must find, check or make one."""
        if not self.origin.is_here():
            return None
        try:
            connection, since = self._free.pop()
        except IndexError:
            return None
        if time.monotonic() - since < self._idle:
            return connection
        self._free.append((connection, since))
        return None

    def take(self, budget: float) -> C:
        """A connection on which every request was answered.

        Raises:
            Refused: No connection can be made, or this process was forked from the one that opened the store.
        """
        if not self.origin.is_here():
            raise inherited(self._where)
        while not self._closed:
            try:
                connection, since = self._free.pop()
            except IndexError:
                return self._make(budget)
            if time.monotonic() - since < self._idle or connection.quiet():
                return connection
            connection.reset()
        raise Refused(
            BackendUnavailable(
                f"cannot reach {self._where}: this store is closed", hint="call lockkit.connect() again"
            )
        )

    def keep(self, connection: C) -> None:
        """Give back a connection whose requests were all answered."""
        if len(self._free) >= _FEW and not self._closed:
            with contextlib.suppress(RuntimeError):  # no thread can be started now; a later call tries again
                self._reaper.start()
        # Last: if a signal handler raises before, the caller closes the connection: it must not be pooled.
        self._free.append((connection, time.monotonic()))
        if self._closed:
            self.empty()

    def empty(self) -> None:
        """Close the free connections."""
        while self._free:
            try:
                connection, _ = self._free.pop()
            except IndexError:
                return
            connection.close()

    def close(self) -> None:
        """Close the free connections now, and those in use when their call ends."""
        self._closed = True
        self.empty()
        self._bell.ring()


def _reap(free: list[tuple[C, float]], over: Bell) -> None:
    """Close what a burst left in a pool. The pool is a stack: its first connection is the least used."""
    while not over.wait(_SURPLUS):
        old = time.monotonic() - _SURPLUS
        with contextlib.suppress(IndexError):  # other threads may take them meanwhile
            while len(free) > _FEW and free[0][1] < old:
                free.pop(0)[0].close()
        if len(free) <= _FEW:
            return
    over.ring()  # kept: if it was asked for meanwhile, this is run once more
