"""For how long an event loop stands still while tasks use locks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from time import thread_time
from types import TracebackType
from typing import Self

from lockkit.aio import AsyncClient
from lockkit.errors import LockkitError
from lockkit.testing.bench.figures import Figure

__all__ = ["Ticks", "bare", "standstills", "worked"]

STANDSTILL = 5.0
"""Milliseconds for which a loop may stand still, an outage of the store included."""

_SLICE = 0.001
_TASKS, _NAMES = 50, 5


class Ticks:
    """A context manager that has the running loop call something every millisecond, and notes how late the latest call came.

    Objects from before are left out of the collections of garbage meanwhile: how long they take is a matter of the program.

    Attributes:
        longest: Milliseconds. A loop that does nothing else has up to one, by which it wakes too late.
        busiest: Milliseconds of CPU time that the loop's thread used at most between two calls: its own part, whatever else the machine does.
    """

    def __init__(self) -> None:
        self.longest = self.busiest = 0.0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()
        self._next()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._note()
        gc.unfreeze()

    def _next(self) -> None:
        self._used = thread_time()
        self._due = self._loop.time() + _SLICE
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._note()
        self._next()

    def _note(self) -> None:
        self.longest = max(self.longest, (self._loop.time() - self._due) * 1e3)
        self.busiest = max(self.busiest, (thread_time() - self._used) * 1e3)


async def bare(seconds: float) -> Ticks:
    """A loop without other work: what the machine does to it."""
    with Ticks() as ticks:
        await asyncio.sleep(seconds)
    return ticks


async def worked(client: AsyncClient, meanwhile: Awaitable[object]) -> Ticks:
    """A loop whose tasks take and release a few locks until something else is over."""
    over = False
    locks = [client.lock(f"standstill-{number}", ttl=5) for number in range(_NAMES)]

    async def work(number: int) -> None:
        await asyncio.sleep(0.01 * number)  # not all in one turn of the loop, nor do their times end in one
        while not over:
            try:
                async with locks[number % _NAMES].acquire(timeout=0.5):
                    await asyncio.sleep(_SLICE)
            except LockkitError:  # the time was up, or the store does not answer
                await asyncio.sleep(0.02)

    with Ticks() as ticks:
        tasks = [asyncio.create_task(work(number)) for number in range(_TASKS)]
        await meanwhile
        over = True
        await asyncio.gather(*tasks)
    return ticks


def standstills(bench: str, store: str, alone: Ticks, busy: Ticks, what: str = "") -> list[Figure]:
    """The figures of a loop whose tasks use locks, beside those of a bare one."""
    longest = f"the loop's longest standstill{what}"
    return [
        Figure(bench, "a bare event loop", longest, alone.longest, "ms"),
        Figure(bench, store, longest, busy.longest, "ms").at_most(STANDSTILL),
        Figure(bench, store, f"{longest}: its own CPU time", busy.busiest, "ms"),
    ]
