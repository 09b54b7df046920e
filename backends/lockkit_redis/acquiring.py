"""Acquire, and release: one script each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from redis.exceptions import RedisError

from lockkit.errors import BackendUnavailable, IncompatibleLayout, OutcomeUnknown, PermissionDenied
from lockkit.facts import ClaimInfo
from lockkit.lib.namedtuples import made
from lockkit.store.budgets import left
from lockkit.store.drains import refused
from lockkit.store.exchanges import Exchange, Send
from lockkit.store.notes import note_text
from lockkit.store.spi import (
    ABSENT,
    NOTE_LIMIT,
    RELEASED,
    Answer,
    Busy,
    Claim,
    End,
    Granted,
    Lapsed,
    Queued,
    Refused,
    ReleaseAnswer,
    Unknown,
)
from lockkit_redis import scripts
from lockkit_redis.connection import framed, pack
from lockkit_redis.failures import checked
from lockkit_redis.requests import BROKEN, ask, ask_again, broken
from lockkit_redis.server import Server
from lockkit_redis.store import RedisStore
from lockkit_redis.view import claim_info

__all__ = ["abandon", "acquire", "release"]

_LATE = 30_000
"""Milliseconds after which a creating acquire that is still under way grants nothing."""
_COPYING = 0.5
"""The part of an acquire's budget that waiting for replicas may take."""
_WHOLE_GRANT = 3
"""Length of the reply to a grant. A longer one: the server knew no fence, and may lack the index too."""
_FLAGS = (b"$1\r\n0\r\n", b"$1\r\n1\r\n")
_ENDS: Mapping[End, bytes] = {
    "ungraceful": b"$1\r\n0\r\n",
    "released": b"$1\r\n1\r\n",
    "unused": b"$1\r\n2\r\n",
}
"""How a claim ends, as the script gets it."""
_CREATE = (
    (b"$3\r\n100\r\n", b"$3\r\n101\r\n"),
    (b"$3\r\n110\r\n", b"$3\r\n111\r\n"),
)
"""The word of an acquire that creates a claim, by ``wait`` and by whether it is sent again."""
_AGAIN = (b"$3\r\n000\r\n$1\r\n0\r\n", b"$3\r\n010\r\n$1\r\n0\r\n")
"""The words of an acquire that creates nothing, without and with ``wait``; it is never too late."""
_NO_NOTE = b"$0\r\n\r\n"


def acquire(store: RedisStore, claim: Claim, create: bool, budget: float) -> Exchange[Answer]:  # noqa: FBT001
    """See :meth:`lockkit.store.spi.Backend.acquire`."""
    end = time.monotonic() + budget
    topology, index = store.topology, store.index
    token, terms = claim.token, claim.terms
    name = terms.name
    queue, keys, drain, words = store.known(terms)
    if topology.stale:
        yield from topology.look_again()
    how, after = _AGAIN[claim.wait], words.again
    replay = create and token in store.unsure
    if create:
        note = claim.note
        how = _CREATE[claim.wait][replay]
        after = words.acquire + (framed(note_text(note, NOTE_LIMIT)) if note else _NO_NOTE)
        store.unsure[token] = None
    basis = store.clock.now()
    due = not index.has(name, basis)
    indexing = due and topology.one and not store.copies  # in the same request
    count = 1 + index.COMMANDS if indexing else 2 if store.copies else 1
    before = b"".join((scripts.ACQUIRE.head, keys, drain, framed(token), how))
    if indexing:
        after += index.packed((name,), basis)
    try:
        server = topology.at(queue)
        packed = _packed(store, before, after, create, basis, end, server)
        try:
            replies: Sequence[Any] = yield made(Send, (server, packed, end, count, None))
        except BROKEN as error:
            raise broken(server, error) from error
        if isinstance(replies[0], RedisError):
            again = partial(_packed, store, before, after, create, basis, end)
            server, replies = yield from ask_again(
                server, packed, replies, end, count, script=scripts.ACQUIRE, again=again
            )
        if store.copies:
            yield from _copied(store, server, claim, replies, end)
    except Refused:
        if create and not replay:  # no copy of the request is under way
            store.unsure.pop(token, None)
        raise
    except Unknown as halfway:
        if not isinstance(halfway.error, (PermissionDenied, IncompatibleLayout)):
            raise
        raise (yield from _undone(store, claim, halfway, end)) from halfway
    if create:
        store.unsure.pop(token, None)
    answer = replies[0]
    granted = answer[0] == b"G"
    server.heard(int(answer[1]))
    if indexing:
        index.noted((name,), basis, replies[1:])
    elif due or (granted and len(answer) > _WHOLE_GRANT):
        if not due:
            index.forget()
        yield from index.note((name,), left(end))
    return (
        made(Granted, (int(answer[2]), basis, None))
        if granted
        else _answer(store, server, name, answer, basis)
    )


