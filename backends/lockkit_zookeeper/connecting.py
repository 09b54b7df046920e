"""The handler that kazoo starts threads, opens sockets and waits with, replaced as kazoo documents it."""

from __future__ import annotations

import atexit
import errno
import math
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kazoo.handlers.threading import _STOP, SequentialThreadingHandler

from lockkit_zookeeper.address import Address
from lockkit_zookeeper.answers import Answer, Calls

__all__ = ["AtOnce", "Handler"]

_LONGEST_CONNECT = 2.0
"""Seconds for a TCP connection and for each step of a TLS handshake."""


class AtOnce:
    """A watcher called by the connection's own thread, before the answers behind the event. Must not wait."""

    __slots__ = ()

    def __call__(self, event: Any) -> None:
        """Take in the event.

        Raises:
            NotImplementedError: Always; subclasses say what to do.
        """
        raise NotImplementedError


class Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's handler, with threads that have a name and do not keep the interpreter from exiting.

    Attributes:
        longest: Seconds that a host may take to answer; see :mod:`lockkit_zookeeper.hosts`.
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

    def end(self) -> None:
        """Have the threads end, also if only one was started, without waiting for them."""
        self._running = False
        for calls in (self.completion_queue, self.callback_queue):
            calls.put(_STOP)

    def async_result(self) -> Answer:
        return Answer(self)

    def spawn(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> threading.Thread:
        thread = threading.Thread(
            target=func, args=args, kwargs=kwargs, name="lockkit-zookeeper-kazoo", daemon=True
        )
        thread.start()
        return thread

    def dispatch_callback(self, callback: Any) -> None:
        """Call a watcher: as a rule on the thread for all of them, so that later answers need not wait."""
        if isinstance(callback.func, AtOnce):
            callback.func(*callback.args)
        else:
            super().dispatch_callback(callback)

    def select(
        self, read: Sequence[Any], write: Sequence[Any], _: Sequence[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Wait until some can be read or written.

        kazoo calls this several times per request. Its own version creates an epoll object each time, which
        took a third of the CPU time of an acquire and its release.

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
        # An error or a hang-up is for both: the read or the write that follows raises it.
        return (
            [each for each in read if ready.get(each.fileno(), 0) & ~select.POLLOUT],
            [each for each in write if ready.get(each.fileno(), 0) & ~select.POLLIN],
            [],
        )

    def create_connection(
        self, address: tuple[str, int], hostname: str, timeout: float, **_: object
    ) -> socket.socket:
        """Connect for kazoo, whose own version leaves the socket open when a TLS handshake fails.

        Raises:
            OSError: The connection failed.
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
                files = self._address.files
                self._tls = ssl.create_default_context(cafile=files.ca_file)
                if files.cert_file is not None:
                    self._tls.load_cert_chain(files.cert_file, files.key_file)
            return self._tls.wrap_socket(sock, server_hostname=hostname)
        except BaseException:
            sock.close()
            raise
