"""Renewal of claims that another client object made, for a client that has their token."""

from __future__ import annotations

import time

from lockkit.store.budgets import left
from lockkit.store.spi import Claim, Renewal
from lockkit_etcd.moving import GRACE, Move, move_one
from lockkit_etcd.store import EtcdStore

__all__ = ["renew_strangers"]


def renew_strangers(store: EtcdStore, claim: Claim, fence: int | None, end: float) -> Renewal:
    """Renew a claim of another client object; in another term than its lease's, by moving it.

    Raises:
        Refused, Unknown: No renewal of the claim is certain.
    """
    _, row = store.find(claim, end)
    if row is None:
        return Renewal("LOST", why="absent")
    if row.evicted:
        return Renewal("LOST", why="evicted")
    if row.state == "LINGERING":
        return Renewal("LOST", why="lapsed")
    if fence is None and row.state == "HELD":
        return Renewal("OFFERED")
    if fence is not None and (row.state != "HELD" or row.fence != fence):
        return Renewal("LOST", why="fence")
    kept = store.transport.keepalive((row.lease,), left(end)).get(row.lease)
    if fence is None:
        return Renewal("WAITING")
    header, now = store.find(claim, end)
    same = now is not None and (now.fence, now.lease) == (row.fence, row.lease)
    if kept is not None and same and store.leases.counts(row.term, kept, header.term):
        return Renewal("HELD", kept.sent)
    grace = end - time.monotonic() + GRACE
    return move_one(store, Move(claim, None, fence, grace=max(grace, GRACE)), end)
