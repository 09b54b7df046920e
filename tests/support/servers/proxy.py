"""A proxy for tests: TCP on loopback that can be held, slowed down and cut while both ends live on.

In user space, because not every machine's kernel can do it and no test should need to be root.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

__all__ = ["Flow", "ProxiedConnection", "Proxy"]

_T = TypeVar("_T")

# SO_LINGER: closing tells the other end at once, and sends nothing that waits.
RESET = struct.pack("ii", 1, 0)


class Flow:
    """The bytes under way from one end of a connection to the other, in order, and that end's close."""

    def __init__(self, proxy: Proxy, *, to_server: bool) -> None:
        self.to_server = to_server
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self._proxy = proxy
        self._waiting: deque[tuple[float, bytes | None]] = deque()

    def put(self, piece: bytes | None) -> None:
        """Send a piece on its way, or the news that there will be no more."""
        self._waiting.append((self._proxy.loop.time() + self._proxy.delay, piece))
        self.move()

    def move(self) -> None:
        """Let arrive what is due."""
        while self._waiting and self.target is not None and self.to_server not in self._proxy.held:
            due, piece = self._waiting[0]
            if due > self._proxy.loop.time() + 0.0005:  # the loop's timers are no finer
                self._proxy.loop.call_at(due, self.move)
                return
            self._waiting.popleft()
            if piece is None:
                self.target.close()
            elif not self.target.is_closing():
                self.target.write(piece)
                self._proxy.delivered(self, piece)


class ProxiedConnection:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.closed = 0
        self.to_server = Flow(proxy, to_server=True)
        self.to_client = Flow(proxy, to_server=False)

    def reset(self) -> None:
        """End it at both ends at once; what is under way is lost."""
        for transport in {self.to_server.source, self.to_client.source} - {None}:
            assert transport is not None
            with contextlib.suppress(OSError):
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            transport.abort()


class _End(asyncio.Protocol):
    def __init__(self, proxy: Proxy, connection: ProxiedConnection, *, of_client: bool) -> None:
        self._proxy = proxy
        self._connection = connection
        self._away, self._back = connection.to_server, connection.to_client
        if not of_client:
            self._away, self._back = self._back, self._away

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._away.source = self._back.target = transport
        self._back.move()

    def data_received(self, data: bytes) -> None:
        self._proxy.passing(self._connection, self._away, data)

    def connection_lost(self, _: Exception | None) -> None:
        self._away.put(None)
        self._connection.closed += 1
        if self._connection.closed == 2:
            self._proxy.connections.discard(self._connection)


class Proxy:
    """A loopback port that passes on what comes to a server, and back; a context manager that closes it.

    A held proxy delivers and loses nothing: neither end notices, even a close. It accepts connections.

    Attributes:
        port: Where it listens.
        opened: Connections so far.
        delay: Seconds that everything is on its way.
        held: The directions that stand still: True towards the server, False back.
        connections: The connections that an end still believes in.
    """

    host = "127.0.0.1"

    def __init__(self, server: tuple[str, int], *, delay: float = 0.0, patience: float = 0.0) -> None:
        """Start a proxy.

        Args:
            server: The host and port to pass everything on to.
            delay: See above.
            patience: Seconds for which a server may refuse before the client is reset. The client has
                seen its connection accepted, and may take a reset for worse than a refusal.
        """
        self.opened = 0
        self.delay = delay
        self.held: set[bool] = set()
        self.connections: set[ProxiedConnection] = set()
        self.loop = asyncio.new_event_loop()
        self._server = server
        self._patience = patience
        self._broken = False
        self._last: Callable[[bytes], bool] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepted: set[socket.socket] = set()
        self._joining: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"proxy to {server[1]}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def hold(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Deliver nothing more, in these directions, until :meth:`heal`."""
        self._do(lambda: self.held.update([True] * to_server + [False] * to_client))

    def hold_behind(self, last: Callable[[bytes], bool]) -> None:
        """Deliver up to the next piece to the server for which this is true, then none until :meth:`heal`."""
        self._last = last

    def cut(self) -> None:
        """Reset every connection, and every one to come until :meth:`heal`; what is under way is lost."""
        self._broken = True
        self.drop()

    def drop(self) -> None:
        """Reset every connection, once."""
        self._do(self._reset)

    def heal(self) -> None:
        """Pass everything on again, first what was held."""
        self._broken = False
        self._do(self._let_go)

    def close(self) -> None:
        """Close the port, and every connection."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._leave(), self.loop)
            self._thread.join()

    def passing(self, _: ProxiedConnection, flow: Flow, data: bytes) -> None:
        """Called, in the proxy's own thread, with whatever enters it."""
        flow.put(data)

    def delivered(self, flow: Flow, piece: bytes) -> None:
        """Called, in the proxy's own thread, with whatever has left it."""
        if flow.to_server and self._last is not None and self._last(piece):
            self.held.add(True)

    def _do(self, what: Callable[[], _T]) -> _T:
        async def do() -> _T:
            return what()

        return asyncio.run_coroutine_threadsafe(do(), self.loop).result()

    def _reset(self) -> None:
        for connection in list(self.connections):
            connection.reset()

    def _let_go(self) -> None:
        self._last = None
        self.held.clear()
        for connection in list(self.connections):
            connection.to_server.move()
            connection.to_client.move()

    def _run(self) -> None:
        with (
            asyncio.Runner(loop_factory=lambda: self.loop) as runner,
            contextlib.suppress(asyncio.CancelledError),
        ):
            runner.run(self._listen())
        for client in self._accepted:
            client.close()

    async def _listen(self) -> None:
        self._listening = asyncio.current_task()
        with self._listener:
            self._listener.setblocking(False)
            self.loop.add_reader(self._listener, self._accept)
            try:
                await self.loop.create_future()
            finally:
                self.loop.remove_reader(self._listener)

    def _accept(self) -> None:
        """Accept a connection. Not by ``sock_accept``, which loses one that comes while it is cancelled."""
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            self.opened += 1
            self._accepted.add(client)
            task = self.loop.create_task(self._join(client))
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

    async def _join(self, client: socket.socket) -> None:
        self._accepted.discard(client)
        connection = ProxiedConnection(self)
        self.connections.add(connection)
        await self.loop.connect_accepted_socket(lambda: _End(self, connection, of_client=True), client)
        end = self.loop.time() + self._patience
        while not self._broken:
            try:
                await self.loop.create_connection(
                    lambda: _End(self, connection, of_client=False), *self._server
                )
                return
            except OSError:
                if self.loop.time() > end:
                    break
            await asyncio.sleep(0.02)
        connection.reset()
        self.connections.discard(connection)

    async def _leave(self) -> None:
        self._reset()
        if self._listening is not None:
            self._listening.cancel()
