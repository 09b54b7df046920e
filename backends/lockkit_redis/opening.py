"""Opening a connection to a server or sentinel: the login, and the check that it is what the URL says."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis.exceptions as theirs

from lockkit.errors import ConfigError
from lockkit.store.budgets import shares
from lockkit.store.connecting import Place
from lockkit.store.exchanges import Connect, Exchange, Introduce, Route, Send
from lockkit.store.spi import Refused
from lockkit.store.urls import at
from lockkit_redis.address import Address
from lockkit_redis.connection import TIME, millis_of, pack
from lockkit_redis.failures import meaning
from lockkit_redis.requests import STRANGER
from lockkit_redis.server import Fresh, Sentinel, Server
from lockkit_redis.unreachable import (
    none_of,
    not_connected,
    of_a_sentinel,
    of_another_kind,
    refused_at_login,
    unknown_service,
)

__all__ = ["opening"]

_SAID = (theirs.ResponseError, *STRANGER)
"""Errors that a server replies with; every other error is about the connection."""
_HELLO = pack("HELLO")
_SILENT = (None, "UNKNOWN", "NOPERM")
"""Replies to HELLO of servers that do not know or allow the command: they may be as good as any."""
_ROLE = pack("ROLE")


def opening(route: Route, end: float) -> Exchange[Any]:
    """Open a connection to a server, logged in, or to a sentinel, and return it.

    Raises:
        Refused: No connection can be made, or it leads to another kind of server.
    """
    if isinstance(route, Sentinel):
        return (yield from _to_a_sentinel(route, end))
    server = route.server if isinstance(route, Fresh) else route
    assert isinstance(server, Server)
    address = server.address
    try:
        place: Place = address.socket or address.hosts[0]
        if address.service is not None:
            place = yield from _primary(address, end)
        connection = yield from _connected(place, end)
        commands = _login(server)
        replies = yield Introduce(connection, b"".join(commands), end, len(commands))
        try:
            _look(server, place, commands, replies)
        except (TypeError, ValueError, IndexError) as error:
            raise theirs.InvalidResponse(f"{replies!r:.80} in reply to a login") from error
    except (theirs.RedisError, OSError) as error:
        if not isinstance(error, _SAID):
            server.trouble(error)
        raise refused_at_login(error, server, address) from error
    return connection


def _connected(place: Place, end: float) -> Exchange[Any]:
    try:
        return (yield Connect(place, end))
    except OSError as error:
        if isinstance(place, str) and _is_something_else(place):
            hint = "CONFIG GET unixsocket, asked of the server, gives the path of its socket"
            raise Refused(
                ConfigError(f"unix://{place}: this is no socket", hint=hint), retry=False
            ) from error
        raise


def _is_something_else(path: str) -> bool:
    """True for a file that is no socket. Where there is none yet the server may be about to start."""
    try:
        return not stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def _login(server: Server) -> list[bytes]:
    """The commands that log in, set the client's name, and ask for the server's kind and time."""
    address = server.address
    commands = [_HELLO, pack("CLIENT", "SETNAME", server.name), TIME]
    if address.password is not None:
        commands.insert(0, pack("AUTH", *filter(None, (address.user,)), address.password))
    if address.db:
        commands.append(pack("SELECT", address.db))
    if address.service is not None:
        commands.append(_ROLE)
    return commands


def _look(server: Server, place: Place, commands: Sequence[bytes], replies: Sequence[Any]) -> None:
    """Look at the replies to the login.

    Raises:
        Refused: The server is of another kind than the URL says.
        redis.exceptions.RedisError: A command was refused.
    """
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, theirs.RedisError):
            if command is not _HELLO or meaning(reply) not in _SILENT:
                raise reply
        elif command is _HELLO:
            if other := of_another_kind(_mode(reply), place, server.address):
                raise other
        elif command is TIME:
            server.heard(millis_of(reply))
        elif command is _ROLE and reply[0] != b"master":
            raise theirs.ReadOnlyError("READONLY not promoted yet")


def _mode(hello: Any) -> str:
    """Standalone, cluster or sentinel, as a reply to HELLO says; "" if unknown (before Redis 6)."""
    facts = dict(zip(hello[::2], hello[1::2], strict=False)) if isinstance(hello, list) else {}
    mode = facts.get(b"mode")
    return mode.decode(errors="replace") if isinstance(mode, bytes) else ""


def _primary(address: Address, end: float) -> Exchange[tuple[str, int]]:
    """Ask the sentinels for the primary, until one names its host and port.

    Raises:
        Refused: No sentinel knows the primary, or none replies.
    """
    refusals: list[Refused] = []
    for place, until in shares(address.hosts, end, spare=1):
        try:
            return (yield from _named(Sentinel(place, address), until))
        except Refused as refusal:
            refusals.append(refusal)
    raise none_of(refusals, address.shown)


def _named(route: Sentinel, end: float) -> Exchange[tuple[str, int]]:
    """Ask one sentinel."""
    place, address = route
    user, password = address.sentinel
    commands = [] if password is None else [pack("AUTH", *filter(None, (user,)), password)]
    commands.append(pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", str(address.service)))
    try:
        replies = yield Send(route, b"".join(commands), end, len(commands), lambda _replies: False)
    except (theirs.RedisError, OSError) as error:
        raise not_connected(error, at(*place), address) from error
    *_, found = replies
    if isinstance(found, theirs.RedisError):
        # A sentinel that wants a login has said before what is wrong with the one that was given.
        first = next(each for each in replies if isinstance(each, theirs.RedisError))
        raise of_a_sentinel(first if meaning(found) == "NOAUTH" else found, at(*place))
    if found is None:
        raise unknown_service(str(address.service), at(*place))
    return found[0].decode(), int(found[1])


def _to_a_sentinel(route: Sentinel, end: float) -> Exchange[Any]:
    try:
        return (yield Connect(route.place, end))
    except OSError as error:
        raise not_connected(error, at(*route.place), route.address) from error
