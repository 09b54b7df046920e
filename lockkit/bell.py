"""What one thread waits for, whoever wakes it."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Bell"]

_LONGEST = 60.0
"""Waits are on CLOCK_MONOTONIC and deadlines on CLOCK_BOOTTIME: after a suspend, look again within this many seconds."""


class Bell:
    """Wakes one waiting thread; a ring while nobody waits is kept for the next wait.

    A bare lock in place of ``threading.Event`` or ``Condition``: those are Python code, and Ctrl-C (or any signal handler
    that raises) between their bytecodes can leave their inner lock taken for good, with every later ring hanging. Taking
    and releasing a bare lock cannot be torn.

    Attributes:
        alarm: Called after a ring, from the thread that rings, for a thread that waits for something else at the same
            time; it must neither block nor raise.
    """

    __slots__ = ("_lock", "alarm")

    def __init__(self) -> None:
        self.alarm: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the waiting thread. Never blocks; may be called from anywhere, a finalizer included."""
        try:
            self._lock.release()
        except RuntimeError:  # it has rung already
            return
        alarm = self.alarm
        if alarm is not None:
            alarm()

    def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most so long; True if there was one."""
        return self._lock.acquire(timeout=min(max(seconds, 0.0), _LONGEST))

    def rung(self) -> bool:
        """Whether a ring was kept; it is not any more."""
        return self._lock.acquire(blocking=False)
