"""The undocumented parts of kazoo that lockkit uses, and nothing else.

kazoo connects, logs in, sends, reads and parses. Its own calls, retries and waits are not used: they take
locks that the exception of a signal handler leaves locked, and they wait without a limit. kazoo documents no
other way to send a request. The alternative is a client for ZooKeeper's protocol (jute), about 1,000 lines.

The extra ``zookeeper`` keeps kazoo below the first untried version. tests/backends/test_zookeeper_private.py
fails for a version that has changed one of these names.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import kazoo.exceptions as theirs
from kazoo.client import KazooClient

# A connection, and its sign for giving up. The connection that kazoo's client makes catches every exception.
from kazoo.protocol.connection import STOP_CONNECTING, ConnectionHandler

# kazoo's client makes requests only inside its calls, none of which makes a container or a later Sync.
from kazoo.protocol.serialization import (
    SASL,
    CheckVersion,
    Close,
    Create,
    Create2,
    Delete,
    Exists,
    GetChildren,
    GetData,
    SetData,
    Sync,
    Transaction,
)
from kazoo.protocol.states import KeeperState
from kazoo.retry import ForceRetryError
from kazoo.security import ACL

from lockkit.errors import LockkitError
from lockkit.lib.clock import Clock
from lockkit_zookeeper.address import Address
from lockkit_zookeeper.answers import Answer
from lockkit_zookeeper.failures import without_sasl, without_trust
from lockkit_zookeeper.hosts import is_silent, mark, patience

__all__ = [
    "CheckVersion",
    "Client",
    "Create",
    "Create2",
    "CreateContainer",
    "Delete",
    "EndSession",
    "Exists",
    "GetChildren",
    "GetData",
    "GetEphemerals",
    "KazooConnection",
    "SetData",
    "Sync",
    "Transaction",
    "Wish",
    "agreed",
    "agreement",
]

_CONTAINER = 4
_BYTES = 4096
"""More wake-up bytes than are ever there at a time."""
_CLOSED = (errno.EBADF, errno.EPIPE, errno.ECONNRESET)
_ENDED = {
    KeeperState.AUTH_FAILED: theirs.AuthFailedError,
    KeeperState.CLOSED: theirs.ConnectionClosedError,
    KeeperState.EXPIRED_SESSION: theirs.SessionExpiredError,
}
"""The errors to answer with in these states, in which kazoo sends nothing."""


class CreateContainer(Create2):  # type: ignore[misc]
    """The request for a container, which the server removes some time after its last child. Not in kazoo."""

    type = 19

    def __new__(cls, path: str, acl: Sequence[ACL]) -> CreateContainer:
        made: CreateContainer = super().__new__(cls, path, b"", acl, _CONTAINER)
        return made


class GetEphemerals(GetChildren):  # type: ignore[misc]
    """The request for the session's own nodes below a path, for servers since 3.6. Not in kazoo.

    The answer looks like that to GetChildren; the flag for a watch, behind the path, is not read.
    """

    type = 103


class EndSession(Close):  # type: ignore[misc]
    """The request to end a session, for a caller that waits for the answer."""

    def __bool__(self) -> bool:
        return True  # kazoo ignores the answer to a request that is false, as an empty tuple is

    @classmethod
    def deserialize(cls, data: bytes, offset: int) -> bool:  # noqa: ARG003 - an empty answer
        return True


def agreement(path: str) -> Any:
    """A write that changes nothing. Even if it fails, it takes a majority, unlike a read or ``sync``."""
    return Transaction([CheckVersion(path, -1)])


def agreed(answers: Sequence[Any]) -> bool:
    """Whether the answer to an :func:`agreement` shows that its session was alive.

    Missing nodes and rights prove it too, because the servers look up the session before the node.
    """
    (answer,) = answers
    return not isinstance(answer, Exception) or isinstance(answer, (theirs.NoNodeError, theirs.NoAuthError))


class Owner(Protocol):
    """The listener of a :class:`KazooConnection`."""

    where: str
    trouble: str
    turn: int

    def is_ready(self, began: float, granted: float) -> None: ...

    def refused(self, refusal: LockkitError) -> None: ...


class Wish:
    """Whether a connection is to end, in place of kazoo's event. Set without a lock, and never taken back.

    Attributes:
        until: Seconds on ``time.monotonic()`` from which on the connection is to end.
        goodbye: True if the session is to end, too; to be set first.
    """

    def __init__(self, until: float) -> None:
        self.until = until
        self.goodbye = until < math.inf

    def is_set(self) -> bool:
        return time.monotonic() >= self.until

    def set(self) -> None:
        self.until = 0.0


class Client(KazooClient):  # type: ignore[misc]
    """kazoo's client: its state, its queue of requests, and its connection."""

    _connection: KazooConnection

    def __init__(self, wish: Wish, make: Callable[[Client, Any], KazooConnection], **options: Any) -> None:
        super().__init__(**options)
        self._stopped = self.wish = wish
        self._connection = make(self, self._conn_retry.copy())

    @property
    def identity(self) -> tuple[int, bytes]:
        """The session's id and password."""
        return self._session_id, self._session_passwd

    def send(self, request: Any) -> Answer:
        """Send a request after those that were sent before.

        kazoo's own call takes a lock, and swallows a signal handler's exception while it wakes its thread.
        """
        answer = Answer(self.handler)
        ended = _ENDED.get(self._state)
        if ended is None:
            self._queue.append((request, answer))
            ended = None if self._connection.wake() else theirs.ConnectionClosedError
        if ended is not None:
            answer.set_exception(ended())
        return answer

    def unwatch(self, path: str, watcher: Callable[[Any], None]) -> None:
        """Forget a watcher of a node's data. kazoo keeps it until the node changes, which may be never."""
        watchers = self._data_watchers.get(path)
        if watchers is not None:
            watchers.discard(watcher)

    def peer(self) -> tuple[str, int]:
        """The address of the connected server.

        Raises:
            OSError: There is none.
        """
        sock = self._connection._socket  # noqa: SLF001
        if sock is None:
            raise OSError(errno.ENOTCONN, "not connected")
        host, port = sock.getpeername()[:2]
        return host, port

    def cut(self) -> None:
        """Cut the connection; kazoo's thread closes it, and makes another unless it is to end."""
        # Only shut down: a descriptor closed while another thread uses it may belong to a new file by then.
        sock = self._connection._socket  # noqa: SLF001
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def live(self) -> None:
        """Connect, and work until the connection is to end; for its one thread. Leaves nothing open."""
        connection = self._connection
        try:
            self.handler.start()
            connection._read_sock, connection._write_sock = self.handler.create_socket_pair()  # noqa: SLF001
            connection.zk_loop()
        finally:
            self.wish.set()
            self.handler.end()
            self.close()

    def quit(self, *, goodbye: bool) -> None:
        """Have the connection end: by a goodbye, or by a cut if nobody wishes one or there is no session."""
        if goodbye:
            self.wish.goodbye = True
        self.wish.set()
        if not (self.wish.goodbye and self._session_id):
            self.cut()
        self._connection.wake()

    def abandon(self) -> None:
        """Close the sockets that a forked child has from its parent, without sending anything."""
        self.wish.set()
        self.handler._running = False  # noqa: SLF001
        for sock in self._connection.sockets():
            if sock is not None:
                with contextlib.suppress(OSError):
                    socket.socket.close(sock)


