"""A program that locks: it bills each invoice once, and stops when it has lost its lock."""

from collections.abc import Callable, Iterable

import lockkit


def bill(client: lockkit.Client, number: int) -> str:
    """Bill an invoice, unless somebody else does."""
    with client.lock(f"invoice:{number}").acquire(timeout=0) as lease:
        return f"billed {number} under fence {lease.fence}"


def nightly(
    client: lockkit.Client, rows: Iterable[int], write: Callable[[int, lockkit.Lease], object]
) -> int:
    """Write rows as long as the lock is held; return the number of rows that were written."""
    written = 0
    try:
        with client.lock("nightly", max_hold=3600).acquire(timeout=0) as lease:
            for row in rows:
                lease.ensure_held()
                write(row, lease)
                written += 1
    except lockkit.LeaseLost:
        pass  # the next run goes on
    return written
