"""How kazoo gets to a server: sockets, TLS, and how long each of several hosts may take before another is tried.

kazoo gives each host a share of the session's timeout, which is longer than anybody waits for a store to open: one silent
member of an ensemble would stop whoever happens to ask it first. Here a host has a moment, the longer the more often all of
them have been asked in vain.
"""

# ruff: noqa: SLF001 - kazoo has no other door to any of this; the tests of sessions, silence and forks stand guard

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import math
import os
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import AuthFailedError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import STOP_CONNECTING, ConnectionHandler
from kazoo.protocol.serialization import SASL
from kazoo.retry import ForceRetryError

from lockkit.clock import Clock
from lockkit.errors import LockkitError
from lockkit_zookeeper.address import Address
from lockkit_zookeeper.answers import Answer, Calls
from lockkit_zookeeper.failures import without_trust

if TYPE_CHECKING:
    from lockkit_zookeeper.wire import Wire

__all__ = ["Connection", "Handler"]

_LONGEST_CONNECT = 2.0
"""Seconds for a TCP connection and for each step of a TLS handshake."""
_ROUND, _LEAST, _MOST = 1.5, 0.3, 1.0
"""Seconds in which all hosts shall have been asked once, and what each of them has at least and at most in that round."""
_BYTES = 4096
"""More calls to wake up than there are at a time."""
_CLOSED = (errno.EBADF, errno.EPIPE, errno.ECONNRESET)
_GRUDGE = 30.0
"""Seconds for which a host that did not answer is asked last."""

_silent: dict[tuple[str, int], float] = {}
"""When a host did not answer, on the monotonic clock: what one session of this process has found out is good for all."""


def patience(hosts: int, rounds: int, timeout: float) -> float:
    """Seconds that a host may take to answer.

    Args:
        hosts: How many there are.
        rounds: How often all of them have been asked in vain; it doubles each time, up to a third of the timeout.
        timeout: Seconds; the session's. The only host has all of it.
    """
    if hosts < 2:
        return timeout
    first = min(max(_ROUND / hosts, _LEAST), _MOST)
    return float(min(first * 2 ** min(rounds, 16), max(timeout / 3.0, _LEAST)))


class Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads, by a name, and no hindrance to an interpreter that ends.

    Attributes:
        longest: Seconds; see :func:`patience`.
    """

    queue_impl = Calls

    def __init__(self, address: Address, longest: float) -> None:
        super().__init__()
        self.longest = longest
        self._address = address
        self._tls: ssl.SSLContext | None = None

    def start(self) -> None:
        super().start()
        atexit.unregister(self.stop)

    def async_result(self) -> Answer:
        return Answer(self)

    def spawn(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> threading.Thread:
        thread = threading.Thread(
            target=func, args=args, kwargs=kwargs, name="lockkit-zookeeper-kazoo", daemon=True
        )
        thread.start()
        return thread

    def select(
        self, read: Sequence[Any], write: Sequence[Any], _: Sequence[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Wait until some can be read or written.

        kazoo asks several times for each request, and makes an epoll object each time: which was a third of what an acquire and its release took of the CPU.

        Raises:
            OSError: One is closed.
        """
        poll = select.poll()
        for each in read:
            poll.register(each, select.POLLIN)
        for each in write:
            poll.register(each, select.POLLOUT)
        ready = dict(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))
        if any(events & select.POLLNVAL for events in ready.values()):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        # An error or a hang-up is for both: who reads or writes will be told.
        return (
            [each for each in read if ready.get(each.fileno(), 0) & ~select.POLLOUT],
            [each for each in write if ready.get(each.fileno(), 0) & ~select.POLLIN],
            [],
        )

    def create_connection(
        self, address: tuple[str, int], hostname: str, timeout: float, **_: object
    ) -> socket.socket:
        """Connect for kazoo, which leaves sockets open when a TLS handshake fails.

        Raises:
            OSError: It cannot.
            KazooTimeoutError: There was no answer in time.
        """
        limit = min(timeout, self.longest, _LONGEST_CONNECT)
        try:
            return self._connected(address, hostname, limit)
        except TimeoutError:
            raise self.timeout_exception(f"no connection in {limit:g} s") from None

    def _connected(self, address: tuple[str, int], hostname: str, limit: float) -> socket.socket:
        sock = socket.create_connection(address, limit)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._address.tls:
                return sock
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=self._address.ca_file)
                if self._address.cert_file is not None:
                    self._tls.load_cert_chain(self._address.cert_file, self._address.key_file)
            return self._tls.wrap_socket(sock, server_hostname=hostname)
        except BaseException:
            sock.close()
            raise


