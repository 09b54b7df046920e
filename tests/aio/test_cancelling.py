"""Cancellation at every suspension of acquire, release and `async with`: nothing is left behind."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import threading
from functools import partial

import pytest

from support.aio import client_of, in_a_loop, settled, soon
from support.cancelling import KINDS, cancel_at
from support.harnesses.etcd import Etcd3Harness, EtcdHarness
from support.harnesses.memory import MemoryHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness

ALL = (MemoryHarness, SqliteHarness, RedisHarness, EtcdHarness, ZooKeeperHarness)
if importlib.util.find_spec("etcd3") is not None:
    ALL += (Etcd3Harness,)
MOST = 60
"""More suspensions than any of the runs below has."""


@pytest.fixture(params=ALL, ids=lambda each: each.name)
def harness(request, tmp_path):
    harness = request.param(tmp_path)
    yield harness
    harness.close()


async def swept(run, client, harness, kind, twice):
    """Cancel a run at each of its suspensions; the number of these."""
    struck = 0
    for number in range(MOST):
        how = await cancel_at(run, {number, number + 1} if twice else {number}, kind)
        assert how.came_out, f"{kind} at suspension {number} came out as {how.error!r}"
        await settled(client, harness)
        struck += how.struck
        if not how.reached:
            assert how.error is None, repr(how.error)
            assert struck > 0, "no cancellation reached the run"
            return number
    raise AssertionError(f"a run has more than {MOST} suspensions")


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("kind", KINDS)
@in_a_loop
async def test_a_free_lock(harness, kind, twice):
    async with client_of(harness, request_timeout=2.0) as client:
        lock = client.lock("a")
        async with lock.acquire(timeout=30):  # opens the store, and connects
            pass

        async def run():
            async with lock.acquire(timeout=30) as lease:
                await asyncio.sleep(0)
                lease.ensure_held()

        assert await swept(run, client, harness, kind, twice) > 1


@pytest.mark.parametrize("kind", KINDS)
@in_a_loop
async def test_min_hold_of_a_grant_that_no_task_got_blocks_nobody(harness, kind):
    if not harness.capabilities.min_hold:
        pytest.skip("the store has no min_hold")
    async with client_of(harness, request_timeout=2.0) as client:
        async with client.lock("first").acquire(timeout=30):  # opens the store, and connects
            pass
        for number in range(MOST):
            got = []
            how = await cancel_at(
                partial(_taken, client.lock(f"a{number}", min_hold=600), got), {number}, kind
            )
            if got and not how.reached:
                break
            assert how.reached
            if got:  # a sibling's failure is told a turn later, and the grant may be read before it
                await got.pop().release()
                continue
            await soon(lambda name=f"a{number}": not harness.stored(name))
        assert number > 0 or isinstance(harness, MemoryHarness), (
            "only the memory store answers without a suspension"
        )
        await got.pop().release()
        assert [row.state for row in harness.stored(f"a{number}")] == ["LINGERING"]


async def _taken(lock, got):
    got.append(await lock.acquire(timeout=30))


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@in_a_loop
async def test_a_lock_that_is_waited_for(harness, twice):
    """Another waiter stands behind the one that is cancelled, and gets the lock whenever that happens."""
    async with client_of(harness, request_timeout=2.0) as client, client_of(harness) as other:
        lock = client.lock("a")
        async with other.lock("a").acquire(timeout=30):
            pass
        async with lock.acquire(timeout=30):
            pass
        behind = other._opening.engine.beats

        async def run():
            async with lock.acquire(timeout=30):
                await asyncio.sleep(0)

        for number in itertools.count():
            assert number < MOST
            holder = await other.lock("a").acquire(timeout=30)
            holder.detach()
            first = asyncio.create_task(cancel_at(run, {number, number + 1} if twice else {number}, "cancel"))
            await soon(partial(_waits_or_ended, client, first))
            second = asyncio.create_task(_hold(other.lock("a")))
            await soon(behind.waiting)
            await holder.release()
            async with asyncio.timeout(30):
                how = await first
                await second
            assert how.came_out, f"cancelled at suspension {number}: {how.error!r}"
            await settled(client, harness)
            if not how.reached:
                assert how.error is None, repr(how.error)
                break
        assert number > 2


def _waits_or_ended(client, task):
    return client._opening.engine.beats.waiting() or task.done()


async def _hold(lock):
    async with lock.acquire(timeout=30):
        pass


@in_a_loop
async def test_the_first_use_of_a_client(harness):
    """While it opens the store."""
    for number in itertools.count():
        assert number < MOST
        async with client_of(harness, request_timeout=2.0) as client:

            async def run():
                async with client.lock("a").acquire(timeout=30):
                    pass

            how = await cancel_at(run, {number})
            assert how.came_out, f"cancelled at suspension {number}: {how.error!r}"
            async with client.lock("a").acquire(timeout=30):
                pass
            await settled(client, harness)
        if not how.reached:
            assert how.error is None, repr(how.error)
            break


@in_a_loop
async def test_the_close_of_a_client(harness):
    for number in itertools.count():
        assert number < MOST
        client = client_of(harness, request_timeout=2.0)
        lease = await client.lock("a").acquire(timeout=30)
        how = await cancel_at(client.close, {number})
        assert how.came_out
        assert lease.report.outcome == "RELEASED"
        await client.close()
        assert await asyncio.to_thread(harness.stored, "a") == []
        if not how.reached:
            break


@in_a_loop
async def test_a_task_that_is_cancelled_before_its_first_step(harness):
    async with client_of(harness) as client:
        async with client.lock("a").acquire(timeout=30):
            pass
        task = asyncio.create_task(client.lock("a").acquire(timeout=30))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(client, harness)


@in_a_loop
async def test_threads_and_connections_return_to_their_number(harness):
    async with client_of(harness) as client, client.lock("a").acquire(timeout=30):
        pass  # what the store makes once
    before = dict(harness.residue())
    threads = set(threading.enumerate())
    async with client_of(harness, request_timeout=2.0) as client:
        lock = client.lock("a")
        for _ in range(3):
            tasks = [asyncio.create_task(_hold(lock)) for _ in range(20)]
            await asyncio.sleep(0.01)
            for task in tasks[::2]:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        await settled(client, harness)
    await soon(lambda: not (ours(threading.enumerate()) - ours(threads)))
    await soon(lambda: dict(harness.residue()) == before)


def ours(threads):
    """Threads of clients; what a store keeps for the process (its watcher) is not counted."""
    return {each for each in threads if each.name.startswith("lockkit-") and "watcher" not in each.name}


def test_one_loop_after_the_other_has_connections_of_its_own(harness):
    """The first loop ends with waiters about, and nobody closes the client before the third."""
    client = client_of(harness, request_timeout=2.0)

    async def with_waiters():
        lease = await client.lock("a").acquire(timeout=30)
        background.extend(asyncio.create_task(_hold(client.lock("a"))) for _ in range(5))
        await soon(lambda: len(client._opening.engine.beats.waiting()) == 5)
        return lease.detach()

    background = []
    lease = asyncio.run(with_waiters())
    assert lease.valid()
    assert asyncio.run(lease.release()).outcome == "RELEASED"
    asyncio.run(_hold(client.lock("a")))
    asyncio.run(client.close())
    assert harness.stored("a") == []
