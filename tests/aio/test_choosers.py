"""Choosers of requests to pools, under asyncio: they are asked on threads, and the loop goes on."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from lockkit.errors import AcquireCancelled, AcquireTimeout
from lockkit.notes.members import pool_name
from lockkit.values.choosers import Choice
from support.aio import client_of, in_a_loop, settled, soon
from support.choosers import Hangs, Says

NAMES = (pool_name("p"), pool_name("p", "a"), pool_name("p", "b"))


@in_a_loop
async def test_a_task_waits_at_the_gate_until_a_member_will_do(harness):
    async with client_of(harness) as client:
        chooser, told = Says(a="used", b="dirty"), []
        task = asyncio.create_task(_held(client, chooser, on_wait=told.append))
        await soon(lambda: told and len(chooser.threads) > 3)
        assert (told[-1].name, told[-1].refused) == (NAMES[0], {"a": "used", "b": "dirty"})
        chooser.choice = Choice(["b"], {"a": "used"})
        assert await task == ("b",)
        assert threading.current_thread() not in chooser.threads
        await settled(client, harness, *NAMES)


@in_a_loop
async def test_a_chooser_that_hangs_is_bounded_and_holds_up_nothing_else(harness):
    async with client_of(harness) as client:
        chooser = Hangs("a")
        task = asyncio.create_task(_held(client, chooser, timeout=2.0))
        await soon(lambda: chooser.threads)
        async with client.lock("other").acquire(timeout=5):
            pass
        began = time.monotonic()
        with pytest.raises(AcquireTimeout, match="gave no answer"):
            await task
        assert time.monotonic() - began < 30  # and not for ever
        await settled(client, harness, *NAMES)
        chooser.go.set()


@in_a_loop
async def test_a_task_whose_chooser_hangs_can_be_cancelled(harness):
    async with client_of(harness) as client:
        chooser = Hangs("a")
        task = asyncio.create_task(_held(client, chooser))
        await soon(lambda: chooser.threads)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(client, harness, *NAMES)
        chooser.go.set()


@pytest.mark.parametrize("make", [Hangs, Says])
@in_a_loop
async def test_a_task_ends_when_its_client_is_closed(harness, make):
    chooser = make()
    async with client_of(harness) as observer:
        await observer.inspect(NAMES[0])
        async with client_of(harness) as client:
            task = asyncio.create_task(_held(client, chooser))
            await soon(lambda: chooser.threads)
        with pytest.raises(AcquireCancelled):
            async with asyncio.timeout(30):
                await task
        if make is Hangs:
            chooser.go.set()
        await settled(observer, harness, *NAMES)


@in_a_loop
async def test_what_a_chooser_raises_comes_out(harness):
    class Fails(Says):
        def judge(self, member):
            raise ZeroDivisionError

    async with client_of(harness) as client:
        with pytest.raises(ZeroDivisionError):
            await _held(client, Fails("a"))
        await settled(client, harness, *NAMES)
        with pytest.raises(AcquireTimeout, match="'a' will not do: used"):
            await _held(client, Says(a="used"), timeout=1.0)  # it answers at once; its thread may be slow
        assert await client.pool("p", ["a", "b"]).try_acquire(chooser=Says(a="used")) is None
        await settled(client, harness, *NAMES)


@in_a_loop
async def test_a_member_within_another_one_takes_its_share_of_that_one(harness):
    async with client_of(harness) as client:
        pool = client.pool("p", {"card": 2, "a": 1, "b": 1}, within={"a": "card", "b": "card"})
        async with pool.acquire(2, among=["a", "b"]) as leases:
            assert leases.members == ("a", "b")
            assert await pool.try_acquire(among=["card"]) is None
        await settled(client, harness, *NAMES, pool_name("p", "card"))


async def _held(client, chooser, **how):
    async with client.pool("p", ["a", "b"]).acquire(chooser=chooser, **how) as leases:
        return leases.members
