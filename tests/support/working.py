"""The time an event loop is blocked, on a clock that only the work of tasks moves, whatever the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

__all__ = ["WorkClock"]


class WorkClock:
    """A stand-in for the module :mod:`time`, for code that asks it for the time.

    Attributes:
        passed: Seconds of work so far.
        longest: The most seconds of work in one turn of the loop.
        turns: The turns in which work was done.
    """

    EACH = 0.0003
    """Seconds that a task works."""

    def __init__(self) -> None:
        self.passed = 100.0
        self.longest = 0.0
        self.turns = 0
        self._before = 0.0

    def monotonic(self) -> float:
        """As :func:`time.monotonic`."""
        return self.passed

    def watch(self) -> None:
        """Look at the clock in every turn of the running loop from now on."""
        self._before = self.passed
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        worked, self._before = self.passed - self._before, self.passed
        self.longest = max(self.longest, worked)
        self.turns += worked > 0.0
        asyncio.get_running_loop().call_soon(self._look)

    async def work_after(self, awaited: Awaitable[object]) -> None:
        """Work when something has a result, or has failed."""
        with suppress(Exception):
            await awaited
        self.passed += self.EACH
