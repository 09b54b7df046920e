"""What ``inspect`` shows: stored claims as facts, with times in seconds since the epoch."""

from __future__ import annotations

import contextlib
from typing import Any

from lockkit.facts import ClaimInfo, ClaimState, Owner
from lockkit_etcd.rows import Row
from lockkit_etcd.transport import Remaining

__all__ = ["claim_info"]

_OWNER = Owner._field_defaults


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
        owner=_owner(value.get("owner")),
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


def _owner(said: Any) -> Owner:
    if isinstance(said, dict):
        with contextlib.suppress(TypeError):
            return Owner(**{key: value for key, value in said.items() if key in _OWNER})
    return Owner()
