"""Wait: be woken by the process that releases a blocker, or by the death of a process that has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lockkit.names import claim_id
from lockkit.store.spi import Claim
from lockkit_sqlite.pulses import BellWatch
from lockkit_sqlite.store import SQLiteStore

__all__ = ["watch"]


def watch(
    store: SQLiteStore, blockers: Sequence[str], wake: Callable[[], None], claim: Claim, *, reads: bool
) -> BellWatch:
    """See :meth:`lockkit.store.spi.Backend.watch`; with ``reads`` for a thread that may listen to the FIFOs itself. A blocker is its fence, a dot, and the FIFO of its process if it has one.

    Between the answer that named the blockers and this call a blocker may have gone. Then its process has rung the bell, which is
    kept for the claim; or it has died, which the attempt to watch it tells.
    """
    running, missed = store.pulses.watch(
        bytes.fromhex(claim_id(claim.token)),
        [blocker.partition(".")[2] for blocker in blockers],
        wake,
        reads=reads,
    )
    if missed:
        running.ring()
    return running
