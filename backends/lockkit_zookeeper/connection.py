"""The connection of one session, on kazoo.

kazoo connects, logs in, pings and comes back after a cut; its retries, recipes and ways to wait are not used.
Three facts that kazoo does not report are taken where they arise: the earliest moment of sending the connect
request (validity counts from there), the timeout granted, and the moment from which requests can be sent.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry

from lockkit.errors import LockkitError
from lockkit.lib.clock import Clock
from lockkit.lib.forks import Forks
from lockkit.store.spi import Refused
from lockkit.store.starting import OneThread
from lockkit_zookeeper.address import Address
from lockkit_zookeeper.answers import Crowd
from lockkit_zookeeper.connecting import Handler
from lockkit_zookeeper.failures import not_connected, refused_login
from lockkit_zookeeper.private import Client, KazooConnection, Wish

__all__ = ["Connection"]

_kazoo = logging.getLogger("lockkit.zookeeper.kazoo")
_kazoo.setLevel(logging.ERROR)  # at lower levels kazoo logs every cut, and passwords


def _nothing(*_: object) -> None:
    """Do nothing."""


class Connection:
    """A session with the servers, and its connection at the moment.

    One thread connects, works, says goodbye and closes what it opened. All others only set the wish that it
    heeds, so none can be interrupted halfway, and closing needs no further thread.

    Args:
        timeout: Seconds; the timeout to ask for. The servers may grant another one: :attr:`granted`.
        connected: Called, from kazoo's thread, for each connection that is ready, with the CLOCK_BOOTTIME
            seconds just before its connect request was sent.
        suspended: Called when the connection is cut; the session may go on.
        lost: Called when there will be no further connection; with True if the servers have ended the
            session, so that its nodes are gone.
        identity: The id and the password of an existing session; None for a new one.
        until: Seconds on ``time.monotonic()`` after which the session is ended. For the connection of a
            single call, which Ctrl-C can keep from closing it.

    Attributes:
        where: The URL, without secrets.
        identity: The session's id and password, for another connection to go on with it; at first None.
        granted: Seconds; the session's timeout. 0 before there is one.
        turn: The number of connections so far.
        refusal: The error to raise if another attempt would not help; None if it may.
        trouble: Why the last attempt to connect failed.
        send: Sends a request and returns its :class:`~lockkit_zookeeper.answers.Answer`. Requests are done in
            the order in which they are sent.
        unwatch: Forgets a watcher of a node's data, by path and watcher. kazoo would keep it until the node
            changes, which may be never.
    """

    def __init__(
        self,
        address: Address,
        timeout: float,
        clock: Clock,
        connected: Callable[[float], None] = _nothing,
        suspended: Callable[[], None] = _nothing,
        lost: Callable[[bool], None] = _nothing,
        identity: tuple[int, bytes] | None = None,
        until: float = math.inf,
    ) -> None:
        self.where = address.shown
        self.identity = identity
        self.granted = 0.0
        self.turn = 0
        self.refusal: LockkitError | None = None
        self.trouble = "no server answers"
        self._connected = connected
        self._suspended = suspended
        self._lost = lost
        self._ready = False
        self._waiting = Crowd()
        self._life = OneThread(self._live, "lockkit-zookeeper-kazoo")
        self._thread: threading.Thread | None = None
        login = f"{address.user}:{address.password}"
        sasl = {"mechanism": "DIGEST-MD5", "username": address.user, "password": address.password}
        sasl_of = sasl if address.user and address.auth == "sasl" else None
        self._wish = Wish(until)
        self._client = Client(
            self._wish,
            lambda client, retry: KazooConnection(client, retry, _kazoo, sasl_of, clock, self, address),
            hosts=address.hosts,
            timeout=timeout,
            handler=Handler(address, timeout),
            auth_data=[("digest", login)] if address.user and address.auth == "digest" else None,
            connection_retry=_retry(-1),
            command_retry=_retry(0),
            logger=_kazoo,
            client_id=identity,
        )
        self._client.add_listener(self._changed)
        self.send = self._client.send
        self.unwatch = self._client.unwatch
        _connections.add(self)

    def start(self) -> None:
        """Start connecting in the background, unless closed. A failure ends it: see :meth:`wait`."""
        try:
            self._life.start()
        except RuntimeError as error:  # no more threads
            self._fail(error)

    def _live(self) -> None:
        self._thread = threading.current_thread()
        try:
            if not self.over:
                self._client.live()
        except Exception as error:  # no more threads or descriptors
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.trouble = str(error)
        self._end(ended=False)

    def wait(self, budget: float) -> None:
        """Wait until there is a connection.

        Raises:
            Refused: There is none in time, or there never will be one.
        """
        self._waiting.wait(lambda: self._ready or self.over, budget)
        if not self.up:
            if self.refusal is not None:
                raise Refused(self.refusal, retry=False)
            raise not_connected(self.where, self.trouble)

    @property
    def over(self) -> bool:
        """True if there will be no further connection."""
        return self._wish.is_set()

    @property
    def up(self) -> bool:
        """True while there is a connection that is ready."""
        return self._ready and not self._wish.is_set()

    @property
    def session(self) -> int:
        """The session's id; 0 if there is none."""
        return self.identity[0] if self.identity else 0

    def bounce(self) -> None:
        """Cut the connection; kazoo makes another, to another host if it can."""
        self._client.cut()

    def word(self, word: bytes, budget: float) -> str:
        """The connected server's answer to a four-letter word; empty if the server gives none."""
        # kazoo's own `command` waits as long as it likes, and leaves the socket open when TLS fails.
        with contextlib.suppress(OSError), socket.create_connection(self._client.peer(), budget) as sock:
            sock.sendall(word)
            with sock.makefile(errors="replace") as answer:
                return answer.read()
        return ""

    def close(self, *, goodbye: bool) -> threading.Thread | None:
        """Close the connection, in the background; return the thread that does it, if it was started.

        Args:
            goodbye: True to end the session with all its nodes. Otherwise it lasts until its timeout.
        """
        self._client.quit(goodbye=goodbye)
        self._waiting.wake()
        return self._thread

    def is_ready(self, began: float, granted: float) -> None:
        """Note a connection that is ready; called by the connection."""
        self.identity = self._client.identity
        self.granted = granted
        self.turn += 1
        self._connected(began)
        self._ready = True
        self._waiting.wake()

    def refused(self, refusal: LockkitError) -> None:
        """Give up: another attempt would not help. For kazoo's connection: kazoo reports no early end."""
        self.refusal = refusal
        self._end(ended=False)

    def _end(self, *, ended: bool) -> None:
        self._wish.set()  # otherwise kazoo would begin a new session that nobody knows of
        self._waiting.wake()
        self._lost(ended)

    def _changed(self, state: str) -> None:
        """Note a change of kazoo's state; called from its thread."""
        if state == KazooState.SUSPENDED:
            self._ready = False
            self._suspended()
        elif state == KazooState.LOST:
            state = self._client.client_state
            if state == KeeperState.AUTH_FAILED and self.refusal is None:
                self.refusal = refused_login(self.where)
            # kazoo also reports CLOSED after errors of its own: only EXPIRED says that the session has ended.
            self._end(ended=state == KeeperState.EXPIRED_SESSION)

    def forget(self) -> None:
        """Close the sockets of the parent in a forked child, without sending anything."""
        self._ready = False
        self._client.abandon()


def _retry(tries: int) -> Any:
    return KazooRetry(
        max_tries=tries, delay=0.05, backoff=2, max_jitter=0.4, max_delay=1.0, sleep_func=time.sleep
    )


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_connections):
        connection.forget()


Forks(in_child=_after_fork)
