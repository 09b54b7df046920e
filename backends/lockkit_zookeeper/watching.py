"""Watches: on the nodes that are in a waiter's way, and on its own session.

Read with ``getData``, never with ``exists``: where there is no node there is nothing to watch, and no watch is left behind on
the server. kazoo drops all watches when a connection is cut; a session that comes back wakes its waiters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kazoo.protocol.serialization import GetData
from kazoo.protocol.states import EventType

from lockkit.spi import Claim, Refused
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.store import Store

__all__ = ["NodeWatch", "watch"]

_GLANCE = 0.25


class NodeWatch:
    """One waiter."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake: Callable[[], None] | None = wake
        self._entry: Entry | None = None

    def close(self) -> None:
        """Stop. What the server has been asked for is taken for nothing when it comes."""
        self._wake = None
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.wakes.pop(self, None)

    def stand_by(self, entry: Entry) -> None:
        """Wake for what happens to the claim itself, too."""
        self._entry = entry
        entry.wakes[self] = self.wake

    def wake(self) -> None:
        """Have it ask again."""
        wake = self._wake
        if wake is not None:
            wake()

    def changed(self, event: Any) -> None:
        """Told by kazoo. A cut connection is no news: :mod:`~lockkit_zookeeper.session` wakes when it is back."""
        if event.type != EventType.NONE:
            self.wake()

    def answered(self, read: Any) -> None:
        """Told by kazoo: the node is there and watched, or was gone before."""
        if not read.successful():
            self.wake()


def watch(
    store: Store, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim
) -> NodeWatch:
    """See :meth:`lockkit.spi.Backend.watch`."""
    waiter = NodeWatch(wake)
    found = store.entry(claim.token)
    try:
        if found is not None:
            session, entry = found
            waiter.stand_by(entry)
            if entry.ended or entry.evicted:
                waiter.wake()
        else:
            session = store.any(_GLANCE)
    except Refused:  # the poll cap covers it
        return waiter
    parent = store.paths.queue(name)
    for node in blockers:
        session.wire.send(GetData(f"{parent}/{node}", waiter.changed)).rawlink(waiter.answered)
    return waiter