def _packed(
    store: RedisStore,
    before: bytes,
    after: bytes,
    create: bool,  # noqa: FBT001
    basis: float,
    end: float,
    server: Server,
) -> bytes:
    """Pack an acquire for one server; a creating one carries the server time from which it is too late."""
    if create:
        packed = b"%b$13\r\n%013d\r\n%b" % (before, server.reckoned(basis) + _LATE, after)
    else:
        packed = before + after
    return packed + _wait(store, left(end)) if store.copies else packed


def _answer(store: RedisStore, server: Server, name: str, answer: Sequence[Any], basis: float) -> Answer:
    """Read the script's answer to an acquire that is not granted.

    Raises:
        Refused: With Drained.
    """
    match answer[0]:
        case b"D":
            raise refused(answer[2], store.namespace)
        case b"Q":
            _, now, place, nearest, capacity, head, fence = answer
            wait = 0.0 if nearest is None else max(0.0, (int(nearest) - int(now)) / 1000.0) + 0.001
            ask_again_at = None if nearest is None else basis + wait
            return Queued(place, ask_again_at, (fence.decode(),), capacity, _head(name, head))
        case b"B":
            return Busy(answer[2], _head(name, answer[3]))
        case b"L":
            return Lapsed(answer[2].decode())
        case _:
            raise _nonsense(server, answer)


def release(
    store: RedisStore,
    claim: Claim,
    budget: float,
    *,
    how: End,
    tombstone: bool = False,
    fresh: bool = False,
) -> Exchange[ReleaseAnswer]:
    """Remove a claim.

    Args:
        store: The store.
        claim: The claim.
        budget: Seconds.
        how: See :meth:`lockkit.store.spi.Backend.release`.
        tombstone: Leave one even if no copy of the creating acquire is known to be under way.
        fresh: Over a connection of its own.
    """
    end = time.monotonic() + budget
    token = claim.token
    queue, keys, _, words = store.known(claim.terms)
    buried = tombstone or token in store.unsure
    if store.topology.stale:
        yield from store.topology.look_again()
    server = store.topology.at(queue)
    packed = b"".join((scripts.RELEASE.head, keys, framed(token), _ENDS[how], _FLAGS[buried], words.release))
    if fresh:
        server, replies = yield from ask(server, packed, end, script=scripts.RELEASE, fresh=True)
    else:
        try:
            replies = yield made(Send, (server, packed, end, 1, None))
        except BROKEN as error:
            raise broken(server, error) from error
        if isinstance(replies[0], RedisError):
            server, replies = yield from ask_again(server, packed, replies, end, script=scripts.RELEASE)
    found = replies[0]
    if found not in (0, 1):
        raise _nonsense(server, found)
    store.unsure.pop(token, None)
    return RELEASED if found else ABSENT


def abandon(
    store: RedisStore, claim: Claim, budget: float, *, how: End, fresh: bool = False
) -> Exchange[ReleaseAnswer]:
    """Remove a claim, and leave a tombstone in any case: a copy of its creating acquire may be under way."""
    return release(store, claim, budget, how=how, tombstone=True, fresh=fresh)


def _undone(store: RedisStore, claim: Claim, halfway: Unknown, end: float) -> Exchange[Refused | Unknown]:
    """The error for a script that was stopped half-way: definite if the claim could be removed."""
    try:
        yield from abandon(store, claim, left(end), how="unused")
    except (Refused, Unknown):
        return halfway
    return Refused(halfway.error, retry=False)


def _wait(store: RedisStore, budget: float) -> bytes:
    return pack("WAIT", store.copies, max(1, int(budget * _COPYING * 1000.0)))


def _copied(
    store: RedisStore, server: Server, claim: Claim, replies: Sequence[Any], end: float
) -> Exchange[None]:
    """Give a grant back that too few replicas have, and refuse it."""
    answer, copies = replies
    if answer[0] != b"G" or (isinstance(copies, int) and copies >= store.copies):
        return
    try:
        yield from abandon(store, claim, left(end), how="unused")
    except Refused as refusal:  # so the claim is still there
        raise Unknown(OutcomeUnknown(refusal.error.message, hint=refusal.error.hint)) from refusal
    checked((copies,), server)  # WAIT itself may be forbidden
    text = f"{server.where}: only {copies} of {store.copies} replicas confirmed the lock"
    raise Refused(BackendUnavailable(text, hint="check the replicas; see INFO replication"))


def _nonsense(server: Server, answer: object) -> Unknown:
    text = f"{server.where} sent a reply that lockkit does not understand: {answer!r:.80}"
    return Unknown(OutcomeUnknown(text, hint="is it Redis or Valkey, and is there no proxy in between?"))


def _head(name: str, head: Sequence[Any] | None) -> ClaimInfo | None:
    return _told(name, *head, 0) if head else None


_told = lru_cache(maxsize=64)(claim_info)
"""The first claim of a queue. A thousand waiters are shown the same one, and share it."""
