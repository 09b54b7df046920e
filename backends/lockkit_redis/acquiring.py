"""Acquire, and release: one script each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis.exceptions as theirs

from lockkit.errors import BackendUnavailable, IncompatibleLayout, OutcomeUnknown, PermissionDenied
from lockkit.facts import ClaimInfo
from lockkit.store.budgets import left
from lockkit.store.notes import note_text
from lockkit.store.spi import (
    ABSENT,
    NOTE_LIMIT,
    RELEASED,
    Answer,
    Busy,
    Claim,
    Granted,
    Lapsed,
    Queued,
    Refused,
    ReleaseAnswer,
    Unknown,
)
from lockkit_redis import scripts
from lockkit_redis.connection import framed, pack
from lockkit_redis.failures import checked, replied
from lockkit_redis.server import Server
from lockkit_redis.store import RedisStore
from lockkit_redis.view import claim_info

__all__ = ["acquire", "release"]

_LATE = 30_000
"""Milliseconds after which a creating acquire that is still under way grants nothing."""
_GRANTED_TO_NOBODY = 2
"""In place of graceful or not: a claim that was never held does not linger."""
_COPYING = 0.5
"""The part of an acquire's budget that waiting for replicas may take."""
_WHOLE_GRANT = 3
"""Length of the answer to a grant. A longer one says that the server knew no fence of the name, so it may have lost the index too."""
_FLAGS = tuple(b"$1\r\n%d\r\n" % flag for flag in range(3))
_AGAIN = (b"$3\r\n000\r\n$1\r\n0\r\n", b"$3\r\n010\r\n$1\r\n0\r\n")
"""How to ask again, as a try and as a waiter: a request that creates nothing is never too late."""
_NO_NOTE = b"$0\r\n\r\n"


