"""A background thread that sleeps until something is due. Started lazily, daemonic, never waited for at exit."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from lockkit.clock import Clock

__all__ = ["Ticker"]

_log = logging.getLogger("lockkit.driver")
_LONGEST_SLEEP = 60.0
"""Waits are on CLOCK_MONOTONIC and deadlines on CLOCK_BOOTTIME: after a suspend, look again within this many seconds."""


class Ticker:
    """Calls ``turn`` no later than asked for by :meth:`poke`; ``turn`` returns when it wants to be called again.

    The order that makes an unlocked fast path safe: put the work where ``turn`` finds it, then poke. A poke that sees an
    earlier turn pending may rely on that turn to see the work, because the pending time is cleared before the turn looks.
    """

    def __init__(self, name: str, turn: Callable[[], float], clock: Clock) -> None:
        self._name = name
        self._turn = turn
        self._clock = clock
        self._condition = threading.Condition()
        self._next = math.inf
        self._thread: threading.Thread | None = None
        self._closed = False

    def poke(self, at: float) -> None:
        """Make sure that a turn begins by ``at`` (CLOCK_BOOTTIME seconds)."""
        if at >= self._next:
            return
        with self._condition:
            if at >= self._next or self._closed:
                return
            self._next = at
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._condition.notify()

    def close(self) -> None:
        """Stop after the turn under way. Does not wait for it."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, at most ``timeout`` seconds."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._closed and (left := self._next - self._clock.now()) > 0:
                    self._condition.wait(min(left, _LONGEST_SLEEP))
                if self._closed:
                    return
                self._next = math.inf
            try:
                again = self._turn()
            except Exception:
                _log.exception("%s failed; it goes on in a second", self._name)
                again = self._clock.now() + 1.0
            self.poke(again)
