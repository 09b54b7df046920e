"""A claim as a row, for stores that decide in Python: its deadlines, its eviction, and its lingering.

Times are seconds on the store's clock. Deadlines only grow, except through an eviction.
"""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.facts import ClaimInfo, ClaimState
from lockkit.store.spi import GRACE, End, Terms
from lockkit.store.untrusted import claim_of
from lockkit.values.names import claim_id

__all__ = ["NEVER", "Row"]

NEVER = float("inf")


class Row:
    """One claim as stored.

    Attributes:
        since: The time at which the claim was queued, or granted.
        renewed: The time at which the claim was queued, or last renewed while it was held.
        deadline: The time from which on the claim does not count.
        replayed: True if the acquire was sent again, so that a copy may arrive when the claim is gone.
        asked: True if others have annotated the note; each renewal then returns the note to the owner.
        damaged: Whether the stored claim is malformed. Such a claim blocks until it is evicted ``--now``.
    """

    __slots__ = (
        "asked",
        "capacity",
        "deadline",
        "evicted",
        "fence",
        "note",
        "renewed",
        "replayed",
        "since",
        "state",
        "terms",
        "token",
        "ttl",
        "weight",
    )

    damaged = False

    def __init__(
        self,
        token: str,
        terms: Terms,
        fence: int,
        weight: int,
        capacity: int,
        ttl: float,
        since: float,
        renewed: float,
        deadline: float,
        state: ClaimState = "WAITING",
        *,
        evicted: bool = False,
        replayed: bool = False,
        note: Mapping[str, object] | None = None,
        asked: bool = False,
    ) -> None:
        self.token = token
        self.terms = terms
        self.fence = fence
        self.weight = weight
        self.capacity = capacity
        self.ttl = ttl
        self.since = since
        self.renewed = renewed
        self.deadline = deadline
        self.state = state
        self.evicted = evicted
        self.replayed = replayed
        self.note = note
        self.asked = asked

    @property
    def holding(self) -> bool:
        """True if the claim takes up capacity."""
        return self.state in ("HELD", "LINGERING")

    @property
    def requests(self) -> Mapping[str, object] | None:
        """The note, if others have annotated it: their requests to the owner."""
        return self.note if self.asked else None

    def extend(self, now: float) -> None:
        """Renew a HELD claim: until now + ttl, at most the end of max_hold, plus lock_delay.

        The deadline never moves back, and is never before the end of min_hold.
        """
        terms = self.terms
        self.renewed = now
        end = NEVER if terms.process_bound else now + self.ttl
        if terms.max_hold is not None:
            end = min(end, self.since + terms.max_hold)
        self.deadline = max(self.deadline, end + terms.lock_delay, self.since + terms.min_hold)

    def wait(self, now: float) -> None:
        """Move the deadline of a waiting claim, for which its owner has made a call."""
        self.deadline = max(self.deadline, now + GRACE)

    def mark_evicted(self) -> None:
        """Mark a holder as evicted: renewals answer LOST. It blocks until its owner must know of the loss."""
        self.evicted = True
        silent = self.renewed + self.ttl + self.terms.lock_delay
        self.deadline = min(self.deadline, max(silent, self.since + self.terms.min_hold))

    def lingers_until(self, now: float, *, how: End) -> float:
        """The time until which the claim blocks if it ends now; not after ``now`` if it stops blocking."""
        if self.state != "HELD" or how == "unused":
            return now
        end = self.since + self.terms.min_hold
        if self.evicted or how == "ungraceful":
            end = max(end, now + self.terms.lock_delay)
        return min(end, self.deadline)

    def info(self, name: str, place: int, epoch: float, layout: int = 0) -> ClaimInfo:
        """The claim as a fact.

        Args:
            name: The lock.
            place: The number of claims ahead in the queue.
            epoch: The difference between the time since 1970 and the store's clock, in seconds.
            layout: The version of the layout in which it is stored.
        """
        terms = self.terms
        return claim_of(
            self.note,
            damaged=self.damaged,
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
            layout=layout,
        )
