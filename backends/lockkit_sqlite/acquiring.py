"""Acquire: take what is free in one statement; otherwise append the claim, read, and hold by compare.

Where this client waited a moment ago, nothing will be free, and the claim is appended at once. A woken claim
that takes the whole capacity needs no read: it holds by a compare that nobody is ahead and nobody holds.

Appending and reading need not be one step: claims are added at the tail and only ever removed before it, so a
stale read errs towards "queued" (model-checked). The one step that grants compares all it relies on: the
claim is still there, waits, has not lapsed, is not marked by evict, and has the capacity that was read.
"""

from __future__ import annotations

import json

from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.notes import note_text
from lockkit.store.queue import Queued as InQueue
from lockkit.store.queue import agreed, blockers, in_the_way, prefix
from lockkit.store.spi import (
    NOTE_LIMIT,
    Answer,
    Busy,
    Claim,
    Granted,
    Lapsed,
    Queued,
    Refused,
    Terms,
    Unknown,
)
from lockkit_sqlite import statements as sql
from lockkit_sqlite.connection import Params
from lockkit_sqlite.draining import unless_drained
from lockkit_sqlite.failures import busy
from lockkit_sqlite.layout import FAR, HELD, LINGERING, micros
from lockkit_sqlite.rows import Row, check_rows, fitting, holding, read_rows
from lockkit_sqlite.store import GRACE, SQLiteStore

__all__ = ["acquire"]

_ROUNDS = 64
"""How often the queue may change during a call before the call is refused."""


class _Stored:
    """Whether the claim may be in the queue: then a failed call is Unknown, and the claim must be removed."""

    __slots__ = ("maybe",)

    def __init__(self) -> None:
        self.maybe = False


class _Candidate(NamedTuple):
    weight: int
    capacity: int


def acquire(store: SQLiteStore, claim: Claim, *, create: bool, end: float) -> Answer:
    """See :meth:`lockkit.store.spi.Backend.acquire`."""
    note = note_text(claim.note, NOTE_LIMIT) if claim.note else None
    if not create:
        return _first(store, claim, end) or _ask(store, claim, note, end, _Stored())
    if store.pulses.pulse is None:
        store.pulses.name()
        store.sweep(end)
    fence = 0

    def held(now: int) -> Params:
        nonlocal fence
        fence = int(store.clock.wall() * 1e6)
        return _row(store, claim, note, now, fence)

    if not (claim.wait and store.crowds.likely(claim.terms.name)):
        taken, now = store.calls.write(sql.INSERT_HELD, held, end)
        if taken:
            return Granted(fence, now / 1e6)
    stored = _Stored()
    try:
        if claim.wait:
            _append(store, claim, note, stored, end)
        return _ask(store, claim, note, end, stored, trying=not claim.wait)
    except Refused as refusal:
        if stored.maybe:
            raise Unknown(refusal.error, retry=refusal.retry, busy=refusal.busy) from refusal
        raise


def _append(store: SQLiteStore, claim: Claim, note: str | None, stored: _Stored, end: float) -> None:
    """Put a claim at the end of its queue.

    Raises:
        Refused: The namespace is drained; or a living process with another boot id has a claim there.
    """
    name = claim.terms.name
    for _ in range(_ROUNDS):
        added, _ = store.calls.write(
            sql.INSERT_WAITING, lambda now: _waiting_row(store, claim, note, now), end
        )
        stored.maybe = added > 0
        if added:
            return
        rows = store.queue(store.calls, name, end)
        if any(row.token == claim.token for row in rows):
            return
        unless_drained(store, end)
        store.settle(store.calls, name, rows, store.now(), end)
    raise busy(store.place.path)


def _first(store: SQLiteStore, claim: Claim, end: float) -> Granted | None:
    """Grant a claim that takes the whole capacity, if it is the first; None if the queue has to be read."""
    terms, fence = claim.terms, store.placed.pop(claim.token, None)
    if fence is None or terms.weight != terms.capacity:
        return None
    granted, now = _grant(store, claim, sql.GRANT_FIRST, fence, terms.capacity, end)
    return Granted(fence, now / 1e6) if granted else None


