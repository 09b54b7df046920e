"""Operations on claims, as JSON documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockkit.views import documents, making
from lockkit.views.texts import rfc3339

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, Evicted, ReleaseRequest
    from lockkit.sync.client import Client

__all__ = ["asked", "evicted"]


def evicted(
    client: Client, name: str, claim_id: str, result: Evicted, reason: str, *, now: bool
) -> documents.Evict:
    """The document of an eviction that found its claim."""
    assert result.outcome != "ABSENT"
    until = result.blocks_until
    return documents.Evict(
        store=making.store(client),
        name=name,
        claim_id=claim_id,
        outcome=result.outcome,
        blocks_until=rfc3339(until),
        blocks_until_seconds=until,
        claim=None if result.claim is None else making.claim(result.claim),
        reason=reason,
        now=now,
    )


def asked(
    client: Client, name: str, claim_id: str, request: ReleaseRequest, claim: ClaimInfo | None
) -> documents.AskRelease:
    """The document of a request to release. ``claim`` is the claim afterwards; None if it has ended."""
    return documents.AskRelease(
        store=making.store(client),
        name=name,
        claim_id=claim_id,
        request=making.release_request(name, request),
        claim=None if claim is None else making.claim(claim),
    )
