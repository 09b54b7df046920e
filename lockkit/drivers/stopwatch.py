"""A stopwatch that several threads may run at the same time."""

from __future__ import annotations

import threading

from lockkit.clock import Clock

__all__ = ["Stopwatch"]


class Stopwatch:
    """Runs while at least one thread is in its ``with`` block."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = threading.RLock()
        self._inside = 0
        self._since = 0.0
        self._moved = 0.0
        self._total = 0.0

    def __enter__(self) -> None:
        with self._mutex:
            self._moved = self._clock.now()
            if not self._inside:
                self._since = self._moved
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self._moved = self._clock.now()
            self._inside -= 1
            if not self._inside:
                self._total += self._moved - self._since

    def moving(self, longest: float) -> bool:
        """Whether it runs, and a thread went in or out within the last ``longest`` seconds."""
        return self._inside > 0 and self._clock.now() - self._moved < longest

    def total(self) -> float:
        """Seconds for which it has run, up to now."""
        with self._mutex:
            return self._total + (self._clock.now() - self._since if self._inside else 0.0)
