"""The connections to one server: each call takes one, and gives it back when it owes nothing.

A connection is used by one call at a time and goes back to the free ones only when every request on it was answered. One
with an unanswered request is closed with a reset, so that what still lies in this host's buffers is thrown away and no
later caller reads an answer that is not its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions as theirs

from lockkit.clock import Clock
from lockkit.store.urls import at
from lockkit_redis.address import Address
from lockkit_redis.connecting import Place, connected
from lockkit_redis.failures import meaning, replied, unanswered
from lockkit_redis.line import TIME, Line, millis_of, pack
from lockkit_redis.sentinels import primary
from lockkit_redis.unreachable import inherited, not_connected, of_another_kind, refused_at_login

__all__ = ["Wire"]

_IDLE = 1.0
"""Seconds after which a free connection is looked at before it is used: the server may have closed it."""
_UNUSED = 30.0
"""Seconds after which a connection that others made superfluous is closed, once another is given back."""
_LEAST = 0.005
_STRANGER = (theirs.BusyLoadingError, theirs.AuthenticationError)
"""Answers after which a connection has to introduce itself again; among redis-py's connection errors."""
_SAID = (theirs.ResponseError, *_STRANGER)
"""What a server says; every other error is about the way to it."""


class Wire:
    """The connections of one store to one server.

    Args:
        address: The server.
        clock: CLOCK_BOOTTIME seconds.
        trouble: Is told what went wrong.
        namespace: What an error about missing rights speaks of.

    Attributes:
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
        self._free: list[tuple[Line, float]] = []
        self._closed = False
        self._pid = os.getpid()

    def call(self, packed: bytes, budget: float) -> Any:
        """Send one packed command and read its answer.

        Raises:
            Refused, Unknown: See :mod:`lockkit_redis.failures`.
            redis.exceptions.NoScriptError: The server does not know the script (any more).
        """
        end = time.monotonic() + budget
        line = self._take(budget)
        try:
            answer = line.ask(packed, end)
        except BaseException as error:
            why = self._ended(line, error)
            if why is error:
                raise
            raise why from error
        if isinstance(answer, theirs.RedisError):
            self._settle(line, (answer,))
            raise answer if isinstance(answer, theirs.NoScriptError) else replied(answer, self)
        self._keep(line)
        return answer

    def row(self, packed: bytes, budget: float, count: int, *, whole: bool = False) -> list[Any]:
        """Send ``count`` commands packed in a row, and read their answers, error replies among them.

        After an error reply in a row that is a ``whole`` (MULTI to EXEC) the connection is not used again.

        Raises:
            Refused, Unknown: See :mod:`lockkit_redis.failures`.
        """
        end = time.monotonic() + budget
        line = self._take(budget)
        try:
            answers = line.row(packed, end, count)
        except BaseException as error:
            why = self._ended(line, error)
            if why is error:
                raise
            raise why from error
        self._settle(line, answers, whole=whole)
        return answers

    def _ended(self, line: Line, error: BaseException) -> BaseException:
        """What to raise when a call broke off, after which its connection is good for nothing."""
        line.reset()
        if not isinstance(error, (theirs.RedisError, OSError)):
            return error
        self._trouble(error)
        return unanswered(error, self.where)

    def _settle(self, line: Line, answers: Sequence[Any], *, whole: bool = False) -> None:
        """Keep a connection that owes nothing, unless an answer says that it, or the server, is not what it was."""
        good = True
        kinds = set(map(type, answers))  # of thousands of answers hardly ever one is an error
        for answer in answers if any(issubclass(kind, theirs.RedisError) for kind in kinds) else ():
            if isinstance(answer, theirs.RedisError):
                self._trouble(answer)
                if isinstance(answer, theirs.ReadOnlyError):
                    self._empty()  # the primary no more: none of its connections is any good
                good = good and not whole and not isinstance(answer, (theirs.ReadOnlyError, *_STRANGER))
        if good:
            self._keep(line)
        else:
            line.close()

    def _keep(self, line: Line) -> None:
        now = time.monotonic()
        self._free.append((line, now))
        if self._closed:
            self._empty()
            return
        try:
            if now - self._free[0][1] > _UNUSED:  # the last that was given back is the first to be taken
                self._free.pop(0)[0].close()
        except IndexError:  # others have taken it meanwhile
            pass

    def connect(self, budget: float) -> Line:
        """A new connection, logged in.

        Raises:
            Refused: There is none to be had.
        """
        if self._pid != os.getpid():
            raise inherited(self.where)
        end = time.monotonic() + budget
        line: Line | None = None
        try:
            place = self._place(budget)
            line = connected(place, self._address.tls, max(end - time.monotonic(), _LEAST))
            line.wire = self
            self._log_in(line, place, end)
        except BaseException as error:
            if line is not None:
                line.reset()
            if not isinstance(error, (theirs.RedisError, OSError)):
                raise
            if not isinstance(error, _SAID):
                self._trouble(error)
            raise refused_at_login(error, self, self._address) from error
        return line

    def _place(self, budget: float) -> Place:
        address = self._address
        if address.socket is not None:
            return address.socket
        return address.hosts[0] if address.service is None else primary(address, budget)

    def _log_in(self, line: Line, place: Place, end: float) -> None:
        """Say who we are, and ask what it is and for the time, in one row."""
        address = self._address
        row = [_HELLO, pack("CLIENT", "SETNAME", self._name), TIME]
        if address.password is not None:
            row.insert(0, pack("AUTH", *filter(None, (address.user,)), address.password))
        if address.db:
            row.append(pack("SELECT", address.db))
        if address.service is not None:
            row.append(_ROLE)
        line.begin(b"".join(row), end)
        for asked in row:
            answer = line.hear(end)
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
        """What the server's clock showed just now (ms since the epoch), as an answer said."""
        self._ahead = server - self._clock.now() * 1000.0

    def reckoned(self, here: float) -> int:
        """What the server's clock shows when ours shows ``here``: by its last answer, or if it never gave one, by ours."""
        return int(here * 1000.0 + self._ahead)

    def another(self) -> Wire:
        """The same server over connections of its own."""
        wire = Wire(self._address, self._name, self._clock, self._trouble, self.namespace)
        wire._pid = self._pid  # a forked child gets none that is good for anything
        return wire

    def close(self) -> None:
        """Close the free connections; those in use follow when their call ends."""
        self._closed = True
        self._empty()

    def _empty(self) -> None:
        while self._free:
            try:
                line, _ = self._free.pop()
            except IndexError:
                return
            line.close()

    def _take(self, budget: float) -> Line:
        if self._pid != os.getpid():
            raise inherited(self.where)
        while not self._closed:
            try:
                line, since = self._free.pop()
            except IndexError:
                return self.connect(budget)
            if time.monotonic() - since < _IDLE or line.quiet():
                return line
            line.reset()
        raise not_connected(RuntimeError("this store is closed"), self.where, self._address)


def _mode(hello: Any) -> str:
    """Standalone, cluster or sentinel, as an answer to HELLO says; "" where it is not known (before Redis 6)."""
    facts = dict(zip(hello[::2], hello[1::2], strict=False)) if isinstance(hello, list) else {}
    mode = facts.get(b"mode")
    return mode.decode(errors="replace") if isinstance(mode, bytes) else ""


_HELLO = pack("HELLO")
_UNHEARD = (None, "UNKNOWN", "NOPERM")
"""What becomes of HELLO where there is none; the server may be as good as any."""
_ROLE = pack("ROLE")
