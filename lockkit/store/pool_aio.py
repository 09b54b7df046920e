"""A pool that lends the connections of an event loop to calls."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from lockkit.errors import BackendUnavailable
from lockkit.lib.prompt_future import Deliveries, PromptFuture
from lockkit.store.connections_aio import LoopConnection
from lockkit.store.spi import Refused

__all__ = ["SURPLUS", "LoopPool"]

UNUSED = 30.0
"""Seconds after which the only connection of a pool is closed, if it is not used."""
SURPLUS = 5.0
"""Seconds after which an unused connection beside others is closed: a burst's cost memory and descriptors."""
_PATIENCE = 0.75
"""The share of its time for which a call waits for its turn. With less left, a slow server would answer too
late to this call, and to all behind it, which would have waited as long."""
_FEW = 8
"""The most connections to a near and quick server: they carry all that one thread can send."""
_FAR = 0.003
"""Average seconds of a connection's use from which on a server counts as far away, or slow."""
_RECENT = 8
"""The number of uses of which that is the average."""
_LOST = 1.0
"""Seconds after which a lent connection without a request is lost: calls give it back in the same turn."""
_CLOSED = "this store is closed", "call lockkit.aio.connect() again"


class Permit:
    """The right to open one connection."""


class LoopPool:
    """The connections to one route. A call takes one, and gives it back when all its requests were answered.

    The pool grows to a limit, lower for a near server; further calls wait for their turn, in order. A signal
    handler that raises may end a call before it gives back what it has. So the pool knows what it has lent,
    and takes it back where a call would have to wait.

    Args:
        loop: The event loop.
        make: Makes a connection until an end; raises Refused.
        where: The server, for errors.
        most: The most connections at a time, to a server that is far away.
        deliveries: Ends the waits of calls for which no connection was free in time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[float], Awaitable[LoopConnection]],
        where: str,
        most: int,
        deliveries: Deliveries,
    ) -> None:
        self._loop = loop
        self._make = make
        self._where = where
        self._most = most
        self._limit = min(most, _FEW)
        self._usual = 0.0
        """Seconds that a use of a connection takes, on average; the last uses count most."""
        self._deliveries = deliveries
        self._free: list[LoopConnection] = []
        self._lent: set[LoopConnection] = set()
        self._opening: dict[Permit, float] = {}
        """The permits to open a connection, and the ends of the calls that have them."""
        self._waiting: deque[PromptFuture[LoopConnection | Permit]] = deque()
        self._generation = 0
        self._closed = self._ends = False

    @property
    def size(self) -> int:
        """The number of connections that are free, lent, or being opened."""
        return len(self._free) + len(self._lent) + len(self._opening)

    def free(self) -> LoopConnection | None:
        """Take a free connection, if there is one that can be used."""
        while self._free:
            connection, now = self._free[-1], time.monotonic()
            usable = connection.usable(now)
            connection.since = now
            self._lent.add(connection)
            self._free.pop()
            if usable:
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
        got: LoopConnection | Permit | None = self.free()
        if got is None:
            self._take_back()
            got = Permit() if self.size < self._limit else await self._turn(end)
        if not isinstance(got, Permit):
            if not got.broken:
                return got
            got.close()  # just now
            self._lent.discard(got)
            got = Permit()
        self._opening[got] = end
        generation = self._generation
        try:
            connection = await self._make(end)
            connection.generation = generation
            connection.since = time.monotonic()
            self._lent.add(connection)
        finally:
            self._opening.pop(got, None)
            self._next()
        return connection

    def _take_back(self) -> None:
        """Take back what calls have not given back, because a signal handler ended them."""
        now = time.monotonic()
        for permit, end in list(self._opening.items()):
            if end + _LOST < now:
                self._opening.pop(permit, None)
        for connection in list(self._lent):
            if not connection.asked and connection.since + _LOST < now:
                connection.reset()
                self._lent.discard(connection)

    async def _turn(self, end: float) -> LoopConnection | Permit:
        """Wait for a connection that is given back, or for a permit to open one."""
        turn: PromptFuture[LoopConnection | Permit] = PromptFuture(self._loop)
        self._waiting.append(turn)
        left = end - time.monotonic()
        timer = self._loop.call_later(max(left * _PATIENCE, 0.0), self._too_late, turn)
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                got = turn.result()  # given to a call that was cancelled just now
                if isinstance(got, Permit):
                    self._opening.pop(got, None)
                    self._next()
                else:
                    self.keep(got)
            raise
        finally:
            timer.cancel()
            while self._waiting and self._waiting[0].done():
                self._waiting.popleft()

    def _too_late(self, turn: PromptFuture[LoopConnection | Permit]) -> None:
        self._take_back()
        self._next()
        text = f"{self._limit} requests are under way, and none was answered in time"
        self._deliveries.fail(turn, self._refused(text, "is the server slow, or cut off?"))

    def _refused(self, why: str, hint: str) -> Refused:
        return Refused(BackendUnavailable(f"cannot reach {self._where}: {why}", hint=hint))

    def keep(self, connection: LoopConnection) -> None:
        """Give back a connection whose requests were all answered."""
        if self._ends or connection.generation != self._generation or connection.broken:
            self.lost(connection)
            return
        now = time.monotonic()
        self._usual += (now - connection.since - self._usual) / _RECENT
        self._limit = self._most if self._usual > _FAR else min(self._most, _FEW)
        connection.since = now
        if not (self._waiting and self._pass_on(connection)):
            self._free.append(connection)
            self._lent.discard(connection)
        self._next()

    def lost(self, connection: LoopConnection) -> None:
        """Close a connection that is not used again."""
        connection.close()
        self._lent.discard(connection)
        self._next()

    def drop(self) -> None:
        """Close the free connections now, and those in use when their call ends."""
        self._generation += 1
        while self._free:
            self.lost(self._free.pop())

    def end(self) -> None:
        """Keep no connection any more. Close free ones now, and others when their call ends."""
        self._ends = True
        self.drop()

    def close(self) -> None:
        """Lend no connection any more. Close free ones now, and those in use when their call ends."""
        self._closed = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done() and not self._loop.is_closed():
                self._deliveries.fail(turn, self._refused(*_CLOSED))
        self.end()

    def reap(self, now: float) -> float | None:
        """Close connections unused for long. Returns when the next may be due; None if none is free."""
        while self._free:  # a stack: the first is the least used
            due = self._free[0].since + (UNUSED if self.size == 1 else SURPLUS)
            if due > now:
                return due
            self.lost(self._free.pop(0))
        return None

    def _next(self) -> None:
        """Let those who wait open connections in place of those that are closed."""
        while self._waiting and self.size < self._limit and self._pass_on(Permit()):
            pass

    def _pass_on(self, what: LoopConnection | Permit) -> bool:
        while self._waiting and not self._loop.is_closed():
            turn = self._waiting.popleft()
            if not turn.done():
                if isinstance(what, Permit):
                    self._opening[what] = time.monotonic() + _LOST
                turn.deliver(what)
                return True
        return False
