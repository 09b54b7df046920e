"""Cancellation at every suspension of an acquire or release of several locks: nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from lockkit.notes.members import pool_name
from lockkit.values.choosers import Choice
from support.aio import client_of, in_a_loop, settled, soon
from support.cancelling import KINDS, cancel_at
from support.harnesses.etcd import EtcdHarness
from support.harnesses.memory import MemoryHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness

SERVERS = (RedisHarness, EtcdHarness, ZooKeeperHarness)
"""Several locks are taken in the same way on every store, and the kit cancels the acquires of each store."""
ALL = (MemoryHarness, SqliteHarness, *(pytest.param(each, marks=pytest.mark.full) for each in SERVERS))
MOST = 200
"""More suspensions than any of the runs below has."""
MEMBERS = ("0", "1", "1a")
WITHIN = {"1a": "1"}
NAMES = ("a", "b", "c", pool_name("p"), *(pool_name("p", member) for member in MEMBERS))


@pytest.fixture(params=ALL, ids=lambda each: each.name)
def harness(request, tmp_path):
    harness = request.param(tmp_path)
    yield harness
    harness.close()


def all_of(client):
    return client.all_of([client.lock("a"), client.rwlock("b").write(), client.semaphore("c", 2)])


def any_of(client):
    return client.any_of([client.lock("a"), client.lock("b")])


def two_members(client):
    return _Two(client.pool("p", MEMBERS, within=WITHIN), ["0", "1"])


def two_chosen(client):
    """Two members, one of which stands within another, as a chooser says that changes its mind."""
    return _Two(client.pool("p", MEMBERS, within=WITHIN), ["0", "1a"], Fickle)


class Fickle:
    """A chooser that first refuses the first member, and finds the second one dirty at its first grant."""

    every = 0.005

    def __init__(self):
        self.asked = self.judged = 0

    def choose(self, held):
        self.asked += 1
        return Choice(["1a"], {"0": "used"}) if self.asked == 1 else Choice(["0", "1a"])

    def judge(self, member):
        self.judged += 1
        return "dirty" if self.judged == 1 else None


class _Two:
    """A pool, of which each acquire takes two members."""

    def __init__(self, pool, among, chooser=lambda: None):
        self._pool = pool
        self._among = among
        self._chooser = chooser

    def acquire(self, timeout):
        return self._pool.acquire(2, among=self._among, chooser=self._chooser(), timeout=timeout)


SHAPES = (all_of, any_of, two_members, two_chosen)


@pytest.mark.parametrize(
    "kind, twice",
    [("cancel", False), ("cancel", True), ("timeout", False), ("wait_for", False), ("group", True)],
)
@pytest.mark.parametrize("shape", SHAPES)
@in_a_loop
async def test_free_locks(harness, shape, kind, twice):
    assert kind in KINDS
    async with client_of(harness, request_timeout=2.0) as client:
        several = shape(client)
        async with several.acquire(timeout=30):  # opens the store, and connects
            pass

        async def run():
            async with several.acquire(timeout=30) as lease:
                await asyncio.sleep(0)
                lease.ensure_held()

        for number in range(MOST):
            how = await cancel_at(run, {number, number + 1} if twice else {number}, kind)
            assert how.came_out, f"{kind} at suspension {number} came out as {how.error!r}"
            await settled(client, harness, *NAMES)
            if not how.reached:
                assert how.error is None, repr(how.error)
                break
        assert 1 < number < MOST - 1


IN_THE_WAY = {
    all_of: ("b",),
    any_of: ("a", "b"),
    two_members: ("1",),
    two_chosen: ("1",),
}
"""The names that another client holds while the cancelled acquire waits for them."""


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("shape", SHAPES)
@in_a_loop
async def test_locks_that_are_waited_for(harness, shape, twice):
    """Another acquisition waits behind the cancelled one, and always gets its locks."""
    async with client_of(harness, request_timeout=2.0) as client, client_of(harness) as other:
        several, behind = shape(client), shape(other)
        for each in (several, behind):
            async with each.acquire(timeout=30):
                pass

        async def run():
            async with several.acquire(timeout=30):
                await asyncio.sleep(0)

        for number in range(MOST):
            async with AsyncExitStack() as stack:
                for name in IN_THE_WAY[shape]:
                    pooled = shape in (two_members, two_chosen)
                    held = other.pool("p", MEMBERS, within=WITHIN) if pooled else other.lock(name)
                    if shape is all_of:
                        held = other.rwlock(name).write()
                    taking = held.acquire(among=[name]) if pooled else held.acquire()
                    (await stack.enter_async_context(taking)).detach()
                first = asyncio.create_task(cancel_at(run, {number, number + 1} if twice else {number}))
                await soon(lambda: client._opening.engine.beats.waiting() or first.done())  # noqa: B023
                second = asyncio.create_task(_held(behind))
                await soon(other._opening.engine.beats.waiting)
            async with asyncio.timeout(30):
                how = await first
                await second
            assert how.came_out, f"cancelled at suspension {number}: {how.error!r}"
            await settled(client, harness, *NAMES)
            if not how.reached:
                assert how.error is None, repr(how.error)
                break
        assert 2 < number < MOST - 1


async def _held(several):
    async with several.acquire(timeout=30):
        pass


@pytest.mark.parametrize("shape", SHAPES)
@in_a_loop
async def test_the_release_of_many(harness, shape):
    """All are released, wherever the release is cancelled, and then the CancelledError is raised."""
    async with client_of(harness, request_timeout=2.0) as client:
        several = shape(client)
        for number in range(MOST):
            leases = await several.acquire(timeout=30)
            how = await cancel_at(leases.release, {number, number + 1})
            assert how.came_out, f"cancelled at suspension {number}: {how.error!r}"
            assert leases.report.outcome == "RELEASED"
            await settled(client, harness, *NAMES)
            if not how.reached:
                break
        assert number > 0 or harness.name == "memory"
