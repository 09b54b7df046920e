"""Wakes: a waiter watches its own key and the keys of its blockers.

Many waiters of one client for one name share a watch on its queue. So the cost of a hand-off to the server does not grow with
the number of waiting clients, nor its cost to a client with the number of its waiters.

A key serves many claims, one after the other; the revision that created it tells them apart. A blocker is older than the look
that showed it, so a removal after that look is the blocker's own.

A watch begins with the next revision, and its first news says which one that is. (etcd serves a watch that begins with an earlier
one from a loop that runs every 100 ms, and so it tells everything late from then on.) A waiter whose look is older asks again at once.

A wake is only advice. A waiter is woken when one of its blockers goes, when others change or remove its own claim, and whenever
something may have been missed: when its watch begins after its look, and after its watch was cut or cancelled. Heartbeats look at the
queue themselves, so they notice a watch that is dead without a sign.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockkit_etcd.transport import Get, News, Stream, Watched

if TYPE_CHECKING:
    from lockkit_etcd.store import EtcdStore

__all__ = ["Watches"]

_log = logging.getLogger("lockkit.etcd")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_NEXT = 0
"""As the start of a watch: the next revision."""
_NEVER = 1 << 63
_FEW = 2
"""Waiters of a client for one name that have a watch of their own; further ones share one."""
_KEYS = 8
"""Most keys of such a watch."""
_KEPT = 1024
"""Removals that a shared watch remembers, for a waiter that joins after a removal but looked before it."""
_BEHIND = 1.0
"""Seconds after which a watch counts as dead if it has not reported a change that a look at the queue showed."""


@dataclass(slots=True, eq=False)
class _Watch:
    """One waiter.

    Attributes:
        looked: The revision at which it looked at the queue.
    """

    shared: _SharedWatch
    own: tuple[bytes, int]
    blockers: Mapping[bytes, int]
    looked: int
    wake: Callable[[], None]

    @property
    def needed(self) -> Iterable[tuple[bytes, int]]:
        """The claims whose changes matter, each by its key and the revision that created the key."""
        return (self.own, *self.blockers.items())

    def close(self) -> None:
        """Stop."""
        self.shared.leave(self)


class _SharedWatch:
    """The waiters of a client that share a watch: on the whole queue of a name, or one waiter's on a few keys."""

    def __init__(self, watches: Watches, queue: bytes, wanted: tuple[bytes, bytes, Sequence[bytes]]) -> None:
        self._watches = watches
        self._queue = queue
        self._wanted = wanted
        self._since = _NEVER
        """The first revision from which on every removal is known."""
        self._gone: dict[bytes, int] = {}
        self._stream: Stream | None = None
        self._pause = _FIRST_PAUSE
        self._behind: float | None = None
        self._turn = 0
        self.waiters: list[_Watch] = []

    def open(self) -> None:
        """Begin to watch."""
        self._turn += 1
        turn = self._turn
        self._behind, self._since = None, _NEVER
        key, end, also = self._wanted
        self._stream = self._watches.store.transport.watch(
            key, end, _NEXT, lambda news: self._heard(news, turn), also
        )

    @property
    def shared(self) -> bool:
        """Whether other waiters may join."""
        return bool(self._wanted[1])

    def enter(self, watch: _Watch) -> None:
        """Add a waiter. Before the watch stands nothing is known to be missed: its first news tells."""
        self.waiters.append(watch)
        looked, gone, since = watch.looked, self._gone, self._since
        if looked + 1 < since < _NEVER or any(gone.get(key, 0) > looked for key, _ in watch.needed):
            watch.wake()

    def leave(self, watch: _Watch) -> None:
        """Remove a waiter that has its turn or gives up."""
        with self._watches.mutex:
            try:
                self.waiters.remove(watch)
            except ValueError:
                return
            if self.waiters:
                return
            self._watches.drop(self._queue, self)
        self.close()

    def close(self) -> None:
        """End the watch."""
        self._turn += 1
        stream = self._stream
        if stream is not None:
            stream.close()

    def _heard(self, news: News, turn: int) -> None:
        if turn != self._turn:
            return
        if not isinstance(news, Watched):
            _log.debug("a watch ended: %s", news.why)
            self._again()
            return
        if not news.changes:
            self._stands(news.revision)
            return
        woken: dict[_Watch, None] = {}
        for change in news.changes:
            kind, kv = change.kind, change.kv
            key = kv.key
            if kind == "DELETE":
                self._note(key, kv.modified)
            elif kv.created == kv.modified:  # a new claim blocks nobody
                continue
            for watch in list(self.waiters):
                if watch.own[0] == key or (kind == "DELETE" and key in watch.blockers):
                    woken[watch] = None
        self._wake(woken)

    def _stands(self, revision: int) -> None:
        """Wake the waiters whose look is older than the revision after which the watch, or one of its ranges, begins."""
        self._pause = _FIRST_PAUSE
        before = 0 if self._since == _NEVER else self._since
        self._since = max(before, revision + 1)  # first: a waiter that enters now looks at it itself
        self._wake([watch for watch in list(self.waiters) if watch.looked < revision])

    def _note(self, key: bytes, revision: int) -> None:
        self._gone.pop(key, None)  # to its end: the oldest goes first
        self._gone[key] = revision
        while len(self._gone) > _KEPT:
            oldest = next(iter(self._gone))
            self._since = max(self._since, self._gone.pop(oldest) + 1)

    def _wake(self, watches: Iterable[_Watch]) -> None:
        for watch in watches:
            watch.wake()

    def _again(self) -> None:
        """Wake every waiter of a watch that has ended, because something may have been missed, and open another in a moment."""
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        turn = self._turn

        def later() -> None:
            time.sleep(pause)
            with self._watches.mutex:
                if turn == self._turn and self.waiters:
                    self.open()

        try:
            threading.Thread(target=later, name="lockkit-etcd-rewatch", daemon=True).start()
        except RuntimeError:  # the process can start no more threads: waiters poll
            pass
        self._wake(list(self.waiters))

    def look(self, standing: set[tuple[bytes, int]] | None) -> None:
        """Check that the watch has reported each needed claim that no longer stands in the queue; None: all of them stand."""
        untold = standing is not None and any(
            each not in standing and self._gone.get(each[0], 0) < each[1]
            for watch in list(self.waiters)
            for each in watch.needed
        )
        now = time.monotonic()
        if not untold:
            self._behind = None
        elif self._behind is None:
            self._behind = now
        elif now - self._behind > _BEHIND:
            with self._watches.mutex:
                if not self.waiters:  # the last waiter has left meanwhile, and would not close it
                    return
                stream = self._stream
                self.open()
            if stream is not None:
                stream.close()