def acquire(store: RedisStore, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
    """See :meth:`lockkit.store.spi.Backend.acquire`."""
    token, terms = claim.token, claim.terms
    packed_terms = store.known(terms)
    note = _NO_NOTE
    if claim.note:
        text = note_text(claim.note, NOTE_LIMIT).encode()
        note = b"$%d\r\n%b\r\n" % (len(text), text)
    replay = create and token in store.unsure
    if create:
        store.unsure[token] = None
    basis = store.clock.now()
    server = store.topology.at(packed_terms.keys.queue)
    how = _AGAIN[claim.wait]
    if create:
        how = b"$3\r\n1%d%d\r\n$13\r\n%013d\r\n" % (claim.wait, replay, server.reckoned(basis) + _LATE)
    packed = b"".join((packed_terms.head, framed(token), how, packed_terms.tail, note))
    end = time.monotonic() + budget
    try:
        answer = _run(store, server, claim, packed, basis, budget)
    except Refused:
        if create and not replay:  # no copy of the request is under way
            store.unsure.pop(token, None)
        raise
    except Unknown as halfway:
        if not isinstance(halfway.error, (PermissionDenied, IncompatibleLayout)):
            raise
        raise _undone(store, server, claim, halfway, left(end)) from halfway
    if create:
        store.unsure.pop(token, None)
    server.heard(int(answer[1]))
    match answer[0]:
        case b"G":
            return Granted(int(answer[2]), basis)
        case b"Q":
            _, now, place, nearest, capacity, head, fence = answer
            ask = None if nearest is None else basis + max(0.0, (int(nearest) - int(now)) / 1000.0) + 0.001
            return Queued(place, ask, (fence.decode(),), capacity, _head(terms.name, head))
        case b"B":
            return Busy(answer[2], _head(terms.name, answer[3]))
        case b"L":
            return Lapsed(answer[2].decode())
        case _:
            raise _nonsense(server, answer)


def release(
    store: RedisStore,
    claim: Claim,
    budget: float,
    *,
    graceful: int,
    tombstone: bool,
    server: Server | None = None,
) -> ReleaseAnswer:
    """Release, on a server if one is given. A tombstone is for a creating acquire of which a copy may be under way."""
    packed_terms = store.known(claim.terms)
    server = server or store.topology.at(packed_terms.keys.queue)
    flags = _FLAGS[graceful], _FLAGS[tombstone]
    packed = b"".join((packed_terms.release, framed(claim.token), *flags, packed_terms.ends))
    found = scripts.RELEASE.send(server, budget, packed)
    if found not in (0, 1):
        raise _nonsense(server, found)
    store.unsure.pop(claim.token, None)
    return RELEASED if found else ABSENT


def _undone(
    store: RedisStore, server: Server, claim: Claim, halfway: Unknown, budget: float
) -> Refused | Unknown:
    """Return the exception to raise when the script was stopped half-way: definite if the claim could be removed."""
    try:
        release(store, claim, budget, graceful=_GRANTED_TO_NOBODY, tombstone=True, server=server)
    except (Refused, Unknown):
        return halfway
    return Refused(halfway.error, retry=False)


def _run(store: RedisStore, server: Server, claim: Claim, packed: bytes, now: float, budget: float) -> Any:
    """Run an acquire, and see to it that the index has the name."""
    index, name = store.index, claim.terms.name
    if store.copies:
        return _and_copy(store, server, claim, packed, budget)
    if not index.has(name, now):
        return _and_index(store, server, name, packed, now, budget)
    answer = scripts.ACQUIRE.send(server, budget, packed)
    if len(answer) > _WHOLE_GRANT and answer[0] == b"G":
        index.forget()
        index.note((name,), budget)
    return answer


def _and_index(store: RedisStore, server: Server, name: str, packed: bytes, now: float, budget: float) -> Any:
    """Run the acquire and, as always the first time for a name, note the name in the index.

    In a row where both keys are in one place; in a Cluster the index comes after, and only if there is time.
    """
    end = time.monotonic() + budget
    index = store.index
    if not store.topology.one:
        answer = scripts.ACQUIRE.send(server, budget, packed)
        index.note((name,), left(end))
        return answer
    answer, *noted = server.row(packed + index.packed((name,), now), budget, 1 + index.COMMANDS)
    if isinstance(answer, theirs.NoScriptError):
        answer = server.call(scripts.ACQUIRE.spelled_out(packed), left(end))
    elif isinstance(answer, theirs.RedisError):
        raise replied(answer, server) from answer
    index.noted((name,), now, noted)
    return answer


def _and_copy(store: RedisStore, server: Server, claim: Claim, packed: bytes, budget: float) -> Any:
    """Run the acquire and wait for replicas to have it; a grant that too few have is given back and refused."""
    end = time.monotonic() + budget
    answers = server.row(packed + _wait(store, budget), budget, 2)
    if isinstance(answers[0], theirs.NoScriptError):  # then WAIT has waited for the writes of others
        rest = left(end)
        answers = server.row(scripts.ACQUIRE.spelled_out(packed) + _wait(store, rest), rest, 2)
    answer, copies = answers
    checked((answer,), server)
    if answer[0] == b"G" and not (isinstance(copies, int) and copies >= store.copies):
        try:
            release(store, claim, left(end), graceful=_GRANTED_TO_NOBODY, tombstone=True, server=server)
        except Refused as refusal:  # so the claim is still there
            raise Unknown(OutcomeUnknown(refusal.error.message, hint=refusal.error.hint)) from refusal
        checked((copies,), server)  # WAIT itself may be forbidden
        text = f"{server.where}: only {copies} of {store.copies} replicas confirmed the lock"
        raise Refused(BackendUnavailable(text, hint="look after the replicas; see INFO replication"))
    store.index.note((claim.terms.name,), left(end))
    return answer


def _wait(store: RedisStore, budget: float) -> bytes:
    return pack("WAIT", store.copies, max(1, int(budget * _COPYING * 1000.0)))


def _nonsense(server: Server, answer: object) -> Unknown:
    text = f"{server.where} gave an answer that means nothing: {answer!r:.80}"
    return Unknown(OutcomeUnknown(text, hint="is it Redis or Valkey, and no proxy between?"))


def _head(name: str, head: Sequence[bytes] | None) -> ClaimInfo | None:
    if not head:
        return None
    token, fence, deadline, state, owner = head
    return claim_info(name, token, fence, deadline, state, owner, None, 0)
