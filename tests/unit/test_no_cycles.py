"""Leases are freed by their last reference: a released one leaves no cycle to the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

import lockkit
from lockkit.aio import AsyncClient


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def locks_of(client):
    """A lock of each kind that is a context manager itself."""
    lock = client.lock("a")
    return [
        lock,
        client.all_of([lock, client.lock("b")]),
        client.any_of([lock]),
        client.pool("p", ["0", "1"]),
    ]


def test_a_with_statement_leaves_no_cycle():
    with lockkit.connect("memory:") as client:
        leases = []
        for lock in locks_of(client):
            with lock:
                leases.append(weakref.ref(lock.lease))
            with lock.acquire() as lease:
                leases.append(weakref.ref(lease))
            del lease
        assert [lease() for lease in leases] == [None] * len(leases)


def test_an_async_with_statement_leaves_no_cycle():
    async def work(client):
        leases = []
        for lock in locks_of(client):
            async with lock:
                leases.append(weakref.ref(lock.lease))
            async with lock.acquire() as lease:
                leases.append(weakref.ref(lease))
            del lease
        assert [lease() for lease in leases] == [None] * len(leases)

    with lockkit.connect("memory:") as client:
        asyncio.run(work(AsyncClient(client)))
