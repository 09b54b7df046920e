"""A mutex that is always free in a forked child."""

from __future__ import annotations

import threading

from lockkit.lib.origin import this_origin

__all__ = ["Mutex"]


class Mutex:
    """A reentrant mutex for each process: free in a forked child, whichever thread held it at the fork.

    Use it as ``with mutex.of_this_process():``. A forked child finds the data as they were at the fork, maybe
    in the middle of a change. That must do no harm, or the child must discard the data first.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks = {this_origin(): threading.RLock()}

    def of_this_process(self) -> threading.RLock:
        """The lock of this process, the same for all its threads."""
        here = this_origin()
        lock = self._locks.get(here)
        return self._locks.setdefault(here, threading.RLock()) if lock is None else lock
