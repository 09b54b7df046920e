"""A queue of rows: the effect of each call on the claims of one name.

This module is for a store that decides in Python. In one atomic step such a store reads a whole queue, calls
one of these methods, and writes the queue back. A store whose server runs code has the same rules there.

Two rules hold for every call. Its first step, ``settle``, removes all claims past their deadlines, anywhere
in the queue. And a claim is OFFERED exactly while it fits and its owner has not confirmed yet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from lockkit.facts import ClaimInfo, Evicted, LockInfo
from lockkit.lib.clock import Clock
from lockkit.store.notes import note_text, patched
from lockkit.store.queue import agreed, grantable, in_the_way
from lockkit.store.rows import NEVER, Row
from lockkit.store.spi import (
    ABSENT,
    GRACE,
    NOTE_LIMIT,
    RELEASED,
    Answer,
    Busy,
    Claim,
    End,
    Granted,
    Lapsed,
    Queued,
    ReleaseAnswer,
    Renewal,
)
from lockkit.store.tombstones import Tombstones
from lockkit.values.names import claim_id

__all__ = ["QueueContext", "RowQueue"]


class QueueContext(Protocol):
    """The part of a store that a queue uses."""

    @property
    def clock(self) -> Clock:
        """The clock that converts times into seconds since 1970, for facts."""

    @property
    def gone(self) -> Tombstones:
        """The tokens that were abandoned."""

    def next_fence(self) -> int:
        """A fence higher than all others that the queue has had."""


class RowQueue:
    """The claims of one name. In each method ``now`` is the time on the store's clock.

    Attributes:
        rows: The claims by token, in order of arrival.
        changed: The claims that were removed, came to fit, or got a nearer deadline since this list was
            last emptied. A waiter that watches one of them should ask again.
        next_lapse: A time before which no claim lapses.
        unsettled: True if claims were added, removed or changed since the last :meth:`offer`.
        layout: The version of the layout of the claims; in memory that of this code.
    """

    layout = 1
    next_lapse = NEVER
    unsettled = False

    def __init__(self, name: str, context: QueueContext) -> None:
        self.name = name
        self.context = context
        self.rows: dict[str, Row] = {}
        self.changed: list[Row] = []

    # -- steps

    def settle(self, now: float) -> None:
        """Remove the claims that have lapsed, and offer the lock to those that now fit."""
        if now >= self.next_lapse:
            for row in [row for row in self.rows.values() if row.deadline <= now]:
                self.remove(row, now)
            self.next_lapse = min((row.deadline for row in self.rows.values()), default=NEVER)
        if self.unsettled:
            self.offer(now)

    def offer(self, now: float) -> None:
        """Update the states: a WAITING claim that fits becomes OFFERED, and back if it no longer fits."""
        rows = list(self.rows.values())
        fits = grantable(rows, [row.holding for row in rows])
        for place, row in enumerate(rows):
            if place < fits and row.state == "WAITING":
                row.state = "OFFERED"
                row.wait(now)
                self.changed.append(row)
            elif place >= fits and row.state == "OFFERED":
                row.state = "WAITING"
        self.unsettled = False

    def remove(self, row: Row, now: float) -> None:
        """Remove a claim; leave a tombstone if its acquire may still arrive. :meth:`offer` must come next."""
        self.unsettled = True
        if row.replayed:
            self.context.gone.bury(row.token, now)
        self.rows.pop(row.token, None)
        self.changed.append(row)

    def find(self, wanted: str) -> tuple[Row | None, int]:
        """A claim by its claim id, and its place."""
        for place, row in enumerate(self.rows.values()):
            if claim_id(row.token) == wanted:
                return row, place
        return None, -1

    def info(self, row: Row, place: int) -> ClaimInfo:
        """A claim as a fact."""
        return row.info(self.name, place, self.context.clock.wall() - self.context.clock.now(), self.layout)

    # -- calls, as in lockkit.store.spi

    def acquire(self, claim: Claim, now: float, basis: float, *, create: bool) -> Answer:
        """Add the claim to the queue if it is not there, and return its state: HELD if it fits.

        Args:
            claim: The claim.
            now: The time.
            basis: The time at which the client sent the request.
            create: Whether the claim may be added.

        Raises:
            ConfigError: The note cannot be written as JSON, or is too long.
        """
        if claim.note:
            note_text(claim.note, NOTE_LIMIT)
        if self.unsettled or now >= self.next_lapse:
            self.settle(now)
        row = self.rows.get(claim.token)
        if row is None:
            if not create:
                return self._absent(claim)
            gone = self.context.gone
            if gone.stones and (why := gone.why(claim.token, now)) is not None:
                return Lapsed(why)
            terms = claim.terms
            row = Row(
                claim.token, terms, self.context.next_fence(), terms.weight, terms.capacity, terms.ttl,
                now, now, now + GRACE, note=claim.note,
            )  # fmt: skip
            self.unsettled = True
            self.next_lapse = min(self.next_lapse, row.deadline)
            self.rows[claim.token] = row
            if len(self.rows) == 1 and row.weight <= row.capacity:
                row.state, self.unsettled = "OFFERED", False  # the same as offer() for the only claim
            else:
                self.offer(now)
        else:
            row.replayed = row.replayed or create
            if row.evicted:
                return Lapsed("evicted")
            if row.state == "LINGERING":
                return Lapsed("lingering")
        if row.state == "OFFERED":
            # A waiter's deadline says nothing about a holder's, which may be shorter.
            row.state, row.since, row.deadline = "HELD", now, now
        if row.state == "HELD":
            row.extend(now)
            self.next_lapse = min(self.next_lapse, row.deadline)
            return Granted(row.fence, basis)
        if claim.wait:
            row.wait(now)
            return self._queued(row)
        self.remove(row, now)
        self.offer(now)
        head = next(iter(self.rows.values()))
        return Busy(head.capacity, self.info(head, 0))

    def _absent(self, claim: Claim) -> Lapsed:
        """The answer for a claim that is gone: it was too heavy for a resized lock, or it lapsed."""
        head = next(iter(self.rows.values()), None)
        return Lapsed("resized" if head is not None and head.capacity < claim.terms.weight else "absent")

    def _queued(self, row: Row) -> Queued:
        rows = list(self.rows.values())
        place = rows.index(row)
        chosen, next_in_line = in_the_way(rows, [each.holding for each in rows], place)
        blocking = [rows[at] for at in chosen]
        soonest = min((each.deadline for each in blocking), default=NEVER) if next_in_line else NEVER
        return Queued(
            position=place,
            ask_again_at=None if soonest == NEVER else soonest,
            blockers=tuple(str(each.fence) for each in blocking),
            capacity=agreed(row.terms.capacity, row.capacity, rows[0].capacity),
            holder=self.info(rows[0], 0),
        )

    def renew(
        self, claim: Claim, fence: int | None, now: float, basis: float, *, ttl: float = 0.0
    ) -> Renewal:
        """Renew a claim; ``fence`` is None without a lease. The claim's ttl becomes at least ``ttl``."""
        self.settle(now)
        row = self.rows.get(claim.token)
        if row is None:
            return Renewal("LOST", why="absent")
        if row.evicted:
            return Renewal("LOST", why="evicted", requests=row.requests)
        if row.state == "LINGERING":
            return Renewal("LOST", why="lapsed")
        if fence is None:
            if row.state == "WAITING":
                row.wait(now)
                return Renewal("WAITING", requests=row.requests)
            return Renewal("OFFERED", requests=row.requests)
        if row.state != "HELD" or row.fence != fence:
            return Renewal("LOST", why="fence")
        row.ttl = max(row.ttl, ttl)
        if ttl and claim.terms.process_bound:  # extend() may make a claim process-bound
            row.terms = row.terms._replace(process_bound=True)
        row.extend(now)
        return Renewal("HELD", basis=basis, requests=row.requests)

    def release(self, token: str, now: float, *, how: End) -> ReleaseAnswer:
        """Remove a claim, or make it LINGERING until its min_hold or lock_delay is over."""
        if self.unsettled or now >= self.next_lapse:
            self.settle(now)
        row = self.rows.get(token)
        if row is None:
            return ABSENT
        if row.state == "LINGERING":
            return RELEASED
        until = row.lingers_until(now, how=how)
        if until > now:
            row.state, row.deadline = "LINGERING", until
            self.next_lapse = min(self.next_lapse, until)
            self.changed.append(row)  # the next in line sleeps until the old deadline
            return RELEASED
        self.remove(row, now)
        if self.rows:
            self.offer(now)
        return RELEASED

    def moved(self, token: str, blockers: Collection[str]) -> bool:
        """True if a waiter should ask again: a blocker is gone, or its own claim does not wait any more."""
        row = self.rows.get(token)
        standing = {str(each.fence) for each in self.rows.values()}
        return row is None or row.state != "WAITING" or not standing.issuperset(blockers)

    def inspect(self, now: float) -> LockInfo:
        """The queue as a fact, without claims past their deadlines. Changes nothing."""
        standing = [row for row in list(self.rows.values()) if row.deadline > now]
        claims = tuple(self.info(row, place) for place, row in enumerate(standing))
        return LockInfo(self.name, claims, self.context.clock.wall())

    def evict(self, wanted: str, now: float, *, at_once: bool) -> Evicted:
        """Force a claim out, by its claim id. A HELD claim is only marked, unless ``at_once``."""
        self.settle(now)
        row, place = self.find(wanted)
        if row is None:
            return Evicted("ABSENT")
        if at_once or row.state in ("WAITING", "OFFERED"):
            info = self.info(row, place)
            self.remove(row, now)
            self.settle(now)
            return Evicted("REMOVED", claim=info)
        if row.state == "HELD":
            row.mark_evicted()
            self.next_lapse = min(self.next_lapse, row.deadline)
            self.changed.append(row)
        info = self.info(row, place)
        self.settle(now)
        return Evicted("MARKED", blocks_until=info.deadline, claim=info)

    def turn_away(self, wanted: str, now: float) -> bool:
        """Force a claim out, by its claim id, unless it holds or lingers; return whether it was removed."""
        self.settle(now)
        row, _ = self.find(wanted)
        waits = row is not None and row.state in ("WAITING", "OFFERED")
        return waits and self.evict(wanted, now, at_once=False).outcome == "REMOVED"

    def resize(self, capacity: int, now: float) -> int:
        """Change the capacity of every claim. Returns the number of claims."""
        self.settle(now)
        count = len(self.rows)
        self.unsettled = count > 0
        for row in list(self.rows.values()):
            row.capacity = capacity
            if not row.holding and row.weight > capacity:
                self.remove(row, now)
        self.settle(now)
        return count

    def annotate(self, wanted: str, patch: Mapping[str, object], now: float) -> bool:
        """Merge a patch into the note of a claim, by its claim id; False if there is no such claim.

        Raises:
            ConfigError: The note would be too long.
        """
        self.settle(now)
        row, _ = self.find(wanted)
        if row is not None:
            row.note, row.asked = patched(row.note or {}, patch), True
        return row is not None
