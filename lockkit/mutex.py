"""A mutex that a fork cannot leave taken."""

from __future__ import annotations

import os
import threading

__all__ = ["Mutex"]


class Mutex:
    """A reentrant mutex for each process: in a forked child it is free, whichever thread held it when the process forked.

    To be used as ``with mutex.of_this_process():``. The child finds the protected data as they were at the fork,
    perhaps in the middle of a change: that must do no harm, or the child must discard them first.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks = {os.getpid(): threading.RLock()}

    def of_this_process(self) -> threading.RLock:
        """The lock of this process; the same for all its threads, however many ask at once."""
        pid = os.getpid()
        lock = self._locks.get(pid)
        return self._locks.setdefault(pid, threading.RLock()) if lock is None else lock
