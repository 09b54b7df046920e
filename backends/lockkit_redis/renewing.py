"""Heartbeats: one script for each name, sent in rows of some hundreds, packed once."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import redis.exceptions as theirs

from lockkit.spi import Beat, Claim, Refused, Renewal, Unknown
from lockkit_redis import scripts
from lockkit_redis.failures import replied
from lockkit_redis.line import TIME, left, millis_of
from lockkit_redis.router import Link
from lockkit_redis.stated import Stated, millis
from lockkit_redis.store import Store

__all__ = ["Plan", "extend", "renew"]

_ROW = 500
_PLANS, _MANY = 8, 50
_STATES: dict[bytes, Any] = {b"H": "HELD", b"W": "WAITING", b"O": "OFFERED", b"L": "LOST"}
_Run: TypeAlias = tuple[bytes, tuple[int, ...]]
"""The command that renews the claims of one name, and their places in the batch."""


class Row(NamedTuple):
    """Commands that go together, and a last one for the time."""

    link: Link
    packed: bytes
    runs: Sequence[_Run]
    plain: slice | None
    """Where in the batch they stand, if each is for one claim and they stand there in this order, as most often."""

    @classmethod
    def of(cls, link: Link, runs: Sequence[_Run]) -> Row:
        """One for some names."""
        start = runs[0][1][0]
        plain = all(places == (start + at,) for at, (_, places) in enumerate(runs))
        packed = b"".join([*(packed for packed, _ in runs), TIME])
        return cls(link, packed, runs, slice(start, start + len(runs)) if plain else None)


class Plan(NamedTuple):
    """What to send for a batch. The next one is most often the same, and packing is most of the work."""

    beats: Sequence[Beat]
    names: Sequence[str]
    rows: Sequence[Row]
    troubles: Sequence[Refused | Unknown]
    """Why some of the names can be sent nowhere."""


def renew(store: Store, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
    """See :meth:`lockkit.spi.Backend.renew`.

    Raises:
        Refused, Unknown: Nobody answers. What is not answered while something else is counts as not renewed: a server that
            is slow, or one node of several that is silent, must not cost what was renewed.
    """
    end = time.monotonic() + budget
    plan = _planned(store, beats)
    answers: list[Renewal | None] = [None] * len(beats)
    troubles = list(plan.troubles)
    links = {row.link: None for row in plan.rows}
    for many, link in zip(range(len(links), 0, -1), links, strict=True):
        until = time.monotonic() + (end - time.monotonic()) / many
        for row in plan.rows:
            if row.link is link:
                try:
                    troubles += _send(store, row, answers, until)
                except (Refused, Unknown) as trouble:
                    troubles.append(trouble)
    if troubles and not any(answers):
        raise troubles[0]
    store.index.note(plan.names, left(end))
    if None in answers:
        unknown = Renewal("UNKNOWN", trouble=str(troubles[0]))
        return [answer or unknown for answer in answers]
    return answers  # type: ignore[return-value]  # no None is left


def _planned(store: Store, beats: Sequence[Beat]) -> Plan:
    """The plan for a batch, made anew only where it differs: what was taken at one time is renewed at one time."""
    if (
        len(beats) < _MANY or not store.router.one
    ):  # of a few it is made in no time, and names of a Cluster move
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


def _plan(store: Store, beats: Sequence[Beat]) -> Plan:
    names: dict[str, tuple[int, ...]] = {}
    for at, (claim, _) in enumerate(beats):
        names[claim.terms.name] = (*names.get(claim.terms.name, ()), at)
    runs: dict[Link, list[_Run]] = {}
    troubles: list[Refused | Unknown] = []
    for places in names.values():
        stated = store.known(beats[places[0]][0].terms)
        try:
            link = store.router.at(stated.keys.queue)
        except Refused as trouble:
            troubles.append(trouble)
            continue
        runs.setdefault(link, []).append((_packed(stated, [beats[at] for at in places]), places))
    return Plan(
        beats,
        list(names),
        [
            Row.of(link, some[start : start + _ROW])
            for link, some in runs.items()
            for start in range(0, len(some), _ROW)
        ],
        troubles,
    )


def extend(store: Store, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
    """See :meth:`lockkit.spi.Backend.extend`."""
    basis = store.clock.now()
    now, answer = store.run(scripts.EXTEND, claim.terms.name, budget, claim.token, fence, millis(ttl))
    store.link(claim).heard(int(now))
    return _renewal(answer, basis)


def _send(store: Store, row: Row, answers: list[Renewal | None], until: float) -> list[Refused | Unknown]:
    """Renew the claims of some names on one server.

    Returns:
        What went wrong with some of the names, which are left out of the answers: names are nothing to each other.

    Raises:
        Refused, Unknown: It does not answer in time.
    """
    link, packed, runs, plain = row
    basis = store.clock.now()
    held = Renewal("HELD", basis)
    *replies, clock = link.row(packed, left(until), len(runs) + 1)
    if isinstance(clock, list):
        link.heard(millis_of(clock))
    if plain is not None and replies.count(b"H") == len(replies):
        answers[plain] = [held] * len(replies)
        return []
    unlearned = [at for at, reply in enumerate(replies) if isinstance(reply, theirs.NoScriptError)]
    if unlearned:  # the first of them makes the server learn it
        first, *others = (runs[at][0] for at in unlearned)
        again = b"".join([scripts.RENEW.spelled_out(first), *others])
        for at, reply in zip(unlearned, link.row(again, left(until), len(unlearned)), strict=True):
            replies[at] = reply
    troubles: list[Refused | Unknown] = []
    for (_, places), reply in zip(runs, replies, strict=True):
        if isinstance(reply, theirs.RedisError):
            troubles.append(replied(reply, link))
            continue
        for at, answer in zip(places, [reply] if len(places) == 1 else reply, strict=True):
            answers[at] = renewal = held if answer == b"H" else _renewal(answer, basis)
            if renewal.why == "absent":
                store.index.forget()  # the server may have forgotten everything
    return troubles


def _packed(stated: Stated, beats: Sequence[Beat]) -> bytes:
    """The command that renews claims of one name."""
    if len(beats) > 1:
        words = [word for claim, fence in beats for word in (claim.token, "" if fence is None else fence)]
        return scripts.RENEW.packed(stated.keys[:5], *words)
    claim, fence = beats[0]
    text = b"" if fence is None else b"%d" % fence
    return b"%b$32\r\n%b\r\n$%d\r\n%b\r\n" % (stated.renew, claim.token.encode(), len(text), text)


def _renewal(answer: bytes | Sequence[bytes], basis: float) -> Renewal:
    """What a script says of one claim: a letter, or a letter, why it is lost, and the requests of its note."""
    if isinstance(answer, bytes):
        return Renewal(_STATES[answer], basis)
    state, why, note = answer
    reason: Any = why.decode()
    return Renewal(_STATES[state], basis, json.loads(note) if note else None, reason)
