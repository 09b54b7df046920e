"""Claims and records: as the functions of the schema take them, and as facts for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from lockkit.facts import ClaimInfo, ClaimState, Record
from lockkit.store.notes import note_of, note_text
from lockkit.store.owners import about, about_in
from lockkit.store.perlock import per_lock
from lockkit.store.spi import NOTE_LIMIT, Claim
from lockkit.values.names import claim_id

__all__ = ["asked", "claim_info", "record"]


def asked(claim: Claim, *, again: bool) -> str:
    """The argument of ``acquire``.

    Args:
        claim: The claim to acquire for.
        again: A copy of this request may be under way.

    Raises:
        ConfigError: The note is over :data:`lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    terms = claim.terms
    return json.dumps(
        {
            "name": terms.name,
            "token": claim.token,
            "claim_id": claim_id(claim.token),
            "wait": claim.wait,
            "again": again,
            "weight": terms.weight,
            "capacity": terms.capacity,
            "ttl": terms.ttl,
            "max_hold": terms.max_hold,
            "min_hold": terms.min_hold,
            "lock_delay": terms.lock_delay,
            "about": _about(terms),
            "note": note_text(claim.note, NOTE_LIMIT) if claim.note else None,
        }
    )


_about = per_lock(about)


def claim_info(shown: Mapping[str, Any]) -> ClaimInfo:
    """Convert a claim from the schema's function ``shown``. Fields of newer versions are left out."""
    told = about_in(shown["about"])
    return ClaimInfo(
        name=shown["name"],
        claim_id=shown["claim_id"],
        state=cast("ClaimState", shown["state"]),
        owner=told.owner,
        fence=shown["fence"],
        position=shown["position"],
        kind=told.kind,
        weight=shown["weight"],
        capacity=shown["capacity"],
        ttl=float(shown["ttl"]),
        since=float(shown["since"]),
        renewed=float(shown["renewed"]),
        deadline=float(shown["deadline"]),
        evicted=shown["evicted"],
        note=note_of(shown["note"]),
        layout=told.layout,
    )


def record(name: str, stored: Mapping[str, Any] | None) -> Record | None:
    """A stored record."""
    if stored is None:
        return None
    return Record(name, json.loads(stored["value"]), stored["version"], float(stored["written"]))
