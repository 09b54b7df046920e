"""Clocks: CLOCK_BOOTTIME for decisions, the wall clock for people; and jitter for timers.

CLOCK_MONOTONIC stops while a machine sleeps, but the ttl of a lease does not. So deadlines use CLOCK_BOOTTIME
(``clock_gettime(2)``), which counts the time asleep and cannot be set.
"""

from __future__ import annotations

import functools
import time
from typing import Protocol

__all__ = ["SYSTEM", "Clock", "SystemClock", "jitter"]

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """A source of time. Every part of lockkit is given one, so that a simulation can provide its own."""

    def now(self) -> float:
        """Seconds on CLOCK_BOOTTIME."""

    def wall(self) -> float:
        """Seconds since the epoch; for people and for fences, never for deadlines."""


class SystemClock:
    """The machine's own clocks. A system without CLOCK_BOOTTIME (macOS) uses CLOCK_MONOTONIC instead."""

    now = staticmethod(functools.partial(time.clock_gettime, _BOOTTIME))
    wall = staticmethod(time.time)


SYSTEM = SystemClock()
_SCATTER = 1e6 * (5.0**0.5 - 1.0) / 2.0
"""A factor that maps times one microsecond apart to numbers far apart."""


def jitter() -> float:
    """A number from 0 up to 1, not from :mod:`random`, which belongs to the program and may be seeded.

    The current nanosecond, scattered by the golden ratio (Knuth, The Art of Computer Programming, volume 3,
    6.4). Processes hardly ever ask in the same one, and random numbers of the kernel cost several times more.
    """
    return time.perf_counter() * _SCATTER % 1.0
