"""A stopwatch that several threads may run at the same time."""

from __future__ import annotations

import threading

from lockkit.lib.clock import Clock

__all__ = ["Stopwatch"]


class Stopwatch:
    """Runs while at least one thread is in its ``with`` block.

    A thread counts once. If ``__exit__`` is interrupted at its start, the thread counts until its next exit.

    Args:
        longest: Seconds without an entry or an exit after which the stopwatch stops.
    """

    def __init__(self, clock: Clock, longest: float) -> None:
        self._clock = clock
        self._longest = longest
        self._mutex = threading.RLock()
        self._inside: set[object] = set()
        self._moved = clock.now()
        self._total = 0.0

    def __enter__(self) -> None:
        self.enter(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self.leave(threading.get_ident())

    def enter(self, key: object) -> None:
        """Run until :meth:`leave` is called with the same key: for tasks, which may share a thread."""
        with self._mutex:
            self._move()
            self._inside.add(key)

    def leave(self, key: object) -> None:
        """End what :meth:`enter` has started."""
        with self._mutex:
            self._move()
            self._inside.discard(key)

    @property
    def moving(self) -> bool:
        """Whether the stopwatch runs."""
        return bool(self._inside) and self._clock.now() - self._moved < self._longest

    def total(self) -> float:
        """Seconds for which the stopwatch has run so far; never less than at an earlier call."""
        with self._mutex:
            return self._total + self._stretch(self._clock.now())

    def _move(self) -> None:
        now = self._clock.now()
        self._total, self._moved = self._total + self._stretch(now), now

    def _stretch(self, now: float) -> float:
        return min(now - self._moved, self._longest) if self._inside else 0.0
