"""The queue of events or alerts for one hook of one plugin, and the thread that delivers them.

A hook that hangs delays no other. Its events are dropped meanwhile, and it gets their number afterwards.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from contextlib import suppress
from typing import ClassVar

from lockkit.drivers.callbacks import HANGS
from lockkit.facts import Alert, Event
from lockkit.lib.bell import Bell
from lockkit.lib.forks import Forks
from lockkit.plugins.calling import Implementation, call_each, hook_of
from lockkit.store.log import Log
from lockkit.store.starting import join, start
from lockkit.values.events import Counters

__all__ = ["Delivery"]

_log = Log("lockkit")
_QUEUE = 10_000
"""Events or alerts that one hook may have queued; further ones are dropped and counted."""
_LONGEST_SLEEP = 60.0
_LAST_MOMENT = 0.1
"""Seconds at the end of the process for the slow hooks of clients that were closed before."""


class Delivery:
    """The queue of events or alerts for one hook of one plugin, and the thread that delivers them."""

    _hanging: ClassVar[dict[object, int]] = {}
    """How many calls of a hook hang in this process, whichever clients called it."""

    def __init__(self, hook: str, keyword: str, implementation: Implementation, counters: Counters) -> None:
        self._hook = hook
        self._keyword = keyword
        self._implementation = implementation
        self._plugin = implementation[0]
        self._key = hook_of(implementation)
        self._counters = counters
        self._queue: deque[Event | Alert] = deque()
        self._mutex = threading.RLock()
        self._bell = Bell()
        self._owner: object = None
        self._thread: threading.Thread | None = None
        self._since = 0.0
        self._told = False
        self._closed = False
        self._missed = 0

    @property
    def pending(self) -> bool:
        """Whether the hook has something queued or is being called; False if it hangs."""
        return not self._told and bool(self._queue or self._since)

    def put(self, what: Event | Alert) -> None:
        """Queue an event or alert for the hook; drop and count it if the hook hangs or is too slow."""
        self._name_hanging()
        if isinstance(what, Event) and what.kind == "closed":
            self._put_last(what)
            return
        if self._hanging.get(self._key) or len(self._queue) >= _QUEUE:
            self._counters.add("events_dropped" if isinstance(what, Event) else "alerts_dropped")
            self._missed += 1
            return
        if isinstance(what, Event):
            self._put_missed(what)
        self._queue.append(what)
        self._start()
        self._bell.ring()

    def _put_missed(self, before: Event) -> None:
        """Queue the number of dropped events. Two threads may report a gap twice, but never omit it."""
        if self._missed:
            missed, self._missed = self._missed, 0
            self._queue.append(
                Event("missed", "", at=before.at, boottime=before.boottime, data={"count": missed})
            )

    def _put_last(self, closed: Event) -> None:
        """Queue a client's last event even if the queue is full: it reveals that events are missing."""
        self._put_missed(closed)
        self._queue.append(closed)
        with self._mutex:
            if self._hanging.get(self._key):
                _afterwards.setdefault(self._key, []).append(self)
                return
        self._start()
        self._bell.ring()

    def leave(self) -> None:
        """Leave the queue to the thread, or drop and count it if the hook hangs: the client is closed."""
        self._name_hanging()
        if self._hanging.get(self._key):
            self.drop_rest()
        elif self._thread is not None and self._thread.is_alive():
            _late.add(self)

    def drop_rest(self) -> None:
        """Drop and count the queue, except the client's last event and the number missing before it."""
        left: list[Event | Alert] = []
        while self._queue:
            with suppress(IndexError):  # the thread took it
                left.append(self._queue.popleft())
        closed = next((each for each in left if isinstance(each, Event) and each.kind == "closed"), None)
        lost = [each for each in left if each.kind not in ("closed", "missed")]
        self._missed += len(lost)
        self._missed += sum(int(str(each.data["count"])) for each in left if each.kind == "missed")
        if closed is not None:
            self._put_missed(closed)
            self._queue.append(closed)
        if lost:
            self._counters.add(f"{self._keyword}s_dropped", len(lost))
            _log.error(
                "plugin %s: %d %s did not reach its %s before the end of their client, and %s missing there",
                self._plugin,
                len(lost),
                self._keyword if len(lost) == 1 else f"{self._keyword}s",
                self._hook,
                "is" if len(lost) == 1 else "are",
            )

    def look(self) -> bool:
        """Start the thread if that failed before, and log a hanging hook; False if it fails again."""
        self._name_hanging()
        return not self._queue or self._start()

    def close(self) -> None:
        """Have the thread end after it has delivered the queue."""
        self._closed = True
        self._bell.ring()

    def join(self, timeout: float) -> None:
        join(self._thread, timeout)

    def tell_last(self) -> None:
        """Deliver the last words of a client that was closed while the hook hung."""
        self._start()
        self._bell.ring()

    def _start(self) -> bool:
        with self._mutex:
            if self._owner is None:
                owner = object()
                name = f"{self._hook.replace('_', '-')}-{self._plugin}"
                try:
                    start(lambda: self._run(owner), name)
                except RuntimeError:  # no more threads, for now or because the interpreter is shutting down
                    return False
                # A signal handler that interrupts this may cause a second thread; the older one then ends.
                self._owner = owner
        return True

    def _name_hanging(self) -> None:
        """Log a hook that has not returned for long. The hook is not called again until it returns."""
        if not self._hangs():
            return
        with self._mutex:
            if not self._hangs():
                return
            self._told = True
            self._hanging[self._key] = self._hanging.get(self._key, 0) + 1
        self._counters.add("hooks_hanging")
        _log.error(
            "plugin %s: its %s has not returned for %.0f s; it is skipped in this process until it does",
            self._plugin,
            self._hook,
            HANGS,
        )

    def _hangs(self) -> bool:
        """Whether the hook hangs and has not been named for that yet."""
        since = self._since
        return since > 0.0 and not self._told and time.monotonic() - since > HANGS

    def _run(self, me: object) -> None:
        self._thread = threading.current_thread()
        try:
            while self._owner in (None, me):
                while self._queue:
                    self._deliver()
                if self._closed:
                    return
                self._bell.wait(_LONGEST_SLEEP)
            self._bell.ring()  # pass the wake-up on: it was meant for the newer thread
        finally:
            if self._owner is me:
                self._owner = None
                _late.discard(self)

    def _deliver(self) -> None:
        self._since = time.monotonic()
        try:
            what = self._queue.popleft()
            call_each(self._hook, [self._implementation], {self._keyword: what})
        except IndexError:  # there are two threads for a moment, and the other took it
            pass
        finally:
            self._came_back()

    def _came_back(self) -> None:
        with self._mutex:
            self._since = 0.0
            if not self._told:
                return
            self._told = False
            left = self._hanging.get(self._key, 1) - 1
            if left:
                self._hanging[self._key] = left
            else:
                self._hanging.pop(self._key, None)
                for other in _afterwards.pop(self._key, ()):
                    other.tell_last()
        _log.warning("plugin %s: its %s has returned; it gets events again", self._plugin, self._hook)


def _end_late() -> None:
    """Give slow hooks of closed clients a moment at the end of the process, then drop and count the rest."""
    end = time.monotonic() + _LAST_MOMENT
    for delivery in list(_late):
        delivery.join(end - time.monotonic())
        delivery.drop_rest()


def _forget() -> None:
    """In a forked child: the parent counts what its clients did not deliver."""
    _late.clear()
    _afterwards.clear()


_late: set[Delivery] = set()
"""The deliveries of closed clients whose hook is slow. Events not delivered at exit are counted."""
_afterwards: dict[object, list[Delivery]] = {}
"""The deliveries of closed clients with a last event for a hook that hangs in a call of another client."""
atexit.register(_end_late)
Forks(in_child=_forget)
