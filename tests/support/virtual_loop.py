"""An event loop that owns its time, and orders what is ready by a seed: one seed, one schedule.

Not simloop, which also orders callbacks by a seed: it needs Python 3.12, and refuses ``call_soon_threadsafe``
from another thread, which a client's heartbeat and wakes use (simloop 0.2.2).
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

from lockkit.lib.clock import SYSTEM

__all__ = ["LoopClock", "SeededLoop", "run_seeded"]

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """A selector that never sleeps: the loop's time passes instead."""

    loop: SeededLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.loop.passed += timeout
        return ready


class SeededLoop(asyncio.SelectorEventLoop):
    """The loop.

    Attributes:
        passed: Seconds of its own time.
    """

    def __init__(self, seed: int) -> None:
        self.passed = 1000.0
        self._random = Random(seed)
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.passed

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        shuffled = [ready.popleft() for _ in range(len(ready))]  # one by one: threads add to it meanwhile
        self._random.shuffle(shuffled)
        ready.extendleft(shuffled)
        super()._run_once()  # type: ignore[misc]


class LoopClock:
    """The time of a loop, as the clock of a client."""

    def __init__(self, loop: SeededLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.passed

    def wall(self) -> float:
        return SYSTEM.wall()


def run_seeded(seed: int, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own with this seed."""
    with asyncio.Runner(loop_factory=lambda: SeededLoop(seed)) as runner:
        return runner.run(work)
