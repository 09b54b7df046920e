"""For how long an event loop stands still while tasks use locks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from time import thread_time
from typing import Self

from lockkit.aio import AsyncClient
from lockkit.errors import LockkitError
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.trial import Trial

__all__ = ["Callbacks", "Ticks", "bare", "standstills", "worked"]

BLOCKED = 5.0
"""Milliseconds for which one callback may block a loop, an outage of the store included."""

_SLICE = 0.001
_TASKS, _NAMES = 50, 5


class Ticks(AbstractContextManager["Ticks"]):
    """A context manager that has the loop call something each millisecond, and notes how late that came.

    Collections of garbage leave out the objects from before, which are a matter of the program.

    Attributes:
        longest: Milliseconds. A loop that does nothing else has up to one, by which it wakes too late.
        busiest: Milliseconds of CPU time that the loop's thread used at most between two calls.
    """

    def __init__(self) -> None:
        self.longest = self.busiest = 0.0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()
        self._next()
        return self

    def __exit__(self, *_: object) -> None:
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


class Callbacks(AbstractContextManager["Callbacks"]):
    """A context manager that notes how long each callback of the event loops of this process runs.

    A callback that runs for long blocks a loop: nothing else runs on it meanwhile. Only CPU time is counted,
    because other processes and threads block a bare loop as well.

    Attributes:
        longest: Milliseconds of CPU time of the longest callback. A step of a task is one callback.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    def __enter__(self) -> Self:
        # The debug mode of a loop has such a figure only in its log, and slows each callback down.
        self._run = run = asyncio.Handle._run  # noqa: SLF001

        def timed(handle: asyncio.Handle) -> None:
            before = thread_time()
            run(handle)
            self.longest = max(self.longest, (thread_time() - before) * 1e3)

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]  # noqa: SLF001
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[method-assign]  # noqa: SLF001


async def bare(seconds: float) -> Ticks:
    """A loop without other work: what the machine does to it."""
    with Ticks() as ticks:
        await asyncio.sleep(seconds)
    return ticks


async def worked(client: AsyncClient, meanwhile: Awaitable[object]) -> tuple[Ticks, Callbacks]:
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

    with Callbacks() as callbacks, Ticks() as ticks:
        tasks = [asyncio.create_task(work(number)) for number in range(_TASKS)]
        await meanwhile
        over = True
        await asyncio.gather(*tasks)
    return ticks, callbacks


def standstills(trial: Trial, alone: Ticks, busy: tuple[Ticks, Callbacks], what: str = "") -> list[Figure]:
    """The figures of a loop whose tasks use locks, beside those of a bare one."""
    ticks, callbacks = busy
    longest = f"the loop's longest standstill{what}"
    return [
        trial.figure(f"the loop's longest callback{what}", callbacks.longest, "ms"),
        trial.figure(longest, alone.longest, "ms", "a bare event loop"),
        trial.figure(longest, ticks.longest, "ms"),
        trial.figure(f"{longest}: its own CPU time", ticks.busiest, "ms"),
    ]
