"""Keepalives for many leases: several requests of many leases each, some of them under way at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from lockkit.store.budgets import left
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.together import together
from lockkit_etcd.transport import Kept

__all__ = ["in_batches"]

_BATCH = 500
"""Leases in one request."""
_AT_ONCE = 4
"""Requests under way at once: a follower passes each lease on to the leader with a round trip of its own."""


def in_batches(
    leases: Sequence[int], budget: float, ask: Callable[[Sequence[int], float], Mapping[int, Kept]]
) -> Mapping[int, Kept]:
    """Keep leases alive, by ``ask(some of them, seconds)``, and return what was answered in time.

    Raises:
        Refused, Unknown: None of them was answered.
    """
    end = time.monotonic() + budget
    kept: dict[int, Kept] = {}
    batches = [leases[at : at + _BATCH] for at in range(0, len(leases), _BATCH)]
    troubles: list[Refused | Unknown] = []

    def work() -> None:
        while batches:
            try:
                batch = batches.pop()
            except IndexError:
                return
            try:
                kept.update(ask(batch, left(end)))
            except (Refused, Unknown) as trouble:
                troubles.append(trouble)

    together(work, min(len(batches), _AT_ONCE), "lockkit-etcd-keepalive", end)
    if troubles and not kept:
        raise troubles[0]
    return dict(kept)
