"""A connection of an event loop, with a time limit for each request."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from lockkit.lib.origin import this_origin
from lockkit.lib.prompt_future import Deliveries, PromptFuture
from lockkit.store.awake import Awake
from lockkit.store.exchanges import Parser, Reply

__all__ = ["LoopConnection"]

_RESET = struct.pack("ii", 1, 0)
_IDLE = 1.0
"""Seconds after which a free connection is checked before use: the server may have closed it."""
_NEVER = float("inf")
_LOOK = 1.0
"""Seconds between two looks at an overdue request, in case a signal handler cut the first look short."""
_TURNS = 100
"""Most turns of the loop for which a request stays awake: with other work in them, it is awake anyway."""


class LoopConnection(asyncio.Protocol):
    """A connection, used by one call at a time.

    A call that raises or is cancelled leaves the connection unusable: the next bytes may be its answer.

    Args:
        loop: The event loop.
        sock: The connected socket, which the transport closes.
        parser: The parser of the replies.
        deliveries: The queue of results of this event loop.
        living: The connections that are open; this one adds and removes itself.
        over: Called when the connection is closed.

    Attributes:
        since: When the connection was last lent or given back, on ``time.monotonic()``.
        generation: The pool's generation when the connection was made.
    """

    __slots__ = (
        "_asked", "_awake", "_count", "_deliveries", "_end", "_error", "_heard", "_living", "_loop",
        "_origin", "_over", "_parser", "_sock", "_timer_end", "_timers", "_transport", "_used",
        "generation", "since",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        parser: Parser,
        deliveries: Deliveries,
        living: set[LoopConnection],
        over: Callable[[], object],
    ) -> None:
        self.since = 0.0
        self.generation = 0
        self._loop = loop
        self._sock = sock
        self._parser = parser
        self._deliveries = deliveries
        self._living = living
        self._over = over
        self._origin = this_origin()
        self._transport: asyncio.Transport | None = None
        self._asked: PromptFuture[Sequence[Reply]] | None = None
        self._heard: list[Reply] = []
        self._count = 0
        self._used = False
        self._error: Exception | None = None
        self._end = _NEVER
        self._timers: list[asyncio.TimerHandle] = []
        self._timer_end = _NEVER
        self._awake = Awake()

    def ask(self, packed: bytes, end: float, replies: int) -> Awaitable[Sequence[Reply]]:
        """Send a request. The result is its replies.

        Raises:
            Exception: Not all replies came before the end on ``time.monotonic()``. If the server gave a
                reason before it closed the connection, that is the error.
        """
        now = time.monotonic()
        if end <= now:
            raise TimeoutError("timed out")
        if self.broken or self._transport is None:
            error = self._error or ConnectionError("the connection is closed")
            raise self._parser.cut_short(self._heard, error) if isinstance(error, OSError) else error
        asked: PromptFuture[Sequence[Reply]] = PromptFuture(self._loop)
        self._asked = asked
        self._count = replies
        self._used = True
        self._end = end
        if end < self._timer_end or self._timer_end <= now:  # overdue: a signal handler may have ended it
            self._look_at(end, now)
        self._transport.write(packed)
        if until := self._awake.until():
            self._loop.call_soon(self._stay_awake, asked, until, _TURNS)
        return asked

    def _stay_awake(self, asked: PromptFuture[Sequence[Reply]], until: float, turns: int) -> None:
        """Keep the loop awake until a reply comes, the time is over, or the turns are used up."""
        there = self._asked is not asked
        if there or time.monotonic() >= until or not turns:
            self._awake.over(in_vain=not there)
        else:
            self._loop.call_soon(self._stay_awake, asked, until, turns - 1)

    @property
    def asked(self) -> bool:
        """Whether a request is under way."""
        return self._asked is not None

    @property
    def broken(self) -> bool:
        """Whether the connection is closed or closing, also after a signal handler cut the closing short."""
        return self._error is not None or self._transport is None or self._transport.is_closing()

    def usable(self, now: float) -> bool:
        """Whether a free connection can be used: the server has not closed it."""
        if self.broken:
            return False
        if now - self.since < _IDLE:
            return True
        try:  # the loop may have been blocked, and not have read yet what came
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
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
        """Close the connection and drop this host's buffers, so that no abandoned request arrives later."""
        self._asked = None  # its call is over: nobody waits for it
        if self._transport is not None and self._origin.is_here():
            with suppress(OSError):
                if self._sock.family != socket.AF_UNIX:
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close()

    def close(self) -> None:
        """Close the connection. No request may be under way. A forked child leaves it to its parent."""
        for each in self._timers:
            each.cancel()
        if self._error is None:
            self._error = ConnectionError("the connection is closed")
        if self._transport is None or not self._origin.is_here():
            return
        if self._sock.fileno() < 0:  # the loop has closed it, and a signal handler cut short what follows
            self.connection_lost(None)
        elif self._loop.is_closed():
            # A closed loop ends no transport through a public call; a collected transport would warn.
            ends = getattr(self._transport, "_call_connection_lost", None)
            if ends is not None:
                ends(None)
            self._sock.close()
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
            if self._used:  # a new connection may at once be sent the reason of its closing
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
        else:
            self._deliveries.deliver(asked, heard)
            if self._asked is asked:  # the task has not asked anew
                self._asked = None  # last: what a signal handler cut short before, the connection's end ends

    def eof_received(self) -> None:
        """See :class:`asyncio.Protocol`. The transport closes itself."""
        self._fail(ConnectionError("the server has closed the connection"))

    def connection_lost(self, error: Exception | None) -> None:
        """See :class:`asyncio.BaseProtocol`."""
        self._fail(error or ConnectionError("the server has closed the connection"))
        for each in self._timers:
            each.cancel()
        self._living.discard(self)
        self._over()
        self._transport = None  # last: until then close() repeats what a signal handler cut short

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        asked = self._asked
        if asked is not None and not asked.done() and not self._loop.is_closed():
            told = self._parser.cut_short(self._heard, error) if isinstance(error, OSError) else error
            self._deliveries.fail(asked, told)
        self._asked = None  # last: a signal handler may raise before; the connection's end comes later

    def _look_at(self, end: float, now: float) -> None:
        """Look at the request at a time, and a second later: a signal handler may raise in the first look."""
        before, later = self._timers, self._loop.call_later
        self._timers = [later(end - now, self._expire), later(end - now + _LOOK, self._expire)]
        self._timer_end = end
        for each in before:
            each.cancel()

    def _expire(self) -> None:
        """The end of a request, perhaps of one that is over."""
        now = time.monotonic()
        if self._asked is None:
            self._timer_end = _NEVER
            return
        over = self._end <= now
        # First: a signal handler may raise in what follows.
        self._look_at(now + _LOOK if over else self._end, now)
        if over:
            self._fail(TimeoutError("timed out"))
