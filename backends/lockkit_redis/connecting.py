"""Making a connection on which nothing was said yet: to an address, a name or a socket, with TLS or without, in time."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lockkit.errors import ConfigError
from lockkit.store.spi import Refused
from lockkit_redis.line import Line

__all__ = ["Place", "connected"]

Place = tuple[str, int] | str
"""Host and port, or the path of a socket."""


def connected(place: Place, tls: dict[str, Any] | None, budget: float) -> Line:
    """Connect.

    Args:
        place: Where to.
        tls: Keyword arguments for redis-py's TLS connection; None for none.
        budget: Seconds that it may take.

    Raises:
        OSError, redis.exceptions.RedisError: It cannot be made in time.
        Refused: What is there can never be connected to.
    """
    kind: Any = redis.Connection
    where: dict[str, Any]
    if isinstance(place, str):
        kind, where = redis.UnixDomainSocketConnection, {"path": _socket(place)}
    else:
        where = {"host": place[0], "port": place[1]}
        if tls is not None:
            kind, where = redis.SSLConnection, where | tls
    connection = kind(
        **where,
        socket_timeout=budget,
        socket_connect_timeout=budget,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        redis_connect_func=_say_nothing,
    )

    def connect() -> Line:
        connection.connect()
        return Line(connection)

    return connect() if isinstance(place, str) or _is_address(place[0]) else _in_time(connect, budget)


def _say_nothing(_connection: Any) -> None:
    """What a connection does first: nothing, because redis-py would give each answer the whole budget."""


def _socket(path: str) -> str:
    """A path, unless it is that of something else; for one that is not there yet its server may be about to start."""
    try:
        there = stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return path  # the connection says what is the matter
    if not there:
        hint = "CONFIG GET unixsocket says where the server has its own"
        raise Refused(ConfigError(f"unix://{path}: this is no socket", hint=hint), retry=False)
    return path


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
