"""Many tasks that wait for one name on one event loop: none costs a thread or a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import pytest

from support.aio import client_of, in_a_loop, settled
from support.harnesses.etcd import EtcdHarness
from support.harnesses.memory import MemoryHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness

ALL = (MemoryHarness, SqliteHarness, RedisHarness, EtcdHarness, ZooKeeperHarness)
TASKS = 200
FEW_THREADS = 16
"""Threads beyond the first two waiters': two pools of four, a reader of watches, connects under way."""
FEW_CONNECTIONS = 80
"""Descriptors beyond those: at most 64 connections to a server at a time, and those of the threads."""


@pytest.fixture(params=ALL, ids=lambda each: each.name)
def harness(request, tmp_path):
    harness = request.param(tmp_path)
    yield harness
    harness.close()


def cost():
    """The threads and the descriptors of this process."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


async def waiting(client, count):
    """Wait until so many tasks wait. The limit is for a busy machine."""
    end = time.monotonic() + 60
    while len(client._opening.engine.beats.waiting()) < count:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@in_a_loop
async def test_waiting_tasks_share_threads_and_connections(harness):
    async with client_of(harness, request_timeout=10.0) as client:
        lock = client.lock("a")

        async def wait():
            async with lock.acquire(timeout=120):
                pass

        holder = (await lock.acquire(timeout=30)).detach()
        tasks = [asyncio.create_task(wait()) for _ in range(2)]
        await waiting(client, 2)
        threads, descriptors = cost()
        tasks += [asyncio.create_task(wait()) for _ in range(TASKS)]
        await waiting(client, len(tasks))
        most_threads, most_descriptors = cost()

        assert most_threads <= threads + FEW_THREADS
        assert most_descriptors <= descriptors + FEW_CONNECTIONS
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await holder.release()
        await settled(client, harness)
