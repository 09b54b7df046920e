"""Watches on the nodes in a waiter's way, and on the session of the waiter's own claim.

Watches are set with ``getData``, never with ``exists``: where there is no node there is nothing to watch, and
no watch is left on the server. kazoo drops all watches when a connection is cut; a session that comes back
arms them again and wakes its waiters. A write to a node matters only after a resize.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import kazoo.exceptions as theirs
from kazoo.protocol.states import EventType

from lockkit.store.spi import Claim, Refused, Watch
from lockkit_zookeeper.answers import Answer
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.layout import read_queue
from lockkit_zookeeper.node_data import unpacked
from lockkit_zookeeper.private import GetChildren, GetData
from lockkit_zookeeper.session import Session
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["NodeWatch", "watch"]


class NodeWatch:
    """One waiter.

    Args:
        session: The session of the waiter's claim.
        entry: The claim.
        nodes: The nodes in its way.
        wake: Called when the waiter should ask again.
    """

    def __init__(
        self, session: Session, entry: Entry, nodes: Sequence[str], wake: Callable[[], None]
    ) -> None:
        self._connection = session.connection
        self._entry = entry
        self._parent = session.store.paths.queue(entry.claim.terms.name)
        self._nodes = nodes
        self._wake: Callable[[], None] | None = wake
        self._watched: list[tuple[str, Callable[[Any], None]]] = []
        self._resized: dict[str, object] = {}
        entry.watches[self] = None

    def close(self) -> None:
        """Stop. Answers that come later are ignored."""
        self._wake = None
        while self._watched:
            self._connection.unwatch(*self._watched.pop())
        self._entry.watches.pop(self, None)

    def wake(self) -> None:
        """Have the waiter ask again."""
        wake = self._wake
        if wake is not None:
            wake()

    def arm(self) -> None:
        """Watch all of the nodes, for the first time or because the connection is another one."""
        for node in self._nodes:
            self._look(node)

    def _look(self, node: str) -> None:
        if self._wake is None:
            return
        path = f"{self._parent}/{node}"

        def changed(event: Any) -> None:
            if event.type == EventType.DELETED:
                self._left()
            elif event.type != EventType.NONE:  # after a cut the session arms its watches again
                self._look(node)

        def read(answer: Answer) -> None:
            if isinstance(answer.exception, theirs.NoNodeError):
                self._left()
            elif not answer.successful():
                self.wake()
            else:
                again, self._resized[node] = node in self._resized, _resized(answer.value[0])
                if self._resized[node] is not None:
                    self._list(again=again)

        self._watched.append((path, changed))
        self._connection.send(GetData(path, changed)).rawlink(read)

    def _left(self) -> None:
        """Act on the end of a claim in the way. As a rule there is room now; after a resize perhaps not."""
        if any(self._resized.values()):
            self._list()
        else:
            self._entry.told = True
            self.wake()

    def _list(self, *, again: bool = True) -> None:
        """List the queue after a resize: wake if there is room, else watch what is in the way now.

        Args:
            again: Whether the queue has changed since the waiter asked, so that it may have to step back now.
                (A waiter that could not step back must not be woken for that over and over.)
        """
        self._connection.send(GetChildren(self._parent, None)).rawlink(partial(self._listed, again))

    def _listed(self, again: bool, answer: Answer) -> None:  # noqa: FBT001
        try:
            queue = read_queue(answer.get(), self._parent)
        except Exception:  # the waiter asks again anyway
            self.wake()
            return
        place = queue.place(self._entry.token)
        if place is None or place < queue.grants or (again and queue.last_to_hold(place)):
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


class _Nothing:
    """The watch for a claim that has gone."""

    def close(self) -> None:
        """Do nothing."""


def watch(
    store: ZooKeeperStore,
    name: str,  # noqa: ARG001 - the claim has it, too
    blockers: Sequence[str],
    wake: Callable[[], None],
    claim: Claim,
) -> Watch:
    """See :meth:`lockkit.store.spi.Backend.watch`."""
    found = store.entry(claim.token)
    if found is None:  # its owner learns that by asking
        wake()
        return _Nothing()
    waiter = NodeWatch(*found, blockers, wake)
    if found[1].ended or found[1].evicted:
        waiter.wake()
    waiter.arm()
    return waiter
