"""Connecting on an event loop: threads resolve the names, and the addresses of a name race."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

from lockkit.lib.origin import this_origin
from lockkit.lib.prompt_future import Deliveries, PromptFuture
from lockkit.store.connecting import Place, is_address

__all__ = ["Resolver", "connect"]

Address: TypeAlias = tuple[int, Any]
"""The family of a socket, and the address in that family."""
_STAGGER = 0.25
"""Seconds after which the next address of a name is tried too (RFC 8305, section 5)."""
_FULL = 0.005
"""Seconds after which a server on a Unix socket is asked again if its queue of connections is full."""
_UNDER_WAY = (errno.EINPROGRESS, errno.EINTR)


class Resolver:
    """The addresses of places. One thread at a time resolves a host name, however many calls wait for it.

    Nothing waits for that thread, not even the end of the loop or of the interpreter: it has no time limit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}
        self._known: dict[tuple[str, int], list[Address]] = {}
        """Addresses of places that are given by an IP address, which stay the same."""

    async def addresses(self, place: Place) -> list[Address]:
        """The addresses of a place, in the order in which to try them.

        Raises:
            OSError: The name has no address, or no thread can be started.
        """
        if isinstance(place, str):
            return [(socket.AF_UNIX, place)]
        known = self._known.get(place)
        if known is not None:
            return known
        if is_address(place[0]):
            return self._known.setdefault(place, _looked_up(place))
        answer = self._asked.get(place)
        if answer is None:
            answer = self._asked[place] = self._ask(place)
            answer.add_done_callback(lambda _: self._asked.pop(place, None))
        return await asyncio.shield(answer)

    def _ask(self, place: tuple[str, int]) -> asyncio.Future[list[Address]]:
        answer: asyncio.Future[list[Address]] = self._loop.create_future()

        def tell(found: list[Address] | Exception) -> None:
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def run() -> None:
            try:
                found: list[Address] | Exception = _looked_up(place)
            except Exception as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(tell, found)

        try:
            threading.Thread(target=run, name="lockkit-resolve", daemon=True).start()
        except RuntimeError as error:
            tell(OSError(f"cannot resolve the name: {error}"))
        return answer


def _looked_up(place: tuple[str, int]) -> list[Address]:
    found = [(family, at) for family, _, _, _, at in socket.getaddrinfo(*place, type=socket.SOCK_STREAM)]
    if not found:
        raise OSError("the name has no address")
    first = [each for each in found if each[0] == found[0][0]]
    others = [each for each in found if each[0] != found[0][0]]
    return [each for pair in zip_longest(first, others) for each in pair if each is not None]


async def connect(
    loop: asyncio.AbstractEventLoop, addresses: Sequence[Address], deliveries: Deliveries
) -> socket.socket:
    """A socket that is connected to one of the addresses: the first that answers.

    All other sockets are closed. The next address is tried after a failure, or 0.25 s without an answer.

    Raises:
        OSError: None of the addresses can be reached; the error is that of the last one.
    """
    race = _Race(loop, addresses, deliveries)
    try:
        race.next()
        sock = await race.outcome
        assert sock is not None
        race.running.discard(sock)  # all others are closed
        return sock
    finally:
        race.end()
        del race  # which has the error: else the error, its traceback and this frame would be a cycle


class _Race:
    """Attempts to connect to several addresses. No task is made, so that an end leaves nothing behind.

    Attributes:
        outcome: The first connected socket; or the last error, if none is connected.
        running: The sockets that :meth:`end` closes.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, addresses: Sequence[Address], deliveries: Deliveries
    ) -> None:
        self.outcome: PromptFuture[socket.socket | None] = PromptFuture(loop)
        self.running: set[socket.socket] = set()
        self._deliveries = deliveries
        self._loop = loop
        self._left = list(reversed(addresses))
        self._timers: set[asyncio.TimerHandle] = set()
        self._origin = this_origin()

    def next(self) -> None:
        """Try the next address."""
        if self.outcome.done() or not self._left:
            return
        family, address = self._left.pop()
        if self._left:
            self._later(_STAGGER, self.next)
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._failed(error)
            return
        sock.setblocking(False)
        self.running.add(sock)
        self._try(sock, address)

    def _try(self, sock: socket.socket, address: Any) -> None:
        if sock not in self.running:
            return
        try:
            code = sock.connect_ex(address)
        except OSError as error:  # the path of a Unix socket is too long
            self._lost(sock, error)
            return
        if code == 0:
            self._connected(sock)
        elif code == errno.EAGAIN and sock.family == socket.AF_UNIX:
            self._later(_FULL, lambda: self._try(sock, address))
        elif code in _UNDER_WAY:
            # Pass the descriptor: for a socket object asyncio first builds a costly KeyError.
            self._loop.add_writer(sock.fileno(), self._ready, sock)
        else:
            self._lost(sock, OSError(code, os.strerror(code)))

    def _ready(self, sock: socket.socket) -> None:
        self._loop.remove_writer(sock.fileno())
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lost(sock, OSError(code, os.strerror(code)))
        else:
            self._connected(sock)

    def _connected(self, sock: socket.socket) -> None:
        self._deliveries.deliver(self.outcome, sock)

    def _lost(self, sock: socket.socket, error: OSError) -> None:
        self.running.discard(sock)
        sock.close()
        self._failed(error)

    def _failed(self, error: OSError) -> None:
        if self._left:
            self.next()
        elif not self.running and not self.outcome.done():
            self._deliveries.deliver(self.outcome, None, error)

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        self._timers.add(self._loop.call_later(seconds, call))

    def end(self) -> None:
        """Close all sockets but the one that was taken."""
        for timer in self._timers:
            timer.cancel()
        for sock in self.running:
            # A child shares the selector of its parent.
            if not self._loop.is_closed() and self._origin.is_here():
                self._loop.remove_writer(sock.fileno())
            sock.close()
        self.running.clear()
