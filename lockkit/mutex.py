"""A mutex that a fork cannot leave taken."""

from __future__ import annotations

import os
import threading

__all__ = ["Mutex"]


class Mutex:
    """A reentrant mutex for each process: in a forked child it is free, whichever thread held it when the process forked.

    To be used as ``with mutex.of_this_process():``. The child finds what the mutex protects as it was at the fork,
    perhaps half-way through a change: that must do no harm, or be put aside first.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks = {os.getpid(): threading.RLock()}

    def of_this_process(self) -> threading.RLock:
        """The lock of this process; the same for all its threads, however many ask at once."""
        pid = os.getpid()
        lock = self._locks.get(pid)
        return self._locks.setdefault(pid, threading.RLock()) if lock is None else lock
