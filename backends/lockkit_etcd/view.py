"""Stored claims as ``inspect`` shows them, with times in seconds since the epoch."""

from __future__ import annotations

from lockkit.facts import ClaimInfo, ClaimState
from lockkit.store.owners import owner_of
from lockkit_etcd.rows import Row
from lockkit_etcd.transport import Remaining

__all__ = ["claim_info"]


def claim_info(
    name: str,
    row: Row,
    place: int,
    *,
    state: ClaimState | None = None,
    remaining: Remaining | None = None,
    wall: float = 0.0,
) -> ClaimInfo:
    """One claim; ``place`` is 0 for the head, ``state`` what it is if not as stored.

    ``remaining`` is how long its lease had at ``wall`` (seconds since the epoch), where that was asked. It is told in whole
    seconds, rounded down; the deadline shown is the latest that it may mean.
    """
    value = row.value
    deadline, renewed = None, 0.0
    if remaining is not None:
        deadline = wall + max(remaining.ttl, 0) + 1.0
        renewed = deadline - remaining.granted
    note = value.get("note")
    return ClaimInfo(
        name=name,
        claim_id=row.id,
        state=state or row.state,
        owner=owner_of(value.get("owner")),
        fence=row.fence,
        position=place,
        kind=value.get("kind", "mutex"),
        weight=row.weight,
        capacity=row.capacity,
        ttl=value.get("ttl", 0.0),
        since=value.get("since", 0.0),
        renewed=renewed,
        deadline=deadline,
        evicted=row.evicted,
        note=dict(note) if isinstance(note, dict) else {},
    )
