"""Resize: a node is added to the queue, with the new capacity of all claims before it.

The capacity of a claim is part of its node's name. A node cannot be renamed, and a node of another session cannot be created again.
So a resize adds a **marker**, numbered by the server like a claim: every claim with a smaller number has the marker's capacity. A
listing shows it together with the claims, so all clients see the change at the same point of the queue's history.

Claims that were held stay held, even beyond the new prefix. A listing does not show which claims these are; so the marker names the
number up to which claims fitted before (``all`` includes claims that came between the listing and the marker). While one of them
is beyond the prefix, nothing is granted.

The same transaction writes to the data of every claim, on condition that the data is as it was read. So the queue is as listed, except
for new claims at its end; waiters that watch these nodes are woken; and each owner learns that a marker has to be deleted with the last
of these claims.
"""

from __future__ import annotations

from typing import Any

from lockkit.store.comparing import ROUNDS, overtaken
from lockkit.store.layouts import check_reader
from lockkit.store.queue import check_capacity
from lockkit_zookeeper.layout import Queue
from lockkit_zookeeper.node_data import VERSION, packed
from lockkit_zookeeper.operating import listed, read_claims
from lockkit_zookeeper.private import Create, Delete, SetData
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["resize"]

_PERSISTENT_SEQUENTIAL = 2


def resize(store: ZooKeeperStore, name: str, capacity: int, budget: float) -> int:
    """See :meth:`lockkit.store.spi.Backend.resize`.

    Raises:
        ConfigError: The capacity is not a whole number of at least 1.
        Refused: With IncompatibleLayout, if a claim is for newer readers.
    """
    check_capacity(capacity, name)
    call, parent = store.call(budget), store.paths.queue(name)
    for _ in range(ROUNDS):
        queue = listed(store, call, name)
        if not queue.claims:
            return 0
        read = read_claims(store, call, name, queue)
        if None in read:
            continue
        marker = f"{parent}/resize-{capacity}-{_fitted(queue)}-"
        operations: list[Any] = [Create(marker, b"", store.acl, _PERSISTENT_SEQUENTIAL)]
        for place, (claim, each) in enumerate(zip(queue.claims, read, strict=True)):
            assert each is not None
            data, stat = each
            check_reader(data, VERSION, f"the queue of {name!r}")
            path = f"{parent}/{claim.node}"
            if claim.weight > capacity and queue.surely_waits(place):
                operations.append(Delete(path, stat.version))
            else:
                operations.append(SetData(path, packed({**data, "resized": capacity}), stat.version))
        operations += [Delete(f"{parent}/{node}", -1) for node in (*queue.markers, *queue.spent)]
        if call.commit(operations):
            return len(queue.claims)
    raise overtaken(f"the queue of {name!r}")


def _fitted(queue: Queue) -> str:
    """The number up to which claims may hold; ``all`` if one that comes now may hold, too."""
    last = max(
        (claim.number for at, claim in enumerate(queue.claims) if not queue.surely_waits(at)), default=-1
    )
    return "all" if last == queue.claims[-1].number else str(last)
