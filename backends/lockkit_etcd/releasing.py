"""Release: take the claim's key away; revoke its leases where a request of it may still be under way.

A key serves many claims, so what is deleted is what one revision created, and no other. Only the client that was granted a
lease revokes it, and only while it belongs to that claim: whoever has a copy of the token deletes the key and no more.
"""

from __future__ import annotations

import time

from lockkit.store.budgets import left
from lockkit.store.spi import ABSENT, RELEASED, Claim, Refused, ReleaseAnswer, Unknown
from lockkit_etcd import keys
from lockkit_etcd.leases import Lease
from lockkit_etcd.packed_terms import seconds
from lockkit_etcd.rows import Row, changing, mark_of, packed, rows
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.transport import (
    Compare,
    Delete,
    Get,
    LeaseGone,
    Put,
    Transport,
    Txn,
    TxnAnswer,
    after,
)

__all__ = ["release"]


def release(
    store: EtcdStore, transport: Transport, claim: Claim, budget: float, *, graceful: bool, abandon: bool
) -> ReleaseAnswer:
    """Release over a transport; ``abandon`` if some acquire of it was UNKNOWN: so that no late copy grants anything."""
    end = time.monotonic() + budget
    entry = store.entries.get(claim.token)
    store.bury(claim.token)
    if entry is None:
        return _by_look(store, transport, claim, end, graceful=graceful)
    entry.stage = "ENDING"  # from here on nothing keeps it alive
    if claim.terms.lock_delay or entry.claim.terms.lock_delay or not entry.fence:
        answer = _by_look(store, transport, claim, end, graceful=graceful)
    else:
        mine = Compare(entry.key, "CREATE", "EQUAL", entry.fence)
        note = keys.note(store.namespace, store.client, entry.id)
        request = Txn((mine,), (Delete(entry.key), *_guard(store, entry), Delete(note)), (Delete(note),))
        answer = RELEASED if _do(transport, request, end).succeeded else ABSENT
    try:
        _settle_leases(store, transport, entry, end, abandon=abandon)
    except Refused as refusal:  # the claim is gone, so this is no refusal of the whole
        raise Unknown(refusal.error, retry=refusal.retry) from refusal
    store.over(entry, *entry.leases)
    return answer


def _guard(store: EtcdStore, entry: Entry | None) -> tuple[Delete, ...]:
    """The removal of what goes on blocking for a claim, where its min_hold is over: its lease lasts for whole seconds."""
    if entry is None or entry.guard is None or entry.granted_at is None:
        return ()
    if store.clock.now() < entry.granted_at + entry.claim.terms.min_hold:
        return ()
    return (Delete(keys.guard_of(entry.key)),)


def _do(transport: Transport, request: Txn, end: float) -> TxnAnswer:
    return transport.txn(request, left(end))


def _settle_leases(
    store: EtcdStore, transport: Transport, entry: Entry, end: float, *, abandon: bool
) -> None:
    """Revoke what may still get a key, until definite; the rest may serve another claim.

    Raises:
        Refused, Unknown: The release is not definite yet. A second call continues from here.
    """
    for lease in store.at_stake(entry):
        if (abandon or lease.doubtful) and not lease.borrowed and store.spoil(entry, lease):
            _revoke(transport, lease, end)
    store.spoilt.pop(entry.claim.token, None)


def _revoke(transport: Transport, lease: Lease, end: float) -> None:
    try:
        transport.revoke(lease.id, left(end))
    except LeaseGone:
        return


def _by_look(
    store: EtcdStore, transport: Transport, claim: Claim, end: float, *, graceful: bool
) -> ReleaseAnswer:
    """Look what is stored, then remove it, or have it go on blocking: for claims that may linger, and other clients'."""
    entry, mark = store.entries.get(claim.token), mark_of(claim.token)
    where = Get(*store.known(claim.terms).keys)
    if entry is not None:
        where = Get(entry.key, after(keys.guard_of(entry.key)))
    while True:
        _, found = transport.range(where, left(end))
        row = next((row for row in rows(found.kvs) if row.mark == mark), None)
        if row is None:
            if entry is not None:  # perhaps evicted at once: its note is of no use any more
                note = keys.note(store.namespace, store.client, entry.id)
                _do(transport, Txn((), (Delete(note),)), end)
            return ABSENT
        if row.state == "LINGERING":  # a guard goes on blocking
            return RELEASED
        try:
            when, then = _removal(store, transport, row, end, graceful=graceful)
            if _do(transport, Txn(when, (*then, *_guard(store, entry))), end).succeeded:
                return RELEASED
        except LeaseGone:  # this process stood still for the whole length of the guard's lease
            pass
        if time.monotonic() >= end:
            raise changing(claim.terms.name)


def _removal(
    store: EtcdStore, transport: Transport, row: Row, end: float, *, graceful: bool
) -> tuple[tuple[Compare, ...], tuple[Delete | Put, ...]]:
    unchanged = Compare(row.key, "MOD", "EQUAL", row.modified)
    client = str(row.value.get("client", ""))
    key = keys.note(store.namespace, client, row.id)
    # A keepalive does not name the claim: a note tells a client that may still renew it.
    theirs = client != store.client and row.state == "HELD" and not row.evicted
    note = Put(key, packed({"why": "released"}), row.lease) if theirs else Delete(key)
    delay = row.value.get("lock_delay", 0.0)
    if row.state == "HELD" and delay and (row.evicted or not graceful):
        rest = store.leases.grant(
            seconds(delay), end, transport
        )  # a lease of its own, so that it ends even if every client dies
        value = packed({**row.value, "state": "LINGERING"})
        return (unchanged,), (Put(row.key, value, rest.id), note)
    return (unchanged,), (Delete(row.key), note)
