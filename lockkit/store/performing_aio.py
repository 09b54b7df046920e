"""A performer of exchanges on connections of an event loop."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from lockkit.errors import ConfigError
from lockkit.lib.bell import Bell
from lockkit.lib.origin import this_origin
from lockkit.lib.prompt_future import Deliveries, PromptFuture, pause
from lockkit.store.connecting import Place
from lockkit.store.connecting_aio import Resolver, connect
from lockkit.store.connections_aio import LoopConnection
from lockkit.store.exchanges import (
    Await,
    Connect,
    Drop,
    Exchange,
    Introduce,
    Pause,
    Reply,
    Route,
    Send,
    Start,
    Step,
    Together,
)
from lockkit.store.inherited import inherited
from lockkit.store.pool_aio import SURPLUS, LoopPool
from lockkit.store.spi import Exchanges, Refused

__all__ = ["OnLoop"]

T = TypeVar("T")

_MOST = 64
"""Connections at a time to one route, if the server is far away. More do not make one thread faster."""
_LEAST = 0.005
_LOOK = 1.0
"""Seconds between two looks at connections that are being closed."""


class OnLoop:
    """A performer: the connections of one store on the running event loop. Belongs to this loop and process.

    No call starts a task or a thread, except to resolve a host name and for exchanges that are started apart.

    A call that is cancelled, or raises, resets the connection in use at once. The cancellation is thrown
    into the exchange, so that the store notes the unknown outcome, and comes out of :meth:`perform`.
    Exchanges that this call has started in tasks of their own go on, as in threads; :meth:`close` ends them.

    When the loop ends (``loop.shutdown_asyncgens()``, as in ``asyncio.run``), all connections are closed. The
    program's generators, which end beside them, may still call, as for a release; no connection is kept.

    Args:
        exchanges: The frequent calls of the store.
        where: The store, for errors.
        most: The most connections to one route at a time; further calls wait for their turn.
    """

    def __init__(self, exchanges: Exchanges, where: str, *, most: int = _MOST) -> None:
        self.origin = this_origin()
        self._loop = asyncio.get_running_loop()
        self._exchanges = exchanges
        self._where = where
        self._most = most
        self._resolver = Resolver(self._loop)
        self._pools: dict[Route, LoopPool] = {}
        self._connections: set[LoopConnection] = set()
        self._deliveries = Deliveries(self._loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = self._ends = False
        self._connecting: set[asyncio.Timeout] = set()
        self._gone: asyncio.Future[None] | None = None
        self._reaper: asyncio.TimerHandle | None = None
        self._at_end: AsyncGenerator[None, None] | None = None

    async def perform(self, exchange: Exchange[T]) -> T:
        """Perform an exchange to its end and return its result.

        Raises:
            Refused: This is another event loop, or a fork of the process that made the performer.
            Exception: Whatever the exchange raises.
        """
        try:
            self._check()
            return await self._perform(exchange, None)
        finally:
            exchange.close()

    # Apart from the ``try`` above: in CPython 3.11 its ``finally`` misses an exception at this loop's start.

    async def _perform(self, exchange: Exchange[T], made: list[LoopConnection] | None) -> T:
        try:
            step = next(exchange)
            while True:
                try:
                    result = await self._send(step) if type(step) is Send else await self._do(step, made)
                except BaseException as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # the type of a generator's result is unknown

    async def close(self, seconds: float = 0.0) -> None:
        """Lend no more connections. Close free ones now, others when their call ends, or after some seconds.

        When this returns, no connection and no task is left. May be called twice.
        """
        if not self.origin.is_here() or self._loop.is_closed():
            self.abort()
            return
        self._close_pools()
        try:
            if seconds > 0.0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._emptied()
        finally:
            self.abort()
        while tasks := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(tasks)
        await self._emptied()
        at_end, self._at_end = self._at_end, None
        if at_end is not None:
            await at_end.aclose()

    def abort(self) -> None:
        """Close all connections and cancel the tasks at once, also on a closed loop. Calls in progress raise.

        Called in the thread of the loop, or when the loop has stopped. Does nothing in a forked child, where
        the connections are the parent's.
        """
        if not self.origin.is_here():
            return
        self._close_pools()
        if self._reaper is not None:
            self._reaper.cancel()
        if not self._loop.is_closed():
            for task in self._tasks:
                task.cancel()
            for limit in list(self._connecting):
                try:
                    if not limit.expired():
                        limit.reschedule(self._loop.time())
                except (AssertionError, RuntimeError):  # its call was interrupted just before or after
                    self._connecting.discard(limit)
        for connection in list(self._connections):
            if connection.broken:
                connection.close()
            else:
                connection.end(ConnectionError("this store was closed"))

    def _check(self) -> None:
        """Raise Refused unless this is the event loop, and the process, that the connections belong to."""
        if not self.origin.is_here():
            raise inherited(self._where)
        if asyncio.get_running_loop() is not self._loop:
            text = f"{self._where} was opened on another event loop"
            raise Refused(
                ConfigError(text, hint="call lockkit.aio.connect() on each event loop"), retry=False
            )

    # -- steps

    async def _send(self, step: Send) -> Sequence[Reply]:
        route, packed, end, count, keep = step
        pool = self._pools.get(route) or self._pool(route)
        connection = pool.free() or await pool.take(end)
        try:
            replies = await connection.ask(packed, end, count)
            good = keep is None or keep(replies)
        except BaseException:
            connection.reset()
            pool.lost(connection)
            raise
        if good:
            pool.keep(connection)
            if self._reaper is None and not self._ends:
                self._reaper = self._loop.call_later(SURPLUS, self._reap)
        else:
            pool.lost(connection)
        return replies

    async def _do(self, step: Step, made: list[LoopConnection] | None) -> object:
        """Perform a step other than Send."""
        match step:
            case Connect(place, end):
                connection = await self._connect(place, end)
                if made is not None:
                    made.append(connection)
                return connection
            case Introduce(to, packed, end, replies):
                return await to.ask(packed, end, replies)
            case Drop(route):
                if pool := self._pools.get(route):
                    pool.drop()
                    if not pool.size:
                        del self._pools[route]
            case Pause(seconds):
                await pause(self._loop, seconds)
            case Await(bell, seconds):
                return await self._rung(bell, seconds)
            case Start(make, name):
                self._start(make, name)
            case Together(makes, name, end):
                others = [self._start(make, name) for make in makes[1:]]
                for make in makes[:1]:
                    await self.perform(make())
                if others:
                    await asyncio.wait(others, timeout=max(end - time.monotonic(), 0.0))
        return None

    async def _rung(self, bell: Bell, seconds: float) -> bool:
        """Wait until a bell rings, which may happen on any thread."""
        rung: PromptFuture[None] = PromptFuture(self._loop)

        def alarm() -> None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(rung.deliver, None)

        bell.alarm = alarm
        if bell.rung():
            return True
        await rung.within(max(seconds, 0.0))
        return bell.rung()

    def _start(self, make: Callable[[], Exchange[None]], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(self.perform(make()), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- connections

    def _pool(self, route: Route) -> LoopPool:
        """Make the pool of a route."""
        pool = LoopPool(
            self._loop, lambda end: self._open(route, end), self._where, self._most, self._deliveries
        )
        pool = self._pools.setdefault(route, pool)
        if self._closed:
            pool.close()
        elif self._ends:
            pool.end()
        return pool

    async def _open(self, route: Route, end: float) -> LoopConnection:
        if self._at_end is None:
            self._at_end = self._till_the_end()
            await anext(self._at_end)
        made: list[LoopConnection] = []
        exchange: Exchange[LoopConnection] = self._exchanges.opening(route, end)
        try:
            return await self._perform(exchange, made)
        except BaseException:
            for connection in made:
                connection.reset()
            raise
        finally:
            exchange.close()

    async def _connect(self, place: Place, end: float) -> LoopConnection:
        """Connect to a place; raise OSError if there is no connection in time."""
        limit = asyncio.timeout(max(end - time.monotonic(), _LEAST))
        try:
            self._connecting.add(limit)
            async with limit:
                sock = await connect(self._loop, await self._resolver.addresses(place), self._deliveries)
                connection = LoopConnection(
                    self._loop,
                    sock,
                    self._exchanges.parser(),
                    self._deliveries,
                    self._connections,
                    self._ended,
                )
                try:
                    await self._take_over(connection, sock, place)
                except BaseException:
                    connection.connection_lost(None)  # uvloop does not call that then
                    raise
        except OSError as error:
            if str(error):
                raise
            late = isinstance(error, TimeoutError)
            raise type(error)("timed out" if late else "the server has closed the connection") from error
        finally:
            self._connecting.discard(limit)
            self._ended()
        return connection

    async def _take_over(self, connection: LoopConnection, sock: socket.socket, place: Place) -> None:
        """Let the loop take over a connected socket, with TLS if need be."""
        if isinstance(place, str):
            await self._loop.create_unix_connection(lambda: connection, sock=sock)
            return
        tls = self._exchanges.tls
        name = None if tls is None else place[0]
        await self._loop.create_connection(lambda: connection, sock=sock, ssl=tls, server_hostname=name)

    def _ended(self) -> None:
        if self._gone is not None and not self._loop.is_closed():
            self._gone.set_result(None)
            self._gone = None

    async def _emptied(self) -> None:
        """Wait until no connection is left, and none is being made."""
        await self._until(lambda: not (self._connections or self._connecting))

    async def _until(self, over: Callable[[], bool]) -> None:
        """Wait for the ends of connections, once no pool keeps any.

        Look now and then: a signal handler may have cut a callback short, or have ended a call before it gave
        back its connection, which then has no request, or before it noted that it connects no more.
        """
        while not over():
            if self._gone is None:
                self._gone = self._loop.create_future()
            await asyncio.wait([self._gone], timeout=_LOOK)
            now = time.monotonic()
            for connection in list(self._connections):
                if connection.broken:
                    connection.close()
                elif not connection.asked and connection.since + _LOOK < now:
                    connection.reset()
            at = self._loop.time() - _LOOK
            self._connecting -= {limit for limit in self._connecting if (limit.when() or 0.0) < at}

    def _close_pools(self) -> None:
        self._closed = self._ends = True
        for pool in self._pools.values():
            pool.close()

    def _reap(self) -> None:
        """Close the connections that were unused for long, and look again when the next one may be due."""
        now = time.monotonic()
        due = [at for pool in self._pools.values() if (at := pool.reap(now)) is not None]
        self._reaper = self._loop.call_later(min(due) - now, self._reap) if due else None

    async def _till_the_end(self) -> AsyncGenerator[None, None]:
        """Close the connections when the loop ends its asynchronous generators, or this one is closed.

        The loop ends all of them side by side, and those of the program release what they hold: what they
        call gets connections until the loop is closed.
        """
        try:
            yield
        finally:
            self._ends = True
            if self._reaper is not None:
                self._reaper.cancel()
            for pool in self._pools.values():
                pool.end()
            before, connecting = frozenset(self._connections), frozenset(self._connecting)
            await self._until(
                lambda: before.isdisjoint(self._connections) and connecting.isdisjoint(self._connecting)
            )
