"""The server of ``lockkit serve``: uvicorn with this application, the alert engine and optional recovery."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from lockkit.errors import ConfigError
from lockkit.facts import NOTHING
from lockkit.lib.namedtuples import NamedTuple
from lockkit.observe.recovery import Recoverer
from lockkit.server.alerting import Alerting
from lockkit.server.app import make_app
from lockkit.server.connections import LimitedConnection, LimitedConnections, Limits, descriptors
from lockkit.server.tokens import how_to_make

if TYPE_CHECKING:
    from lockkit.alerts.inbox import Inbox
    from lockkit.server.app import Application
    from lockkit.sync.client import Client

__all__ = ["Address", "Server", "address", "check_exposed", "serve"]

_log = logging.getLogger("lockkit.server")

_GRACE: Final = 5
"""Seconds that answers may take at the end."""
_CONNECTIONS: Final = 1000
"""Simultaneous connections; at most half of the descriptors, so that stores and journals have the others."""
_ACCEPTED: Final = 32
"""Connections that are accepted at once, before any of them can be refused."""
_QUEUE: Final = 1024
"""Connections that the kernel keeps until they are accepted."""


class Address(NamedTuple):
    """Where the server listens."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only programs of this host can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str) -> Address:
    """An address as ``127.0.0.1:8712``, ``[::1]:8712`` or ``localhost:0``; port 0 is any that is free.

    Raises:
        ConfigError: The text is no address.
    """
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if (
        not bare
        or (":" in bare) != host.startswith("[")
        or not port.isascii()
        or not port.isdecimal()
        or int(port) > 65535
    ):
        raise ConfigError(
            f"an address is HOST:PORT, not {text!r}", hint="for instance 127.0.0.1:8712 or [::1]:8712"
        )
    return Address(bare, int(port))


def check_exposed(where: Address, token_file: str | None) -> None:
    """Refuse to listen where other hosts can reach the server, if there are no tokens.

    Raises:
        ConfigError: There are none.
    """
    if not where.loopback and token_file is None:
        raise ConfigError(
            f"{where} can be reached from other hosts, so the server needs tokens",
            hint=f"to make one: {how_to_make()}",
        )


class Server(uvicorn.Server):
    """uvicorn, which limits its connections, says when it is ready, and leaves signals to the caller.

    Args:
        application: The application.
        limits: The limits.
        ready: Called when the server listens, with the address.
        sweep: Seconds between two looks at all connections.
        options: Further settings of uvicorn.
    """

    def __init__(
        self,
        application: Application,
        limits: Limits,
        ready: Callable[[Address], None],
        *,
        sweep: float = 1.0,
        **options: Any,  # uvicorn has some sixty
    ) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=LimitedConnection,
                backlog=_ACCEPTED,
                timeout_keep_alive=limits.idle,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # uvicorn would trust this whole host; see lockkit.server.forwarding
                timeout_graceful_shutdown=_GRACE,
                **options,
            )
        )
        self.server_state = self._connections = LimitedConnections(limits)
        self._ready = ready
        self._sweep, self._swept = sweep, 0.0

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            for listening in self.servers[0].sockets:
                # asyncio has one number for both; a short kernel queue would delay clients of a flood by 1 s.
                with socket.socket(fileno=os.dup(listening.fileno())) as same:
                    same.listen(_QUEUE)
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            self._ready(Address(host, port))

    async def on_tick(self, counter: int) -> bool:
        """End slow connections; uvicorn calls this every 0.1 s."""
        now = asyncio.get_running_loop().time()
        if now - self._swept >= self._sweep:
            self._swept = now
            self._connections.sweep(now)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    clients: Sequence[Client],
    where: Address,
    ready: Callable[[Address], None],
    *,
    root_path: str = "",
    inboxes: Mapping[Client, Inbox] = NOTHING,  # type: ignore[assignment]  # nothing is in it
) -> None:
    """Serve until SIGINT or SIGTERM; for the main thread. Streams end at once, and other answers have 5 s.

    Args:
        clients: A client for each store. They stay yours.
        where: Where to listen.
        ready: Called when the server listens, with the address.
        root_path: The prefix that a proxy in front of the server removes from each path.
        inboxes: The clients that have alerts, each with the inbox with which it was connected.

    Raises:
        ConfigError: The address, tokens, a rule or a channel is invalid; or the address needs tokens.
        BackendUnavailable: Alerts need a state folder, and there is none.
    """
    config = clients[0].config
    check_exposed(where, config.serve_token_file)
    application = make_app(clients)
    alerting = Alerting(inboxes)
    application.stores.exporter.more.append(alerting.samples)
    recoverers = [
        (Recoverer(client, act=True), client.config.serve_recover)
        for client in clients
        if client.config.serve_recover is not None
    ]
    threads = [
        threading.Thread(target=one.run, args=(every,), name="lockkit-server-recovery", daemon=True)
        for one, every in recoverers
    ]
    for thread in threads:
        thread.start()
    alerting.start()
    try:
        asyncio.run(_serve(application, where, ready, root_path=root_path))
    finally:
        application.close()
        for one, _ in recoverers:
            one.stop()
        alerting.close(_GRACE)
        for thread in threads:
            thread.join(_GRACE)


async def _serve(
    application: Application,
    where: Address,
    ready: Callable[[Address], None],
    *,
    root_path: str,
) -> None:
    limits = Limits(min(_CONNECTIONS, descriptors() // 2))
    server = Server(
        *(application, limits, ready),
        host=where.host,
        port=where.port,
        root_path=root_path,
    )

    def end() -> None:
        server.should_exit = True
        application.stores.close_soon()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await server.serve()
    except SystemExit:  # uvicorn has logged why: the address is in use, or not one of this host
        raise ConfigError(
            f"the server cannot listen at {where}",
            hint="another program may use it; choose another one: --bind HOST:PORT",
        ) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
