"""The past as JSON documents have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockkit.views import documents, making, parts
from lockkit.views.texts import rfc3339

if TYPE_CHECKING:
    from lockkit.observe.past import Gaps, Happening, History, PastHold, PastStep, PastWait, StoreKey

__all__ = ["document", "gaps", "hold", "step", "store_key"]


def document(history: History) -> documents.History:
    """The document of ``lockkit history``: all that was read, each list in the order of time."""
    return documents.History(
        files=list(history.files),
        first=rfc3339(history.first),
        holds=documents.Each(hold, history.holds),
        waits=documents.Each(_wait, history.waits),
        happenings=documents.Each(_happening, history.happenings),
        unbegun=history.unbegun,
        gaps=gaps(history.gaps),
    )


def gaps(found: Gaps) -> parts.Gaps:
    """The missing parts, for a document."""
    return parts.Gaps(
        torn=found.torn,
        missed=found.missed,
        absent=found.absent,
        unended=[making.owner(owner) for owner in found.unended],
        unheard=list(found.unheard),
        unreadable=list(found.unreadable),
    )


def store_key(key: StoreKey) -> parts.StoreKey:
    """The store of a lock, for a document."""
    return parts.StoreKey(url=key.store, namespace=key.namespace, within=key.within)


def hold(one: PastHold) -> parts.PastHold:
    """A hold, for a document."""
    return parts.PastHold(
        store=store_key(one.key),
        name=one.name,
        claim_id=one.claim_id,
        fence=one.fence,
        kind=one.kind,
        weight=one.weight,
        capacity=one.capacity,
        owner=making.owner(one.owner),
        waited_seconds=one.waited,
        began=rfc3339(one.began),
        began_seconds=one.began,
        ended=rfc3339(one.ended),
        ended_seconds=one.ended,
        end=one.end or "held",
        reason=one.reason,
        began_boottime=one.began_boottime,
        until_boottime=one.until_boottime,
        idle_seconds=one.idle,
        ttl_seconds=one.ttl,
    )


def _wait(one: PastWait) -> parts.PastWait:
    return parts.PastWait(
        store=store_key(one.key),
        name=one.name,
        owner=making.owner(one.owner),
        outcome=one.outcome,
        ended=rfc3339(one.ended),
        ended_seconds=one.ended,
        waited_seconds=one.waited,
        holder=one.holder,
    )


def _happening(one: Happening) -> parts.Happening:
    return parts.Happening(
        store=store_key(one.key),
        kind=one.kind,
        at=rfc3339(one.at),
        at_seconds=one.at,
        name=one.name,
        claim_id=one.claim_id,
        owner=making.owner(one.owner),
        priority=one.priority,
        text=one.text,
    )


def step(one: PastStep) -> parts.PastStep:
    """A step of a guard, for a document."""
    return parts.PastStep(
        resource=one.resource,
        kind=one.kind,
        fence=one.fence,
        claim_id=one.claim_id,
        owner=making.owner(one.owner),
        at=rfc3339(one.at),
        at_seconds=one.at,
        lasted_seconds=one.lasted,
        boottime=one.boottime,
    )
