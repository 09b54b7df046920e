"""Clocks: CLOCK_BOOTTIME for everything that decides, the wall clock for what people read. And the jitter of what is timed.

CLOCK_MONOTONIC stands still while a machine sleeps; a lease does not. So deadlines are reckoned on CLOCK_BOOTTIME
(``clock_gettime(2)``), which counts suspended time and is never set.
"""

from __future__ import annotations

import functools
import time
from typing import Protocol

__all__ = ["SYSTEM", "Clock", "SystemClock", "jitter"]

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What the library asks of time. Passed in everywhere, so a simulation can own it."""

    def now(self) -> float:
        """Seconds on CLOCK_BOOTTIME."""

    def wall(self) -> float:
        """Seconds since the epoch; for people and for fences, never for deadlines."""


class SystemClock:
    """The machine's own clocks. Where CLOCK_BOOTTIME is missing (macOS), CLOCK_MONOTONIC stands in."""

    now = staticmethod(functools.partial(time.clock_gettime, _BOOTTIME))
    wall = staticmethod(time.time)


SYSTEM = SystemClock()
_SCATTER = 1e6 * (5.0**0.5 - 1.0) / 2.0
"""Moments a microsecond apart land far apart."""


def jitter() -> float:
    """A number from 0 up to 1, not from :mod:`random`: that is the program's, which may have seeded it for a reason.

    A fine clock, scattered by the golden ratio (Knuth, The Art of Computer Programming, volume 3, 6.4): no two processes
    ask in the same nanosecond, and the kernel's random numbers cost several times as much.
    """
    return time.perf_counter() * _SCATTER % 1.0