def _grant(
    store: SQLiteStore, claim: Claim, statement: str, fence: int, capacity: int, end: float
) -> tuple[int, int]:
    """Make a waiting claim a holder, if it is as it was seen: how many rows that changed, and the time."""
    terms = claim.terms
    key, seen = (store.namespace, terms.name, claim.token), (fence, capacity, _pulse(store, terms))
    deadlines = store.columns(terms).deadlines
    return store.calls.write(statement, lambda at: (*key, at, *deadlines(at), *seen), end)


def _ask(
    store: SQLiteStore,
    claim: Claim,
    note: str | None,
    end: float,
    stored: _Stored,
    *,
    trying: bool = False,
) -> Answer:
    """Read the queue and answer for the claim. With ``trying`` an absent claim takes what is free."""
    calls, name, token = store.calls, claim.terms.name, claim.token
    if claim.terms.capacity == 1 and not trying and (waits := _behind(store, claim, end)) is not None:
        return waits
    removed = False
    for _ in range(_ROUNDS):
        store.pulses.asks(token)
        now = store.now()
        rows = store.queue(calls, name, end)
        if store.settle(calls, name, rows, now, end):
            removed = True
            continue
        place = next((at for at, row in enumerate(rows) if row.token == token), None)
        if place is None:
            stored.maybe = False
            unless_drained(store, end)
            answer = _try(store, claim, note, rows, end) if trying else _absent(store, rows, claim.terms)
            stored.maybe = answer is None and trying
        else:
            answer = _stand(store, claim, rows, place, end)
        if answer is None:
            removed = True
            continue
        if removed:
            store.ring_fitting(calls, name, end, mine=token, next_too=True)
        return answer
    raise busy(store.place.path)


def _stand(store: SQLiteStore, claim: Claim, rows: list[Row], place: int, end: float) -> Answer | None:
    """The answer for a claim that is in the queue; None if the queue has changed and must be read again."""
    calls, terms, row = store.calls, claim.terms, rows[place]
    if row.evicted:
        return Lapsed("evicted")
    if row.state == LINGERING:
        return Lapsed("lingering")
    if row.state == HELD:
        extended, now = calls.write(
            sql.RENEW_ONE, lambda at: (store.namespace, terms.name, claim.token, at), end
        )
        return Granted(row.fence, now / 1e6) if extended else None
    if place < fitting(rows):
        granted, now = _grant(store, claim, sql.GRANT, row.fence, row.capacity, end)
        if granted:
            return Granted(row.fence, now / 1e6)
        unless_drained(store, end)
        return None
    places, next_in_line = in_the_way(rows, [holding(each) for each in rows], place)
    chosen = [rows[at] for at in places]
    if store.bury_dead(calls, terms.name, chosen, end):
        return None
    if row.deadline < store.now() + GRACE * 2 // 3:
        tokens = json.dumps([claim.token])
        calls.write(sql.PROLONG, lambda at: (store.namespace, terms.name, tokens, at + GRACE, at), end)
    return _waits(
        store, claim, row.fence, place, rows, chosen, next_in_line=next_in_line, capacity=row.capacity
    )


