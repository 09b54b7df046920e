"""Wakes: a waiter watches its own key and the keys of its blockers.

Many waiters of one client for one name share a watch on its queue. So the cost of a hand-off does not grow
with the number of waiting clients for the server, nor with the number of its waiters for a client.

A client that waits in a short queue repeatedly keeps a watch on it for a moment, so that its next wait costs
neither a watch nor a second look. In a long queue each hand-off would notify each of many clients.

A key serves many claims, one after the other; the revision that created it tells them apart. A blocker is
older than the look that showed it, so a removal after that look is the blocker's own.

A watch starts with the next revision, and its first news says which one that is. (etcd serves a watch with an
earlier start from a loop that runs every 100 ms, and so reports everything late from then on.) A waiter whose
look is older asks again at once, unless so many claims are ahead that its turn cannot have come. For such a
waiter each key is watched a second time, from its look on: missed changes are reported late, but in time.

A wake is only advice. A waiter is woken when one of its blockers goes, when others change or remove its own
claim, and whenever something may have been missed: when its watch starts after its look, and after its watch
was cut or cancelled. Heartbeats look at the queue themselves, so they notice a silently dead watch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockkit.store.crowds import Crowds
from lockkit.store.log import Log
from lockkit.store.starting import OneThread, start
from lockkit_etcd.rows import last_of, where_of
from lockkit_etcd.transport import Get, News, Stream, Watched

if TYPE_CHECKING:
    from lockkit_etcd.store import Entry, EtcdStore

__all__ = ["Watches"]

_log = Log("lockkit.etcd")
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
_NEAR = 4
"""Claims ahead of a waiter, up to which the queue counts as short."""
_LASTING = 1.0
"""Seconds for which the watch on a short queue is kept without a waiter."""
_BEHIND = 1.0
"""Seconds after which a watch counts as dead if it has not reported a change that a look showed."""


@dataclass(slots=True, eq=False)
class _Watch:
    """One waiter.

    Attributes:
        entry: The claim; None for one of another client.
        blockers: What is in its way, each as :attr:`lockkit_etcd.rows.Row.where`.
        looked: The revision at which it looked at the queue.
        spare: Revisions that pass at least before its turn, on a watch that also reports earlier changes.
    """

    shared: _SharedWatch
    entry: Entry | None
    blockers: Sequence[str]
    looked: int
    wake: Callable[[], None]
    spare: int = 0

    @property
    def needed(self) -> Iterable[tuple[bytes, int]]:
        """The claims whose changes matter, each by its key and the revision that created the key."""
        queue = self.shared.queue
        own = () if self.entry is None else ((self.entry.key, self.entry.fence),)
        return (*own, *[(queue + last_of(each), int(each.rpartition("@")[2])) for each in self.blockers])

    def close(self) -> None:
        """Stop."""
        self.shared.leave(self)


class _SharedWatch:
    """The waiters of a client that share a watch: on the queue of a name, or one waiter's on a few keys.

    Attributes:
        queue: The prefix of the queue's keys.
        lasting: Whether it is kept for a moment without a waiter.
        empty_since: When the last waiter left, on ``time.monotonic()``.
        past: The revision from which on its keys are watched a second time; 0 for no such watch.
    """

    def __init__(
        self, watches: Watches, queue: bytes, wanted: tuple[bytes, bytes, Sequence[bytes]], *, lasting: bool
    ) -> None:
        self._watches = watches
        self.queue = queue
        self._wanted = wanted
        self.lasting = lasting
        self.empty_since = 0.0
        self.past = 0
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
        past, self.past = self.past, 0
        if not past:
            for watch in list(self.waiters):
                watch.spare = 0
        self._stream = self._watches.store.transport.watch(
            key, end, _NEXT, lambda news: self._heard(news, turn), also, past
        )

    @property
    def shared(self) -> bool:
        """Whether other waiters may join."""
        return bool(self._wanted[1])

    def enter(self, watch: _Watch) -> None:
        """Add a waiter. Before the watch is up nothing is known to be missed: its first news shows that."""
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
            if self.waiters or self._watches.kept(self.queue, self):
                return
        self.close()

    def overdue(self, now: float) -> bool:
        """Whether it has been without a waiter for long enough; under the mutex."""
        return not self.waiters and now >= self.empty_since + _LASTING

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
            # A deleted key does not say when it was created.
            gone = where_of(key, 0)[:-1] if kind == "DELETE" else ""
            for watch in list(self.waiters):
                if watch.entry is not None and watch.entry.key == key:
                    woken[watch] = None
                elif gone:
                    for each in watch.blockers:
                        if each.startswith(gone):
                            woken[watch] = None
        self._wake(woken)

    def _stands(self, revision: int) -> None:
        """Wake waiters whose look is older than the revision after which the watch or a range starts."""
        self._pause = _FIRST_PAUSE
        before = 0 if self._since == _NEVER else self._since
        self._since = max(before, revision + 1)  # first: a waiter that enters now looks at it itself
        self._wake([watch for watch in list(self.waiters) if revision - watch.looked > watch.spare])

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
        """Wake every waiter of a watch that ended, as it may have missed something; reopen it in a moment."""
        if self.lasting:
            with self._watches.mutex:
                if not self.waiters:
                    self._watches.drop(self.queue, self)
                    return
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        turn = self._turn

        def later() -> None:
            time.sleep(pause)
            with self._watches.mutex:
                if turn == self._turn and self.waiters:
                    self.open()

        try:
            start(later, "lockkit-etcd-rewatch")
        except RuntimeError:  # the process can start no more threads: waiters poll
            pass
        self._wake(list(self.waiters))

    def look(self, standing: set[tuple[bytes, int]] | None) -> None:
        """Check that the watch has reported each needed claim that is not in ``standing`` (None: all are)."""
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
        self._left: Crowds[bytes] = Crowds(store.clock.now)
        self._sweeper = OneThread(self._sweep, "lockkit-etcd-sweep")
        self._closed = threading.Event()

    def watch(
        self, queue: Get, entry: Entry | None, blockers: Sequence[str], wake: Callable[[], None]
    ) -> _Watch:
        """Wake a claim that saw these blockers (:attr:`Row.where`) in its queue; None: a foreign claim."""
        with self.mutex:
            near = entry is not None and entry.place <= _NEAR
            shared_watches = self._shared_watches.setdefault(queue.key, [])
            shared_watch = next(
                (each for each in shared_watches if each.shared and (near or each.waiters)), None
            )
            new, past = shared_watch is None, False
            if shared_watch is None:
                lasting = near and self._left.likely(queue.key)
                wanted: tuple[bytes, bytes, Sequence[bytes]] = (queue.key, queue.end, ())
                if entry is not None and not lasting and len(shared_watches) < _FEW and len(blockers) < _KEYS:
                    ahead = tuple([queue.key + last_of(each) for each in blockers])
                    wanted, past = (entry.key, b"", ahead), entry.packed_terms.exclusive
                shared_watch = _SharedWatch(self, queue.key, wanted, lasting=lasting)
                shared_watches.append(shared_watch)
            looked = 0 if entry is None else entry.looked
            watch = _Watch(shared_watch, entry, blockers, looked, wake)
            if entry is not None and past and entry.place > 1:
                watch.spare, shared_watch.past = entry.place - 1, looked + 1
            try:
                shared_watch.enter(watch)
                if new and not self._closed.is_set():
                    shared_watch.open()
            except BaseException:  # the caller has no watch to close
                watch.close()
                raise
        return watch

    def look(self, queue: bytes, standing: set[tuple[bytes, int]] | None) -> None:
        """Compare the watches with what a heartbeat saw in a queue; None: all that its waiters need."""
        for shared_watch in list(self._shared_watches.get(queue, ())):
            shared_watch.look(standing)

    def kept(self, queue: bytes, shared_watch: _SharedWatch) -> bool:
        """Keep a shared watch for a moment after its last waiter; False if forgotten. Needs the mutex."""
        self._left.note(queue)
        if shared_watch.lasting and not self._closed.is_set():
            shared_watch.empty_since = time.monotonic()
            try:
                self._sweeper.start()
            except RuntimeError:  # the process can start no more threads
                pass
            else:
                return True
        self.drop(queue, shared_watch)
        return False

    def _sweep(self) -> None:
        """End the kept watches, each in its time, until there is none without a waiter."""
        while not self._closed.wait(_LASTING):
            with self.mutex:
                now = time.monotonic()
                over = [
                    (queue, each)
                    for queue, some in self._shared_watches.items()
                    for each in some
                    if each.overdue(now)
                ]
                for queue, each in over:
                    self.drop(queue, each)
                rest = any(not each.waiters for some in self._shared_watches.values() for each in some)
            for _, each in over:
                each.close()
            if not rest:
                return

    def drop(self, queue: bytes, shared_watch: _SharedWatch) -> None:
        """Forget a shared watch that nobody waits on any more; under the mutex."""
        shared_watches = self._shared_watches.get(queue, [])
        if shared_watch in shared_watches:
            shared_watches.remove(shared_watch)
        if not shared_watches:
            self._shared_watches.pop(queue, None)

    def close(self) -> None:
        """End all of them."""
        self._closed.set()
        with self.mutex:
            shared_watches = [shared_watch for some in self._shared_watches.values() for shared_watch in some]
            self._shared_watches.clear()
        for shared_watch in shared_watches:
            shared_watch.close()
