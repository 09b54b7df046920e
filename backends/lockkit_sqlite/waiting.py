"""Wait: be woken by the process that releases a blocker, or by the death of a process that has one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lockkit.names import claim_id
from lockkit.store.spi import Claim, Refused, Unknown, Watch
from lockkit_sqlite.rows import fitting
from lockkit_sqlite.store import SQLiteStore

__all__ = ["watch"]

_LOOK = 0.5
"""Seconds that reading the queue after subscribing may take; then the waiter asks again instead."""


def watch(
    store: SQLiteStore, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim
) -> Watch:
    """See :meth:`lockkit.store.spi.Backend.watch`. A blocker is its fence, a dot, and the FIFO of its process if it has one."""
    parted = [blocker.partition(".") for blocker in blockers]
    running, dead = store.pulses.watch(
        bytes.fromhex(claim_id(claim.token)), [fifo for _, _, fifo in parted], wake
    )
    if dead or _moved(store, name, {fence for fence, _, _ in parted}, claim):
        running.ring()
    return running


def _moved(store: SQLiteStore, name: str, fences: set[str], claim: Claim) -> bool:
    """Whether something happened between the answer that named the blockers and the subscription."""
    try:
        rows = store.queue(store.calls, name, time.monotonic() + _LOOK)
    except (Refused, Unknown):
        return True
    place = next((at for at, row in enumerate(rows) if row.token == claim.token), None)
    return place is None or place < fitting(rows) or not fences <= {str(row.fence) for row in rows}
