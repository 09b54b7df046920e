"""Virtual time: stands still until the schedule moves it."""

from __future__ import annotations

__all__ = ["EPOCH", "VirtualClock"]

EPOCH = 1_000_000.0
"""What the wall clock showed when virtual time began."""


class VirtualClock:
    """CLOCK_BOOTTIME and the wall clock of a simulated world; both go forward only by :meth:`forward`."""

    def __init__(self) -> None:
        self._now = 100.0

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + EPOCH

    def forward(self, seconds: float) -> None:
        """Let time pass; never backwards."""
        self._now += max(0.0, seconds)
