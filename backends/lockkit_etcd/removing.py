"""Remove many claims of this client in one transaction: a conditional deletion for each, as in a release.

A lease on which a request of its claim may still be under way is revoked afterwards, as in a release, with
one request each. Only the revocation removes a claim whose acquire was not answered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from lockkit.errors import OutcomeUnknown
from lockkit.store.exchanges import Exchange, in_parallel
from lockkit.store.spi import End, Refused, Removal, Unknown
from lockkit_etcd.releasing import guard_if_over, release, settle_leases
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.transport import Compare, Delete, Txn

__all__ = ["remove_many"]

_DELETIONS = 100
"""Deletions in one transaction. etcd counts along one path: 100 nested and 3 operations are 103 of 128."""
_AT_ONCE = 8
"""Claims that are removed at the same time, of those that need requests of their own."""


def remove_many(
    store: EtcdStore, removals: Sequence[Removal], budget: float
) -> Exchange[list[Refused | Unknown | None]]:
    """See :class:`lockkit.store.spi.Extras`."""
    end = time.monotonic() + budget
    entries = {
        at: entry for at, each in enumerate(removals) if (entry := _removable(store, each)) is not None
    }
    for at, entry in entries.items():
        store.bury(removals[at].claim.token)
        entry.stage = "ENDING"  # from here on nothing keeps it alive
    unanswered = Unknown(
        OutcomeUnknown(f"{store.transport.where}: no answer in time", hint="it is asked again")
    )
    found: list[Refused | Unknown | None] = [unanswered] * len(removals)
    left = [at for at in range(len(removals)) if at not in entries]
    places = list(entries)
    for first in range(0, len(places), _DELETIONS):
        some = places[first : first + _DELETIONS]
        try:
            yield from store.txn(
                Txn((), tuple(_deletion(store, entries[at], removals[at].how) for at in some)), end
            )
        except (Refused, Unknown) as trouble:
            for at in some:
                found[at] = trouble
        else:
            left += some

    def work(at: int) -> Exchange[None]:
        try:
            yield from _end(store, removals[at], entries.get(at), end)
        except (Refused, Unknown) as trouble:
            found[at] = trouble
        else:
            found[at] = None

    for at in [at for at in left if at in entries and not store.in_doubt(entries[at])]:
        left.remove(at)
        yield from work(at)  # without a request
    yield from in_parallel(left, work, _AT_ONCE, "lockkit-etcd-remove", end)
    return list(found)  # an answer that comes after the end must not count as one before it


def _removable(store: EtcdStore, removal: Removal) -> Entry | None:
    """The entry of a claim that needs no look at what is stored; None if it does, as in a release."""
    entry = store.entries.get(removal.claim.token)
    if entry is None:
        return None
    if not entry.fence and entry.guard is not None:
        return None
    never_held = entry.stage == "WAITING" and not store.in_doubt(entry)
    delay = removal.claim.terms.lock_delay or entry.claim.terms.lock_delay
    return entry if never_held or removal.how == "unused" or not delay else None


def _deletion(store: EtcdStore, entry: Entry, how: End) -> Txn | Delete:
    note = Delete(store.note(entry.id))
    if not entry.fence:  # an acquire without an answer may have stored it: its lease is revoked
        return note
    mine = Compare(entry.key, "CREATE", "EQUAL", entry.fence)
    return Txn((mine,), (Delete(entry.key), *guard_if_over(store, entry, how), note), (note,))


def _end(store: EtcdStore, removal: Removal, entry: Entry | None, end: float) -> Exchange[None]:
    """Do the rest for a claim: all of it without an entry, otherwise what the deletion has not done."""
    if entry is None:
        left = end - time.monotonic()
        yield from release(store, removal.claim, left, how=removal.how)
        return
    yield from settle_leases(store, store.transport, entry, end, how=removal.how)
    store.over(entry, *entry.leases)
