"""Locks on an event loop: of one task, of many tasks in turn, and of a thousand tasks that wait."""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from threading import active_count
from time import perf_counter
from typing import TypeAlias

from lockkit.aio import AsyncClient, AsyncLock
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.rounds import orders
from lockkit.testing.bench.standstill import Ticks, bare, standstills, worked
from lockkit.testing.bench.trial import Trial, connected

__all__ = ["Both", "asynchronous", "on_a_loop"]

Both: TypeAlias = Callable[[str], Awaitable[object]]
"""Takes and releases the lock with a name."""

_TASKS = 100


def asynchronous(trial: Trial) -> list[Figure]:
    """The asyncio face beside the synchronous one, and beside the cost of two calls on another thread."""
    return asyncio.run(on_a_loop(trial, {"floor: 2 calls of nothing on a thread": _on_a_thread}))


async def _on_a_thread(_: str) -> None:
    loop = asyncio.get_running_loop()
    for _call in ("acquire", "release"):
        await loop.run_in_executor(None, lambda: None)


async def on_a_loop(trial: Trial, beside: Mapping[str, Both]) -> list[Figure]:
    """Everything that is measured on an event loop, with lockkit and the locks ``beside`` taking turns."""
    async with AsyncClient(connected(trial.url, trial.folder)) as client:
        locks: dict[str, AsyncLock] = {}

        async def own(name: str) -> None:
            # A program keeps its locks.
            lock = locks.get(name) or locks.setdefault(name, client.lock(name))
            async with lock.acquire(timeout=60):
                pass

        made = {**beside, trial.store: own}
        found = await _in_turn(trial, made)
        for name, both in made.items():
            for names, what in ((1, "on one name"), (_TASKS, f"on {_TASKS} names")):
                rate = await _rate(both, names, 1 if trial.quick else 5)
                found.append(trial.figure(f"grants to {_TASKS} tasks {what}", rate, "/s", name))
        found += await _waiters(trial, client)
        seconds = 0.5 if trial.quick else 5.0
        return [
            *found,
            *standstills(trial, await bare(seconds), await worked(client, asyncio.sleep(seconds))),
        ]


async def _in_turn(trial: Trial, made: Mapping[str, Both]) -> list[Figure]:
    """Acquire + release in turns of one operation each, with the synchronous face among them."""
    threads, what = f"{trial.store}, synchronous", "acquire + release, in turn"
    taken: dict[str, list[float]] = {name: [] for name in (*made, threads)}
    with connected(trial.url, trial.folder) as client:
        lock = client.lock("in-turn-threads")
        for order in orders(taken, 100 if trial.quick else 2000):
            for name in order:
                began = perf_counter()
                if name == threads:
                    lock.acquire(timeout=0).release()
                else:
                    await made[name]("in-turn")
                taken[name].append(perf_counter() - began)
    middles = {name: median(values) for name, values in taken.items()}
    own = middles[trial.store]
    return [
        *(trial.figure(what, middle * 1e6, "us", name) for name, middle in middles.items()),
        *(
            trial.figure(f"{what}, to {name}", own / middles[name], "x")
            for name in (threads, *made)
            if name != trial.store
        ),
    ]


async def _rate(both: Both, names: int, times: int) -> float:
    """Grants a second to tasks that share some names."""

    async def work(number: int, times: int) -> None:
        for _ in range(times):
            await both(f"rate-{number % names}")

    for name in range(names):  # the first use of a name, which makes a lock, is not what is measured
        await work(name, 1)
    if names > 1:
        # Nor is the first connection of each.
        await asyncio.gather(*(work(number, 1) for number in range(_TASKS)))
    began = perf_counter()
    await asyncio.gather(*(work(number, times) for number in range(_TASKS)))
    return _TASKS * times / (perf_counter() - began)


async def _waiters(trial: Trial, client: AsyncClient) -> list[Figure]:
    """The cost of many tasks that wait for one name, and how long the loop stands still to serve them."""
    count = 200 if trial.quick else 1000
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
    threads, descriptors = active_count() - threads, _descriptors() - descriptors
    with Ticks() as ticks:
        await holder.release()
        await asyncio.gather(*tasks)
    what = f"{count:,} waiting tasks"
    served = f"{what} are served: longest time in which the loop stood still"
    return [
        trial.figure(f"{what}: memory of each", memory, "KiB"),
        trial.figure(f"{what}: threads beside those of one", max(threads, 0), "calls"),
        trial.figure(f"{what}: descriptors beside those of one", max(descriptors, 0), "calls"),
        trial.figure(served, ticks.longest, "ms"),
    ]


def _descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (only their number)
    except OSError:
        return 0
