"""Locks taken together, and pools, in the asyncio face: the same names and guarantees."""

from __future__ import annotations

import asyncio
import gc
import pickle

import pytest

from lockkit.aio import AsyncLeases, AsyncPoolLeases
from lockkit.errors import (
    AcquireCancelled,
    AcquireTimeout,
    ConfigError,
    DeadlockDetected,
    LeaseLost,
    NotHeld,
)
from lockkit.notes.members import pool_name
from support.aio import client_of, in_a_loop, soon, stepped_until


async def _queued(client, *names):
    async def waits(name):
        return any(claim.state == "WAITING" for claim in (await client.inspect(name)).claims)

    for _ in range(1000):
        if all([await waits(name) for name in names]):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"nobody waits for all of {names}")


async def _nothing_left(client):
    """Wait until no claim is left: what a late timeout leaves goes in the background."""
    for name in await client.names():
        await _gone(client, name)


async def _gone(client, name):
    async with asyncio.timeout(30):
        while (await client.inspect(name)).claims:  # noqa: ASYNC110 (nothing announces it)
            await asyncio.sleep(0.01)


# -- all of them


@in_a_loop
async def test_all_of_holds_locks_of_every_kind_and_releases_them_together(harness):
    async with client_of(harness) as client:
        locks = [client.rwlock("c").read(), client.semaphore("b", 3, permits=2), client.lock("a")]
        async with client.all_of(locks).acquire(timeout=5) as leases:
            assert isinstance(leases, AsyncLeases)
            assert leases.names == ("a", "b", "c")
            assert leases.fences == {lease.name: lease.fence for lease in leases}
            assert leases.valid()
            leases.ensure_held()
            await leases.confirm()
            assert leases.remaining() > 0
            assert not leases.lost.is_set()
            assert not leases.release_requested.is_set()
            assert await client.all_of([client.lock("a"), client.lock("d")]).try_acquire() is None
            assert (await client.inspect("d")).claims == ()
        report = leases.report
        assert report.outcome == "RELEASED"
        assert list(report.by_name) == ["a", "b", "c"]
        assert await leases.release() == report
        with pytest.raises(NotHeld):
            leases.ensure_held()
        await _nothing_left(client)


@pytest.mark.parametrize(
    "locks",
    [
        lambda client, _: [],
        lambda client, _: "a",
        lambda client, _: ["a"],
        lambda client, _: client.lock("a"),
        lambda client, _: [client.rwlock("a")],
        lambda client, _: [client.rwlock("a").read(), client.rwlock("a").write()],
        lambda client, _: [client.semaphore("a", 2), client.semaphore("a", 2, permits=2)],
        lambda client, other: [client.lock("a"), other.lock("b")],
        lambda client, _: [client._client.lock("a")],
    ],
)
@pytest.mark.parametrize("call", ["all_of", "any_of"])
@in_a_loop
async def test_what_cannot_be_taken_together_is_refused_before_any_io(harness, locks, call):
    client, other = client_of(harness), client_of(harness)
    with pytest.raises(ConfigError):
        getattr(client, call)(locks(client, other))
    assert not client.is_open


@pytest.mark.parametrize("call", ["all_of", "any_of", "pool"])
@in_a_loop
async def test_a_bad_argument_is_refused_when_it_is_given(harness, call):
    async def coroutine_function(_waiting):
        return None

    async with client_of(harness) as client:
        lock = client.pool("p", ["0"]) if call == "pool" else getattr(client, call)([client.lock("a")])
        for bad in (
            {"timeout": True},
            {"on_wait": 3},
            {"on_wait": coroutine_function},
            {"detect_deadlock": 1},
        ):
            with pytest.raises(ConfigError):
                lock.acquire(**bad)


