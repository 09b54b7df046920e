"""The task that performs a release: the caller's own until it is cancelled, then one that lockkit starts."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

import lockkit
from lockkit.errors import AcquireTimeout, BackendError
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.hold import Hold
from support.aio import client_of, in_a_loop, settled, soon
from support.harnesses.etcd import EtcdHarness
from support.harnesses.memory import MemoryHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness

ALL = (MemoryHarness, SqliteHarness, RedisHarness, EtcdHarness, ZooKeeperHarness)


@pytest.fixture(params=ALL, ids=lambda each: each.name)
def harness(request, tmp_path):
    harness = request.param(tmp_path)
    yield harness
    harness.close()


@in_a_loop
async def test_neither_an_acquire_nor_a_release_makes_a_task(harness):
    made = []

    def noting(loop, coroutine, **keywords):
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **keywords)

    async with client_of(harness) as client:
        lock = client.lock("a")
        async with lock.acquire(timeout=30):  # opens the store, and connects
            pass
        asyncio.get_running_loop().set_task_factory(noting)
        async with lock.acquire(timeout=30):
            pass
        asyncio.get_running_loop().set_task_factory(None)
        assert made == []


@in_a_loop
async def test_a_release_ends_although_its_caller_is_cancelled_at_every_turn_of_the_loop(harness):
    """As in asyncio libraries with level cancellation, which cancel a task until it has left its scope."""
    async with client_of(harness) as client:
        lock = client.lock("a")
        for _ in range(3):
            lease = await lock.acquire(timeout=30)
            task = asyncio.create_task(lease.release())
            await asyncio.sleep(0)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert lease.report.outcome == "RELEASED"
            assert (await lease.release()).outcome == "RELEASED"
        await settled(client, harness)


class Waits:
    """A cleanup hook that lasts until its test lets it end."""

    def __init__(self):
        self.may_end = threading.Event()

    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        self.may_end.wait(30)


@pytest.mark.parametrize("cold", [False, True])
@in_a_loop
async def test_what_a_release_waits_for_keeps_its_task(harness, cold):
    """The event loop refers to its tasks weakly. A collected task would leave its release to a thread."""
    hook = Waits()
    async with client_of(harness, plugins=[hook]) as client:
        lease = await client.lock("a").acquire(timeout=30)
        performer = client._engines.ready().performer
        for pool in performer._pools.values() if cold and performer else ():
            pool.drop()  # the release has to connect
        lease.begin_release("normal")
        hold = lease._hold
        del lease
        turns = 0
        while hold.report is None:
            gc.collect()
            await asyncio.sleep(0)
            turns += 1
            if turns == 5:
                hook.may_end.set()
        assert turns >= 5
        assert hold.report.outcome == "RELEASED"
        await settled(client, harness)


@in_a_loop
async def test_two_callers_get_one_report(harness):
    async with client_of(harness) as client:
        lease = await client.lock("a").acquire(timeout=30)
        reports = await asyncio.gather(*(lease.release() for _ in range(5)))
        assert {report.outcome for report in reports} == {"RELEASED"}
        assert all(report is reports[0] for report in reports)
        await settled(client, harness)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
@in_a_loop
async def test_another_caller_goes_on_where_the_first_one_ended(harness, how):
    async with client_of(harness) as client:
        lease = await client.lock("a").acquire(timeout=30)
        first = lease.release()
        if how == "closed":
            first.send(None)  # to its first suspension
        else:
            task = asyncio.create_task(first)
            await asyncio.sleep(0)
        second = asyncio.create_task(lease.release())
        await asyncio.sleep(0)
        struck = how == "cancelled" and task.cancel()
        if how == "closed":
            first.close()
        assert (await second).outcome == "RELEASED"
        if struck:
            with pytest.raises(asyncio.CancelledError):
                await task
        await settled(client, harness)


def there(kind):
    """The living objects of a class, by id. Those of other tests are kept, so that no id is used again."""
    return {id(each): each for each in gc.get_objects() if isinstance(each, kind)}


@in_a_loop
async def test_a_lock_that_was_released_leaves_nothing_to_the_garbage_collector(harness):
    async with client_of(harness) as client:
        lock = client.lock("a")
        async with lock.acquire(timeout=30):
            pass
        gc.collect()
        before = there(Hold)
        gc.disable()
        try:
            for _ in range(3):
                async with lock.acquire(timeout=30):
                    pass
            await soon(lambda: there(Hold).keys() == before.keys())
        finally:
            gc.enable()


@in_a_loop
async def test_a_wait_whose_time_was_up_leaves_nothing_to_the_garbage_collector(harness):
    async with client_of(harness) as client:
        lock = client.lock("a")
        for _ in range(5):
            holder = (await lock.acquire(timeout=30)).detach()
            judged = await judge_waits(lock)
            await holder.release()
            if judged:
                return
        raise AssertionError("the machine stood still each time")


async def judge_waits(lock):
    """Have waits end at their timeout, and fail if they leave an object. False if one ended otherwise."""
    gc.collect()
    before = there(Attempt)
    gc.disable()
    try:
        if not all([await waited_in_vain(lock) for _ in range(3)]):
            return False
        await soon(lambda: there(Attempt).keys() == before.keys())
    finally:
        gc.enable()
    return True


async def waited_in_vain(lock):
    """Whether a wait of 0.1 s ended by its timeout. If not, a request failed or the hold lapsed."""
    try:
        lease = await lock.acquire(timeout=0.1)
    except AcquireTimeout as error:
        return error.__context__ is None
    except BackendError:
        return False
    await lease.release()
    return False
