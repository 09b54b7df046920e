"""The state of one memory store: its queues, its records, and the watches to wake when a queue changes.

Nothing here takes the mutex (the backend does, around each call) and nothing waits.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TypeAlias

from lockkit.facts import ClaimInfo, Record
from lockkit.lib.clock import Clock
from lockkit.lib.forks import Forks
from lockkit.store.rowqueue import RowQueue
from lockkit.store.rows import Row
from lockkit.store.tombstones import Tombstones

__all__ = ["SHARED", "MemoryStore", "Queue", "Waker"]

Key: TypeAlias = tuple[str, str, Clock]
"""The label of a store, its namespace, and its clock."""


class Waker:
    """One running watch, woken when the waiter's own claim is offered or gone, or when a blocker is gone."""

    __slots__ = ("_tokens", "_watched", "wake")

    def __init__(self, wake: Callable[[], None], queue: Queue, tokens: Iterable[str]) -> None:
        self.wake = wake
        self._tokens = tuple(tokens)
        if queue.wakers is None:
            queue.wakers = {}
        self._watched = queue.wakers
        for token in self._tokens:
            self._watched.setdefault(token, {})[self] = None

    def close(self) -> None:
        """Stop. Dictionary operations are atomic, so this needs no mutex and may run anywhere."""
        for token in self._tokens:
            self._watched.get(token, {}).pop(self, None)


class Queue(RowQueue):
    """The claims of one name.

    Attributes:
        wakers: The watches that a change of a claim wakes, by its token; None before the first.
    """

    wakers: dict[str, dict[Waker, None]] | None = None

    def info(self, row: Row, place: int) -> ClaimInfo:
        """A claim as a fact."""
        return super().info(row, place)._replace(alive=True, evidence="it is a claim of this very process")

    def woken(self) -> Iterable[Waker]:
        """The watches to wake once the mutex is free: those of claims changed since the last call."""
        changed, self.changed = self.changed, []
        if self.wakers is None:
            return ()
        woken: dict[Waker, None] = {}
        for row in changed:
            woken.update(self.wakers.get(row.token, {}))
            if row.token not in self.rows:
                self.wakers.pop(row.token, None)
        return woken


class MemoryStore:
    """One store: the queues and records of one label and namespace, by one clock.

    A forked child finds it empty, with a mutex of its own: its parent's claims are not the child's.

    Attributes:
        users: The clients that have the store open; see :class:`Shared`.
        mark: The mark of the namespace; None while it is not drained. See :class:`lockkit.store.spi.Drains`.
        mutex: Reentrant, for a signal handler that releases in the middle of a call of its own thread.
        next_fence: Returns a fence above every other of the store. One counter serves all names.
    """

    def __init__(self, clock: Clock, next_fence: Callable[[], int] | None = None) -> None:
        self.clock = clock
        self.next_fence: Callable[[], int] = next_fence or itertools.count(1).__next__
        self.forget()
        _stores.add(self)

    # A signal handler may interrupt a call, lock the same name, and empty its queue.

    def queue(self, name: str) -> Queue:
        """The queue of a name, to be handed to :meth:`keep` after the call."""
        queue = self.queues.get(name)
        return queue if queue is not None else self.queues.setdefault(name, Queue(name, self))

    def keep(self, queue: Queue) -> Queue:
        """Keep a queue with claims, forget an empty one; return the name's queue, which may be another."""
        if queue.rows:
            return self.queues.setdefault(queue.name, queue)
        found = self.queues.pop(queue.name, None)
        if found is None or not found.rows:
            return queue
        return self.queues.setdefault(queue.name, found)

    def forget(self) -> None:
        """Forget everything, in a forked child: it all belongs to the parent."""
        self.mutex = threading.RLock()
        self.queues: dict[str, Queue] = {}
        self.records: dict[str, Record] = {}
        self.mark: str | None = None
        self.gone = Tombstones()
        self.users: set[object] = set()


class Shared:
    """The labelled stores of this process, each until its last user leaves. Safe in signal handlers."""

    def __init__(self) -> None:
        self._fences: dict[tuple[str, str], Callable[[], int]] = {}
        self.forget()

    def forget(self) -> None:
        """Forget all stores, in a forked child: their users are the parent's."""
        self._mutex = threading.RLock()
        self._stores: dict[Key, MemoryStore] = {}

    def enter(self, key: Key, user: object) -> MemoryStore:
        """Give the store of a key to one more user."""
        # A store that starts anew goes on with its fences, which rise over all that a process does.
        fences = self._fences.setdefault(key[:2], itertools.count(1).__next__)
        with self._mutex:
            while True:
                store = self._stores.setdefault(key, MemoryStore(key[2], fences))
                store.users.add(user)
                if self._stores.get(key) is store:  # else a signal handler was its last user, and ended it
                    return store

    def leave(self, key: Key, user: object) -> None:
        """Note that a user has closed the store of a key; end the store with its last user."""
        with self._mutex:
            store = self._stores.get(key)
            if store is None:
                return
            store.users.discard(user)
            found = self._stores.get(key)
            # CPython runs no signal handler from here on, because nothing is called.
            if found is store and not store.users:
                del self._stores[key]

    def namespaces(self, key: Key) -> list[str]:
        """The namespaces, drained or with claims, of the stores with this key's label and clock."""
        label, _, clock = key
        return [
            namespace
            for (other, namespace, each), store in list(self._stores.items())
            if (other, each) == (label, clock) and (store.queues or store.mark is not None)
        ]

    def mark(self, key: Key, namespace: str) -> str | None:
        """The mark of another namespace, of the label and the clock of this key."""
        store = self._stores.get((key[0], namespace, key[2]))
        return None if store is None else store.mark


SHARED = Shared()
"""The stores of this process."""
_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


def _after_fork() -> None:
    SHARED.forget()
    for store in list(_stores):
        store.forget()


Forks(in_child=_after_fork)
