"""What each call does to a queue: plain functions on a document, in the order in which a store must do it.

``settle`` comes before everything else. A store whose server runs code (SQL, Lua) says the same there; one that compares and
swaps runs these functions between reading and writing.
"""

from __future__ import annotations

from lockkit.names import claim_id
from lockkit.store.queue import blockers, grantable
from lockkit.store.spi import Claim, Terms
from lockkit_template.document import Document, Row

__all__ = [
    "GRACE",
    "append",
    "bury",
    "end",
    "evict",
    "find",
    "in_the_way",
    "offer",
    "remove",
    "renew",
    "settle",
]

GRACE = 6.0
"""Seconds that a waiter may be silent, and that an offer stands: what ``Capabilities.waiter_deadline`` says."""
_TOMBSTONE = 60.0


def settle(document: Document, now: float) -> None:
    """Remove whatever is past its deadline, wherever it stands; then offer."""
    for row in [row for row in document.rows if row.deadline <= now]:
        remove(document, row, now)
    document.gone = {token: until for token, until in document.gone.items() if until > now}
    offer(document, now)


def offer(document: Document, now: float) -> None:
    """What newly fits is OFFERED: its owner has so long to take it. What does not fit any more is WAITING again."""
    fits = grantable(document.rows, [row.holding for row in document.rows])
    for place, row in enumerate(document.rows):
        if place < fits and row.state == "WAITING":
            row.state = "OFFERED"
            row.deadline = max(row.deadline, now + GRACE)
        elif place >= fits and row.state == "OFFERED":
            row.state = "WAITING"


def append(document: Document, claim: Claim, now: float) -> Row:
    """Put a claim at the tail, with a fence above every other that this name ever gave out."""
    terms = claim.terms
    document.fence += 1
    row = Row(
        claim.token, document.fence, terms.weight, terms.capacity, terms.ttl, terms.max_hold, terms.min_hold,
        terms.lock_delay, now, now, now + GRACE, terms.kind, _owner(terms), dict(claim.note or {}),
    )  # fmt: skip
    document.rows.append(row)
    offer(document, now)
    return row


def renew(row: Row, now: float, *, grant: bool = False) -> None:
    """Move the deadline of a claim that holds; never back. Granting begins it: a waiter's deadline says nothing of it."""
    if grant:
        row.state, row.since, row.deadline = "HELD", now, now
    row.renewed = now
    until = now + row.ttl
    if row.max_hold is not None:
        until = min(until, row.since + row.max_hold)
    row.deadline = max(row.deadline, until + row.lock_delay, row.since + row.min_hold)


def end(document: Document, row: Row, now: float, *, graceful: bool) -> None:
    """Release: the claim goes, or goes on blocking until its min_hold or lock_delay is over."""
    if row.state == "LINGERING":
        return
    until = row.since + row.min_hold if row.state == "HELD" else now
    if row.state == "HELD" and (row.evicted or not graceful):
        until = max(until, now + row.lock_delay)
    until = min(until, row.deadline)
    if until > now:
        row.state, row.deadline = "LINGERING", until
    else:
        remove(document, row, now)
        offer(document, now)


def evict(row: Row) -> None:
    """Mark a holder: its renewals are LOST from here on, and it blocks until it cannot believe in its hold any more."""
    row.evicted = True
    silent = row.renewed + row.ttl + row.lock_delay
    row.deadline = min(row.deadline, max(silent, row.since + row.min_hold))


def remove(document: Document, row: Row, now: float) -> None:
    """Take a claim out. Of one whose acquire was sent twice, a third copy may still come."""
    document.rows.remove(row)
    if row.replayed:
        bury(document, row.token, now)


def bury(document: Document, token: str, now: float) -> None:
    """Leave a tombstone: a late copy of this token's acquire grants nothing."""
    document.gone[token] = now + _TOMBSTONE


def find(document: Document, token: str = "", *, wanted: str = "") -> Row | None:
    """A claim by its token, or by its claim id."""
    for row in document.rows:
        if row.token == token or claim_id(row.token) == wanted:
            return row
    return None


def in_the_way(document: Document, row: Row) -> tuple[list[Row], bool]:
    """Whose going makes it worthwhile for a waiter to ask again; and whether it is the next in line."""
    rows = document.rows
    place = rows.index(row)
    fits = grantable(rows, [each.holding for each in rows])
    chosen = [rows[at] for at in blockers(rows, place)] or [each for each in rows[place:] if each.holding]
    return chosen, place <= fits or not fits


def _owner(terms: Terms) -> dict[str, object]:
    return {key: value for key, value in terms.owner._asdict().items() if value not in ("", None, 0)}
