"""The parts of JSON documents, made from facts: claims, locks, owners, stores, findings.

Missing values are null, and claims are shown by claim id, never by token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lockkit.views import parts
from lockkit.views.texts import located, lock_state, rfc3339

if TYPE_CHECKING:
    from lockkit.errors import LockkitError
    from lockkit.facts import ClaimInfo, Drain, Finding, LockInfo, Owner, Record, ReleaseRequest
    from lockkit.sync.client import Client

__all__ = [
    "claim",
    "drain",
    "findings",
    "lock",
    "owner",
    "record",
    "release_request",
    "store",
    "unread",
]


def store(client: Client) -> parts.Store:
    """The store of a client: its URL, where the URL was set, and the namespace."""
    return parts.Store(url=located(client), source=client.url_source, namespace=client.namespace)


def owner(who: Owner) -> parts.Owner:
    """The owner of a claim."""
    return parts.Owner(
        user=who.user,
        host=who.host,
        pid=who.pid,
        boot_id=who.boot_id,
        program=who.program,
        pod=who.pod,
        task=who.task,
        task_id=who.task_id,
        retries=who.retries,
        worker=who.worker,
        version=who.version,
        pod_namespace=who.pod_namespace,
        node=who.node,
    )


def claim(info: ClaimInfo) -> parts.Claim:
    """One claim of a queue."""
    return parts.Claim(
        name=info.name,
        claim_id=info.claim_id,
        state=info.state,
        kind=info.kind,
        position=info.position,
        weight=info.weight,
        capacity=info.capacity,
        fence=info.fence,
        owner=owner(info.owner),
        since=rfc3339(info.since),
        since_seconds=info.since,
        renewed=rfc3339(info.renewed or None),
        renewed_seconds=info.renewed or None,
        deadline=rfc3339(info.deadline),
        deadline_seconds=info.deadline,
        ttl_seconds=info.ttl,
        process_bound=info.process_bound,
        evicted=info.evicted,
        alive=info.alive,
        evidence=info.evidence,
        note=dict(info.note),
        process=info.process,
        kept_by=[parts.Keeper(pid=each.pid, program=each.program) for each in info.kept_by],
        reason=info.reason,
        progress=_progress(info),
        release_requests=[release_request(info.name, each) for each in info.release_requests],
    )


def _progress(info: ClaimInfo) -> parts.Progress | None:
    """The last news of a holder."""
    told = info.progress
    if told is None:
        return None
    return parts.Progress(done=told.done, message=told.message, at=rfc3339(told.at), at_seconds=told.at)


def release_request(name: str, request: ReleaseRequest) -> parts.ReleaseRequest:
    """A request to the holder of a lock to release it."""
    return parts.ReleaseRequest(
        name=name, by=request.by, reason=request.reason, at=rfc3339(request.at), at_seconds=request.at
    )


def lock(info: LockInfo, told: slice = slice(None)) -> parts.Lock:
    """The queue of one name, with the waiters in the slice ``told``: making 1,000 takes 15 ms."""
    return parts.Lock(
        name=info.name,
        state=lock_state(info),
        capacity=info.capacity,
        available=info.available,
        holders=[claim(one) for one in info.holders],
        waiters=[claim(one) for one in info.waiters[told]],
        waiting=len(info.waiters),
        read_at=rfc3339(info.read_at),
        read_at_seconds=info.read_at,
    )


def drain(mark: Drain) -> parts.Drain:
    """The mark of a drained namespace."""
    return parts.Drain(
        namespace=mark.namespace,
        reason=mark.reason,
        owner=owner(mark.owner),
        since=rfc3339(mark.since),
        since_seconds=mark.since,
        partial=mark.partial,
    )


def record(of_name: Record) -> parts.NameRecord:
    """The record of one name."""
    return parts.NameRecord(
        value=dict(of_name.value),
        version=of_name.version,
        written=rfc3339(of_name.written),
        written_seconds=of_name.written,
        damaged=of_name.damaged,
    )


def findings(found: Sequence[Finding]) -> list[parts.Finding]:
    """Convert findings, each with what to do about it."""
    return [
        parts.Finding(check=one.check, severity=one.severity, message=one.message, hint=one.hint or None)
        for one in found
    ]


def unread(found: Iterable[tuple[str, LockkitError]]) -> list[parts.Unread]:
    """The locks that could not be read, by their names, each with its error."""
    return [
        parts.Unread(name=name, error=type(error).__name__, message=error.message, hint=error.hint or None)
        for name, error in found
    ]
