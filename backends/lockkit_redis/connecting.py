"""Making a connection on which nothing was said yet: to an address, a name or a socket, with TLS or without, in time."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lockkit.errors import ConfigError
from lockkit.store.connecting import in_time, is_address
from lockkit.store.spi import Refused
from lockkit_redis.connection import Connection

__all__ = ["Place", "connected"]

Place = tuple[str, int] | str
"""Host and port, or the path of a socket."""


def connected(place: Place, tls: dict[str, Any] | None, budget: float) -> Connection:
    """Connect.

    Args:
        place: Where to.
        tls: Keyword arguments for redis-py's TLS connection; None for none.
        budget: Seconds that it may take.

    Raises:
        OSError, redis.exceptions.RedisError: It cannot be made in time.
        Refused: The path is not a socket, and waiting does not help.
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

    def connect() -> Connection:
        connection.connect()
        return Connection(connection)

    if isinstance(place, str) or is_address(place[0]):
        return connect()
    return in_time(connect, Connection.close, budget, "lockkit-redis-connect")


def _say_nothing(_connection: Any) -> None:
    """Say nothing on a new connection: redis-py would give each answer the whole budget."""


def _socket(path: str) -> str:
    """A path, unless it is that of something else; for one that is not there yet its server may be about to start."""
    try:
        there = stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return path  # connecting reports the error
    if not there:
        hint = "CONFIG GET unixsocket says where the server has its own"
        raise Refused(ConfigError(f"unix://{path}: this is no socket", hint=hint), retry=False)
    return path
