"""Resize: a node is added to the queue, with the new capacity of all claims before it.

A claim's capacity is part of its node's name. A node cannot be renamed, and one of another session cannot be
created again. So a resize adds a **marker**, numbered by the server like a claim: every claim with a smaller
number has its capacity. A listing shows both, so all clients see the change at the same point of the history.

Claims that were held stay held, even beyond the new prefix. A listing does not show which these are; so the
marker names the number up to which claims fitted before (``all`` includes claims that came between the
listing and the marker). While one of them is beyond the prefix, nothing is granted.

Some of these may not have been held: they fitted, and their owners had not asked yet. Only the owner knows.
So when it asks, and its claim is the last one that the marker lets hold, it replaces the marker by one that
ends before the claim. Otherwise two such claims would wait for each other for ever.

The same transaction writes to the data of every claim, on condition that the data is as read. So the queue is
as listed, except for new claims at its end; waiters that watch these nodes are woken; and each owner learns
that a marker has to be deleted with the last of these claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lockkit.store.comparing import ROUNDS, overtaken
from lockkit.store.layouts import check_reader
from lockkit.store.queue import check_capacity
from lockkit_zookeeper.layout import Queue
from lockkit_zookeeper.node_data import VERSION, packed
from lockkit_zookeeper.operating import listed, read_claims
from lockkit_zookeeper.private import Create, Delete, SetData
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["resize", "step_back"]

_PERSISTENT_SEQUENTIAL = 2


def resize(store: ZooKeeperStore, name: str, capacity: int, budget: float) -> int:
    """See :meth:`lockkit.store.spi.Backend.resize`.

    Raises:
        ConfigError: The capacity is not a whole number of at least 1.
        Refused: With IncompatibleLayout, if a claim is for newer readers.
    """
    check_capacity(capacity, name)
    call = store.call(budget)
    for _ in range(ROUNDS):
        queue = listed(store, call, name)
        if not queue.claims:
            return 0
        if _resized(store, call, name, queue, capacity):
            return len(queue.claims)
    raise overtaken(f"the queue of {name!r}")


def step_back(store: ZooKeeperStore, call: Call, name: str, token: str) -> None:
    """Keep the marker from letting a claim hold that does not, if it is the last of these. For its owner.

    If the answer is lost and the marker comes late, the claim does not hold by then either: it would fit only
    after another claim has gone or was resized, and then the transaction fails.

    Raises:
        Refused, Unknown: The marker may be as it was.
    """
    queue = listed(store, call, name)
    place = queue.place(token)
    if place is not None and queue.last_to_hold(place):
        _resized(store, call, name, queue, queue.claims[0].capacity, place)


def _resized(
    store: ZooKeeperStore, call: Call, name: str, queue: Queue, capacity: int, waiter: int = -1
) -> bool:
    """Resize a queue, if it is as listed; ``waiter`` is the place of a claim that is known to wait."""
    parent = store.paths.queue(name)
    read = read_claims(store, call, name, queue)
    waits = [queue.surely_waits(at) or at == waiter for at in range(len(read))]
    marker = f"{parent}/resize-{capacity}-{_fitted(queue, waits)}-"
    operations: list[Any] = [Create(marker, b"", store.acl, _PERSISTENT_SEQUENTIAL)]
    for claim, each, waiting in zip(queue.claims, read, waits, strict=True):
        if each is None:
            return False
        data, stat = each
        check_reader(data, VERSION, f"the queue of {name!r}")
        path = f"{parent}/{claim.node}"
        if claim.weight > capacity and waiting:
            operations.append(Delete(path, stat.version))
        else:
            operations.append(SetData(path, packed({**data, "resized": capacity}), stat.version))
    operations += [Delete(f"{parent}/{node}", -1) for node in (*queue.markers, *queue.spent)]
    return call.commit(operations)


def _fitted(queue: Queue, waits: Sequence[bool]) -> str:
    """The number up to which claims may hold; ``all`` if one that comes now may hold, too."""
    last = max(
        (claim.number for claim, waiting in zip(queue.claims, waits, strict=True) if not waiting), default=-1
    )
    return "all" if last == queue.claims[-1].number else str(last)
