"""Background daemon threads that sleep until something is due; started when needed, not joined at exit."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from lockkit.errors import BackendUnavailable
from lockkit.lib.bell import Bell
from lockkit.lib.clock import Clock
from lockkit.store.log import Log
from lockkit.store.starting import join, start

__all__ = ["Ticker", "no_thread", "thread_refused"]

_log = Log("lockkit.driver")
_AGAIN = 0.1
"""Seconds after which a thread continues that ran out of memory outside of its turns."""


class Ticker:
    """A thread that calls ``turn`` when :meth:`poke` requests it; ``turn`` returns when to call it again.

    Callers first put the work where ``turn`` finds it, and then poke. So a poke need not take the lock if an
    earlier turn is pending: that turn finds the work, because the pending time is cleared before it looks.

    Attributes:
        due: CLOCK_BOOTTIME seconds of the next turn that was asked for; infinity if there is none.
        running: Whether the thread runs.
    """

    def __init__(self, name: str, turn: Callable[[], float], clock: Clock) -> None:
        self._name = name
        self._turn = turn
        self._clock = clock
        self._mutex = threading.RLock()
        self._bell = Bell()
        self.due = math.inf
        self._nudged = False
        self._closed = False
        self._lent: deque[Callable[[], None]] = deque()
        self._owner: object = None
        self._thread: threading.Thread | None = None
        self._begun = Bell()
        self.running = False

    def start(self) -> None:
        """Start the thread, if it does not run.

        Raises:
            RuntimeError: No thread can be started: a limit of the system, or the end of the interpreter.
        """
        with self._mutex:
            if self.running or self._closed:
                return
            # Before the start: a signal handler in the start may cause a second thread; the older one ends.
            owner = self._owner = object()
            start(lambda: self._run(owner), self._name)
            self.running = True

    def poke(self, at: float) -> bool:
        """Make sure that a turn starts by ``at`` (CLOCK_BOOTTIME seconds); False if no thread can start."""
        if at >= self.due:
            return True
        with self._mutex:
            if at >= self.due or self._closed:
                return True
            try:
                self.start()
            except RuntimeError:
                return False
            # Ring, then set the time: a Ctrl-C between the two causes a needless wake-up, not a missed one.
            self._bell.ring()
            self.due = at
        return True

    def nudge(self) -> None:
        """Ask for a turn soon, or at the next poke if no thread runs. Takes no lock, for finalizers."""
        self._nudged = True
        self._bell.ring()

    def lend(self, work: Callable[[], None]) -> bool:
        """Run some work on this thread, before its next turn; False if the thread does not run.

        Used at the end of the interpreter, when no thread can be started any more.
        """
        if not self.running or self._closed:
            return False
        self._lent.append(work)
        self._bell.ring()
        return True

    def close(self) -> None:
        """Stop the thread after the turn under way, without waiting."""
        self._closed = True
        self._bell.ring()

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, at most ``timeout`` seconds."""
        if self._thread is None and self.running:  # the thread was started, but runs no code of ours yet
            self._begun.wait(timeout)
        join(self._thread, timeout)

    def _run(self, me: object) -> None:
        if self._owner is me:
            self._thread = threading.current_thread()
            self._begun.ring()
        goes_on, pause = True, 0.0
        while goes_on:
            try:
                if pause:
                    time.sleep(pause)
                goes_on, pause = self._goes_on(me), 0.0
            except BaseException:
                # No memory. Perhaps there is some in a moment, and no other thread does the work.
                self._nudged, pause = True, _AGAIN

    def _goes_on(self, me: object) -> bool:
        """Wait for a turn or for work that is lent, and do it; False if the thread has to end."""
        while not self._closed and self._owner is me and not self._lent:
            with self._mutex:
                left = self.due - self._clock.now()
                if left <= 0 or self._nudged:
                    self.due = math.inf
                    self._nudged = False
                    break
            self._bell.wait(left)
        if self._lent and self._owner is me:  # also when closed, because a thread waits for the work
            self._guarded(self._lent.popleft())
            return True
        if self._owner is not me:
            self._bell.ring()  # pass the wake-up on: it was meant for the newer thread
            return False
        if self._closed:
            self.running = False
            return False
        again = self._guarded(self._turn)
        self.poke(self._clock.now() + 1.0 if again is None else again)
        return True

    def _guarded(self, work: Callable[[], float | None]) -> float | None:
        """Run work and log its exceptions, so that none ends the thread: no other thread does its work."""
        try:
            return work()
        except BaseException:
            _log.exception("%s failed; it continues in a second", self._name)
            return None


def no_thread(error: BaseException) -> bool:
    """Whether an error says that no thread can be started."""
    return isinstance(error, RuntimeError) and "new thread" in str(error)


def thread_refused(error: BaseException, name: str | None) -> BackendUnavailable:
    """The error for the user when no thread can be started."""
    what = "the store" if name is None else f"the lock {name!r}"
    return BackendUnavailable(
        f"no thread can be started for {what}: {error}",
        name=name,
        hint="nothing is held; end other threads, or raise the limit of threads (ulimit -u, pids.max)",
    )
