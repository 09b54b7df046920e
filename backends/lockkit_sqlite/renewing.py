"""Renew: holders in chunks, with one statement a chunk; waiters by reading their queue."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence

from lockkit.store.notes import note_of
from lockkit.store.queue import prefix
from lockkit.store.spi import Beat, Claim, Refused, Renewal, Unknown
from lockkit_sqlite import statements as sql
from lockkit_sqlite.layout import HELD, LINGERING, micros
from lockkit_sqlite.rows import Row, fitting
from lockkit_sqlite.store import GRACE, SQLiteStore

__all__ = ["extend", "renew"]

CHUNK = 500
"""Holders renewed in one statement, for which other processes wait (some 3 ms)."""

_LOOKS = 8
"""Claims beyond the holders that a heartbeat probes; the heartbeats of later waiters probe others."""

_ABSENT = Renewal("LOST", why="absent")


def renew(store: SQLiteStore, beats: Sequence[Beat], end: float) -> Sequence[Renewal]:
    """See :meth:`lockkit.store.spi.Backend.renew`."""
    try:
        store.follow(end, closely=True)
    except (Refused, Unknown) as trouble:
        if store.whole():
            raise
        return [_gone(fence, trouble) for _, fence in beats]
    answers: dict[int, Renewal] = {}
    try:
        _renew_all(store, beats, answers, end)
    except (Refused, Unknown) as trouble:
        if not answers:
            raise
        unknown = Renewal("UNKNOWN", trouble=str(trouble))
        return [answers.get(at, unknown) for at in range(len(beats))]
    return [answers[at] for at in range(len(beats))]


def _renew_all(store: SQLiteStore, beats: Sequence[Beat], answers: dict[int, Renewal], end: float) -> None:
    """Renew claims and put the answers where they belong; after an error those that are there count."""
    held = [(at, claim, fence) for at, (claim, fence) in enumerate(beats) if fence is not None]
    asked = _asked(store, end) if held else {}
    for start in range(0, len(held), CHUNK):
        _renew_held(store, held[start : start + CHUNK], asked, answers, end)
    waiting: dict[str, dict[str, list[int]]] = {}
    for at, (claim, fence) in enumerate(beats):
        if fence is None:
            waiting.setdefault(claim.terms.name, {}).setdefault(claim.token, []).append(at)
    for name, places in waiting.items():
        try:
            found = _renew_waiting(store, name, places, end)
        except Refused as refusal:
            if refusal.retry:
                raise
            found = dict.fromkeys(places, Renewal("UNKNOWN", trouble=str(refusal)))  # of this queue alone
        for token, each in places.items():
            answers.update(dict.fromkeys(each, found.get(token, _ABSENT)))


def _gone(fence: int | None, trouble: Refused | Unknown) -> Renewal:
    """The answer while the files are gone and not made anew: a hold is lost, a waiter may queue again."""
    return Renewal("UNKNOWN", trouble=str(trouble)) if fence is None else Renewal("LOST", why="files")


def extend(store: SQLiteStore, claim: Claim, fence: int, ttl: float, end: float) -> Renewal:
    """See :meth:`lockkit.store.spi.Backend.extend`."""
    key = (store.namespace, claim.terms.name, claim.token)
    done, now = store.calls.write(
        sql.EXTEND, lambda now: (*key, now, micros(ttl), fence, claim.terms.process_bound), end
    )
    if done:
        return Renewal("HELD", basis=now / 1e6)
    return _lost(store, store.seen(store.calls, claim.terms.name, end), claim, fence, now)


def _asked(store: SQLiteStore, end: float) -> dict[str, Mapping[str, object]]:
    """The notes of holders that others have annotated, by token: few, with an index of their own."""
    found = store.beats.read(sql.ASKED, (store.namespace, store.boot), end)
    return {token: note_of(note) for token, note in found}


def _renew_held(
    store: SQLiteStore,
    chunk: Sequence[tuple[int, Claim, int]],
    asked: Mapping[str, Mapping[str, object]],
    answers: dict[int, Renewal],
    end: float,
) -> None:
    beats = store.beats
    batch = json.dumps(
        [(claim.terms.name, fence, claim.token) for _, claim, fence in chunk], ensure_ascii=False
    )
    count, now = beats.write(sql.RENEW, lambda now: (store.namespace, now, batch), end)
    renewed = (
        None if count == len(chunk) else set(beats.read(sql.RENEWED, (store.namespace, now, batch), end))
    )
    plain = Renewal("HELD", basis=now / 1e6)
    for at, claim, fence in chunk:
        if renewed is None or (claim.token, fence) in renewed:
            answers[at] = plain._replace(requests=asked[claim.token]) if claim.token in asked else plain
        else:
            answers[at] = _lost(store, store.seen(beats, claim.terms.name, end), claim, fence, now)


def _lost(store: SQLiteStore, rows: Sequence[Row], claim: Claim, fence: int, now: int) -> Renewal:
    row = next((row for row in rows if row.token == claim.token), None)
    if row is None:
        return Renewal("LOST", why="files") if 0 < fence <= store.left else _ABSENT
    if row.evicted:
        return Renewal("LOST", why="evicted", requests=note_of(row.note) if row.asked else None)
    return Renewal("LOST", why="lapsed" if row.deadline <= now or row.state == LINGERING else "fence")


def _front_died(store: SQLiteStore, name: str, rows: Sequence[Row], mine: Container[str], end: float) -> bool:
    """Remove the claims of dead processes at the front of the queue; True if there was any.

    A waiter watches the blockers that it had when it last asked. If one of them gave up or was evicted, the
    watch misses the claims ahead of that one. This look, once per poll cap, then notices their death.
    """
    ahead = []
    for row in rows[: prefix(rows) + _LOOKS]:
        if row.token in mine:
            break
        ahead.append(row)
    return store.bury_dead(store.beats, name, ahead, end)


def _renew_waiting(store: SQLiteStore, name: str, mine: Container[str], end: float) -> dict[str, Renewal]:
    """Renew a name's claims without a Lease, but none that fits: its owner must answer the offer."""
    beats, now = store.beats, store.now()
    rows = store.queue(beats, name, end)
    if store.settle(beats, name, rows, now, end) | _front_died(store, name, rows, mine, end):
        rows = store.queue(beats, name, end)
        store.ring_fitting(beats, name, end, next_too=True)
    fits = fitting(rows)
    answers: dict[str, Renewal] = {}
    patient = []
    for place, row in enumerate(rows):
        if row.token not in mine:
            continue
        requests = note_of(row.note) if row.asked else None
        if row.evicted:
            answers[row.token] = Renewal("LOST", why="evicted", requests=requests)
        elif row.state == LINGERING:
            answers[row.token] = Renewal("LOST", why="lapsed")
        elif row.state == HELD or place < fits:
            answers[row.token] = Renewal("OFFERED", requests=requests)
        else:
            answers[row.token] = Renewal("WAITING", requests=requests)
            patient.append(row.token)
    if patient:
        tokens = json.dumps(patient)
        beats.write(sql.PROLONG, lambda at: (store.namespace, name, tokens, at + GRACE, at), end)
    return answers
