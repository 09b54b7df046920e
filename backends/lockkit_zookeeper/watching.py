"""Watches: on the nodes that are in a waiter's way, and on its own session.

Read with ``getData``, never with ``exists``: where there is no node there is nothing to watch, and no watch is left behind on
the server. kazoo drops all watches when a connection is cut; a session that comes back arms them anew and wakes its waiters.
That a node is written to matters only if it was a resize.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kazoo.protocol.serialization import GetData
from kazoo.protocol.states import EventType

from lockkit.spi import Claim, Refused
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.stated import unpacked
from lockkit_zookeeper.store import Store

__all__ = ["NodeWatch", "watch"]

_GLANCE = 0.25


class NodeWatch:
    """One waiter.

    Args:
        send: Sends a request on the session that watches.
        paths: The nodes in its way.
    """

    def __init__(self, send: Callable[[Any], Any], paths: Sequence[str], wake: Callable[[], None]) -> None:
        self._send = send
        self._paths = paths
        self._wake: Callable[[], None] | None = wake
        self._entry: Entry | None = None
        self._resized: dict[str, object] = {}

    def close(self) -> None:
        """Stop. What the server has been asked for is taken for nothing when it comes."""
        self._wake = None
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
        for path in self._paths:
            self._look(path)

    def _look(self, path: str) -> None:
        if self._wake is None:
            return

        def changed(event: Any) -> None:
            if event.type == EventType.DELETED:
                self.wake()
            elif event.type != EventType.NONE:  # a cut connection is no news: the session arms anew when it is back
                self._look(path)

        def read(answer: Any) -> None:
            if not answer.successful():
                self.wake()
            elif (resized := _resized(answer.value[0])) != self._resized.setdefault(path, None):
                self._resized[path] = resized
                self.wake()

        self._send(GetData(path, changed)).rawlink(read)


def _resized(data: bytes) -> object:
    try:
        return unpacked(data, "a claim").get("resized")
    except Refused:
        return None


def watch(
    store: Store, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim
) -> NodeWatch:
    """See :meth:`lockkit.spi.Backend.watch`."""
    parent = store.paths.queue(name)
    paths = [f"{parent}/{node}" for node in blockers]
    found = store.entry(claim.token)
    try:
        session = found[0] if found is not None else store.any(_GLANCE)
    except Refused:  # the poll cap covers it
        return NodeWatch(lambda _: None, (), wake)
    waiter = NodeWatch(session.wire.send, paths, wake)
    if found is not None:
        waiter.stand_by(found[1])
        if found[1].ended or found[1].evicted:
            waiter.wake()
    waiter.arm()
    return waiter
