"""How long something takes, on a machine that is not always there for it."""

from __future__ import annotations

import threading
import time
from typing import Self

__all__ = ["Took", "counted"]

_TICK = 0.01
_MOST = 0.05
"""The most seconds between two ticks that count; a machine with time for this process takes less."""


def counted(last: float, now: float) -> float:
    """The seconds from one tick to the next that count."""
    return min(now - last, _MOST)


class Took:
    """A context manager that counts the seconds of its body during which the machine ran this process.

    A thread wakes a hundred times a second. If it wakes late, the machine stalled or was busy, and at most a
    twentieth of a second counts. So a long wait is seen, and a stop of the whole process is not.

    Attributes:
        seconds: The seconds so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = 0.0
        self._over = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="kit-took", daemon=True)

    def __enter__(self) -> Self:
        self._last = time.monotonic()
        self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticking.join()

    def _tick(self) -> None:
        over = False
        while not over:
            over = self._over.wait(_TICK)
            now = time.monotonic()
            self.seconds += counted(self._last, now)
            self._last = now
