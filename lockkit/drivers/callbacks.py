"""on_lost callbacks, on separate threads, so that no plugin and no other callback can delay one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from lockkit.lib.forks import Forks
from lockkit.store.log import Log
from lockkit.store.starting import start

__all__ = ["CALLBACKS", "HANGS", "Callbacks"]

_log = Log("lockkit")
HANGS = 10.0
"""Seconds after which the log names a callback or hook that has not returned."""
_MOST = 32
"""The most threads for callbacks in one process; further callbacks wait until a thread is free."""
_MOST_HANGING = 256
"""The most threads for callbacks in one process, those that hang included."""


class _Job:
    __slots__ = ("call", "label", "owner", "since", "told")

    def __init__(self, call: Callable[[], None], label: str, owner: object) -> None:
        self.call = call
        self.label = label
        self.owner = owner
        self.since = 0.0
        self.told = False


class Callbacks:
    """Calls callbacks concurrently, on daemon threads; a thread ends when no callback waits."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything: in a forked child there are no threads, and the callbacks are the parent's."""
        self._mutex = threading.RLock()
        self._queue: deque[_Job] = deque()
        self._busy: set[_Job] = set()
        self._threads: set[object] = set()
        self._refused = self._full = False

    def run(self, call: Callable[[], None], label: str, owner: object = None) -> None:
        """Have a callback called soon; an exception of the callback is logged. Never blocks, never raises.

        Args:
            call: Takes no arguments.
            label: The name of the callback in the log.
            owner: The object that asks, for :meth:`pending`.
        """
        with self._mutex:
            self._queue.append(_Job(call, label, owner))
        self.look()

    def look(self) -> bool:
        """Start threads for waiting callbacks, and log hanging ones; False if another look is needed soon.

        Threads whose callback hangs do not count against the first limit, so a few cannot block the rest.
        """
        with self._mutex:
            self._name_hanging()
            hanging = sum(job.told for job in self._busy)
            room = min(_MOST - len(self._threads) + hanging, _MOST_HANGING - len(self._threads))
            for _ in range(min(len(self._queue), room)):
                if not self._start():
                    return False
            if self._queue and hanging >= _MOST_HANGING and not self._full:
                self._full = True
                _log.error("on_lost callbacks are delayed, because %d others do not return", hanging)
            return not self._queue and hanging == len(self._busy)

    def pending(self, owner: object) -> bool:
        """Whether a callback of this owner waits or runs."""
        with self._mutex:
            return any(job.owner is owner for job in (*self._queue, *self._busy))

    def _start(self) -> bool:
        thread = object()
        try:
            self._threads.add(thread)
            start(lambda: self._run(thread), "lockkit-on-lost")
        except RuntimeError as error:
            self._threads.discard(thread)
            if not self._refused and not self._threads:
                _log.error("on_lost callbacks are delayed, because no thread can be started: %s", error)
            self._refused = True
            return bool(self._threads)
        except BaseException:
            # A signal handler raised: the thread may run all the same, and then registers itself.
            self._threads.discard(thread)
            raise
        self._refused = False
        return True

    def _run(self, me: object) -> None:
        with self._mutex:
            self._threads.add(me)
        while True:
            with self._mutex:
                if not self._queue:
                    self._threads.discard(me)
                    return
                job = self._queue.popleft()
                job.since = time.monotonic()
                self._busy.add(job)
            try:
                job.call()
            except BaseException:  # it may even call sys.exit(); the next one is called all the same
                _log.exception("the callback %s failed", job.label)
            finally:
                with self._mutex:
                    self._busy.discard(job)

    def _name_hanging(self) -> None:
        now = time.monotonic()
        for job in self._busy:
            if not job.told and now - job.since > HANGS:
                job.told = True
                _log.error("the callback %s has not returned for %.0f s", job.label, now - job.since)


CALLBACKS = Callbacks()
"""The callbacks of this process, of all clients."""
Forks(in_child=CALLBACKS.restart)
