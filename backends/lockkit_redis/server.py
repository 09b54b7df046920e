"""The calls to one server, over a pool of connections, and how a connection introduces itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions as theirs

from lockkit.clock import Clock
from lockkit.store.connections import Pool, inherited
from lockkit.store.urls import at
from lockkit_redis.address import Address
from lockkit_redis.connecting import Place, connected
from lockkit_redis.connection import TIME, Connection, millis_of, pack
from lockkit_redis.failures import meaning, replied, unanswered
from lockkit_redis.sentinels import primary
from lockkit_redis.unreachable import of_another_kind, refused_at_login

__all__ = ["Server"]

_LEAST = 0.005
_STRANGER = (theirs.BusyLoadingError, theirs.AuthenticationError)
"""Answers after which a connection has to introduce itself again; among redis-py's connection errors."""
_SAID = (theirs.ResponseError, *_STRANGER)
"""Errors that a server answers with; every other error is about the connection."""


class Server:
    """The connections of one store to one server.

    Args:
        address: The server.
        clock: CLOCK_BOOTTIME seconds.
        trouble: Called with each error.
        namespace: The namespace that an error about missing rights names.

    Attributes:
        pool: The free connections.
        where: The URL, without secrets.
        node: Host and port: in a Cluster all nodes share the URL.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        clock: Clock,
        trouble: Callable[[BaseException], None] = lambda _error: None,
        namespace: str = "default",
    ) -> None:
        self.where = address.shown
        self.node = at(*address.hosts[0])
        self.namespace = namespace
        self._trouble = trouble
        self._address = address
        self._name = name
        self._clock = clock
        self._ahead = (clock.wall() - clock.now()) * 1000.0
        self.pool = Pool(self.connect, self.where)

    def call(self, packed: bytes, budget: float) -> Any:
        """Send one packed command and read its answer.

        Raises:
            Refused, Unknown: See :mod:`lockkit_redis.failures`.
            redis.exceptions.NoScriptError: The server does not know the script (any more).
        """
        end = time.monotonic() + budget
        connection = self.pool.take(budget)
        try:
            answer = connection.ask(packed, end)
        except BaseException as error:
            why = self._ended(connection, error)
            if why is error:
                raise
            raise why from error
        if isinstance(answer, theirs.RedisError):
            self._settle(connection, (answer,))
            raise answer if isinstance(answer, theirs.NoScriptError) else replied(answer, self)
        self.pool.keep(connection)
        return answer

    def row(self, packed: bytes, budget: float, count: int, *, whole: bool = False) -> list[Any]:
        """Send ``count`` commands packed in a row, and read their answers, error replies among them.

        After an error reply in a row that is a ``whole`` (MULTI to EXEC) the connection is not used again.

        Raises:
            Refused, Unknown: See :mod:`lockkit_redis.failures`.
        """
        end = time.monotonic() + budget
        connection = self.pool.take(budget)
        try:
            answers = connection.row(packed, end, count)
        except BaseException as error:
            why = self._ended(connection, error)
            if why is error:
                raise
            raise why from error
        self._settle(connection, answers, whole=whole)
        return answers

    def _ended(self, connection: Connection, error: BaseException) -> BaseException:
        """Close the connection of a call that broke off, and return the exception to raise."""
        connection.reset()
        if not isinstance(error, (theirs.RedisError, OSError)):
            return error
        self._trouble(error)
        return unanswered(error, self.where)

    def _settle(self, connection: Connection, answers: Sequence[Any], *, whole: bool = False) -> None:
        """Keep a connection that owes nothing, unless an answer says that it, or the server, is not what it was."""
        good = True
        kinds = set(map(type, answers))  # errors are rare, and there may be thousands of answers
        for answer in answers if any(issubclass(kind, theirs.RedisError) for kind in kinds) else ():
            if isinstance(answer, theirs.RedisError):
                self._trouble(answer)
                if isinstance(answer, theirs.ReadOnlyError):
                    self.pool.empty()  # no longer the primary: none of the connections is of use
                good = good and not whole and not isinstance(answer, (theirs.ReadOnlyError, *_STRANGER))
        if good:
            self.pool.keep(connection)
        else:
            connection.close()

    def connect(self, budget: float) -> Connection:
        """A new connection, logged in.

        Raises:
            Refused: There is none to be had.
        """
        if self.pool.pid != os.getpid():
            raise inherited(self.where)
        end = time.monotonic() + budget
        connection: Connection | None = None
        try:
            place = self._place(budget)
            connection = connected(place, self._address.tls, max(end - time.monotonic(), _LEAST))
            connection.server = self
            self._log_in(connection, place, end)
        except BaseException as error:
            if connection is not None:
                connection.reset()
            if not isinstance(error, (theirs.RedisError, OSError)):
                raise
            if not isinstance(error, _SAID):
                self._trouble(error)
            raise refused_at_login(error, self, self._address) from error
        return connection

    def _place(self, budget: float) -> Place:
        address = self._address
        if address.socket is not None:
            return address.socket
        return address.hosts[0] if address.service is None else primary(address, budget)

    def _log_in(self, connection: Connection, place: Place, end: float) -> None:
        """Log in and set the client's name, and ask for the server's kind and time, in one row."""
        address = self._address
        row = [_HELLO, pack("CLIENT", "SETNAME", self._name), TIME]
        if address.password is not None:
            row.insert(0, pack("AUTH", *filter(None, (address.user,)), address.password))
        if address.db:
            row.append(pack("SELECT", address.db))
        if address.service is not None:
            row.append(_ROLE)
        connection.begin(b"".join(row), end)
        for asked in row:
            answer = connection.hear(end)
            if isinstance(answer, theirs.RedisError):
                if asked is not _HELLO or meaning(answer) not in _UNHEARD:
                    raise answer
            elif asked is _HELLO:
                if other := of_another_kind(_mode(answer), place, address):
                    raise other
            elif asked is TIME:
                self.heard(millis_of(answer))
            elif asked is _ROLE and answer[0] != b"master":
                raise theirs.ReadOnlyError("READONLY not promoted yet")

    def heard(self, server: int) -> None:
        """Note what the server's clock showed just now (ms since the epoch), as an answer said."""
        self._ahead = server - self._clock.now() * 1000.0

    def reckoned(self, here: float) -> int:
        """Estimate what the server's clock shows when ours shows ``here``: by its last answer, or by ours if it never gave one."""
        return int(here * 1000.0 + self._ahead)

    def another(self) -> Server:
        """The same server over connections of its own."""
        server = Server(self._address, self._name, self._clock, self._trouble, self.namespace)
        server.pool.pid = self.pool.pid  # a forked child gets one that refuses every call
        return server

    def close(self) -> None:
        """Close the free connections; those in use follow when their call ends."""
        self.pool.close()


def _mode(hello: Any) -> str:
    """Standalone, cluster or sentinel, as an answer to HELLO says; "" where it is not known (before Redis 6)."""
    facts = dict(zip(hello[::2], hello[1::2], strict=False)) if isinstance(hello, list) else {}
    mode = facts.get(b"mode")
    return mode.decode(errors="replace") if isinstance(mode, bytes) else ""


_HELLO = pack("HELLO")
_UNHEARD = (None, "UNKNOWN", "NOPERM")
"""Answers to HELLO of servers that do not know or allow it; such a server may be as good as any."""
_ROLE = pack("ROLE")