class Connection(ConnectionHandler):  # type: ignore[misc]
    """kazoo's connection, which says when it began and what it got."""

    _xid: int

    def __init__(
        self,
        client: Any,
        retry: Any,
        logger: logging.Logger,
        sasl: dict[str, Any] | None,
        clock: Clock,
        wire: Wire,
        address: Address,
    ) -> None:
        super().__init__(client, retry, logger=logger, sasl_options=sasl)
        self._clock = clock
        self._wire = weakref.proxy(wire)
        self._rounds = 0
        self._said_nothing = False
        self._address = address
        self._round: dict[tuple[str, int], LockkitError | None] = {}

    def _connect_loop(self, retry: Any) -> Any:
        self._round.clear()
        try:
            return super()._connect_loop(retry)
        except ForceRetryError:
            # What is wrong with certificates stays wrong. A session that was connected before goes on trying: it has claims.
            found = self._round
            if self._wire.turn or not found or len(found) < len(self.client.hosts) or None in found.values():
                raise
            self._wire.refused([*found.values()][-1])
            return STOP_CONNECTING

    def _expand_client_hosts(self) -> list[tuple[str, str, int]]:
        # Asked for at the start of each round.
        hosts: list[tuple[str, str, int]] = super()._expand_client_hosts()
        self.handler.longest = patience(len(hosts), self._rounds, self.client._session_timeout / 1000.0)
        self._rounds += 1
        now = time.monotonic()
        return sorted(hosts, key=lambda host: now - _silent.get(host[1:], -_GRUDGE) < _GRUDGE)

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        # Only to connect and to log in.
        limit = min(timeout, self.handler.longest)
        try:
            return super()._invoke(limit, request, xid)
        except self.handler.timeout_exception:
            raise self.handler.timeout_exception(f"no answer in {limit:g} s") from None

    def wake(self) -> bool:
        """Have the thread of the connection look for requests; False if there is none.

        kazoo's own way to send a request catches whatever its wake-up call raises, the exception of a signal handler too.
        """
        sock = self._write_sock
        if sock is None:
            return False
        try:
            sock.send(b"\0", socket.MSG_DONTWAIT)
        except OSError as error:  # a handler may raise one of its own, a TimeoutError for instance
            if error.errno == errno.EAGAIN:
                return True  # it has been told often enough
            if error.errno not in _CLOSED:
                raise
            return False
        return True

    def _send_request(self, read_timeout: float, connect_timeout: float) -> None:  # noqa: ARG002
        # kazoo sends one request for each byte: one whose byte an exception of a signal handler has kept away would wait
        # for the byte of the next, and so on for good.
        with contextlib.suppress(BlockingIOError):
            self._read_sock.recv(_BYTES, socket.MSG_DONTWAIT)
        waiting, pending = self.client._queue, self.client._pending
        while waiting:
            request, answer = waiting[0]
            self._xid = xid = self._xid % 0x7FFFFFFF + 1
            self._submit(request, connect_timeout, xid)
            waiting.popleft()
            pending.append((request, answer, xid))

    def _authenticate_with_sasl(self, host: str, timeout: float) -> None:
        self._said_nothing = False
        super()._authenticate_with_sasl(host, min(timeout, self.handler.longest))

    def _submit(self, request: Any, timeout: float, xid: int | None = None) -> None:
        if isinstance(request, SASL) and not request.challenge:
            # A server without SASL echoes the empty first word, and kazoo would say it again without end.
            if self._said_nothing:
                self._wire.knows_sasl = False
                raise AuthFailedError("the server knows no SASL")
            self._said_nothing = True
        super()._submit(request, timeout, xid)

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        began = self._clock.now()
        try:
            read_timeout, connect_timeout = super()._connect(host, hostip, port)
        except Exception as error:
            if isinstance(error, self.handler.timeout_exception):
                _silent[hostip, port] = time.monotonic()
            self._wire.trouble = f"{hostip}:{port}: {error}"
            final = without_trust(error, f"{host}:{port}", ca_file=self._address.ca_file is not None)
            # A name may have several addresses, and a server listen at one of them.
            self._round[host, port] = final or self._round.get((host, port))
            raise
        self._rounds = 0
        _silent.pop((hostip, port), None)
        # Two thirds of what was granted is what kazoo reads for.
        self._wire.is_ready(began, read_timeout * 1.5 / 1000.0)
        return read_timeout, connect_timeout