class Watches:
    """The watches of a client."""

    def __init__(self, store: EtcdStore) -> None:
        self.store = store
        self.mutex = threading.RLock()
        self._shared_watches: dict[bytes, list[_SharedWatch]] = {}
        self._closed = False

    def watch(
        self,
        queue: Get,
        own: tuple[bytes, int],
        blockers: Sequence[str],
        looked: int,
        wake: Callable[[], None],
    ) -> _Watch:
        """Wake a claim that looked at its queue at a revision, and saw these blockers (each :attr:`Row.where`)."""
        ahead: dict[bytes, int] = {}
        for each in blockers:
            last, _, fence = each.rpartition("@")
            ahead[queue.key + last.encode()] = int(fence)
        with self.mutex:
            shared_watches = self._shared_watches.setdefault(queue.key, [])
            shared_watch = next((each for each in shared_watches if each.shared), None)
            new = shared_watch is None
            if shared_watch is None:
                few = own[0] != b"" and len(shared_watches) < _FEW and len(ahead) < _KEYS
                wanted = (own[0], b"", tuple(ahead)) if few else (queue.key, queue.end, ())
                shared_watch = _SharedWatch(self, queue.key, wanted)
                shared_watches.append(shared_watch)
            watch = _Watch(shared_watch, own, ahead, looked, wake)
            shared_watch.enter(watch)
            if new and not self._closed:
                shared_watch.open()
        return watch

    def look(self, queue: bytes, standing: set[tuple[bytes, int]] | None) -> None:
        """Compare the watches with what a heartbeat saw in a queue; None: all claims that its waiters need."""
        for shared_watch in list(self._shared_watches.get(queue, ())):
            shared_watch.look(standing)

    def drop(self, queue: bytes, shared_watch: _SharedWatch) -> None:
        """Forget a shared watch that nobody waits on any more; under the mutex."""
        shared_watches = self._shared_watches.get(queue, [])
        if shared_watch in shared_watches:
            shared_watches.remove(shared_watch)
        if not shared_watches:
            self._shared_watches.pop(queue, None)

    def close(self) -> None:
        """End all of them."""
        self._closed = True
        with self.mutex:
            shared_watches = [shared_watch for some in self._shared_watches.values() for shared_watch in some]
            self._shared_watches.clear()
        for shared_watch in shared_watches:
            shared_watch.close()
