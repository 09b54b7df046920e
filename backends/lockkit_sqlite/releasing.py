"""Release: remove the claim by compare, then ring for those who fit now."""

from __future__ import annotations

from lockkit.store.spi import ABSENT, RELEASED, Claim, ReleaseAnswer
from lockkit_sqlite import statements as sql
from lockkit_sqlite.layout import LINGERING
from lockkit_sqlite.link import Link
from lockkit_sqlite.store import SQLiteStore

__all__ = ["release"]


def release(store: SQLiteStore, link: Link, claim: Claim, end: float, *, graceful: bool) -> ReleaseAnswer:
    """See :meth:`lockkit.store.spi.Backend.release`. Over ``link``: the emergency layer brings its own."""
    terms = claim.terms
    key = (store.namespace, terms.name, claim.token)
    if link.write(sql.REMOVE_LAST, lambda now: (*key, now, graceful), end)[0]:
        return RELEASED
    while True:
        removed, now = link.write(sql.REMOVE, lambda now: (*key, now, graceful), end)
        if removed:
            break
        if link.write(sql.LINGER, lambda now: (*key, now, graceful), end)[0]:
            store.ring_fitting(link, terms.name, end, next_too=True)
            return RELEASED
        rows = store.queue(link, terms.name, end)
        mine = next((row for row in rows if row.token == claim.token), None)
        if mine is not None and mine.state == LINGERING and mine.deadline > now:
            return RELEASED
        settled = store.settle(link, terms.name, rows, store.now(), end)
        if mine is None:
            if not settled:
                return ABSENT
            break
        # It had lapsed and stood; a renewal that read its clock before that may have extended it since: look again.
    # A waiter that gives up is somebody's blocker: the next in line must look for another.
    store.ring_fitting(link, terms.name, end, next_too=not graceful, gone=terms.weight)
    return RELEASED if removed else ABSENT
