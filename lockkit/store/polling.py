"""Waking by looking, for stores without notifications: a thread reads the waiters' queues every few ms."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping

from lockkit.store.log import Log
from lockkit.store.rowqueue import RowQueue
from lockkit.store.spi import REQUEST_TIMEOUT, Refused, Unknown, Watch
from lockkit.store.starting import OneThread
from lockkit.store.waking import wake_up

__all__ = ["Polling"]

_log = Log("lockkit.polling")


class _Watch:
    """One waiter.

    Attributes:
        moved: Says of a queue whether the waiter should ask again.
        checked: The version of the queue that was last checked.
    """

    def __init__(
        self,
        end: Callable[[_Watch], None],
        name: str,
        moved: Callable[[RowQueue], bool],
        wake: Callable[[], None],
    ) -> None:
        self._end = end
        self.name = name
        self.moved = moved
        self.wake = wake
        self.checked: Hashable = self  # no version yet

    def close(self) -> None:
        """Stop."""
        self._end(self)


class Polling:
    """The thread. It runs while there are waiters.

    Args:
        look: ``look(name, budget, known)`` reads the queue of a name within a budget. It returns the
            version of the queue, and the queue, or None if the version is the known one. It raises
            Refused or Unknown if it cannot.
        every: Seconds between two looks.
    """

    def __init__(
        self, look: Callable[[str, float, Hashable], tuple[Hashable, RowQueue | None]], every: float
    ) -> None:
        self._look = look
        self._every = every
        self._mutex = threading.RLock()  # a signal handler may close a watch in the middle of a call
        self._watches: list[_Watch] = []
        self._thread = OneThread(self._run, "lockkit-polling")
        self._closed = threading.Event()

    def watch(self, name: str, moved: Callable[[RowQueue], bool], wake: Callable[[], None]) -> Watch:
        """Call ``wake`` when ``moved`` is true of a name's queue, which is read anew: no change is missed."""
        watch = _Watch(self._forget, name, moved, wake)
        with self._mutex:
            self._watches.append(watch)
            self._thread.start()
        return watch

    def _forget(self, watch: _Watch) -> None:
        """End a watch."""
        with self._mutex:
            if watch in self._watches:
                self._watches.remove(watch)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _by_name(self) -> Mapping[str, list[_Watch]]:
        """The waiters of each name. If there are none, the thread ends."""
        found: dict[str, list[_Watch]] = {}
        with self._mutex:
            for watch in self._watches:
                found.setdefault(watch.name, []).append(watch)
        return found

    def _run(self) -> None:
        seen: dict[str, tuple[Hashable, RowQueue | None]] = {}
        while not self._closed.wait(self._every):
            found = self._by_name()
            if not found:
                return
            seen = {name: seen.get(name, (self, None)) for name in found}
            for name, watches in found.items():
                known, queue = seen[name]
                try:
                    version, fresh = self._look(name, REQUEST_TIMEOUT, known)
                except (Refused, Unknown):  # waiters ask by themselves now and then, and report the trouble
                    continue
                except Exception:  # must not keep the waiters of other names from being woken
                    _log.exception("the queue of %r cannot be read", name)
                    continue
                queue = fresh or queue
                seen[name] = version, queue
                for watch in watches:
                    if watch.checked != version and queue is not None:
                        watch.checked = version
                        if watch.moved(queue):
                            wake_up(watch.wake, _log)
