"""Resize: one node more in the queue, which says the new capacity for all that came before it.

The capacity of a claim is in the name of its node, and neither can a node be renamed nor another session's be made anew. So a
**marker** is put into the queue, numbered by the server like a claim: whatever has a smaller number goes by the marker. A
listing shows it together with the claims, so everybody sees the change at the same point of the queue's history.

Who held before goes on holding, though beyond the new prefix. A listing does not tell who that is; so the marker names the
number up to which claims fitted before (``all``: those that came between the listing and the marker, too), and while one of
them stands beyond the prefix nobody is granted anything.

In the same step every claim's data is written, on condition that it is as read: so the queue is as listed, but for newcomers at
its end; those who watch are woken; and each owner knows that a marker waits to be taken away when the last of them has gone.
"""

from __future__ import annotations

from typing import Any

from lockkit.store.comparing import ROUNDS, overtaken
from lockkit.store.queue import check_capacity
from lockkit_zookeeper.layout import Queue
from lockkit_zookeeper.node_data import packed
from lockkit_zookeeper.operating import listed, read_claims
from lockkit_zookeeper.private import Create, Delete, SetData
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["resize"]

_PERSISTENT_SEQUENTIAL = 2


def resize(store: ZooKeeperStore, name: str, capacity: int, budget: float) -> int:
    """See :meth:`lockkit.store.spi.Backend.resize`.

    Raises:
        ConfigError: Not a whole number of at least 1.
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
    """The number up to which claims may hold; ``all`` if one that comes now may, too."""
    last = max(
        (claim.number for at, claim in enumerate(queue.claims) if not queue.surely_waits(at)), default=-1
    )
    return "all" if last == queue.claims[-1].number else str(last)
