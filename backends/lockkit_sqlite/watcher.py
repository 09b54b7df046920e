"""The threads that listen to this process's FIFOs: a lone waiter's own, otherwise one for all, the keeper.

To be woken by another thread that has read the bell takes two switches of threads instead of one, and the
other's turn at the interpreter's lock. (Compare Schmidt et al., "Leader/Followers", 2000. Here no waiter
listens for others: a signal handler may keep a waiting thread for as long as it likes.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lockkit.lib.bell import Bell
from lockkit.lib.forks import reinit
from lockkit.store.starting import OneThread
from lockkit_sqlite.events import Deaf, Events

__all__ = ["Watcher"]

_LOOK = 60.0


class Watcher:
    """The waiters of this process on all stores, and the thread that listens for them if there are several.

    Attributes:
        lock: Guards all of it.
        events: The descriptors that are listened to.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.events = Events(self.lock)
        self._reset()

    def _reset(self) -> None:
        self._waiters: dict[object, Callable[[], None]] = {}
        self._reader: object = None
        """The waiter whose thread listens, or this object itself for the keeper."""
        self._due = Bell()
        """Rung for the keeper: there may be somebody to listen for."""
        self._thread = OneThread(self._run, "lockkit-sqlite-watcher")

    def begin(self, waiter: object, ring: Callable[[], None], *, reads: bool) -> None:
        """Add a waiter. Under the lock.

        Args:
            waiter: Stands for it in the other calls.
            ring: Has it ask again.
            reads: True if its own thread will wait in :meth:`wait`.

        Raises:
            RuntimeError: The thread that it needs cannot be started.
        """
        if self._waiters or not reads:
            self._thread.start()
        self._waiters[waiter] = ring
        if not reads or len(self._waiters) > 1:
            self._due.ring()
            if self._reader is not None and self._reader is not self:
                self.events.nudge()  # the thread that listened alone leaves that to the keeper

    def end(self, waiter: object) -> None:
        """Remove a waiter. Under the lock. May be repeated."""
        self._waiters.pop(waiter, None)
        if self._reader is waiter:  # a signal handler cut its wait short
            self._leave(waiter)
        elif self._reader is self and not self._waiters:
            self.events.nudge()  # the next waiter may listen with its own thread

    def wait(self, waiter: object, bell: Bell, seconds: float) -> bool:
        """Wait for a ring; return whether there was one. The thread listens meanwhile if no other waits."""
        end = time.monotonic() + seconds
        if not self._enter(waiter):
            return bell.wait(seconds)
        try:
            bell.alarm = self.events.nudge
            while self._alone(waiter):
                if bell.rung():
                    return True
                left = end - time.monotonic()
                if left <= 0.0:
                    return False
                self.events.hear(left)
        except Deaf:  # the waiter asks every poll cap
            pass
        except BaseException:  # what was read may be lost
            for ring in list(self._waiters.values()):
                ring()
            raise
        finally:
            bell.alarm = None
            with self.lock:
                self._leave(waiter)
        return bell.wait(end - time.monotonic())

    def forget(self) -> None:
        """In a forked child: close the inherited descriptors and forget everything."""
        self._reset()
        reinit(self.lock)()
        self.events.forget()

    def _alone(self, waiter: object) -> bool:
        return len(self._waiters) == 1 and waiter in self._waiters

    def _enter(self, waiter: object) -> bool:
        """Make this waiter the one whose thread listens, if it is alone and nobody listens."""
        with self.lock:
            if self._reader is not None or not self._alone(waiter):
                return False
            self._reader = waiter
            return True

    def _leave(self, reader: object) -> None:
        """Listen no more. If others wait, the keeper listens. Under the lock."""
        if self._reader is reader:
            if any(waiter is not reader for waiter in self._waiters):
                self._due.ring()  # first: if this is cut short, it is repeated
            self._reader = None

    # -- the thread

    def _run(self) -> None:
        while True:
            if self._listens():
                try:
                    while self._waiters:
                        self.events.hear()
                except Deaf:
                    return  # the next waiter that needs a thread starts another
                finally:
                    with self.lock:
                        self._leave(self)
            self._due.wait(_LOOK)

    def _listens(self) -> bool:
        with self.lock:
            if self._reader is not None or not self._waiters:
                return False
            self._reader = self
            return True
