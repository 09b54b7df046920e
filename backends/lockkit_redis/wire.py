"""Connections: packed commands out, replies in, each within its budget.

A connection is used by one call at a time and goes back to the free ones only when every request on it was answered. One
with an unanswered request is closed with a reset, so that what still lies in this host's buffers is thrown away and no
later caller reads an answer that is not its own.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
import redis.exceptions as theirs
from redis.backoff import NoBackoff
from redis.retry import Retry

from lockkit_redis.address import Address
from lockkit_redis.failures import inherited, not_connected, refused_at_login, replied, unanswered

__all__ = ["Connection", "Wire", "pack"]

_IDLE = 1.0
"""Seconds after which a free connection is looked at before it is used: the server may have closed it."""
_RESET = struct.pack("ii", 1, 0)
_LEAST = 0.005
_REPLIES = (theirs.BusyLoadingError, theirs.AuthenticationError)
"""Replies, though redis-py counts them among the connection errors."""

Connection = Any
"""One of redis-py's connection objects."""


def pack(*words: str | bytes | int) -> bytes:
    """A command in the protocol of Redis (RESP)."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(pieces)


class Wire:
    """The connections of one store to one server.

    Args:
        address: The server.
        greeted: Is given each new connection's answer to TIME, (seconds, microseconds).
        trouble: Is told what went wrong.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        greeted: Callable[[Sequence[Any]], None],
        trouble: Callable[[BaseException], None] = lambda _error: None,
    ) -> None:
        self.where = address.shown
        self._trouble = trouble
        self._address = address
        self._name = name
        self._greeted = greeted
        self._free: list[tuple[Connection, float]] = []
        self._closed = False
        self._pid = os.getpid()

    def row(self, packed: bytes, budget: float, count: int) -> list[Any]:
        """Send ``count`` commands packed in a row, and read their answers, error replies among them.

        Raises:
            Refused, Unknown: See :mod:`lockkit_redis.failures`.
        """
        return self._call(packed, budget, count)  # type: ignore[no-any-return]

    def call(self, packed: bytes, budget: float) -> Any:
        """Send one packed command and read its answer.

        Raises:
            Refused, Unknown: See :mod:`lockkit_redis.failures`.
            redis.exceptions.NoScriptError: The server does not know the script (any more).
        """
        return self._call(packed, budget, 0)

    def _call(self, packed: bytes, budget: float, count: int) -> Any:
        end = time.monotonic() + budget
        connection = self._take(budget)
        try:
            connection._sock.settimeout(max(end - time.monotonic(), _LEAST))  # noqa: SLF001
            connection.send_packed_command((packed,), check_health=False)
            if count == 0:
                answer = connection.read_response()
            else:
                answer = [self._read(connection) for _ in range(count)]
        except theirs.NoScriptError:
            self._give(connection)
            raise
        except theirs.ResponseError as error:
            self._settle(connection, (error,))
            raise replied(error, self.where) from error
        except _REPLIES as error:
            self.drop(connection)
            raise replied(error, self.where) from error
        except (theirs.RedisError, OSError) as error:
            self._trouble(error)
            self.drop(connection)
            raise unanswered(error, self.where) from error
        except BaseException:
            self.drop(connection)
            raise
        self._settle(connection, answer if count else ())
        return answer

    def _settle(self, connection: Connection, answers: Sequence[Any]) -> None:
        """Give a connection back that owes nothing, unless an answer says that the server is the primary no more."""
        demoted = False
        for answer in answers:
            if isinstance(answer, theirs.ResponseError):
                self._trouble(answer)
                demoted = demoted or isinstance(answer, theirs.ReadOnlyError)
        if demoted:  # then none of its connections is any good
            self.drop(connection)
            self._empty()
        else:
            self._give(connection)

    @staticmethod
    def _read(connection: Connection) -> Any:
        try:
            return connection.read_response()
        except theirs.ResponseError as error:
            return error

    def connect(self, budget: float) -> Connection:
        """A new connection, logged in.

        Raises:
            Refused: There is none to be had.
        """
        if self._pid != os.getpid():
            raise inherited(self.where)
        end = time.monotonic() + budget
        connection = self._make(max(budget, _LEAST))
        connection.redis_connect_func = lambda connection: self._log_in(connection, end)
        try:
            connection.connect()
        except (theirs.ResponseError, theirs.AuthenticationError, theirs.BusyLoadingError) as error:
            self.drop(connection)
            raise refused_at_login(error, self.where) from error
        except (theirs.RedisError, OSError) as error:
            self._trouble(error)
            self.drop(connection)
            raise refused_at_login(error, self.where) from error
        except BaseException:
            self.drop(connection)
            raise
        return connection

    def _log_in(self, connection: Connection, end: float) -> None:
        """Say who we are and ask for the time, in one row: redis-py would give each answer the whole budget."""
        address = self._address
        login: list[tuple[str, ...]] = [("CLIENT", "SETNAME", self._name)]
        if address.password is not None:
            login.insert(0, ("AUTH", *filter(None, (address.user,)), address.password))
        if address.db:
            login.append(("SELECT", str(address.db)))
        row = [*(pack(*words) for words in login), _TIME, *([_ROLE] if address.service is not None else [])]
        connection._parser.on_connect(connection)  # noqa: SLF001 - as redis-py's own on_connect begins
        connection.send_packed_command((b"".join(row),), check_health=False)
        for _ in login:
            self._before(end, connection)
        self._greeted(self._before(end, connection))
        if address.service is not None and self._before(end, connection)[0] != b"master":
            raise theirs.ReadOnlyError("READONLY not promoted yet")

    @staticmethod
    def _before(end: float, connection: Connection) -> Any:
        """The next answer, if it comes in time."""
        left = end - time.monotonic()
        if left <= 0:
            raise theirs.TimeoutError("Timeout while logging in")
        connection._sock.settimeout(left)  # noqa: SLF001
        return connection.read_response()

    def drop(self, connection: Connection) -> None:
        """Close a connection with a reset."""
        sock = connection._sock  # noqa: SLF001
        try:
            if sock is not None and connection.pid == os.getpid():
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.close()
                connection._sock = None  # noqa: SLF001 (else redis-py says goodbye on it)
            connection.disconnect()
        except (OSError, theirs.RedisError):
            pass

    def another(self) -> Wire:
        """The same server over connections of its own."""
        wire = Wire(self._address, self._name, self._greeted, self._trouble)
        wire._pid = self._pid  # a forked child gets none that is good for anything
        return wire

    def close(self) -> None:
        """Close the free connections; those in use follow when their call ends."""
        self._closed = True
        self._empty()

    def _empty(self) -> None:
        while self._free:
            try:
                connection, _ = self._free.pop()
            except IndexError:
                return
            try:
                connection.disconnect()
            except (OSError, theirs.RedisError):
                pass

    def _take(self, budget: float) -> Connection:
        if self._pid != os.getpid():
            raise inherited(self.where)
        while not self._closed:
            try:
                connection, since = self._free.pop()
            except IndexError:
                return self.connect(budget)
            try:
                if time.monotonic() - since < _IDLE or not connection.can_read(0):
                    return connection
            except (theirs.RedisError, OSError):
                pass
            self.drop(connection)
        raise not_connected(RuntimeError("this store is closed"), self.where)

    def _give(self, connection: Connection) -> None:
        self._free.append((connection, time.monotonic()))
        if self._closed:
            self.close()

    def _make(self, timeout: float) -> Connection:
        address = self._address
        if address.socket is not None:
            return self._prepare(timeout, path=address.socket)
        host, port = self._primary(timeout) if address.service is not None else address.hosts[0]
        return self._prepare(timeout, host=host, port=port)

    def _prepare(self, timeout: float, **place: Any) -> Connection:
        address = self._address
        kind: Any = redis.UnixDomainSocketConnection if "path" in place else redis.Connection
        if address.tls is not None:
            kind = redis.SSLConnection
            place |= address.tls
        return kind(**(_common(timeout) | place))

    def _primary(self, budget: float) -> tuple[str, int]:
        """Where the primary is, as the first sentinel says that knows.

        Raises:
            Refused: None knows, or none answers.
        """
        hosts, service = self._address.hosts, str(self._address.service)
        end = time.monotonic() + budget
        problems: list[str] = []
        for left, (host, port) in zip(range(len(hosts), 0, -1), hosts, strict=True):
            user, password = self._address.sentinel
            timeout = max((end - time.monotonic()) / (left + 1), _LEAST)
            tls = self._address.tls
            kind: Any = redis.Connection if tls is None else redis.SSLConnection
            login = {"host": host, "port": port, "username": user, "password": password}
            connection = kind(**(_common(timeout) | login | (tls or {})))
            try:
                connection.connect()
                asked = pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
                connection.send_packed_command((asked,), check_health=False)
                found = connection.read_response()
            except (theirs.RedisError, OSError) as error:
                problems.append(f"{host}:{port}: {str(error).partition(chr(10))[0]}")
                continue
            finally:
                self.drop(connection)
            if found:
                return found[0].decode(), int(found[1])
            problems.append(f"{host}:{port} knows no {service!r}")
        raise not_connected(RuntimeError("; ".join(problems)), self.where)


def _common(timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }


_TIME, _ROLE = pack("TIME"), pack("ROLE")
