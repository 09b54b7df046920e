"""Locks on an event loop: the cost of a lock of one task, grants a second to many tasks, and what a thousand waiting tasks cost."""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from threading import active_count
from time import perf_counter

from lockkit.aio import AsyncClient, AsyncLock
from lockkit.lib.namedtuples import NamedTuple
from lockkit.testing.bench.client import connected
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.standstill import Ticks, bare, standstills, worked

__all__ = ["AsyncContender", "asynchronous", "figures"]

_TO_SYNCHRONOUS, _WAITER = 1.6, 6.0
"""The targets: acquire + release, to the synchronous face; KiB of a task that waits."""
_TASKS = 100
_FLOOR = "floor: 2 calls of nothing on a thread"


class AsyncContender(NamedTuple):
    """One kind of lock on an event loop.

    Attributes:
        both: Takes and releases the lock with a name.
    """

    both: Callable[[str], Awaitable[object]]


def asynchronous(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """The asyncio face beside the synchronous one, and beside the least that a store costs an event loop that has to call it on threads."""
    beside = {_FLOOR: AsyncContender(_on_a_thread)}
    return asyncio.run(figures("asyncio", folder, url, store, beside, quick=quick, to=_FLOOR))


async def _on_a_thread(_: str) -> None:
    loop = asyncio.get_running_loop()
    for _call in ("acquire", "release"):
        await loop.run_in_executor(None, _nothing)


def _nothing() -> None:
    return None


async def figures(
    bench: str,
    folder: Path,
    url: str,
    store: str,
    beside: Mapping[str, AsyncContender],
    *,
    quick: bool,
    to: str = "",
    at_most: float | None = None,
) -> list[Figure]:
    """Everything that is measured on an event loop.

    Args:
        bench: The name of the bench in the figures.
        folder: A folder for files.
        url: The store.
        store: The name of lockkit on that store in the figures.
        beside: The locks of other projects, by name.
        quick: Whether rounds are fewer and counts smaller.
        to: The contender to which lockkit's time is compared as well.
        at_most: The target of that comparison.
    """
    found: list[Figure] = []
    async with AsyncClient(connected(url, folder)) as client:
        own = AsyncContender(_reusing(client))
        made = {**beside, store: own}
        found += await _in_turn(bench, folder, url, store, made, to, at_most, quick=quick)
        for name, contender in made.items():
            for locks, what in ((1, "on one name"), (_TASKS, f"on {_TASKS} names")):
                rate = await _rate(contender, locks, quick=quick)
                found.append(Figure(bench, name, f"grants to {_TASKS} tasks {what}", rate, "/s"))
        found += await _waiters(bench, client, store, quick=quick)
        seconds = 0.5 if quick else 5.0
        found += standstills(bench, store, await bare(seconds), await worked(client, asyncio.sleep(seconds)))
    return found


def _reusing(client: AsyncClient) -> Callable[[str], Awaitable[object]]:
    """Locks are made once for each name, because a program keeps them."""
    locks: dict[str, AsyncLock] = {}

    async def both(name: str) -> None:
        lock = locks.get(name) or locks.setdefault(name, client.lock(name))
        async with lock.acquire(timeout=60):
            pass

    return both


async def _in_turn(
    bench: str,
    folder: Path,
    url: str,
    store: str,
    made: Mapping[str, AsyncContender],
    to: str,
    at_most: float | None,
    *,
    quick: bool,
) -> list[Figure]:
    """Acquire + release in turns of one operation each, with the synchronous face among them."""
    threads = f"{store}, synchronous"
    taken: dict[str, list[float]] = {name: [] for name in (*made, threads)}
    with connected(url, folder) as client:
        lock = client.lock("in-turn-threads")
        for turn in range(100 if quick else 2000):
            for name in list(taken)[turn % len(taken) :] + list(taken)[: turn % len(taken)]:
                began = perf_counter()
                if name == threads:
                    lock.acquire(timeout=0).release()
                else:
                    await made[name].both("in-turn")
                taken[name].append(perf_counter() - began)
    middles = {name: median(values) for name, values in taken.items()}
    what = "acquire + release, in turn"
    found = [Figure(bench, name, what, value * 1e6, "us") for name, value in middles.items()]
    ratio = middles[store] / middles[threads]
    found.append(Figure(bench, store, f"{what}, to {threads}", ratio, "x").at_most(_TO_SYNCHRONOUS))
    if to:
        compared = Figure(bench, store, f"{what}, to {to}", middles[store] / middles[to], "x")
        found.append(compared if at_most is None else compared.at_most(at_most))
    return found


async def _rate(contender: AsyncContender, locks: int, *, quick: bool) -> float:
    """Grants a second to tasks that share some names."""
    each = 1 if quick else 5

    async def work(number: int, times: int) -> None:
        for _ in range(times):
            await contender.both(f"rate-{number % locks}")

    for name in range(locks):  # the first use of a name, which makes a lock, is not what is measured
        await work(name, 1)
    if locks > 1:
        # Nor is the first connection of each.
        await asyncio.gather(*(work(number, 1) for number in range(_TASKS)))
    began = perf_counter()
    await asyncio.gather(*(work(number, each) for number in range(_TASKS)))
    return _TASKS * each / (perf_counter() - began)


async def _waiters(bench: str, client: AsyncClient, store: str, *, quick: bool) -> list[Figure]:
    """The memory, threads and descriptors of many tasks that wait for one name, and the longest time for which the loop stood still."""
    count = 200 if quick else 1000
    lock = client.lock("waiters")
    beats = client._client.driver().beats  # noqa: SLF001 (the engine behind it)

    async def wait() -> None:
        async with lock.acquire(timeout=600):
            pass

    async def waiting(number: int) -> None:
        while len(beats.waiting()) < number:  # noqa: ASYNC110 (no event tells)
            await asyncio.sleep(0.01)

    holder = (await lock.acquire(timeout=60)).detach()
    tasks = [asyncio.create_task(wait())]
    await waiting(1)
    gc.collect()
    threads, descriptors = active_count(), _descriptors()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(count):
        tasks.append(asyncio.create_task(wait()))
        await asyncio.sleep(0)
    await waiting(count + 1)
    await asyncio.sleep(6.0)  # connections that nobody uses any more, and idle threads, end
    gc.collect()
    memory = (tracemalloc.get_traced_memory()[0] - before) / count / 1024
    tracemalloc.stop()
    more = (active_count() - threads, _descriptors() - descriptors)
    still = await _standstill(holder.release(), tasks)
    what = f"{count:,} waiting tasks"
    return [
        Figure(bench, store, f"{what}: memory of each", memory, "KiB").at_most(_WAITER),
        Figure(bench, store, f"{what}: threads beside those of one", max(more[0], 0), "calls"),
        Figure(bench, store, f"{what}: descriptors beside those of one", max(more[1], 0), "calls"),
        Figure(bench, store, f"{what} are served: longest time in which the loop stood still", still, "ms"),
    ]


async def _standstill(release: Awaitable[object], tasks: list[asyncio.Task[None]]) -> float:
    """Milliseconds for which the loop stands still at most, while many tasks get the lock one after the other."""
    with Ticks() as ticks:
        await release
        await asyncio.gather(*tasks)
    return ticks.longest


def _descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (only their number)
    except OSError:
        return 0
