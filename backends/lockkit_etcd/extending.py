"""Extend: the claim moves to a lease that is long enough, for a lease itself cannot be made longer."""

from __future__ import annotations

import time

from lockkit.store.spi import Claim, Renewal
from lockkit_etcd.moving import GRACE, Move, move_one
from lockkit_etcd.store import EtcdStore

__all__ = ["extend"]


def extend(store: EtcdStore, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
    """See :meth:`lockkit.store.spi.Backend.extend`.

    Raises:
        Refused, Unknown: The claim has not moved, or it is not known whether it has.
    """
    end = time.monotonic() + budget
    entry = store.entries.get(claim.token)
    if entry is None and store.buried(claim.token):
        return Renewal("LOST", why="absent")
    grace = 0.0 if entry is not None else budget + GRACE
    return move_one(store, Move(claim, entry, fence, ttl, grace), end)
