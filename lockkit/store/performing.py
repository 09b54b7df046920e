"""A performer of exchanges on blocking connections, in the calling thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from lockkit.lib.origin import Origin, this_origin
from lockkit.store.connections import Connection as Poolable
from lockkit.store.connections import ConnectionPool
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

__all__ = ["Blocking", "Connection"]

T = TypeVar("T")


class Connection(Poolable, Protocol):
    """A connection that can send requests."""

    def exchange(self, packed: bytes, end: float, replies: int) -> Sequence[Reply]:
        """Send a request and return its replies.

        Raises:
            Exception: Not all replies came before the end on ``time.monotonic()``.
        """

    def introduce(self, packed: bytes, end: float, replies: int) -> Sequence[Reply]:
        """Send the first request and return its replies.

        Raises:
            Exception: Not all replies came in time; or the reason that the server gave for its close.
        """


C = TypeVar("C", bound=Connection)


class Blocking(Generic[C]):
    """A performer: one store's pools of connections to its routes. Thread-safe, but not for forked children.

    Args:
        connect: Makes a connection on which nothing was sent yet.
        opening: Makes the exchange that opens a connection to a route until an end: it connects, logs in if
            need be, and returns the connection, or raises Refused.
        where: The store, for errors.
        origin: The process that the connections belong to; None for this one.
    """

    def __init__(
        self,
        connect: Callable[[Connect], C],
        opening: Callable[[Route, float], Exchange[C]],
        where: str,
        *,
        origin: Origin | None = None,
    ) -> None:
        self._connect = connect
        self._opening = opening
        self._where = where
        self._pools: dict[Route, ConnectionPool[C]] = {}
        self._closed = False
        self.origin = this_origin() if origin is None else origin

    def perform(self, exchange: Exchange[T], made: list[C] | None = None) -> T:
        """Perform an exchange to its end and return its result.

        Args:
            exchange: The exchange.
            made: A list to which the connections that the exchange makes are added.

        Raises:
            Exception: Whatever the exchange raises.
        """
        try:
            step = next(exchange)
            if type(step) is Send:  # the usual exchange is this one step
                try:
                    replies = self._send(step)
                except BaseException as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(replies)
            return self._rest(exchange, step, made)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # the type of a generator's result is not known here
        finally:
            exchange.close()  # a signal that strikes between two steps must not leave it suspended

    # Apart from the ``try`` above: in CPython 3.11 its ``finally`` misses an exception at this loop's start.

    def _rest(self, exchange: Exchange[T], step: Step, made: list[C] | None) -> T:
        """Perform an exchange from one of its steps on."""
        try:
            while True:
                try:
                    result = self._send(step) if type(step) is Send else self._do(step, made)
                except BaseException as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def open(self, route: Route, end: float) -> C:
        """A new connection to a route, which belongs to the caller.

        Raises:
            Refused: No connection can be made, or this is a fork of the process that opened the store.
        """
        if not self.origin.is_here():
            raise inherited(self._where)
        made: list[C] = []
        try:
            return self.perform(self._opening(route, end), made)
        except BaseException:
            for connection in made:
                connection.reset()
            raise

    def close(self) -> None:
        """Close the free connections now, and those in use when their call ends."""
        self._closed = True
        for pool in list(self._pools.values()):
            pool.close()

    def _send(self, step: Send) -> Sequence[Reply]:
        route, packed, end, count, keep = step
        pool = self._pools.get(route)
        if pool is None or (connection := pool.at_hand()) is None:
            pool = self._pool(route)
            connection = pool.take(end - time.monotonic())
        try:
            replies = connection.exchange(packed, end, count)
            good = keep is None or keep(replies)
        except BaseException:
            connection.reset()
            raise
        if good:
            pool.keep(connection)
        else:
            connection.close()
        return replies

    def _do(self, step: Step, made: list[C] | None) -> object:
        """Perform a step other than Send."""
        match step:
            case Connect():
                connection = self._connect(step)
                if made is not None:
                    made.append(connection)
                return connection
            case Introduce(to, packed, end, replies):
                return to.introduce(packed, end, replies)
            case Drop(route):
                if pool := self._pools.pop(route, None):  # connections in use now are not used again
                    pool.empty()
            case Pause(seconds):
                time.sleep(seconds)
            case Await(bell, seconds):
                return bell.wait(seconds)
            case Start(make, name):
                if self._thread(make, name) is None:
                    self.perform(make())
            case Together(makes, name, end):
                others = [(make, self._thread(make, name)) for make in makes[1:]]
                for make in [*makes[:1], *(make for make, thread in others if thread is None)]:
                    self.perform(make())
                for _, thread in others:
                    if thread is not None:
                        thread.join(max(end - time.monotonic(), 0.0))
        return None

    def _thread(self, make: Callable[[], Exchange[None]], name: str) -> threading.Thread | None:
        """Start a thread that performs an exchange; None if the process can start no more threads."""
        thread = threading.Thread(target=lambda: self.perform(make()), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        return thread

    def _pool(self, route: Route) -> ConnectionPool[C]:
        """The pool of a route, made if need be."""
        pool = self._pools.get(route)
        if pool is not None:
            return pool
        pool = ConnectionPool(
            lambda budget: self.open(route, time.monotonic() + budget), self._where, origin=self.origin
        )
        pool = self._pools.setdefault(route, pool)
        if self._closed:
            pool.close()
        return pool
