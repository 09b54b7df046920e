"""A program that ends during a release: whatever cancels lockkit's tasks, the release goes on (S9)."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

import lockkit
from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Unknown
from support.aio import client_of, in_a_loop, soon
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


class Cleanup:
    """A cleanup hook that runs until it is told to end."""

    def __init__(self):
        self.begun, self.may_end = threading.Event(), threading.Event()

    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        self.begun.set()
        assert self.may_end.wait(30)


@pytest.fixture
def cleanup():
    plugin = Cleanup()
    yield plugin
    plugin.may_end.set()


def all_others():
    return asyncio.all_tasks() - {asyncio.current_task()}


async def cancel_all(times=1):
    """Cancel every task but this one, as `asyncio.run` does at its end and some programs do before it."""
    for _ in range(times):
        for task in all_others():
            task.cancel()
        await asyncio.sleep(0.01)


async def hold(lock, leases):
    async with lock.acquire(timeout=30) as lease:
        leases.append(lease)


@in_a_loop
async def test_a_cleanup_hook_ends_before_the_claim_is_given_away(harness, cleanup):
    async with client_of(harness, plugins=[cleanup]) as client:
        leases = []
        task = asyncio.create_task(hold(client.lock("a"), leases))
        await soon(cleanup.begun.is_set)
        await cancel_all(times=5)
        assert not task.done()
        assert len(await asyncio.to_thread(harness.stored, "a")) == 1
        cleanup.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        (report,) = (lease.report for lease in leases)
        assert report.outcome == "RELEASED"
        assert [layer.outcome for layer in report.layers] == ["DONE", "DONE"]
        assert await asyncio.to_thread(harness.stored, "a") == []


@pytest.mark.parametrize("turns", range(1, 6))
@in_a_loop
async def test_the_requests_of_a_release_go_on_whenever_all_tasks_are_cancelled(harness, turns):
    """After one turn of the loop the task of the release exists, and has not made its first step."""
    async with client_of(harness) as client:
        lease = await client.lock("a").acquire(timeout=30)
        task = asyncio.create_task(leave(lease))
        for _ in range(turns):
            await asyncio.sleep(0)
        struck = [other.cancel() for other in all_others() if other is task]
        for other in all_others() - {task}:
            other.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert struck
        assert lease.report is not None
        assert lease.report.outcome == "RELEASED"
        assert await asyncio.to_thread(harness.stored, "a") == []


async def leave(lease):
    async with lease:
        pass


@in_a_loop
async def test_a_close_ends_first_although_all_tasks_are_cancelled(harness, cleanup):
    client = client_of(harness, plugins=[cleanup])
    lease = await client.lock("a").acquire(timeout=30)
    task = asyncio.create_task(client.close())
    await soon(cleanup.begun.is_set)
    await cancel_all(times=3)
    assert not task.done()
    cleanup.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lease.report.outcome == "RELEASED"
    await asyncio.sleep(0)


@in_a_loop
async def test_a_close_that_is_cancelled_leaves_no_connection(harness):
    async with client_of(harness) as client, client.lock("a").acquire(timeout=30):
        pass  # what the store makes once
    before = dict(harness.residue())
    client = client_of(harness)
    leases = await asyncio.gather(*(client.lock(f"a{n}").acquire(timeout=30) for n in range(5)))
    assert len(leases) == 5
    engines = client._engines
    performer = engines.ready().performer
    task = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert performer is None or not performer._connections
    await soon(lambda: dict(harness.residue()) == before)


def test_a_release_whose_loop_was_closed_is_finished_by_a_thread(harness, cleanup):
    """As after a third Ctrl-C, which ends the loop with pending tasks. The thread waits for the hook too."""
    client = client_of(harness, plugins=[cleanup])
    loop = asyncio.new_event_loop()
    lease = loop.run_until_complete(client.lock("a").acquire(timeout=30))

    async def begin():
        task = asyncio.create_task(lease.release())
        await soon(cleanup.begun.is_set)
        return task

    task = loop.run_until_complete(begin())
    closing = threading.Thread(target=client._client.close)
    closing.start()
    assert len(harness.stored("a")) == 1
    cleanup.may_end.set()
    closing.join(30)
    assert not closing.is_alive()
    assert lease.report.outcome == "RELEASED"
    assert harness.stored("a") == []
    loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@in_a_loop
async def test_a_record_that_cannot_be_written_keeps_no_release(harness, monkeypatch):
    """The disk hangs on which the record of a failed release is to be written."""
    go_on = threading.Event()

    def unanswered(*_, **__):
        raise Unknown(BackendUnavailable("no answer"))

    async with client_of(harness, request_timeout=0.3) as client:
        lease = await client.lock("a").acquire(timeout=30)
        engine = client._opening.engine
        monkeypatch.setattr(client._engines.ready(), "performer", None)  # the requests are these calls
        for name in ("release", "abandon", "emergency_release"):
            monkeypatch.setattr(engine.backend, name, unanswered)
        monkeypatch.setattr(engine, "_record_failure", lambda record: go_on.wait(30))
        try:
            async with asyncio.timeout(30):
                report = await lease.release()
        finally:
            monkeypatch.undo()
            go_on.set()
        assert report.outcome == "ABANDONED"


@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_early_leaves_no_open_transport(harness):
    """The program closes neither the client nor the asynchronous generators of the loop."""
    client = client_of(harness)
    loop = asyncio.new_event_loop()
    lease = loop.run_until_complete(client.lock("a").acquire(timeout=30))
    loop.run_until_complete(lease.release())
    loop.close()
    client._client.close()
    del client, lease, loop
    gc.collect()


@pytest.mark.parametrize("many", [1, 12])
def test_a_generator_that_the_end_of_the_run_closes_releases_and_may_acquire(harness, caplog, many):
    """asyncio.run closes all generators side by side, that of lockkit's connections among them."""
    ended = []

    async def rows(client, name):
        lease = await client.lock(name).acquire(5)
        try:
            yield name
        finally:
            ended.append(await lease.release())
            async with client.lock(f"{name}/after").acquire(5):
                await client.lock(f"{name}/after").available()

    async def breaks_off():
        begun = [rows(client, f"a{number}") for number in range(many)]
        await asyncio.gather(*[anext(each) for each in begun])
        return begun

    client = client_of(harness)
    kept = asyncio.run(breaks_off())
    assert [report.outcome for report in ended] == ["RELEASED"] * len(kept)
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    asyncio.run(client.close())
