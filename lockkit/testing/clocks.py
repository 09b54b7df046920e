"""A clock that a test can move forward: the machine's own clock plus the seconds that the test adds."""

from __future__ import annotations

import math
import threading

from lockkit.lib.clock import SYSTEM
from lockkit.values import durations

__all__ = ["ShiftedClock"]


class ShiftedClock:
    """CLOCK_BOOTTIME and the wall clock, moved forward together by :meth:`advance`.

    A sleeping thread does not notice a step, as if its process had been stopped. Test background work that
    must happen meanwhile with short ttls and real time.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._stood: tuple[float, float] | None = None
        self._mutex = threading.Lock()

    def now(self) -> float:
        return (self._stood[0] if self._stood else SYSTEM.now()) + self._ahead

    def wall(self) -> float:
        return (self._stood[1] if self._stood else SYSTEM.wall()) + self._ahead

    def freeze(self) -> None:
        """Stop the time, at a whole 1/1024 s so that sums of seconds are exact. :meth:`advance` moves it."""
        self._stood = math.ceil(SYSTEM.now() * 1024) / 1024, math.ceil(SYSTEM.wall() * 1024) / 1024

    def advance(self, seconds: float) -> None:
        """Move both clocks forward.

        Raises:
            ConfigError: The seconds are not a number, or negative, infinite or longer than ten years.
        """
        ahead = durations.seconds(seconds, what="seconds", zero=True)
        with self._mutex:
            self._ahead += ahead
