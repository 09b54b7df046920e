"""Seeded schedules in virtual time: tasks cancelled at any step never overlap, and leave nothing."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from lockkit.aio import AsyncClient
from lockkit.config.config import load
from lockkit.errors import AcquireTimeout
from lockkit.plugins import PluginManager
from lockkit.sync.client import Client
from support.virtual_loop import LoopClock, run_seeded

SEEDS = 60


def client_on(tmp_path, clock):
    config = load(
        "memory://schedules", environ={}, cwd=tmp_path, home=tmp_path, etc=tmp_path / "none.toml", ttl=3600
    )
    return AsyncClient(Client(config, PluginManager(disabled="all"), clock=clock))


async def play(seed, tmp_path):
    """One schedule: how often the lock was held, and how many tasks were cancelled."""
    random = Random(seed)
    held = cancelled = 0
    inside: set[int] = set()
    async with client_on(tmp_path, LoopClock(asyncio.get_running_loop())) as client:
        locks = [
            client.lock("a"),
            client.semaphore("s", 2),
            client.rwlock("i").read(),
            client.rwlock("i").write(),
        ]

        async def work(number):
            nonlocal held
            for _ in range(3):
                lock = random.choice(locks)
                try:
                    async with lock.acquire(timeout=random.choice([None, 0.01, 1.0])) as lease:
                        held += 1
                        if lock is locks[0]:
                            assert not inside, f"{number} is not alone"
                            inside.add(number)
                        try:
                            await asyncio.sleep(random.choice([0, 0.002, 0.05]))
                            lease.ensure_held()
                        finally:
                            inside.discard(number)
                except AcquireTimeout:
                    pass

        async def cancel(tasks):
            nonlocal cancelled
            while pending := [task for task in tasks if not task.done()]:
                await asyncio.sleep(random.choice([0, 0.001, 0.02]))
                if random.random() < 0.2:
                    for _ in range(random.choice([1, 2])):
                        cancelled += random.choice(pending).cancel()

        tasks = [asyncio.create_task(work(number)) for number in range(12)]
        cancelling = asyncio.create_task(cancel(tasks))
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await cancelling
        wrong = [end for end in ends if end is not None and not isinstance(end, asyncio.CancelledError)]
        assert not wrong, wrong
        engine = client._opening.engine
        end = time.monotonic() + 30
        # A thread removes what was cancelled.
        while engine.under_way or engine.beats.members or len(engine.orphans):
            assert time.monotonic() < end
            time.sleep(0.001)  # noqa: ASYNC251 (the loop has time of its own)
        assert await client.names() == []
        assert not engine.registry.holds
    return held, cancelled


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_tasks_never_overlap_and_leave_nothing(tmp_path, first):
    held = cancelled = 0
    for seed in range(first, first + 10):
        more = run_seeded(seed, play(seed, tmp_path))
        held, cancelled = held + more[0], cancelled + more[1]
    assert held > 50, "too few grants prove nothing"
    assert cancelled > 10, "too few cancellations prove nothing"
