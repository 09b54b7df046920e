"""Virtual time: stands still until the schedule moves it."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["EPOCH", "VirtualClock"]

EPOCH = 1_000_000.0
"""The wall clock when virtual time began."""
_WITHIN = 0.001
"""The share of a microsecond that adding floats may have lost."""


class VirtualClock:
    """CLOCK_BOOTTIME and the wall clock of a simulated world; both go forward only by :meth:`forward`."""

    def __init__(self) -> None:
        self._now = 100.0
        self._shown: Callable[[float], None] | None = None

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + EPOCH

    def lead(self, show: Callable[[float], None]) -> None:
        """Have a server's clock go with this one: ``show`` is told of every move, now and from now on.

        Time then goes in whole microseconds, which is all that a server shows: both agree on what has lapsed.
        """
        self._shown = show
        show(self._now)

    def forward(self, seconds: float) -> None:
        """Let time pass; never backwards."""
        if seconds <= 0.0:
            return
        if self._shown is None:
            self._now += seconds
            return
        before = round(self._now * 1e6)
        self._now = max(before + 1, math.ceil((self._now + seconds) * 1e6 - _WITHIN)) / 1e6
        self._shown(self._now)
