"""Busy-waiting for a reply, which saves the time to put a thread to sleep and wake it.

A server on this host replies faster than a thread sleeps and wakes, which is half the cost of a lock then.
Where replies take longer, one request in some hundreds still tries.
"""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

__all__ = ["Awake", "make_way"]

_AWAKE = 0.0001
"""Seconds for which a request stays awake."""
_MOST_ASLEEP = 255
"""Most requests that go to sleep at once after one that stayed awake in vain."""
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_process = SimpleNamespace(until=0.0)
"""Until when a request of this process stays awake: others would only take the interpreter from its thread.
A time, not a lock: Ctrl-C or a fork at the wrong moment would leave a lock taken for good."""

make_way = getattr(os, "sched_yield", lambda: None)
"""Let another process use this processor: the server may need it to reply."""


class Awake:
    """Decides which requests of one connection stay awake: fewer and fewer after each one in vain.

    Args:
        ever: False if none may, as on a host with one processor: the server could not reply meanwhile.
    """

    __slots__ = ("_asleep", "_in_vain")

    def __init__(self, *, ever: bool = True) -> None:
        self._asleep = 0 if ever and _PROCESSORS > 1 else sys.maxsize
        self._in_vain = 0

    def until(self) -> float:
        """Until when the request just sent stays awake, on ``time.monotonic()``; 0.0 if it does not.

        Call :meth:`over` when that time is over, or the reply has come.
        """
        if self._asleep:
            self._asleep -= 1
            return 0.0
        now = time.monotonic()
        if now < _process.until:
            return 0.0
        _process.until = now + _AWAKE
        return now + _AWAKE

    def over(self, *, in_vain: bool) -> None:
        """Note whether a request stayed awake in vain."""
        _process.until = 0.0
        self._in_vain = min(2 * self._in_vain + 1, _MOST_ASLEEP) if in_vain else 0
        self._asleep = self._in_vain
