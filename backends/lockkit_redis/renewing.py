"""Heartbeats: one script for each name, sent in rows of some hundreds, packed once."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import redis.exceptions as theirs

from lockkit.spi import Beat, Claim, Refused, Renewal, Unknown
from lockkit_redis import scripts
from lockkit_redis.failures import replied
from lockkit_redis.router import Link
from lockkit_redis.stated import Stated, millis
from lockkit_redis.store import Store

__all__ = ["extend", "renew"]

_ROW = 500
_Run: TypeAlias = tuple[bytes, tuple[int, ...]]
"""The command that renews the claims of one name, and their places in the batch."""
_STATES: dict[bytes, Any] = {b"H": "HELD", b"W": "WAITING", b"O": "OFFERED", b"L": "LOST"}


def renew(store: Store, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
    """See :meth:`lockkit.spi.Backend.renew`.

    Raises:
        Refused, Unknown: Nobody answers. What is not answered while something else is counts as not renewed: a server that
            is slow, or one node of several that is silent, must not cost what was renewed.
    """
    end = time.monotonic() + budget
    runs: dict[Link, list[_Run]] = {}
    names = _places(beats)
    for places in names.values():
        stated = store.known(beats[places[0]][0].terms)
        link = store.router.at(stated.keys.queue)
        packed = (
            _alone(stated, *beats[places[0]])
            if len(places) == 1
            else _together(stated, [beats[at] for at in places])
        )
        runs.setdefault(link, []).append((packed, places))
    answers: list[Renewal | None] = [None] * len(beats)
    troubles: list[Refused | Unknown] = []
    for links, (link, some) in zip(range(len(runs), 0, -1), runs.items(), strict=True):
        until = time.monotonic() + (end - time.monotonic()) / links
        for start in range(0, len(some), _ROW):
            try:
                troubles += _row(store, link, some[start : start + _ROW], answers, until)
            except (Refused, Unknown) as trouble:
                troubles.append(trouble)
    if troubles and not any(answers):
        raise troubles[0]
    if any(answer is not None and answer.why == "absent" for answer in answers):
        store.index.forget()  # the server may have forgotten everything
    store.index.note(list(names), _left(end))
    return [answer or Renewal("UNKNOWN", trouble=str(troubles[0])) for answer in answers]


def _places(beats: Sequence[Beat]) -> dict[str, tuple[int, ...]]:
    """Where the claims of each name stand. Tuples of numbers: ten thousand lists would cost the garbage collector dear."""
    places: dict[str, tuple[int, ...]] = {}
    for at, (claim, _) in enumerate(beats):
        alone = (at,)
        before = places.setdefault(claim.terms.name, alone)
        if before is not alone:
            places[claim.terms.name] = before + alone
    return places


def extend(store: Store, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
    """See :meth:`lockkit.spi.Backend.extend`."""
    basis = store.clock.now()
    now, answer = store.run(scripts.EXTEND, claim.terms.name, budget, claim.token, fence, millis(ttl))
    store.link(claim).heard(int(now))
    return _renewal(answer, basis)


def _row(
    store: Store, link: Link, runs: Sequence[_Run], answers: list[Renewal | None], until: float
) -> list[Refused | Unknown]:
    """Renew the claims of some names on one server.

    Returns:
        What went wrong with some of the names, which are left out of the answers: names are nothing to each other.

    Raises:
        Refused, Unknown: It does not answer in time.
    """
    basis = store.clock.now()
    held = Renewal("HELD", basis)
    troubles: list[Refused | Unknown] = []
    replies = link.row(b"".join([packed for packed, _ in runs]), _left(until), len(runs))
    now = None
    for (packed, places), reply in zip(runs, replies, strict=True):
        if type(reply) is not list:
            if not isinstance(reply, theirs.NoScriptError):
                troubles.append(replied(reply, link.where))
                continue
            reply = scripts.RENEW.send(link, _left(until), packed)  # noqa: PLW2901 - makes the server learn it
        now = reply[0]
        for at, answer in zip(places, reply[1:], strict=True):
            answers[at] = held if answer == b"H" else _renewal(answer, basis)
    if now is not None:
        link.heard(int(now))
    return troubles


def _alone(stated: Stated, claim: Claim, fence: int | None) -> bytes:
    """The command that renews the only claim of its name."""
    text = b"" if fence is None else b"%d" % fence
    return b"%b$32\r\n%b\r\n$%d\r\n%b\r\n" % (stated.renew, claim.token.encode(), len(text), text)


def _together(stated: Stated, beats: Sequence[Beat]) -> bytes:
    """The command that renews several claims of one name."""
    words = [word for claim, fence in beats for word in (claim.token, "" if fence is None else fence)]
    return scripts.RENEW.packed(stated.keys[:5], *words)


def _renewal(answer: bytes | Sequence[bytes], basis: float) -> Renewal:
    """What a script says of one claim: a letter, or a letter, why it is lost, and the requests of its note."""
    if isinstance(answer, bytes):
        return Renewal(_STATES[answer], basis)
    state, why, note = answer
    reason: Any = why.decode()
    return Renewal(_STATES[state], basis, json.loads(note) if note else None, reason)


def _left(end: float) -> float:
    return max(end - time.monotonic(), 0.05)
