"""Heartbeats: one script for each name, sent in rows of up to 500, and packed once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import redis.exceptions as theirs

from lockkit.store.budgets import left, shares
from lockkit.store.exchanges import Exchange
from lockkit.store.notes import note_of
from lockkit.store.spi import Beat, Claim, Refused, Renewal, Unknown
from lockkit_redis import scripts
from lockkit_redis.connection import TIME, framed, millis_of
from lockkit_redis.failures import replied
from lockkit_redis.keys import Keys
from lockkit_redis.packed_terms import millis
from lockkit_redis.requests import ask, send
from lockkit_redis.server import Server
from lockkit_redis.store import RedisStore

__all__ = ["Plan", "extend", "renew"]

_ROW = 500
_PLANS, _MANY = 8, 50
_STATES: dict[bytes, Any] = {b"H": "HELD", b"W": "WAITING", b"O": "OFFERED", b"L": "LOST"}
_Places: TypeAlias = Sequence[tuple[int, ...]] | range
"""The places in a batch of the claims of each name; a range, if each name has one claim."""


class Row(NamedTuple):
    """Commands to send in one request: one for each name, and TIME."""

    server: Server
    packed: bytes
    places: _Places


class Plan(NamedTuple):
    """The commands for a batch of renewals, kept because batches repeat and packing is most of the work."""

    beats: Sequence[Beat]
    names: Sequence[str]
    rows: Sequence[Row]
    troubles: Sequence[Refused | Unknown]
    """Reasons why some of the names have no server."""


def renew(store: RedisStore, beats: Sequence[Beat], budget: float) -> Exchange[Sequence[Renewal]]:
    """See :meth:`lockkit.store.spi.Backend.renew`.

    Raises:
        Refused, Unknown: No server answers. If some answer, claims without an answer count as not renewed: a
            slow server, or one silent node of several, must not cost what was renewed.
    """
    end = time.monotonic() + budget
    if store.topology.stale:
        yield from store.topology.look_again()
    plan = _planned(store, beats)
    answers: list[Renewal | None] = [None] * len(beats)
    troubles = list(plan.troubles)
    for server, until in shares(list(dict.fromkeys(row.server for row in plan.rows)), end):
        for row in plan.rows:
            if row.server is server:
                try:
                    troubles += yield from _send(store, row, beats, answers, until)
                except (Refused, Unknown) as trouble:
                    troubles.append(trouble)
    if troubles and not any(answers):
        raise troubles[0]
    yield from store.index.note(plan.names, left(end))
    if None in answers:
        unknown = Renewal("UNKNOWN", trouble=str(troubles[0]))
        return [answer or unknown for answer in answers]
    return answers  # type: ignore[return-value]  # no None is left


def _planned(store: RedisStore, beats: Sequence[Beat]) -> Plan:
    """The plan for a batch, made anew if the batch has changed."""
    if len(beats) < _MANY or not store.topology.one:
        # Packing a few takes no time, and names of a Cluster move.
        return _plan(store, beats)
    key = (beats[0][0].token, len(beats))
    with store.mutex:
        plan = store.plans.pop(key, None)
        if plan is None or plan.beats != beats:
            plan = _plan(store, beats)
        while len(store.plans) >= _PLANS:
            del store.plans[next(iter(store.plans))]
        store.plans[key] = plan
    return plan


def _plan(store: RedisStore, beats: Sequence[Beat]) -> Plan:
    names = [claim.terms.name for claim, _ in beats]
    if store.topology.one and 0 < len(set(names)) == len(names):
        # With thousands of claims every object costs.
        server, end = _server(store, beats[0][0]), len(beats)
        spans = [range(start, min(start + _ROW, end)) for start in range(0, end, _ROW)]
        return Plan(beats, names, [_row(store, beats, server, span) for span in spans], [])
    together: dict[str, tuple[int, ...]] = {}
    for at, name in enumerate(names):
        together[name] = (*together.get(name, ()), at)
    found: dict[Server, list[tuple[int, ...]]] = {}
    troubles: list[Refused | Unknown] = []
    for places in together.values():
        try:
            found.setdefault(_server(store, beats[places[0]][0]), []).append(places)
        except Refused as trouble:
            troubles.append(trouble)
    rows = [
        _row(store, beats, server, some[start : start + _ROW])
        for server, some in found.items()
        for start in range(0, len(some), _ROW)
    ]
    return Plan(beats, list(together), rows, troubles)


def _server(store: RedisStore, claim: Claim) -> Server:
    return store.topology.at(store.known(claim.terms).queue)


def _row(store: RedisStore, beats: Sequence[Beat], server: Server, places: _Places) -> Row:
    return Row(server, b"".join([*_commands(store, beats, places), TIME]), places)


def _commands(store: RedisStore, beats: Sequence[Beat], places: _Places) -> list[bytes]:
    """The command for each name."""
    if isinstance(places, range):
        return [_packed(store, claim, fence) for claim, fence in beats[places.start : places.stop]]
    return [_packed_together(store, [beats[at] for at in some]) for some in places]


def extend(store: RedisStore, claim: Claim, fence: int, ttl: float, budget: float) -> Exchange[Renewal]:
    """See :meth:`lockkit.store.spi.Backend.extend`."""
    end = time.monotonic() + budget
    basis = store.clock.now()
    keys = Keys.of(store.namespace, claim.terms.name)
    server = yield from store.find(keys.queue)
    packed = scripts.EXTEND.packed(keys[:5], claim.token, fence, millis(ttl))
    server, ((now, answer),) = yield from ask(server, packed, end, script=scripts.EXTEND)
    server.heard(int(now))
    return _renewal(answer, basis)


def _send(
    store: RedisStore, row: Row, beats: Sequence[Beat], answers: list[Renewal | None], until: float
) -> Exchange[list[Refused | Unknown]]:
    """Renew the claims of some names on one server.

    Returns:
        The troubles with some of the names, for which no answers are set.

    Raises:
        Refused, Unknown: The server does not answer in time.
    """
    server, packed, places = row
    basis = store.clock.now()
    held = Renewal("HELD", basis)
    *replies, clock = yield from send(server, packed, time.monotonic() + left(until), len(places) + 1)
    if isinstance(clock, list):
        server.heard(millis_of(clock))
    if isinstance(places, range):
        if replies.count(b"H") == len(replies):
            answers[places.start : places.stop] = [held] * len(replies)
            return []
        places = [(at,) for at in places]
    troubles: list[Refused | Unknown] = []
    for node, unanswered in _unanswered(server, replies).items():
        first, *others = _commands(store, beats, [places[at] for at in unanswered])
        # The first one teaches the server the script.
        again = b"".join([scripts.RENEW.spelled_out(first), *others])
        try:
            renewed = yield from send(node, again, time.monotonic() + left(until), len(unanswered))
        except (Refused, Unknown) as trouble:
            troubles.append(trouble)
            renewed = [None] * len(unanswered)
        for at, reply in zip(unanswered, renewed, strict=True):
            replies[at] = reply
    for some, reply in zip(places, replies, strict=True):
        if reply is None:
            continue
        together = len(some) > 1 and isinstance(reply, list)
        for at, answer in zip(some, reply if together else [reply] * len(some), strict=True):
            if isinstance(answer, theirs.RedisError):
                troubles.append(replied(answer, server))
                continue
            answers[at] = renewal = held if answer == b"H" else _renewal(answer, basis)
            if renewal.why == "absent":
                store.index.forget()  # the server may have lost all data
    return troubles


def _unanswered(server: Server, replies: Sequence[Any]) -> dict[Server, list[int]]:
    """The places of commands to send again, by server: it lacks the script, or has the moved slot."""
    found: dict[Server, list[int]] = {}
    for at, reply in enumerate(replies):
        if isinstance(reply, theirs.NoScriptError):
            found.setdefault(server, []).append(at)
        elif isinstance(reply, theirs.MovedError) and server.cluster is not None:
            found.setdefault(server.cluster.moved(server, reply), []).append(at)
    return found


def _packed_together(store: RedisStore, beats: Sequence[Beat]) -> bytes:
    """The command that renews claims of one name."""
    if len(beats) == 1:
        return _packed(store, *beats[0])
    words = [
        word
        for claim, fence in beats
        for word in (claim.token, "" if fence is None else fence, millis(claim.terms.ttl))
    ]
    return scripts.RENEW.packed(Keys.of(store.namespace, beats[0][0].terms.name)[:5], *words)


def _packed(store: RedisStore, claim: Claim, fence: int | None) -> bytes:
    """The command that renews one claim."""
    text = b"" if fence is None else b"%d" % fence
    known = store.known(claim.terms)
    token = framed(claim.token)
    return b"%b%b%b$%d\r\n%b\r\n%b" % (
        scripts.RENEW.head,
        known.keys,
        token,
        len(text),
        text,
        known.words.ttl,
    )


def _renewal(answer: bytes | Sequence[bytes], basis: float) -> Renewal:
    """Read a script's answer for one claim: a letter; or a letter, the reason of a loss, and the note."""
    if isinstance(answer, bytes):
        return Renewal(_STATES[answer], basis)
    state, why, note = answer
    reason: Any = why.decode()
    return Renewal(_STATES[state], basis, note_of(note) if note else None, reason)
