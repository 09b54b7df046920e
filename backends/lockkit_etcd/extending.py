"""Extend: the claim moves to a lease that is long enough, for a lease itself cannot be made longer."""

from __future__ import annotations

import time

from lockkit.spi import Claim, Renewal
from lockkit_etcd import keys
from lockkit_etcd.leases import Lease
from lockkit_etcd.rows import Row, changing, packed
from lockkit_etcd.stated import seconds
from lockkit_etcd.store import Store
from lockkit_etcd.transport import Compare, LeaseGone, Put, Txn

__all__ = ["extend"]

_GRACE = 1.0


def extend(store: Store, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
    """See :meth:`lockkit.spi.Backend.extend`.

    Raises:
        Refused, Unknown: It has not moved, or nobody says whether it has.
    """
    end = time.monotonic() + budget
    entry = store.entries.get(claim.token)
    if entry is None and store.buried(claim.token):
        return Renewal("LOST", why="absent")
    lease: Lease | None = None
    while True:
        _, row = store.find(claim, end)
        if row is None or (entry is not None and entry.stage == "ENDING"):
            return Renewal("LOST", why="absent")
        if row.evicted:
            return Renewal("LOST", why="evicted")
        if row.state != "HELD" or row.fence != fence:
            return Renewal("LOST", why="fence")
        if entry is not None and entry.hold is not None and entry.hold.over(store.clock.now()):
            return Renewal("LOST", why="lapsed")
        if lease is None:
            longest = row.value.get("max_hold")
            length = ttl if longest is None else min(ttl, longest)
            # Its holder, if it is another client, goes on renewing the old lease until it reads the note.
            more = 0.0 if entry is not None else budget + _GRACE
            lease = store.leases.grant(seconds(length + row.value.get("lock_delay", 0.0) + more), end)
            store.spoilt.setdefault(claim.token, []).append(lease)  # until it is known to be the one
        try:
            answer = store.txn(_move(store, row, lease, ttl), end, lease)
        except LeaseGone:  # this process stood still for as long as it lasts
            lease = None
        else:
            if answer.succeeded:
                store.moved(claim, entry, lease)
                return Renewal("HELD", lease.basis, row.value.get("note") if row.value.get("asked") else None)
        if time.monotonic() >= end:
            raise changing(claim.terms.name)


def _move(store: Store, row: Row, lease: Lease, ttl: float) -> Txn:
    unchanged = Compare(row.key, "MOD", "EQUAL", row.modified)
    put = Put(row.key, packed({**row.value, "ttl": ttl}), lease.id)
    # For this client too: an older note may name an older lease, and this answer may get lost.
    note: dict[str, object] = {"lease": lease.id}
    if row.value.get("asked"):
        note["note"] = row.value.get("note", {})
    key = keys.note(store.namespace, str(row.value.get("client", "")), row.id)
    return Txn((unchanged,), (put, Put(key, packed(note), lease.id)))