@in_a_loop
async def test_what_is_held_is_given_back_when_the_time_is_up(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        async with other.lock("b").acquire():
            both = client.all_of([client.lock("a"), client.lock("b")])
            for timeout, told in ((0.05, "'b'"), (0, "busy")):
                with pytest.raises(AcquireTimeout, match=told):
                    await both.acquire(timeout)
                await _gone(client, "a")
        async with both as same:
            assert same.lease.valid()
        await _nothing_left(client)


@in_a_loop
async def test_a_lock_that_is_lost_while_another_is_waited_for_ends_the_wait(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        async with other.lock("b").acquire():
            task = asyncio.create_task(
                client.all_of([client.lock("a", ttl=3), client.lock("b", ttl=3)]).acquire(30)
            )
            await _queued(other, "b")
            held = (await other.inspect("a")).holders[0]
            await other.evict("a", held.claim_id, reason="test", now=True)
            # On the memory store, and on the embedded one, the next renewal brings the news.
            client._opening.engine.heartbeat.catch_up()
            with pytest.raises(LeaseLost):
                await asyncio.wait_for(task, 30)
        await _nothing_left(client)


@in_a_loop
async def test_a_reentrant_lock_keeps_its_level(harness):
    async with client_of(harness) as client:
        lock = client.lock("a", reentrant=True)
        async with lock.acquire() as outer:
            async with client.all_of([lock, client.lock("b")]).acquire() as leases:
                assert leases.names == ("a", "b")
                assert leases[0].fence == outer.fence
            assert outer.valid()
            async with client.lock("c").acquire() as in_the_way:
                in_the_way.detach()
                assert await client.all_of([lock, client.lock("c")]).try_acquire() is None
            assert outer.valid()
        await _nothing_left(client)


@in_a_loop
async def test_the_loss_of_one_cancels_the_body(harness):
    async with client_of(harness) as client:
        leases = await client.all_of([client.lock("a"), client.lock("b")]).acquire()

        async def body():
            async with leases, leases.cancel_on_loss():
                await leases[1].simulate_loss()
                await asyncio.Event().wait()

        with pytest.raises(LeaseLost, match="'b'"):
            await body()
        assert leases.lost.is_set()
        await leases.lost
        assert leases.lost_because == "lapsed"
        assert isinstance(leases.invalid(), LeaseLost)


@in_a_loop
async def test_a_simulated_loss_is_that_of_each(harness):
    async with client_of(harness) as client:
        leases = await client.all_of([client.lock("a"), client.lock("b")]).acquire()
        told = []
        leases.on_lost(lambda: told.append("all"))
        leases[1].on_lost(lambda: told.append("b"))

        await leases.simulate_loss()

        assert sorted(told) == ["all", "b"], "the callbacks have returned"
        assert [lease.lost_because for lease in leases] == ["lapsed"] * 2
        with pytest.raises(LeaseLost):
            await leases.simulate_loss()
        await leases.release()


@in_a_loop
async def test_a_request_for_one_is_a_request_for_all(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        leases = await client.all_of([client.lock("a", ttl=3), client.lock("b", ttl=3)]).acquire()
        waits = asyncio.ensure_future(leases.release_requested.wait())
        await other.ask_release("b", leases[1].claim_id, "please")
        await leases.confirm()
        client._opening.engine.heartbeat.catch_up()
        async with asyncio.timeout(30):
            await waits
        assert [request.reason for request in leases.release_requests] == ["please"]
        await leases.release()


@in_a_loop
async def test_leases_that_are_collected_are_reported_at_once(harness):
    async with client_of(harness) as client:
        leases = await client.all_of([client.lock("a"), client.lock("b")]).acquire()
        assert not leases.lost.is_set()
        assert not leases.release_requested.is_set()
        assert len(pickle.loads(pickle.dumps(leases))) == 2
        gc.disable()
        try:
            with pytest.warns(ResourceWarning, match="never released"):
                del leases  # no circle keeps them
        finally:
            gc.enable()


@in_a_loop
async def test_a_closed_client_ends_the_wait(harness):
    async with client_of(harness) as other, other.lock("b").acquire():
        async with client_of(harness) as client:
            tasks = [
                asyncio.create_task(client.all_of([client.lock("a"), client.lock("b")]).acquire(30)),
                asyncio.create_task(client.any_of([client.lock("b")]).acquire(30)),
            ]
            await _queued(other, "b")
        for task in tasks:
            with pytest.raises(AcquireCancelled):
                await task
        assert (await other.inspect("a")).claims == ()
        assert len((await other.inspect("b")).claims) == 1


# -- any of them


@in_a_loop
async def test_any_of_takes_the_first_that_is_free_and_then_the_first_that_comes_free(harness):
    told = []
    async with client_of(harness) as client, client_of(harness) as other:
        locks = [client.lock(name) for name in "abc"]
        any_of = client.any_of(locks)
        async with other.lock("a").acquire(), other.lock("b").acquire() as second, any_of.acquire(5) as lease:
            assert lease.name == "c"
            task = asyncio.create_task(_name_of(any_of, told))
            await _queued(other, "a", "b", "c")
            await second.release()
            assert await asyncio.wait_for(task, 30) == "b"
        assert {waiting.name for waiting in told} >= {"a", "b", "c"}


async def _name_of(any_of, told):
    async with any_of.acquire(30, on_wait=told.append) as lease:
        return lease.name


@in_a_loop
async def test_a_task_never_waits_for_itself(harness):
    async with client_of(harness) as client:
        async with client.lock("a").acquire(), client.lock("b").acquire():
            with pytest.raises(DeadlockDetected, match="this task"):
                await client.any_of([client.lock("a"), client.lock("b")]).acquire(5)
            with pytest.raises(DeadlockDetected, match="this task"):
                await client.all_of([client.lock("0"), client.lock("a")]).acquire(5)
        await _nothing_left(client)


# -- pools


@in_a_loop
async def test_a_pool_gives_members_with_capacity(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        pool, theirs = (each.pool("p", {"0": 80, "1": 80}) for each in (client, other))
        async with pool.acquire(2, each=20) as leases:
            assert isinstance(leases, AsyncPoolLeases)
            assert leases.members == ("0", "1")
            assert await theirs.try_acquire() is None
            async with theirs.acquire(each=60, among=["1"], timeout=5) as more:
                assert more.members == ("1",)
                with pytest.raises(AcquireTimeout):
                    await theirs.acquire(timeout=0)
            waits = asyncio.create_task(theirs.acquire(2, timeout=30))
            await _queued(other, pool_name("p", "0"))
        whole = await asyncio.wait_for(waits, 30)
        assert whole.members == ("0", "1")
        assert (await whole.release()).outcome == "RELEASED"
        with pytest.raises(ConfigError, match="can never be met"):
            pool.acquire(3)
        async with pool as same:
            assert same.lease.members == ("0",)
        await _nothing_left(client)


@in_a_loop
async def test_the_release_of_many_ends_although_its_caller_is_cancelled(harness):
    async with client_of(harness) as client:
        leases = await client.all_of([client.lock(name) for name in "abc"]).acquire()
        task = asyncio.create_task(leases.release())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert leases.report.outcome == "RELEASED"
        assert leases.report.by_name.keys() == {"a", "b", "c"}
        await _nothing_left(client)


@in_a_loop
async def test_a_coroutine_that_is_closed_leaves_its_leases_to_the_background(harness):
    async with client_of(harness) as client:
        held, kept = asyncio.Event(), []

        async def body():
            async with client.all_of([client.lock("a"), client.lock("b")]).acquire() as leases:
                kept.append(leases)
                held.set()
                await asyncio.sleep(30)

        coroutine = body()
        await stepped_until(held, coroutine)
        coroutine.close()  # raises if the coroutine waits
        await soon(lambda: kept[0].report is not None)
        assert kept[0].report.outcome == "RELEASED"


def _taking(client):
    a, b = client.lock("a"), client.lock("b")
    return [
        (client.all_of([b, a]), ["a", "b"]),
        (client.any_of([b, a]), ["b"]),
        (client.pool("p", ["x", "y"]), [pool_name("p", "x")]),
    ]


@in_a_loop
async def test_each_lock_keeps_the_reason_of_the_whole_and_the_task_is_told_what_it_holds(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        for several, names in _taking(client):
            for call in (several.acquire, several.try_acquire):
                assert not several.held()
                async with await call(reason="nightly"):
                    assert several.held()
                    assert not await asyncio.create_task(_asked(several)), "another task"
                    for name in names:
                        assert (await other.inspect(name)).holders[0].reason == "nightly"


async def _asked(several):
    return several.held()


@in_a_loop
async def test_a_bad_reason_for_several_locks_is_refused_by_the_call_itself(harness):
    async with client_of(harness) as client:
        for several, _ in _taking(client):
            for call in (several.acquire, several.try_acquire):
                with pytest.raises(ConfigError, match="reason"):
                    call(reason="two\nlines")
