"""A bell: one thread waits for it, and any thread may ring it. And a flag: any thread may wait for it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

__all__ = ["Bell", "Flag"]

_LONGEST = 60.0
"""The longest wait. Waits use CLOCK_MONOTONIC, deadlines CLOCK_BOOTTIME: check the clock after a suspend."""


class Bell:
    """A bell that wakes one waiting thread. A ring while no thread waits is kept for the next wait.

    The bell is a bare lock, not a ``threading.Event`` or ``Condition``: Ctrl-C (or any signal handler that
    raises) between the bytecodes of those can leave their inner lock taken for good, so that every later ring
    hangs. Taking or releasing a bare lock cannot be interrupted halfway.

    Attributes:
        alarm: Called after a ring, from the ringing thread, for a thread that waits for something else at the
            same time. The callback must neither block nor raise.
    """

    __slots__ = ("_lock", "alarm")

    def __init__(self) -> None:
        self.alarm: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the waiting thread. Never blocks. May be called from anywhere, finalizers included."""
        try:
            self._lock.release()
        except RuntimeError:  # it has rung already
            return
        alarm = self.alarm
        if alarm is not None:
            alarm()

    def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most this long; True if there was one."""
        return self._lock.acquire(timeout=min(max(seconds, 0.0), _LONGEST))

    def rung(self) -> bool:
        """Take the ring that was kept for the next wait; False if there is none."""
        return self._lock.acquire(blocking=False)


class Flag(threading.Event):
    """A ``threading.Event`` that no signal handler leaves locked: lockkit's threads set it, the user waits.

    In ``wait`` of a plain one, Ctrl-C can leave its inner lock taken, and the thread that sets it would hang.
    """

    def __init__(self) -> None:
        self._flag = False
        self._bells: list[Bell] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._flag

    def set(self) -> None:
        """Set it, and wake all threads that wait for it. Never blocks."""
        self._flag = True
        for bell in list(self._bells):
            bell.ring()

    def clear(self) -> None:
        """Take it back."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most this long; whether it is."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        bell = Bell()
        self._bells.append(bell)
        try:
            while not self._flag and (left := end - time.monotonic()) > 0:
                bell.wait(left)
        finally:
            self._bells.remove(bell)
        return self._flag
