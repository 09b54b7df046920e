"""Connections of an event loop to one server, and a pool that lends them to calls."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from lockkit.errors import BackendUnavailable
from lockkit.store.exchanges import Parser, Reply
from lockkit.store.spi import Refused

__all__ = ["UNUSED", "LoopConnection", "LoopPool"]

_RESET = struct.pack("ii", 1, 0)
_IDLE = 1.0
"""Seconds after which a free connection is checked before it is used, because the server may have closed it."""
UNUSED = 30.0
"""Seconds after which an unused connection is closed."""
_NEVER = float("inf")
_CLOSED = "this store is closed", "call connect() again"


class LoopConnection(asyncio.Protocol):
    """A connection, used by one call at a time.

    A call that raises, or is cancelled, leaves the connection unusable: the next bytes may belong to the answer of that call.

    Args:
        loop: The event loop.
        plug: The connected socket, which the transport closes.
        parser: The parser of the replies.
        living: The connections that are open; this one adds and removes itself.
        over: Called when the connection is closed.

    Attributes:
        since: When the connection was given back, on ``time.monotonic()``.
        generation: The pool's generation when the connection was made.
    """

    __slots__ = (
        "_asked", "_count", "_end", "_error", "_heard", "_living", "_loop", "_over", "_parser", "_pid", "_plug", "_timer", "_timer_end",
        "_transport", "_used", "generation", "since",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plug: socket.socket,
        parser: Parser,
        living: set[LoopConnection],
        over: Callable[[], object],
    ) -> None:
        self.since = 0.0
        self.generation = 0
        self._loop = loop
        self._plug = plug
        self._parser = parser
        self._living = living
        self._over = over
        self._pid = os.getpid()
        self._transport: asyncio.Transport | None = None
        self._asked: asyncio.Future[Sequence[Reply]] | None = None
        self._heard: list[Reply] = []
        self._count = 0
        self._used = False
        self._error: Exception | None = None
        self._end = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_end = _NEVER

    def ask(self, packed: bytes, end: float, replies: int) -> Awaitable[Sequence[Reply]]:
        """Send a request. The result is its replies.

        Raises:
            Exception: Not all replies came before the end on ``time.monotonic()``. If the server gave a reason before it closed the
                connection, that is the error.
        """
        rest = end - time.monotonic()
        if rest <= 0.0:
            raise TimeoutError("timed out")
        if self._error is not None or self._transport is None:
            error = self._error or ConnectionError("the connection is closed")
            raise self._parser.cut_short(self._heard, error) if isinstance(error, OSError) else error
        asked = self._asked = self._loop.create_future()
        self._count = replies
        self._used = True
        self._end = end
        if end < self._timer_end:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(rest, self._expire)
            self._timer_end = end
        self._transport.write(packed)
        return asked

    @property
    def broken(self) -> bool:
        """Whether the connection is closed, or about to be."""
        return self._error is not None

    def usable(self, now: float) -> bool:
        """Whether a free connection can be used: the server has not closed it."""
        if self._error is not None:
            return False
        if now - self.since < _IDLE:
            return True
        try:  # the loop may have been blocked, and not have read yet what came
            self._plug.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def end(self, error: Exception) -> None:
        """Close the connection; the call that uses it raises the error."""
        self._fail(error)
        self.reset()

    def reset(self) -> None:
        """Close the connection and drop the data in this host's buffers, so that a request that was given up does not arrive later."""
        if self._transport is not None and self._pid == os.getpid():
            with suppress(OSError):
                if self._plug.family != socket.AF_UNIX:
                    self._plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close()

    def close(self) -> None:
        """Close the connection. No request may be under way. Does nothing in a forked child, which shares the parent's selector."""
        if self._timer is not None:
            self._timer.cancel()
        if self._error is None:
            self._error = ConnectionError("the connection is closed")
        if self._transport is None or self._pid != os.getpid():
            return
        if self._loop.is_closed():
            self._plug.close()
            self.connection_lost(None)
        else:
            self._transport.abort()

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.BaseProtocol`."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no asyncio.Transport
        self._living.add(self)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        try:
            found = self._parser.feed(data)
        except Exception as error:
            self.end(error)
            return
        asked = self._asked
        if asked is None:
            self._heard.extend(found)
            if self._used:  # a new connection may be told at once why it is closed again
                self.end(ConnectionError("a reply without a request"))
            return
        heard: Sequence[Reply] = found
        if self._heard or len(found) < self._count:
            self._heard.extend(found)
            heard = self._heard
            if len(heard) < self._count:
                return
            self._heard = []
        if len(heard) > self._count or not self._parser.between:
            self.end(ConnectionError("a reply without a request"))
        elif not asked.done():
            self._asked = None
            asked.set_result(heard)

    def eof_received(self) -> None:
        """See :class:`asyncio.Protocol`. The transport closes itself."""
        self._fail(ConnectionError("the server has closed the connection"))

    def connection_lost(self, error: Exception | None) -> None:
        """See :class:`asyncio.BaseProtocol`."""
        self._fail(error or ConnectionError("the server has closed the connection"))
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._living.discard(self)
        self._over()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            told = self._parser.cut_short(self._heard, error) if isinstance(error, OSError) else error
            asked.set_exception(told)

    def _expire(self) -> None:
        """The end of a request, perhaps of one that is over."""
        self._timer, self._timer_end = None, _NEVER
        if self._asked is None:
            return
        rest = self._end - time.monotonic()
        if rest <= 0.0:
            self._fail(TimeoutError("timed out"))
        else:
            self._timer = self._loop.call_later(rest, self._expire)
            self._timer_end = self._end


class LoopPool:
    """The connections to one route. A call takes one, and gives it back when every request on it was answered.

    The pool grows to a limit; further calls wait for their turn, in order.

    Args:
        loop: The event loop.
        make: Makes a connection until an end; raises Refused.
        where: The server, for errors.
        most: The most connections at a time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[float], Awaitable[LoopConnection]],
        where: str,
        most: int,
    ) -> None:
        self._loop = loop
        self._make = make
        self._where = where
        self._most = most
        self._free: list[LoopConnection] = []
        self._waiting: deque[asyncio.Future[LoopConnection | None]] = deque()
        self._generation = 0
        self._closed = False
        self.size = 0

    def free(self) -> LoopConnection | None:
        """Take a free connection, if there is one that can be used."""
        while self._free:
            connection = self._free.pop()
            if connection.usable(time.monotonic()):
                return connection
            self.lost(connection)
        return None

    async def take(self, end: float) -> LoopConnection:
        """Take a free connection, or open one, or wait for one.

        Raises:
            Refused: No connection can be made, or none is free before the end, or the pool is closed.
        """
        if self._closed:
            raise self._refused(*_CLOSED)
        connection = self.free()
        if connection is None and self.size < self._most:
            self.size += 1
        elif connection is None:
            connection = await self._turn(end)
        if connection is not None:
            return connection
        generation = self._generation
        try:
            connection = await self._make(end)
        except BaseException:
            self._left()
            raise
        connection.generation = generation
        return connection

    async def _turn(self, end: float) -> LoopConnection | None:
        """Wait for a connection that is given back. None if one may be opened."""
        turn: asyncio.Future[LoopConnection | None] = self._loop.create_future()
        self._waiting.append(turn)
        timer = self._loop.call_later(max(end - time.monotonic(), 0.0), self._too_late, turn)
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                connection = turn.result()  # given to a call that was cancelled just now
                if connection is None:
                    self._left()
                else:
                    self.keep(connection)
            raise
        finally:
            timer.cancel()

    def _too_late(self, turn: asyncio.Future[LoopConnection | None]) -> None:
        if not turn.done():
            text = f"{self._most} requests are under way, and none was answered in time"
            turn.set_exception(self._refused(text, "is the server slow, or cut off?"))
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()

    def _refused(self, why: str, hint: str) -> Refused:
        return Refused(BackendUnavailable(f"cannot reach {self._where}: {why}", hint=hint))

    def keep(self, connection: LoopConnection) -> None:
        """Give back a connection whose requests were all answered."""
        if self._closed or connection.generation != self._generation or connection.broken:
            self.lost(connection)
            return
        connection.since = time.monotonic()
        if self._waiting and self._pass_on(connection):
            return
        self._free.append(connection)

    def lost(self, connection: LoopConnection) -> None:
        """Close a connection that is not used again."""
        connection.close()
        self._left()

    def drop(self) -> None:
        """Close the free connections now, and those in use when their call ends."""
        self._generation += 1
        while self._free:
            self.lost(self._free.pop())

    def close(self) -> None:
        """Lend no connection any more, and close the free ones now, those in use when their call ends."""
        self._closed = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(self._refused(*_CLOSED))
        self.drop()

    def reap(self, before: float) -> float | None:
        """Close the connections that were not used since a time on ``time.monotonic()``.

        Returns:
            The time since which the least used of the others is free; None if no other is free.
        """
        while (
            self._free and self._free[0].since <= before
        ):  # the free ones are a stack: the first is the least used
            self.lost(self._free.pop(0))
        return self._free[0].since if self._free else None

    def _left(self) -> None:
        """Let another connection take the place of one that is closed."""
        if not self._pass_on(None):
            self.size -= 1

    def _pass_on(self, connection: LoopConnection | None) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False