def _behind(store: SQLiteStore, claim: Claim, end: float) -> Queued | None:
    """The answer for a claim behind another, without a long read; None if the queue has to be read."""
    now, name = store.now(), claim.terms.name
    key = (store.namespace, name, claim.token, now, now + GRACE * 2 // 3, store.boot)
    store.pulses.asks(claim.token)
    read = store.calls.read(sql.BEHIND, key, end)
    if not read:
        return None
    width = len(Row._fields)
    head, near, (own, place) = read[0][:width], read[0][width:-2], read[0][-2:]
    rows = read_rows([head] if place == 1 else [head, near])
    check_rows(rows, name, now)
    chosen = rows[-1:]
    if store.bury_dead(store.calls, name, chosen, end):
        return None
    return _waits(store, claim, own, place, rows, chosen, next_in_line=place == 1, capacity=1)


def _waits(
    store: SQLiteStore,
    claim: Claim,
    fence: int,
    place: int,
    rows: list[Row],
    chosen: list[Row],
    *,
    next_in_line: bool,
    capacity: int,
) -> Queued:
    """The answer for a claim that has to wait, and its fence noted for the next time.

    Args:
        store: The store.
        claim: The claim as it is asked for.
        fence: The fence of the stored claim.
        place: The place of that claim in the queue.
        rows: The queue, at least its first claim.
        chosen: The claims in the way.
        next_in_line: Whether the claim may hold when those are gone.
        capacity: The capacity of the stored claim.
    """
    terms = claim.terms
    store.crowds.note(terms.name)
    store.placed[claim.token] = fence
    asks = min((_gone_by(store, each) for each in chosen), default=FAR) if next_in_line else FAR
    return Queued(
        position=place,
        ask_again_at=None if asks >= FAR else asks / 1e6,
        blockers=tuple(f"{each.fence}.{each.fifo if each.state != LINGERING else ''}" for each in chosen),
        capacity=agreed(terms.capacity, capacity, rows[0].capacity),
        holder=store.facts(terms.name, rows, 0),
    )


def _try(store: SQLiteStore, claim: Claim, note: str | None, rows: list[Row], end: float) -> Answer | None:
    """Take what is free, or be refused and leave no claim behind."""
    terms = claim.terms
    queue: list[InQueue] = [*rows, _Candidate(terms.weight, terms.capacity)]
    if prefix(queue) == len(queue):
        # Then read the queue again: for the fence, or for the claim that came first.
        wall = int(store.clock.wall() * 1e6)
        store.calls.write(sql.INSERT_HELD_RISING, lambda now: _row(store, claim, note, now, wall), end)
        return None
    chosen = [rows[at] for at in blockers(queue, len(rows))]
    if store.bury_dead(store.calls, terms.name, chosen, end):
        return None
    return Busy(rows[0].capacity, store.facts(terms.name, rows, 0))


def _absent(store: SQLiteStore, rows: list[Row], terms: Terms) -> Lapsed:
    """The answer for a claim that is gone: with its files, too heavy after a resize, or lapsed."""
    if int(store.clock.wall() * 1e6) - store.left < micros(terms.ttl):
        # Later the claim would have lapsed anyway.
        return Lapsed("files")
    return Lapsed("resized" if rows and rows[0].capacity < terms.weight else "absent")


def _gone_by(store: SQLiteStore, row: Row) -> int:
    """The latest time at which a claim in the way ends, as far as is known."""
    if row.process_bound and row.state == HELD and store.pulses.health(row.fifo) == "UNKNOWN":
        return min(row.deadline, row.silence)
    return row.deadline


def _pulse(store: SQLiteStore, terms: Terms) -> str:
    """The FIFO of the owner of a held claim: none if the claim lives by its ttl alone."""
    return "" if terms.pulseless else store.pulses.name()


def _row(store: SQLiteStore, claim: Claim, note: str | None, now: int, wall: int) -> Params:
    """A new claim that is held from now on; the wall clock (microseconds) is the fence that it proposes."""
    columns = store.columns(claim.terms)
    deadline, silence, hold_end = columns.deadlines(now)
    fifo = _pulse(store, claim.terms)
    return *columns.shared, wall, claim.token, now, deadline, silence, hold_end, fifo, note


def _waiting_row(store: SQLiteStore, claim: Claim, note: str | None, now: int) -> Params:
    """A new claim that waits: its FIFO is the bell of its owner, too."""
    shared, wall = store.columns(claim.terms).shared, int(store.clock.wall() * 1e6)
    return *shared, wall, claim.token, now, now + GRACE, now + GRACE, FAR, store.pulses.name(), note
