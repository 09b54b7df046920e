"""Watches on the nodes that are in a waiter's way, and on its own session.

Watches are set with ``getData``, never with ``exists``: where there is no node there is nothing to watch, and no watch is left on
the server. kazoo drops all watches when a connection is cut; a session that comes back arms them anew and wakes its waiters.
That a node is written to matters only if it was a resize.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from kazoo.protocol.states import EventType

from lockkit.store.spi import Claim, Refused
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.layout import read_queue
from lockkit_zookeeper.node_data import unpacked
from lockkit_zookeeper.private import GetChildren, GetData
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["NodeWatch", "watch"]

_GLANCE = 0.25


class NodeWatch:
    """One waiter.

    Args:
        connection: The connection of the session that watches; None to watch nothing.
        parent: The queue.
        nodes: The nodes in its way.
        token: The waiter's token.
    """

    def __init__(
        self,
        connection: Connection | None,
        parent: str,
        nodes: Sequence[str],
        token: str,
        wake: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._watched: list[tuple[str, Callable[[Any], None]]] = []
        self._parent = parent
        self._nodes = nodes
        self._token = token
        self._wake: Callable[[], None] | None = wake
        self._entry: Entry | None = None
        self._resized: dict[str, object] = {}

    def close(self) -> None:
        """Stop. Answers that come later are ignored."""
        self._wake = None
        while self._watched:
            path, watcher = self._watched.pop()
            if self._connection is not None:
                self._connection.unwatch(path, watcher)
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.watches.pop(self, None)

    def stand_by(self, entry: Entry) -> None:
        """Wake for what happens to the claim itself, too."""
        self._entry = entry
        entry.watches[self] = None

    def wake(self) -> None:
        """Have it ask again."""
        wake = self._wake
        if wake is not None:
            wake()

    def arm(self) -> None:
        """Watch all of them, for the first time or because the connection is another one."""
        for node in self._nodes:
            self._look(node)

    def _look(self, node: str) -> None:
        if self._wake is None or self._connection is None:
            return
        connection, path = self._connection, f"{self._parent}/{node}"

        def changed(event: Any) -> None:
            if event.type == EventType.DELETED:
                self._left()
            elif (
                event.type != EventType.NONE
            ):  # a cut connection needs no wake: the session sets its watches again when it is back
                self._look(node)

        def read(answer: Any) -> None:
            if not answer.successful():
                self.wake()
            elif (resized := _resized(answer.value[0])) != self._resized.get(node):
                self._resized[node] = resized
                connection.send(GetChildren(self._parent, None)).rawlink(self._listed)

        self._watched.append((path, changed))
        connection.send(GetData(path, changed)).rawlink(read)

    def _left(self) -> None:
        """One of those in its way has gone. As a rule there is room now; after a resize others may be in the way."""
        if self._connection is not None and any(self._resized.values()):
            self._connection.send(GetChildren(self._parent, None)).rawlink(self._listed)
            return
        if self._entry is not None:
            self._entry.told = True
        self.wake()

    def _listed(self, answer: Any) -> None:
        """After a resize: wake if there is room, else watch what is in its way now."""
        try:
            queue = read_queue(answer.get(), self._parent)
        except Exception:  # the waiter asks again anyway
            self.wake()
            return
        place = queue.place(self._token)
        if place is None or place < queue.grants:
            self.wake()
            return
        for node in queue.blockers(place):
            if node not in self._nodes:
                self._nodes = (*self._nodes, node)
                self._look(node)


def _resized(data: bytes) -> object:
    try:
        return unpacked(data, "a claim").get("resized")
    except Refused:
        return None


def watch(
    store: ZooKeeperStore, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim
) -> NodeWatch:
    """See :meth:`lockkit.store.spi.Backend.watch`."""
    parent = store.paths.queue(name)
    found = store.entry(claim.token)
    try:
        session = found[0] if found is not None else store.any(time.monotonic() + _GLANCE)
    except Refused:  # the poll cap covers it
        return NodeWatch(None, parent, (), claim.token, wake)
    waiter = NodeWatch(session.connection, parent, blockers, claim.token, wake)
    if found is not None:
        waiter.stand_by(found[1])
        if found[1].ended or found[1].evicted:
            waiter.wake()
    waiter.arm()
    return waiter
