"""The connections to one server: each call takes one, and gives it back when it owes nothing.

A connection is used by one call at a time and goes back to the free ones only when every request on it was answered. One
with an unanswered request is closed with a reset, so that what still lies in this host's buffers is thrown away and no
later caller reads an answer that is not its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import redis
import redis.exceptions as theirs
from redis.backoff import NoBackoff
from redis.retry import Retry

from lockkit.clock import Clock
from lockkit_redis.address import Address
from lockkit_redis.failures import inherited, not_connected, refused_at_login, replied, unanswered
from lockkit_redis.line import TIME, Line, millis_of, pack

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
        host, port = address.hosts[0]
        self.node = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
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
            raise self._ended(line, error) from error
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
            raise self._ended(line, error) from error
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
            line = self._connected(place, max(end - time.monotonic(), _LEAST))
            line.wire = self
            self._log_in(line, end)
        except BaseException as error:
            if line is not None:
                line.reset()
            if not isinstance(error, (theirs.RedisError, OSError)):
                raise
            if not isinstance(error, _SAID):
                self._trouble(error)
            raise refused_at_login(error, self) from error
        return line

    def _log_in(self, line: Line, end: float) -> None:
        """Say who we are and ask for the time, in one row."""
        address = self._address
        login: list[tuple[str, ...]] = [("CLIENT", "SETNAME", self._name)]
        if address.password is not None:
            login.insert(0, ("AUTH", *filter(None, (address.user,)), address.password))
        if address.db:
            login.append(("SELECT", str(address.db)))
        row = [*(pack(*words) for words in login), TIME, *([_ROLE] if address.service is not None else [])]
        line.send(b"".join(row), end)
        answers = []
        for _ in row:
            answers.append(line.hear(end))
            if isinstance(answers[-1], theirs.RedisError):
                raise answers[-1]
        self.heard(millis_of(answers[len(login)]))
        if address.service is not None and answers[-1][0] != b"master":
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
        raise not_connected(RuntimeError("this store is closed"), self.where)

    def _place(self, budget: float) -> dict[str, Any]:
        """Where the server is, as redis-py wants to be told."""
        address = self._address
        if address.socket is not None:
            return {"path": address.socket}
        host, port = address.hosts[0] if address.service is None else self._primary(budget)
        return {"host": host, "port": port}

    def _primary(self, budget: float) -> tuple[str, int]:
        """Where the primary is, as the first sentinel says that knows.

        Raises:
            Refused: None knows, or none answers.
        """
        hosts = self._address.hosts
        user, password = self._address.sentinel
        login = [] if password is None else [pack("AUTH", *filter(None, (user,)), password)]
        row = [*login, pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", str(self._address.service))]
        end = time.monotonic() + budget
        problems: list[str] = []
        refused = False
        for left, (host, port) in zip(range(len(hosts), 0, -1), hosts, strict=True):
            share = max((end - time.monotonic()) / (left + 1), _LEAST)
            until = time.monotonic() + share
            line: Line | None = None
            try:
                line = self._connected({"host": host, "port": port}, share)
                line.send(b"".join(row), until)
                found = [line.hear(until) for _ in row][-1]
            except (theirs.RedisError, OSError) as error:
                problems.append(f"{host}:{port}: {str(error).partition(chr(10))[0]}")
                continue
            finally:
                if line is not None:
                    line.close()
            if isinstance(found, theirs.RedisError):
                refused = True
                problems.append(f"{host}:{port}: {found}")
            elif found is None:
                problems.append(f"{host}:{port} knows no {self._address.service!r}")
            else:
                return found[0].decode(), int(found[1])
        hint = "?sentinel_user=...&sentinel_password=... is for the sentinels" if refused else None
        raise not_connected(RuntimeError("; ".join(problems)), self.where, hint)

    def _connected(self, place: dict[str, Any], budget: float) -> Line:
        """A connection on which nothing was said yet.

        Raises:
            OSError, redis.exceptions.RedisError: It cannot be made in time.
        """
        kind: Any = redis.UnixDomainSocketConnection if "path" in place else redis.Connection
        if self._address.tls is not None:
            kind = redis.SSLConnection
            place = place | self._address.tls
        connection = kind(
            **place,
            socket_timeout=budget,
            socket_connect_timeout=budget,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            redis_connect_func=_say_nothing,
        )

        def connected() -> Line:
            connection.connect()
            return Line(connection)

        return connected() if "path" in place or _is_address(place["host"]) else _in_time(connected, budget)


def _say_nothing(_connection: Any) -> None:
    """What a connection does first: nothing, because redis-py would give each answer the whole budget."""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _in_time(make: Callable[[], Line], budget: float) -> Line:
    """Make a connection on another thread: resolving a name takes what it takes, and each of its addresses gets the budget.

    Raises:
        TimeoutError: It takes longer; should it be made yet, it is closed.
    """
    done = threading.Lock()  # bare: what is built on it can be torn apart by Ctrl-C
    done.acquire()
    made: list[Line | BaseException] = []
    waiting = [True]

    def run() -> None:
        try:
            made.append(make())
        except BaseException as error:
            made.append(error)
        done.release()
        if not waiting:
            _close(made)

    try:
        threading.Thread(target=run, name="lockkit-redis-connect", daemon=True).start()
    except RuntimeError:  # there can be no more threads
        return make()
    try:
        if not done.acquire(timeout=budget):
            raise TimeoutError(f"no connection within {budget:.1f} s")
    except BaseException:
        waiting.clear()
        _close(made)
        raise
    if isinstance(made[0], BaseException):
        raise made[0]
    return made[0]


def _close(made: Sequence[Line | BaseException]) -> None:
    for each in made:
        if isinstance(each, Line):
            each.close()


_ROLE = pack("ROLE")
