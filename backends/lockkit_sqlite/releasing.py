"""Release: remove the claim by compare, then wake the waiters that fit now."""

from __future__ import annotations

from lockkit.store.spi import ABSENT, RELEASED, Claim, End, ReleaseAnswer
from lockkit_sqlite import statements as sql
from lockkit_sqlite.connection import Connection
from lockkit_sqlite.layout import LINGERING
from lockkit_sqlite.rows import check_rows
from lockkit_sqlite.store import SQLiteStore

__all__ = ["release"]


def release(
    store: SQLiteStore, connection: Connection, claim: Claim, end: float, *, how: End
) -> ReleaseAnswer:
    """See :meth:`lockkit.store.spi.Backend.release`. An emergency release has its own ``connection``."""
    terms = claim.terms
    key, ends = (store.namespace, terms.name, claim.token), sql.ENDS[how]
    store.placed.pop(claim.token, None)
    last = not store.crowds.likely(terms.name)
    if last and connection.write(sql.REMOVE_LAST, lambda now: (*key, now, ends), end)[0]:
        return RELEASED
    while True:
        removed, now = connection.write(sql.REMOVE, lambda now: (*key, now, ends), end)
        if removed:
            break
        if connection.write(sql.LINGER, lambda now: (*key, now, ends), end)[0]:
            store.ring_fitting(connection, terms.name, end, next_too=True)
            return RELEASED
        rows = store.seen(connection, terms.name, end)
        mine = next((row for row in rows if row.token == claim.token), None)
        if mine is not None and mine.state == LINGERING and mine.deadline > now:
            return RELEASED
        if mine is not None:  # lapsed, and still there: only a queue that can be read is settled
            check_rows(rows, terms.name, now)
        settled = store.settle(connection, terms.name, rows, store.now(), end)
        if mine is None:
            if not settled:
                return ABSENT
            break
        # The claim had lapsed and was still there. A slower renewal may have extended it since: look again.
    # A waiter that gives up may be the blocker of another: the next in line must look for a new one.
    store.ring_fitting(connection, terms.name, end, next_too=how != "released", gone=terms.weight)
    return RELEASED if removed else ABSENT
