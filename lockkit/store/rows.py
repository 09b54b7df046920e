"""A claim as a row: deadlines, lingering after the end, the mark of an eviction.

For stores that decide in Python. Times are seconds on the store's clock; deadlines only grow, but for evictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockkit.facts import NOTHING, ClaimInfo, ClaimState
from lockkit.names import claim_id
from lockkit.store.spi import Terms

__all__ = ["GRACE", "NEVER", "Row"]

GRACE = 6.0
"""Seconds that a waiter may be silent, and that an offer stands unanswered: three poll caps."""
NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Row:
    """One claim as stored.

    Attributes:
        since: The time at which the claim was queued, or granted.
        renewed: The time of the owner's last call for the claim.
        deadline: The time from which the claim counts for nothing.
        replayed: The create was sent more than once, so a copy may still be under way when the claim is gone.
        asked: Others have annotated the note; the owner is told with each renewal.
    """

    token: str
    terms: Terms
    fence: int
    weight: int
    capacity: int
    ttl: float
    since: float
    renewed: float
    deadline: float
    state: ClaimState = "WAITING"
    evicted: bool = False
    replayed: bool = False
    note: Mapping[str, object] | None = None
    asked: bool = False

    @property
    def holding(self) -> bool:
        """True if the claim takes room."""
        return self.state in ("HELD", "LINGERING")

    @property
    def requests(self) -> Mapping[str, object] | None:
        """The note, if others have annotated it: their requests to the owner."""
        return self.note if self.asked else None

    def grant(self, now: float) -> None:
        """Make it HELD. Only ``acquire`` may."""
        self.state = "HELD"
        self.since = now
        self.deadline = now  # a waiter's deadline says nothing about a holder's, which may be shorter
        self.extend(now)

    def extend(self, now: float) -> None:
        """Move the deadline of a HELD claim, never back: to now + ttl within max_hold, + lock_delay, past min_hold."""
        terms = self.terms
        self.renewed = now
        end = NEVER if terms.process_bound else now + self.ttl
        if terms.max_hold is not None:
            end = min(end, self.since + terms.max_hold)
        self.deadline = max(self.deadline, end + terms.lock_delay, self.since + terms.min_hold)

    def wait(self, now: float) -> None:
        """Move the deadline of a waiting claim whose owner has called for it."""
        self.deadline = max(self.deadline, now + GRACE)

    def mark_evicted(self) -> None:
        """Mark a holder: renewals are LOST from here on, and the claim blocks until its owner cannot believe in the hold any more."""
        self.evicted = True
        silent = self.renewed + self.ttl + self.terms.lock_delay
        self.deadline = min(self.deadline, max(silent, self.since + self.terms.min_hold))

    def lingers_until(self, now: float, *, graceful: bool) -> float:
        """The time up to which the claim goes on blocking if it ends now; not after ``now`` if it does not."""
        if self.state != "HELD":
            return now
        end = self.since + self.terms.min_hold
        if self.evicted or not graceful:
            end = max(end, now + self.terms.lock_delay)
        return min(end, self.deadline)

    def info(self, name: str, place: int, epoch: float) -> ClaimInfo:
        """The claim as a fact.

        Args:
            name: The lock.
            place: 0 for the head of the queue.
            epoch: Seconds since 1970 minus the store's clock.
        """
        terms = self.terms
        return ClaimInfo(
            name=name,
            claim_id=claim_id(self.token),
            state=self.state,
            owner=terms.owner,
            fence=self.fence,
            position=place,
            kind=terms.kind,
            weight=self.weight,
            capacity=self.capacity,
            ttl=self.ttl,
            since=self.since + epoch,
            renewed=self.renewed + epoch,
            deadline=None if self.deadline == NEVER else self.deadline + epoch,
            evicted=self.evicted,
            process_bound=terms.process_bound,
            note=NOTHING if self.note is None else dict(self.note),
        )