class KazooConnection(ConnectionHandler):  # type: ignore[misc]
    """kazoo's connection. It reports when it connected, with what grant, and tries each host only briefly.

    ``wake`` and ``_send_request`` belong together. kazoo sends one request for each byte that wakes its
    thread, and a signal handler's exception can prevent a byte. Here the thread sends all waiting requests.
    """

    _xid: int

    def __init__(
        self,
        client: Any,
        retry: Any,
        logger: logging.Logger,
        sasl: dict[str, Any] | None,
        clock: Clock,
        owner: Owner,
        address: Address,
    ) -> None:
        super().__init__(client, retry, logger=logger, sasl_options=sasl)
        self._clock = clock
        self._owner: Owner = weakref.proxy(owner)
        self._rounds = 0
        self._said_nothing = False
        self._parted = False
        self._address = address
        self._round: dict[tuple[str, int], LockkitError | None] = {}

    def sockets(self) -> Sequence[Any]:
        """The sockets to the server and between kazoo's threads; None for one that is not open."""
        return self._socket, self._read_sock, self._write_sock

    def wake(self) -> bool:
        """Have the thread of the connection look for requests; False if there is none."""
        sock = self._write_sock
        if sock is None:
            return False
        try:
            sock.send(b"\0", socket.MSG_DONTWAIT)
        except OSError as error:  # a signal handler may raise an OSError of its own, such as TimeoutError
            if error.errno == errno.EAGAIN:
                return True  # enough bytes wait there
            if error.errno not in _CLOSED:
                raise
            return False
        return True

    def _ends(self) -> bool:
        """Whether a goodbye is to be sent behind the waiting requests; asked before each step.

        Raises:
            ConnectionDropped: The connection is to end without one. Another thread may have found no socket
                to cut, while this one was making it, or was interrupted before that.
        """
        client = self.client
        if not client.wish.is_set():
            return False
        if not (client.wish.goodbye and client._session_id):  # noqa: SLF001
            raise theirs.ConnectionDropped("it was closed")
        if not self._parted:
            self._parted = True
            client._queue.append((Close(), None))  # noqa: SLF001
            self.wake()
        return True

    def _send_request(self, read_timeout: float, connect_timeout: float) -> None:  # noqa: ARG002
        with contextlib.suppress(BlockingIOError):
            self._read_sock.recv(_BYTES, socket.MSG_DONTWAIT)
        self._ends()
        waiting, pending = self.client._queue, self.client._pending  # noqa: SLF001
        while waiting:
            request, answer = waiting[0]
            self._xid = xid = self._xid % 0x7FFFFFFF + 1
            self._submit(request, connect_timeout, xid)
            waiting.popleft()
            pending.append((request, answer, xid))

    def _read_response(self, header: Any, buffer: bytes, offset: int) -> Any:
        pending = self.client._pending  # noqa: SLF001
        place = next((at for at, (_, _, xid) in enumerate(pending) if xid == header.xid), None)
        if place is None:
            raise theirs.ConnectionDropped("an answer to no request")
        answer = pending[place][1]
        if place > 0:
            # A server answers a request of a type that it does not know before those that are under way.
            if header.err != theirs.UnimplementedError.code:
                raise theirs.ConnectionDropped("an answer that is out of order")
            del pending[place]
            answer.set_exception(theirs.UnimplementedError())
            return None
        try:
            return super()._read_response(header, buffer, offset)
        except Exception:
            if answer is not None and not answer.ready():
                answer.set_exception(theirs.ConnectionLoss())
            raise

    def _connect_loop(self, retry: Any) -> Any:
        self._round.clear()
        try:
            return super()._connect_loop(retry)
        except ForceRetryError:
            # A wrong certificate stays wrong, so the first attempt gives up. A session with claims goes on.
            found = self._round
            final = [each for each in found.values() if each is not None]
            if self._owner.turn or not final or len(final) < max(len(found), len(self.client.hosts)):
                raise
            self._owner.refused(final[-1])
            return STOP_CONNECTING
        except Exception as error:
            # kazoo expects no lack of memory or descriptors, for example, and would end its thread for good.
            self._owner.trouble = str(error) or type(error).__name__
            self.client._session_callback(KeeperState.CONNECTING)  # noqa: SLF001
            raise ForceRetryError from error

    def _expand_client_hosts(self) -> list[tuple[str, str, int]]:
        # kazoo asks for them at the start of each round.
        hosts: list[tuple[str, str, int]] = super()._expand_client_hosts()
        timeout = self.client._session_timeout / 1000.0  # noqa: SLF001
        self.handler.longest = patience(len(hosts), self._rounds, timeout)
        self._rounds += 1
        return sorted(hosts, key=lambda host: is_silent(host[1:]))

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        began = self._clock.now()
        try:
            read_timeout, connect_timeout = super()._connect(host, hostip, port)
        except Exception as error:
            if isinstance(error, self.handler.timeout_exception):
                mark((hostip, port), silent=True)
            self._owner.trouble = f"{hostip}:{port}: {error}"
            final = without_trust(error, f"{host}:{port}", ca_file=self._address.files.ca_file is not None)
            # A name may have several addresses, and a server listen at one of them.
            self._round[host, port] = final or self._round.get((host, port))
            raise
        self._rounds = 0
        mark((hostip, port), silent=False)
        if not self._ends():
            # kazoo reads for two thirds of the timeout that was granted.
            self._owner.is_ready(began, read_timeout * 1.5 / 1000.0)
        return read_timeout, connect_timeout

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        # Only to connect and to log in.
        limit = min(timeout, self.handler.longest)
        try:
            return super()._invoke(limit, request, xid)
        except self.handler.timeout_exception:
            raise self.handler.timeout_exception(f"no answer in {limit:g} s") from None

    def _authenticate_with_sasl(self, host: str, timeout: float) -> None:
        self._said_nothing = False
        super()._authenticate_with_sasl(host, min(timeout, self.handler.longest))

    def _submit(self, request: Any, timeout: float, xid: int | None = None) -> None:
        if isinstance(request, SASL) and not request.challenge:
            # A server without SASL echoes the empty first message, and kazoo would send it again for ever.
            if self._said_nothing:
                self._owner.refused(without_sasl(self._owner.where))
                raise theirs.AuthFailedError("the server does not support SASL")
            self._said_nothing = True
        self._ends()
        super()._submit(request, timeout, xid)
