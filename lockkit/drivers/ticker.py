"""Background threads that sleep until something is due. Started lazily, daemonic, never waited for at exit."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from lockkit.bell import Bell
from lockkit.clock import Clock

__all__ = ["Ticker"]

_log = logging.getLogger("lockkit.driver")


class Ticker:
    """Calls ``turn`` no later than asked for by :meth:`poke`; ``turn`` returns when it wants to be called again.

    The order that makes an unlocked fast path safe: put the work where ``turn`` finds it, then poke. A poke that sees an
    earlier turn pending may rely on that turn to see the work, because the pending time is cleared before the turn looks.
    """

    def __init__(self, name: str, turn: Callable[[], float], clock: Clock) -> None:
        self._name = name
        self._turn = turn
        self._clock = clock
        self._mutex = threading.RLock()
        self._bell = Bell()
        self._next = math.inf
        self._nudged = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def poke(self, at: float) -> None:
        """Make sure that a turn begins by ``at`` (CLOCK_BOOTTIME seconds)."""
        if at >= self._next:
            return
        with self._mutex:
            if at >= self._next or self._closed:
                return
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    self._thread.start()
                except (
                    RuntimeError
                ):  # the interpreter is shutting down: what is left, the end of the process settles
                    return
            # Rung before it is set: torn apart by Ctrl-C, this leaves a needless wake-up, not a missed one. The thread
            # looks only once the mutex is free.
            self._bell.ring()
            self._next = at

    def nudge(self) -> None:
        """Have a turn soon. Takes no lock, so a finalizer may call it; without a thread it waits for the next poke."""
        self._nudged = True
        self._bell.ring()

    def close(self) -> None:
        """Stop after the turn under way. Does not wait for it."""
        self._closed = True
        self._bell.ring()

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, at most ``timeout`` seconds."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            while not self._closed:
                with self._mutex:
                    left = self._next - self._clock.now()
                    if left <= 0 or self._nudged:
                        self._next = math.inf
                        self._nudged = False
                        break
                self._bell.wait(left)
            if self._closed:
                return
            try:
                again = self._turn()
            except Exception:
                _log.exception("%s failed; it goes on in a second", self._name)
                again = self._clock.now() + 1.0
            self.poke(again)
