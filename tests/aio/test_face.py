"""The asyncio face: the same names and guarantees as the synchronous one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time

import pytest

import lockkit
from lockkit.aio import AsyncClient
from lockkit.errors import (
    AcquireCancelled,
    AcquireTimeout,
    CapabilityError,
    ConfigError,
    DeadlockDetected,
    LeaseLost,
    NotHeld,
)
from support.aio import client_of, in_a_loop, soon, stepped_until


@in_a_loop
async def test_it_acquires_and_releases(harness):
    async with client_of(harness) as client:
        lock = client.lock("a")
        async with lock.acquire(timeout=5) as lease:
            assert lease.valid()
            assert lease.fence > 0
            assert lease.remaining() > 0
            lease.ensure_held()
            await lease.confirm()
            assert (await client.inspect("a")).holders[0].claim_id == lease.claim_id
            assert await client.names() == ["a"]
        assert not lease.valid()
        assert lease.report is not None
        assert lease.report.outcome == "RELEASED"
        assert (await client.inspect("a")).claims == ()


@in_a_loop
async def test_await_gives_the_lease_and_release_is_idempotent(harness):
    async with client_of(harness) as client:
        lease = await client.lock("a").acquire()
        first, second = await asyncio.gather(lease.release(), lease.release())
        assert first is second
        assert await lease.release() is first


@in_a_loop
async def test_try_acquire_is_none_only_if_busy(harness):
    async with client_of(harness) as client:
        async with client.lock("a").acquire():
            assert await client.lock("a").try_acquire() is None
            with pytest.raises(AcquireTimeout, match="busy"):
                await client.lock("a").acquire(timeout=0)
        async with await client.lock("a").try_acquire() as lease:
            assert lease.valid()


@in_a_loop
async def test_a_timeout_leaves_nothing(harness):
    async with client_of(harness) as client, client.lock("a").acquire() as lease:
        lease.detach()
        with pytest.raises(AcquireTimeout, match="held by"):
            await client.lock("a").acquire(timeout=1.0)
        assert len((await client.inspect("a")).claims) == 1


@in_a_loop
async def test_waiters_are_served_in_order_and_take_no_thread_each(harness):
    before = threading.active_count()
    async with client_of(harness) as client:
        order = []

        async def wait(number):
            async with client.lock("a").acquire(timeout=30):
                order.append(number)

        first = await client.lock("a").acquire()
        tasks = []
        for number in range(20):
            tasks.append(asyncio.create_task(wait(number)))
            await asyncio.sleep(0)
            await soon(lambda: len(client._opening.engine.beats.waiting()) == len(tasks))
        assert threading.active_count() - before < 20
        await first.release()
        await asyncio.gather(*tasks)
        assert order == list(range(20))


@in_a_loop
async def test_the_task_that_holds_must_not_wait_for_itself_but_another_may(harness):
    async with client_of(harness) as client:
        lock = client.lock("a")
        lease = await lock.acquire()
        with pytest.raises(DeadlockDetected, match="this task holds"):
            await lock.acquire(timeout=5)
        other = asyncio.create_task(_hold_for_a_moment(lock))
        await soon(client._opening.engine.beats.waiting)
        await lease.release()
        await other


async def _hold_for_a_moment(lock):
    async with lock.acquire(timeout=30):
        pass


@in_a_loop
async def test_a_reentrant_lock_keeps_its_fence_within_the_task(harness):
    async with client_of(harness) as client:
        lock = client.lock("a", reentrant=True)
        async with lock.acquire() as outer:
            async with lock.acquire() as inner:
                assert inner.fence == outer.fence
            assert inner.report.outcome == "KEPT"
            assert outer.valid()
            assert await asyncio.create_task(_try(lock)) is None
        assert outer.report.outcome == "RELEASED"


async def _try(lock):
    return await lock.try_acquire()


@in_a_loop
async def test_a_task_that_writes_may_read_and_one_that_reads_may_not_write(harness):
    async with client_of(harness) as client:
        both = client.rwlock("a", reentrant=True)
        async with both.write().acquire() as outer, both.read().acquire() as inner:
            assert inner.fence == outer.fence
            assert both.read().held()
            assert await asyncio.create_task(_try(both.read())) is None
        async with both.read().acquire(), both.read().acquire():
            with pytest.raises(
                DeadlockDetected, match=r"this task holds 'a' for reading.* a reader cannot become"
            ):
                await both.write().acquire(timeout=5)
        assert (await client.inspect("a")).claims == ()


@in_a_loop
async def test_held_goes_by_the_task_and_available_counts_permits(harness):
    async with client_of(harness) as client:
        lock = client.semaphore("s", 3)
        assert await lock.available() == 3
        async with lock.acquire():
            assert lock.held()
            assert await lock.available() == 2
            assert not await asyncio.create_task(_held(lock))
        assert not lock.held()


async def _held(lock):
    return lock.held()


@in_a_loop
async def test_an_adopted_handle_extends_its_claim(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        if client.capabilities.fixed_ttl:
            pytest.skip("one ttl for all claims")
        async with client.lock("a", ttl=10).acquire() as lease:
            travelled = other.adopt(lease.handle())
            await travelled.extend(40)
            assert not travelled.valid()
            assert (await other.inspect("a")).holders[0].ttl == 40
        with pytest.raises(LeaseLost):
            await travelled.extend(50)


@in_a_loop
async def test_the_short_form_keeps_its_lease_for_each_task(harness):
    async with client_of(harness) as client:
        lock = client.lock("a")
        with pytest.raises(NotHeld):
            _ = lock.lease
        async with lock as same:
            assert same is lock
            assert lock.lease.valid()
            assert await asyncio.create_task(_has_lease(lock)) is False
        assert not hasattr(lock, "lease")


async def _has_lease(lock):
    return hasattr(lock, "lease")


@in_a_loop
async def test_a_short_form_may_end_in_another_task(harness):
    async with client_of(harness) as client:
        lock = client.lock("a")
        stack = contextlib.AsyncExitStack()
        await asyncio.create_task(stack.enter_async_context(lock))
        assert len((await client.inspect("a")).holders) == 1
        await asyncio.create_task(stack.aclose())
        assert (await client.inspect("a")).claims == ()


@in_a_loop
async def test_semaphores_and_reader_writer_locks(harness):
    async with client_of(harness) as client:
        semaphore = client.semaphore("s", 2)
        one, two = await asyncio.gather(_detached(semaphore), _detached(semaphore))
        assert await semaphore.try_acquire() is None
        assert await client.resize("s", 3) == 2
        await asyncio.gather(one.release(), two.release())
        index = client.rwlock("i")
        async with index.read().acquire(), index.read().acquire():
            assert await index.write().try_acquire() is None
        async with index.write().acquire():
            assert await index.read().try_acquire() is None
        with pytest.raises(ConfigError, match="can never fit"):
            client.semaphore("s", 2, permits=3)


async def _detached(lock):
    return (await lock.acquire(timeout=5)).detach()


@in_a_loop
async def test_operations_on_claims_of_others(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        lease = await client.lock("a").acquire()
        await other.annotate("a", lease.claim_id, {"ask": True})
        evicted = await other.evict("a", lease.claim_id, reason="a test", now=True)
        assert evicted.outcome != "ABSENT"
        with pytest.raises(LeaseLost):
            await lease.confirm()
        await asyncio.wait_for(lease.lost.wait(), 30)
        assert lease.lost.is_set()
        assert (await lease.release()).outcome == "LOST"
        assert await other.check() is not None


@in_a_loop
async def test_a_copy_releases_exactly_its_claim(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        lease = await client.lock("a").acquire()
        copy = other.adopt(lease.handle())
        assert await copy.held()
        assert not copy.valid()
        assert (await copy.release()).outcome == "RELEASED"
        assert not await copy.held()
        assert [each.claim_id for each in client.leases()] == [lease.claim_id]
        await lease.release()


@in_a_loop
async def test_extend_lengthens_the_ttl(harness):
    async with client_of(harness) as client, client.lock("a", ttl=30).acquire() as lease:
        with pytest.raises(ConfigError, match="below the present ttl"):
            await lease.extend(10)
        await lease.extend(60)
        assert lease.ttl == 60


@in_a_loop
async def test_arguments_are_refused_before_anything_is_awaited(harness):
    client = client_of(harness)
    lock = client.lock("a")
    with pytest.raises(ConfigError, match="timeout must be"):
        lock.acquire(timeout=True)
    with pytest.raises(TypeError, match="blocking"):
        lock.acquire(blocking=False)
    with pytest.raises(ConfigError, match="on_wait must be callable"):
        lock.acquire(on_wait=1)

    async def later(*_):
        raise AssertionError

    with pytest.raises(ConfigError, match="on_wait must be a plain function"):
        lock.acquire(on_wait=later)
    with pytest.raises(ConfigError, match="on_lost must be a plain function"):
        client.lock("a", on_lost=later)
    with pytest.raises(ConfigError, match="no such option"):
        client.lock("a", tiemout=1)
    assert not client.is_open
    await client.close()


@in_a_loop
async def test_on_wait_is_told_of_the_holder(harness):
    async with client_of(harness) as client:
        lease = await client.lock("a").acquire()
        told = []
        waiting = asyncio.create_task(_wait_and_tell(client.lock("a"), told))
        await soon(lambda: told)
        await lease.release()
        await waiting
        assert told[0].name == "a"


@in_a_loop
async def test_on_wait_is_told_of_a_new_place_although_nothing_has_woken_the_task(harness):
    async with client_of(harness) as client:
        lock = client.lock("a")
        lease = await lock.acquire()
        told, tasks = [], []
        for wait in (_held_once(lock), _held_once(lock), _wait_and_tell(lock, told)):
            tasks.append(asyncio.create_task(wait))
            await soon(lambda: len(client._opening.engine.beats.waiting()) == len(tasks))
        await soon(lambda: told)
        assert told[0].position == 3
        tasks[0].cancel()
        await soon(lambda: told[-1].position == 2)
        await lease.release()
        await asyncio.gather(*tasks[1:])


async def _held_once(lock):
    async with lock.acquire(timeout=30):
        pass


async def _wait_and_tell(lock, told):
    async with lock.acquire(timeout=30, on_wait=told.append):
        pass


@in_a_loop
async def test_closing_cancels_waits_and_releases_holds(harness):
    client, other = client_of(harness), client_of(harness)
    lease = await client.lock("a").acquire()
    waiting = asyncio.create_task(_hold_for_a_moment(other.lock("a")))
    await soon(lambda: other.is_open and other._opening.engine.beats.waiting())
    await other.close()
    with pytest.raises(AcquireCancelled, match="closed"):
        await waiting
    await client.close()
    await client.close()
    assert lease.report.outcome == "RELEASED"
    with pytest.raises(AcquireCancelled):
        await client.lock("a").acquire()
    assert harness.stored("a") == []


@in_a_loop
async def test_decorated_coroutine_functions_hold_their_lock(harness):
    async with client_of(harness) as client:

        @client.locked("invoice:{number}", timeout=5)
        async def bill(number):
            return (await client.inspect(f"invoice:{number}")).holders

        @client.locked("invoice:{number}", timeout=0, on_busy="skip")
        async def skip(number):
            raise AssertionError

        assert len(await bill(7)) == 1
        async with client.lock("invoice:7").acquire():
            skipped = await skip(7)
            assert not skipped
            assert skipped.name == "invoice:7"
        assert (await client.inspect("invoice:7")).claims == ()
        with pytest.raises(ConfigError, match="not a coroutine function"):
            client.locked("a")(lambda: None)
        with pytest.raises(ConfigError, match="no argument"):
            client.locked("a:{x}")(bill.__wrapped__)


def test_the_synchronous_client_says_what_to_use_for_coroutine_functions(harness):
    async def work():
        raise AssertionError

    with harness.client() as client, pytest.raises(ConfigError, match=r"lockkit\.aio"):
        client.locked("a")(work)


def test_the_module_is_found_and_the_client_awaited(tmp_path):
    async def main():
        client = await lockkit.aio.connect("memory://found", state_dir=str(tmp_path))
        assert isinstance(client, AsyncClient)
        async with client, client.lock("a"):
            pass

    asyncio.run(main())


@in_a_loop
async def test_a_lost_lease_ends_its_statement_with_an_error(harness):
    async with client_of(harness) as client:
        with pytest.raises(LeaseLost):
            async with client.lock("a").acquire() as lease:
                await lease.simulate_loss()
        with pytest.raises(ZeroDivisionError):
            await _fail_after_a_loss(client.lock("a"))
        assert (await client.inspect("a")).holders == ()


@in_a_loop
async def test_an_error_of_the_body_says_that_the_lock_was_lost_as_well(harness):
    async with client_of(harness) as client:
        with pytest.raises(ZeroDivisionError) as raised:
            await _fail_after_a_loss(client.lock("a"))
        (note,) = raised.value.__notes__
        assert "the hold of 'a'" in note
        assert "may have lapsed" in note


async def _fail_after_a_loss(lock):
    async with lock.acquire() as lease:
        await lease.simulate_loss()
        raise ZeroDivisionError


@in_a_loop
async def test_a_loss_cancels_the_body(harness):
    async with client_of(harness) as client:
        began = asyncio.Event()

        async def work():
            async with client.lock("a").acquire() as lease, lease.cancel_on_loss():
                leases.append(lease)
                began.set()
                await asyncio.sleep(30)

        leases = []
        task = asyncio.create_task(work())
        await began.wait()
        await leases[0].simulate_loss()
        with pytest.raises(LeaseLost):
            await task
        assert task.cancelling() == 0
        assert not task.cancelled()


@pytest.mark.parametrize("awaits", [False, True], ids=["no await", "swallowed"])
@in_a_loop
async def test_a_loss_is_an_error_although_the_body_goes_on_as_if_there_were_none(harness, awaits):
    async with client_of(harness) as client:
        lease = await client.lock("a").acquire()

        async def work():
            async with lease.cancel_on_loss():
                client._opening.engine.lose(lease._hold, "lapsed")
                if awaits:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(30)

        with pytest.raises(LeaseLost):
            await work()
        assert asyncio.current_task().cancelling() == 0
        await lease.release()


@in_a_loop
async def test_a_callback_of_a_loss_may_need_the_loop(harness):
    """A simulated loss waits for the callbacks, and the loop runs meanwhile."""
    loop, ran = asyncio.get_running_loop(), []

    async def note():
        ran.append(True)

    async with client_of(harness) as client:
        lock = client.lock("a", on_lost=lambda: asyncio.run_coroutine_threadsafe(note(), loop).result(30))
        lease = await lock.acquire()
        await lease.simulate_loss()
        assert ran
        await lease.release()


@in_a_loop
async def test_a_generator_that_is_closed_has_released_its_lock(harness):
    async with client_of(harness) as client:
        lock = client.lock("a")

        @contextlib.asynccontextmanager
        async def guarded():
            async with lock:
                yield

        async def long_form():
            async with lock.acquire():
                yield

        async def together():
            async with client.all_of([lock, client.lock("b")]).acquire():
                yield

        async def through_others():
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(guarded())
                yield

        for each in (long_form, together, through_others):
            async with contextlib.aclosing(each()) as generator:
                async for _ in generator:
                    break
            assert harness.stored("a") == []


@in_a_loop
async def test_a_generator_that_is_collected_releases_its_lock(harness):
    async with client_of(harness) as client:

        async def generator():
            async with client.lock("a").acquire():
                yield

        async for _ in generator():
            break
        gc.collect()
        await soon(lambda: not harness.stored("a"))
        await soon(lambda: len(asyncio.all_tasks()) == 1)


@in_a_loop
async def test_a_coroutine_that_is_closed_by_a_generator_does_not_wait(harness):
    async with client_of(harness) as client:
        held = asyncio.Event()

        async def body():
            async with client.lock("a").acquire():
                held.set()
                await asyncio.sleep(30)

        async def generator():
            coroutine = body()
            await stepped_until(held, coroutine)
            coroutine.close()  # raises if the coroutine waits
            yield

        async for _ in generator():
            pass
        await soon(lambda: not harness.stored("a"))


@in_a_loop
async def test_a_cancellation_from_elsewhere_stays_one(harness):
    async with client_of(harness) as client:

        async def work(began):
            async with client.lock("a").acquire() as lease, lease.cancel_on_loss():
                began.set()
                await asyncio.sleep(30)

        began = asyncio.Event()
        task = asyncio.create_task(work(began))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert harness.stored("a") == []


@in_a_loop
async def test_a_lease_that_is_lost_already_lets_nobody_in(harness):
    async with client_of(harness) as client:
        lease = await client.lock("a").acquire()
        await lease.simulate_loss()
        with pytest.raises(LeaseLost):
            async with lease.cancel_on_loss():
                raise AssertionError
        await lease.lost
        await lease.release()


@in_a_loop
async def test_a_body_that_ended_before_the_loss_is_not_cancelled(harness):
    async with client_of(harness) as client, client.lock("a").acquire() as lease:
        lease.detach()
        async with lease.cancel_on_loss():
            pass
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0


@in_a_loop
async def test_a_collected_lease_is_reported_and_its_claim_removed(harness):
    async with client_of(harness) as client:
        ttl = max(0.5, harness.capabilities.min_ttl)
        leases = [await client.lock("a", ttl=ttl).acquire()]
        with pytest.warns(ResourceWarning, match="never released"):
            leases.clear()
        gc.collect()
        await soon(lambda: not harness.stored("a"))


@in_a_loop
async def test_a_loop_that_stands_still_does_not_lose_the_lease(harness):
    ttl = max(1.0, harness.capabilities.min_ttl)
    async with client_of(harness) as client, client.lock("a", ttl=ttl).acquire() as lease:
        time.sleep(2 * ttl)  # noqa: ASYNC251 (what must not be done)
        assert lease.valid()


def test_a_client_serves_one_loop_after_the_other(harness):
    client = client_of(harness)

    async def take():
        return await client.lock("a").acquire(timeout=5)

    async def give(lease):
        return await lease.release()

    lease = asyncio.run(take())
    assert lease.valid()
    assert asyncio.run(give(lease)).outcome == "RELEASED"
    asyncio.run(client.close())
    assert harness.stored("a") == []


def test_two_loops_in_two_threads_share_a_client(harness):
    client = client_of(harness)
    most = []

    async def work():
        for _ in range(20):
            async with client.lock("a").acquire(timeout=30):
                most.append(1)
                assert len(most) == 1
                await asyncio.sleep(0)
                most.pop()

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(client.close())


@in_a_loop
async def test_a_coroutine_without_a_loop_says_so(harness):
    client = client_of(harness)
    result = await asyncio.to_thread(_send, client.lock("a").acquire())
    assert isinstance(result, RuntimeError)
    await client.close()


def _send(coroutine):
    try:
        coroutine.send(None)
    except RuntimeError as error:
        return error


def test_bad_ttl_is_refused_at_once(harness):
    client = client_of(harness)
    with pytest.raises((ConfigError, CapabilityError)):
        client.lock("a", ttl=-1)
