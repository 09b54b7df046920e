"""What ``inspect`` shows: stored claims as facts, with times in seconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterable

from lockkit.clock import Clock
from lockkit.facts import ClaimInfo, LockInfo
from lockkit.names import claim_id
from lockkit_memory.store import Row

__all__ = ["claim_info", "lock_info"]


def claim_info(name: str, row: Row, place: int, clock: Clock) -> ClaimInfo:
    """One claim; ``place`` is 0 for the head."""
    epoch = clock.wall() - clock.now()
    terms = row.terms
    return ClaimInfo(
        name=name,
        claim_id=claim_id(row.token),
        state=row.state,
        owner=terms.owner,
        fence=row.fence,
        position=place,
        kind=terms.kind,
        weight=row.weight,
        capacity=row.capacity,
        ttl=row.ttl,
        since=row.since + epoch,
        renewed=row.renewed + epoch,
        deadline=None if row.deadline == float("inf") else row.deadline + epoch,
        evicted=row.evicted,
        process_bound=terms.process_bound,
        alive=True,
        evidence="it is a claim of this very process",
        note=dict(row.note or {}),
    )


def lock_info(name: str, rows: Iterable[Row], clock: Clock) -> LockInfo:
    """The queue of a name, without what is past its deadline."""
    now = clock.now()
    standing = [row for row in rows if row.deadline > now]
    claims = tuple(claim_info(name, row, place, clock) for place, row in enumerate(standing))
    return LockInfo(name, claims, clock.wall())
