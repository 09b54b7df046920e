"""A performer of exchanges on an event loop, for the tests that show that a store's exchanges need no thread."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

from lockkit.store.exchanges import (
    Connect,
    Drop,
    Exchange,
    Exchanges,
    Introduce,
    Parser,
    Pause,
    Reply,
    Route,
    Send,
    Start,
    Step,
    Together,
)

__all__ = ["OnLoop"]

T = TypeVar("T")


class _Stream:
    """A connection of the running event loop."""

    def __init__(self, parser: Parser, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._parser = parser
        self._reader = reader
        self._writer = writer

    async def exchange(self, packed: bytes, end: float, replies: int) -> Sequence[Reply]:
        """Send a request and return its replies."""
        async with asyncio.timeout(end - time.monotonic()):
            self._writer.write(packed)
            await self._writer.drain()
            found: list[Reply] = []
            while len(found) < replies:
                block = await self._reader.read(65_536)
                if not block:
                    raise ConnectionError("hung up")
                found += self._parser.feed(block)
            return found

    def close(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()


class OnLoop:
    """Performs exchanges on connections of the running event loop."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges
        self._free: defaultdict[Route, list[_Stream]] = defaultdict(list)
        self._made: list[_Stream] = []
        self._apart: set[asyncio.Task[None]] = set()

    async def perform(self, exchange: Exchange[T]) -> T:
        """Perform an exchange to its end and return its result."""
        try:
            step = next(exchange)
            while True:
                try:
                    result = await self._do(step)
                except BaseException as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # the type of a generator's result is not known here

    async def _do(self, step: Step) -> Any:
        match step:
            case Send():
                return await self._send(step)
            case Connect((str() as host, port), end):
                async with asyncio.timeout(end - time.monotonic()):
                    ends = await asyncio.open_connection(host, int(port), ssl=self._exchanges.tls)
                self._made.append(_Stream(self._exchanges.parser(), *ends))
                return self._made[-1]
            case Introduce(stream, packed, end, replies):
                return await stream.exchange(packed, end, replies)
            case Drop(route):
                for stream in self._free.pop(route, []):
                    stream.close()
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Start(make, _):
                self._apart.add(asyncio.create_task(self.perform(make())))
            case Together(makes, _, end):
                tasks = [asyncio.create_task(self.perform(make())) for make in makes]
                self._apart.update(tasks)
                await tasks[0]
                await asyncio.wait(tasks, timeout=max(end - time.monotonic(), 0.0))
            case _:
                raise NotImplementedError(step)
        return None

    async def _send(self, step: Send) -> Sequence[Reply]:
        route, packed, end, replies, keep = step
        free = self._free[route]
        stream = free.pop() if free else await self.perform(self._exchanges.opening(route, end))
        try:
            found: Sequence[Reply] = await stream.exchange(packed, end, replies)
        except BaseException:
            stream.close()
            raise
        if keep is None or keep(found):
            free.append(stream)
        else:
            stream.close()
        return found

    def close(self) -> None:
        """Close all connections."""
        for stream in self._made:
            stream.close()
