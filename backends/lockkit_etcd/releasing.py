"""Release: delete the claim's key, and revoke its leases if a request of the claim may still be under way.

A key serves many claims, so the deletion names the revision that created this one. Only the client that was
granted a lease revokes it, while it serves that claim. A client with only the token deletes the key alone.
"""

from __future__ import annotations

import time
from typing import Any

from lockkit.lib.namedtuples import made
from lockkit.store.exchanges import Exchange
from lockkit.store.spi import ABSENT, RELEASED, Claim, End, Refused, ReleaseAnswer, Unknown
from lockkit_etcd import keys
from lockkit_etcd.cluster import Cluster
from lockkit_etcd.rows import Row, in_time, mark_of, packed, seconds
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.transport import Compare, Delete, Get, LeaseGone, Put, Txn, after

__all__ = ["emergency_release", "guard_if_over", "release", "settle_leases"]


def emergency_release(store: EtcdStore, claim: Claim, budget: float, *, how: End) -> Exchange[ReleaseAnswer]:
    """See :meth:`lockkit.store.spi.Backend.emergency_release`."""
    fresh = store.transport.fresh()
    try:
        return (yield from release(store, claim, budget, how=how, over=fresh))
    finally:
        fresh.close()


def release(
    store: EtcdStore,
    claim: Claim,
    budget: float,
    *,
    how: End,
    over: Cluster[Any] | None = None,
) -> Exchange[ReleaseAnswer]:
    """Release a claim, over ``over`` if given; revoke the leases of an acquire that was not answered."""
    over = over or store.transport
    end = time.monotonic() + budget
    entry = store.entries.get(claim.token)
    store.bury(claim.token)
    if entry is None:
        return (yield from _by_look(store, over, claim, end, how=how))
    entry.stage = "ENDING"  # from here on nothing keeps it alive
    answer: ReleaseAnswer
    if claim.terms.lock_delay or entry.claim.terms.lock_delay or not entry.fence:
        answer = yield from _by_look(store, over, claim, end, how=how)
    else:
        mine = made(Compare, (entry.key, "CREATE", "EQUAL", entry.fence, b""))
        key, note = made(Delete, (entry.key, b"")), made(Delete, (store.note(entry.id), b""))
        request = made(Txn, ((mine,), (key, *guard_if_over(store, entry, how), note), (note,)))
        answer = RELEASED if (yield from store.txn(request, end, over=over)).succeeded else ABSENT
    try:
        yield from settle_leases(store, over, entry, end, how=how)
    except Refused as refusal:  # the claim is gone, so this is no refusal of the whole
        raise Unknown(refusal.error, retry=refusal.retry) from refusal
    store.over(entry, *entry.leases)
    return answer


def guard_if_over(store: EtcdStore, entry: Entry | None, how: End) -> tuple[Delete, ...]:
    """The removal of a guard that nobody needs, or whose min_hold is over: its lease lasts whole seconds."""
    if entry is None or entry.guard is None:
        return ()
    since = entry.granted_at
    if how != "unused" and (since is None or store.clock.now() < since + entry.claim.terms.min_hold):
        return ()
    return (Delete(keys.guard_of(entry.key)),)


def settle_leases(
    store: EtcdStore, over: Cluster[Any], entry: Entry, end: float, *, how: End
) -> Exchange[None]:
    """Revoke the leases on which a request may still put a key; the others may serve another claim.

    A lease is doubtful from before such a request is sent until every one had a definite answer. The lease of
    an unused claim's guard goes too: a request that arrives after the look would leave a guard for good.

    Raises:
        Refused, Unknown: The release is not definite yet. A second call continues from here.
    """
    for lease in store.at_stake(entry):
        if lease is entry.guard and how != "unused":
            continue
        if lease.doubtful and store.spoil(entry, lease):
            try:
                yield from over.revoke(lease.id, end)
            except LeaseGone:
                continue
    entry.spoilt = ()


def _by_look(
    store: EtcdStore, over: Cluster[Any], claim: Claim, end: float, *, how: End
) -> Exchange[ReleaseAnswer]:
    """Look at the claim, then remove it or make it linger: with a lock_delay, or for another client's."""
    entry, mark = store.entries.get(claim.token), mark_of(claim.token)
    where = store.known(claim.terms).queue
    if entry is not None:
        where = Get(entry.key, after(keys.guard_of(entry.key)))
    while True:
        _, found = yield from store.queue(where, end, over)
        row = next((row for row in found if row.mark == mark), None)
        if row is None:
            if entry is not None:  # perhaps evicted at once: nobody needs its note any more
                yield from store.txn(Txn((), (Delete(store.note(entry.id)),)), end, over=over)
            return ABSENT
        if row.state == "LINGERING" and not (row.guard and how == "unused"):
            return RELEASED
        try:
            then = yield from _removal(store, over, row, end, how=how)
            request = Txn((row.unchanged,), (*then, *guard_if_over(store, entry, how)))
            if (yield from store.txn(request, end, over=over)).succeeded:
                return RELEASED
        except LeaseGone:  # this process stood still for the whole length of the guard's lease
            pass
        in_time(claim.terms.name, end)


def _removal(
    store: EtcdStore, over: Cluster[Any], row: Row, end: float, *, how: End
) -> Exchange[tuple[Delete | Put, ...]]:
    key = store.note_on(row)
    notes: tuple[Delete | Put, ...] = ()
    if key == store.note(row.id):
        notes = (Delete(key),)
    elif row.state == "HELD" and not (
        row.evicted or row.leaving
    ):  # otherwise its client has a note, or reads the claim
        # Keepalives do not name claims, so a client that still renews this one learns of its end from a note.
        notes = (Put(key, packed({"why": "released"}), row.lease),)
    delay = row.value.get("lock_delay", 0.0)
    if row.state == "HELD" and delay and how != "unused" and (row.evicted or how == "ungraceful"):
        # On a lease of its own, so that it ends even if every client dies.
        rest = yield from store.leases.grant(seconds(delay), end, over)
        return Put(row.key, packed({**row.value, "state": "LINGERING"}), rest.id), *notes
    return Delete(row.key), *notes
