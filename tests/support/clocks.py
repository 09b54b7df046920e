"""A clock that stands still until a test moves it."""

from __future__ import annotations

__all__ = ["StillClock"]


class StillClock:
    """Time moves when the test sets it; each look can also move the wall clock, as between two claims.

    Args:
        now: What CLOCK_BOOTTIME shows.
        epoch: By how much the wall clock is ahead of that.
        look: By how much each look moves the wall clock.
    """

    def __init__(self, now: float = 1000.0, epoch: float = 1.7e9, look: float = 0.0) -> None:
        self.time, self.epoch = now, epoch
        self._look = look

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        self.epoch += self._look
        return self.time + self.epoch
