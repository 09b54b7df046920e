"""Requests to servers, as exchanges. Errors go through the table of failures; redirections are followed.

A redirection is a definite refusal, so the request is sent again at once, a few times, within the same end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions as theirs

from lockkit.store.budgets import left
from lockkit.store.exchanges import Drop, Exchange, Pause, Send
from lockkit.store.spi import Unknown
from lockkit_redis.connection import pack
from lockkit_redis.failures import replied, unanswered
from lockkit_redis.scripts import Script
from lockkit_redis.server import Fresh, Server

__all__ = ["BROKEN", "STRANGER", "ask", "ask_again", "broken", "send"]

STRANGER = (theirs.BusyLoadingError, theirs.AuthenticationError)
"""Errors after which a connection has to introduce itself again; among redis-py's connection errors."""
_CHANGED = (theirs.ReadOnlyError, *STRANGER)
"""Errors of a server that is no longer what it was: no connection to it is used again."""
BROKEN = (theirs.RedisError, OSError)
"""Errors of a connection; those of an exchange itself (Ctrl-C, Refused) are none."""
_REDIRECTIONS = 4
_PAUSE = 0.05
"""Seconds after which a slot that is being moved may have arrived."""
_ASK = pack("ASKING")


def send(
    server: Server, packed: bytes, end: float, count: int = 1, *, whole: bool = False
) -> Exchange[Sequence[Any]]:
    """Send commands in a row and return their replies, error replies among them.

    Args:
        server: The server.
        packed: The commands.
        end: When to give up, on ``time.monotonic()``.
        count: How many commands.
        whole: The commands are one (MULTI to EXEC): after an error reply the connection is not used again.

    Raises:
        Refused, Unknown: See :mod:`lockkit_redis.failures`.
    """
    try:
        replies: Sequence[Any] = yield Send(server, packed, end, count, _sound if whole else None)
    except BROKEN as error:
        raise broken(server, error) from error
    yield from _noted(server, replies)
    return replies


def ask(
    server: Server,
    packed: bytes,
    end: float,
    count: int = 1,
    *,
    script: Script | None = None,
    again: Callable[[Server], bytes] | None = None,
    fresh: bool = False,
    whole: bool = False,
) -> Exchange[tuple[Server, Sequence[Any]]]:
    """Send commands for one slot; return the server that executed them and the replies, the first no error.

    Args:
        server: The server that has the slot.
        packed: The commands.
        end: When to give up, on ``time.monotonic()``.
        count: How many commands.
        script: The script that the first command runs by its digest.
        again: Packs the commands anew for a server, if they are not the same for all.
        fresh: Over a connection of its own.
        whole: See :func:`send`. None of the replies is an error.

    Raises:
        Refused, Unknown: See :mod:`lockkit_redis.failures`.
    """
    keep = _never if fresh else _sound if whole else None
    try:
        replies: Sequence[Any] = yield Send(Fresh(server) if fresh else server, packed, end, count, keep)
    except BROKEN as error:
        raise broken(server, error) from error
    if _refusal(replies, whole=whole) is None:
        return server, replies
    return (
        yield from ask_again(
            server, packed, replies, end, count, script=script, again=again, fresh=fresh, whole=whole
        )
    )


def ask_again(
    server: Server,
    packed: bytes,
    replies: Sequence[Any],
    end: float,
    count: int = 1,
    *,
    script: Script | None = None,
    again: Callable[[Server], bytes] | None = None,
    fresh: bool = False,
    whole: bool = False,
) -> Exchange[tuple[Server, Sequence[Any]]]:
    """Follow the refusal in the replies to commands for one slot, and send them again. See :func:`ask`.

    Args:
        server: The server that refused.
        packed: The commands that it refused.
        replies: The replies of that server.
        end: When to give up, on ``time.monotonic()``.
        count: How many commands.
        script: The script that the first command runs by its digest.
        again: Packs the commands anew for a server, if they are not the same for all.
        fresh: Over a connection of its own.
        whole: See :func:`send`.

    Raises:
        Refused, Unknown: See :mod:`lockkit_redis.failures`.
    """
    keep = _never if fresh else _sound if whole else None
    owner, ahead, learns, tries = server, b"", False, 0
    while (refusal := _refusal(replies, whole=whole)) is not None:
        yield from _noted(server, replies)
        if isinstance(refusal, theirs.NoScriptError) and script is not None and not learns:
            learns = True
        else:
            way = _elsewhere(refusal, server, owner)
            if way is None or tries == _REDIRECTIONS or time.monotonic() >= end:
                raise replied(refusal, server) from refusal
            owner, server, ahead, pause = way
            tries += 1
            if pause:
                yield Pause(pause)
        packed = packed if again is None else again(server)
        packed = script.spelled_out(packed) if learns and script is not None else packed
        end = time.monotonic() + left(end)
        try:
            replies = yield Send(
                Fresh(server) if fresh else server, ahead + packed, end, count + (1 if ahead else 0), keep
            )
        except BROKEN as error:
            raise broken(server, error) from error
        if ahead:
            replies = replies[1:]
    return server, replies


def broken(server: Server, error: Exception) -> Unknown:
    """Note an error of a connection, and return the exception to raise for the request on it."""
    server.trouble(error)
    return unanswered(error, server.where)


def _refusal(replies: Sequence[Any], *, whole: bool) -> theirs.RedisError | None:
    """The reply that says that nothing was done; None if there is none."""
    if whole:
        return next((reply for reply in replies if isinstance(reply, theirs.RedisError)), None)
    return replies[0] if isinstance(replies[0], theirs.RedisError) else None


def _elsewhere(
    refusal: theirs.RedisError, server: Server, owner: Server
) -> tuple[Server, Server, bytes, float] | None:
    """Where to send a refused request again: the slot's owner, the server, a first command, a pause."""
    cluster = server.cluster
    if cluster is None:
        named_anew = isinstance(refusal, theirs.ReadOnlyError) and server.address.service is not None
        return (owner, server, b"", 0.0) if named_anew else None
    if isinstance(refusal, theirs.MovedError):
        node = cluster.moved(server, refusal)
        return node, node, b"", 0.0
    if isinstance(refusal, theirs.AskError):
        return owner, cluster.moved(server, refusal), _ASK, 0.0
    return (owner, owner, b"", _PAUSE) if isinstance(refusal, theirs.TryAgainError) else None


def _noted(server: Server, replies: Sequence[Any]) -> Exchange[None]:
    """Note the errors among the replies, and drop the connections to a server that has changed."""
    for kind in set(map(type, replies)):  # errors are rare, and there may be hundreds of replies
        if issubclass(kind, theirs.RedisError):
            for reply in replies:
                if type(reply) is kind:
                    server.trouble(reply)
            if issubclass(kind, _CHANGED):
                yield Drop(server)


def _never(_replies: Sequence[Any]) -> bool:
    return False


def _sound(replies: Sequence[Any]) -> bool:
    return not any(isinstance(reply, theirs.RedisError) for reply in replies)
