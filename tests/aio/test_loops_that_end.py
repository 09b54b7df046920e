"""Event loops that end, stop for good, or belong to a parent: no hang, no loss, no false report."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest

from lockkit.errors import AcquireCancelled, BackendUnavailable
from support.aio import client_of, in_a_loop, soon
from support.harnesses.redis import RedisHarness

PROGRAM = """
import asyncio, os, sys, time
import lockkit, lockkit.aio
client = lockkit.aio.connect(sys.argv[1], state_dir=sys.argv[2])
"""


def program(tmp_path, text, url="sqlite:", code=0):
    """Run a program in a process of its own; its standard output and error output."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM + textwrap.dedent(text), url, str(tmp_path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=90,
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def waits_until(happened):
    end = time.monotonic() + 30.0
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


# -- the end of asyncio.run


def test_a_run_that_ends_with_waiters_and_holders_about_leaves_nothing(tmp_path):
    out, err = program(
        tmp_path,
        """
        async def hold():
            async with client.lock("a").acquire():
                await asyncio.sleep(60)

        async def main():
            tasks = [asyncio.create_task(hold()) for _ in range(5)]
            await asyncio.sleep(0.3)
            return tasks

        async def gone():  # what is cancelled is removed in the background
            while (await client.inspect("a")).claims:
                await asyncio.sleep(0.01)

        asyncio.run(main())
        asyncio.run(asyncio.wait_for(gone(), 60))
        print("nothing is left")
        asyncio.run(client.close())
        """,
    )
    assert out == "nothing is left\n"
    assert err == ""


def test_a_program_may_end_without_closing(tmp_path):
    out, err = program(
        tmp_path,
        """
        async def main():
            global lease
            lease = await client.lock("a").acquire()

        asyncio.run(main())
        print(lease.valid())
        """,
    )
    assert out == "True\n"
    assert "Task was destroyed" not in err
    assert "Traceback" not in err
    _, err = program(tmp_path, 'asyncio.run(client.lock("a").acquire(timeout=20))')
    assert "AcquireTimeout" not in err


def test_the_interpreter_does_not_wait_for_a_loop_in_a_daemon_thread(tmp_path):
    began = time.monotonic()
    _, err = program(
        tmp_path,
        """
        import threading
        ready = threading.Event()

        async def main():
            async with client.lock("a").acquire():
                async def wait():
                    async with client.lock("a").acquire(timeout=None):
                        pass
                task = asyncio.create_task(wait())
                await asyncio.sleep(0.2)
                ready.set()
                await task

        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        ready.wait(30)
        """,
    )
    assert time.monotonic() - began < 60
    assert "Fatal" not in err


# -- a loop that stops for good


class Stopped:
    """A loop that ran in a thread, and was stopped in the middle of what it did."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)

    def close(self):
        """Let the test end without the noise that this program, not lockkit, causes."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@pytest.fixture
def stopped():
    loop = Stopped()
    yield loop
    if loop._thread.is_alive():
        loop.stop()
    loop.close()


def test_a_release_whose_loop_stopped_is_finished_by_a_thread(harness, stopped):
    """The loop stops while a request of the release is under way."""
    client = client_of(harness, request_timeout=2.0)
    lease = stopped.call(client.lock("a").acquire()).result(30)
    backend, asked = client._opening.engine.backend, threading.Event()
    if backend.extras.at_once:
        client._client.close()
        pytest.skip("a release on this store is one step")
    release = backend.release

    def slowly(*args, **keywords):
        asked.set()
        time.sleep(0.2)
        return release(*args, **keywords)

    backend.release = slowly
    stopped.call(lease.release())
    assert asked.wait(30)
    stopped.stop()
    waits_until(lambda: not harness.stored("a"))
    waits_until(lambda: lease.report is not None)
    client._client.close()


def test_a_release_that_never_began_is_done_by_a_thread(harness, stopped):
    client = client_of(harness, request_timeout=2.0)
    lease = stopped.call(client.lock("a").acquire()).result(30)

    async def begin_and_stop():
        asyncio.ensure_future(lease.release())  # noqa: RUF006 (it is to be lost)
        await asyncio.sleep(0)
        stopped.loop.stop()

    stopped.call(begin_and_stop())
    stopped._thread.join(30)
    waits_until(lambda: not harness.stored("a"))
    client._client.close()


def test_closing_takes_back_what_waits_on_a_loop_that_stopped(harness, stopped):
    client, other = client_of(harness), client_of(harness)
    held = asyncio.run(_taken(other.lock("a")))
    waiting = stopped.call(client.lock("a").acquire())
    waits_until(lambda: client.is_open and client._opening.engine.beats.waiting())
    stopped.stop()
    began = time.monotonic()
    client._client.close()
    assert time.monotonic() - began < 30
    assert [claim.claim_id for claim in harness.stored("a")] == [held.claim_id]
    waiting.cancel()
    other._client.close()


@pytest.mark.parametrize("together", [False, True])
def test_what_waits_on_a_loop_that_was_closed_is_taken_back(harness, together):
    """A loop may be closed without cancelling its tasks; a second Ctrl-C makes ``asyncio.run`` do so."""
    client, other = client_of(harness), client_of(harness)
    held = asyncio.run(_taken(other.lock("b")))
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # a task is destroyed

    async def until_it_waits():
        lock = client.all_of([client.lock("a"), client.lock("b")]) if together else client.lock("b")
        queued = asyncio.Event()
        loop.create_task(lock.acquire(on_wait=lambda _: queued.set()))  # noqa: RUF006 (it is to be lost)
        await asyncio.wait_for(queued.wait(), 30)

    loop.run_until_complete(until_it_waits())
    if here := client._engines._loops.get(loop):
        here.abort()  # else the sockets are closed by the garbage collector, with a warning
    loop.close()
    waits_until(lambda: not harness.stored("a"))
    waits_until(lambda: [claim.claim_id for claim in harness.stored("b")] == [held.claim_id])
    client._client.close()
    other._client.close()
    gc.collect()


@pytest.mark.parametrize("where", ["under_way", "releasing"])
def test_a_request_of_a_loop_that_was_closed_keeps_no_lease(tmp_path, where):
    """The task that waits for the reply holds an unreachable lock: it is released, not renewed."""
    harness = RedisHarness(tmp_path)
    client = client_of(harness)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # a task is destroyed

    async def hold():
        async with client.lock("b").acquire(timeout=30):
            while True:
                async with client.lock("c").acquire(timeout=30):
                    pass

    async def until_it_asks():
        loop.create_task(hold())  # noqa: RUF006 (it is to be lost)
        await soon(lambda: harness.stored("b"))
        engine = client._opening.engine
        await soon(lambda: engine.under_way if where == "under_way" else engine.beats.releasing)

    def free():
        gc.collect()
        return not harness.stored("b") and not harness.stored("c")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.run_until_complete(until_it_asks())
        loop.close()
        waits_until(free)
    client._client.close()
    harness.close()


@pytest.mark.parametrize("watch", ["cancel_on_loss", "lost", "release_requested"])
def test_a_watch_for_the_loss_keeps_no_lease_of_a_loop_that_was_closed(harness, watch):
    client = client_of(harness)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # a task is destroyed

    async def hold():
        async with client.lock("a").acquire(timeout=30) as lease:
            if watch == "cancel_on_loss":
                async with lease.cancel_on_loss():
                    await asyncio.sleep(60)
            await getattr(lease, watch)

    async def until_it_holds():
        loop.create_task(hold())  # noqa: RUF006 (it is to be lost)
        await soon(lambda: client.is_open and client._opening.engine.registry.holds)

    loop.run_until_complete(until_it_holds())
    loop.close()

    def free():
        gc.collect()
        return not harness.stored("a")

    waits_until(free)
    client._client.close()


async def _taken(lock):
    return (await lock.acquire(timeout=30)).detach()


def test_a_collected_coroutine_releases_in_the_background(harness):
    """A generator-based runner may drop a coroutine inside its `async with`, where nothing may be awaited."""
    client = client_of(harness)
    loop = asyncio.new_event_loop()

    async def body():
        async with client.lock("a").acquire():
            await asyncio.sleep(60)

    coroutine = body()
    task = loop.create_task(coroutine)
    loop.run_until_complete(soon(lambda: client.is_open and client._opening.engine.registry.holds))
    assert len(harness.stored("a")) == 1
    coroutine_is_closed(coroutine, task)
    waits_until(lambda: not harness.stored("a"))
    del task, coroutine
    gc.collect()
    loop.run_until_complete(client.close())
    loop.close()


def coroutine_is_closed(coroutine, task):
    task._log_destroy_pending = False  # the test's own doing
    coroutine.close()


# -- other loops and processes


def test_a_wait_ends_if_the_client_is_closed_from_another_thread(harness, stopped):
    client, other = client_of(harness), client_of(harness)
    held = asyncio.run(_taken(other.lock("a")))
    waiting = stopped.call(client.lock("a").acquire())
    waits_until(lambda: client.is_open and client._opening.engine.beats.waiting())
    asyncio.run(client.close())
    with pytest.raises(AcquireCancelled):
        waiting.result(30)
    assert held.valid()
    other._client.close()


def test_a_forked_child_begins_afresh_and_holds_nothing(harness):
    if harness.capabilities.scope == "process":
        pytest.skip("nothing of this store reaches another process")
    client = client_of(harness)
    lease = asyncio.run(_taken(client.lock("a")))
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = asyncio.run(_in_the_child(client, lease))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert lease.valid()
    assert asyncio.run(lease.release()).outcome == "RELEASED"
    asyncio.run(client.close())


async def _in_the_child(client, lease):
    good = not lease.valid()
    good = good and (await lease.release()).outcome == "KEPT"
    good = good and await client.lock("a").try_acquire() is None
    async with client.lock("b").acquire(timeout=30):
        pass
    await client.close()
    return 0 if good else 3


def test_uvloop_serves_as_well(harness):
    uvloop = pytest.importorskip("uvloop")
    client = client_of(harness)

    async def work():
        async with client.lock("a").acquire(timeout=30) as lease:
            tasks = [asyncio.create_task(_short(client.lock("a"))) for _ in range(5)]
            await soon(client._opening.engine.beats.waiting)
            tasks[0].cancel()
            lease.ensure_held()
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def main():
        try:
            return await work()
        finally:
            await client.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        first, *others = runner.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert others == [None] * 4


async def _short(lock):
    async with lock:
        pass


# -- threads


@in_a_loop
async def test_a_release_does_not_stand_behind_acquires_that_hang(harness):
    """Every thread for acquires is in a call that does not return."""
    async with client_of(harness, request_timeout=2.0) as client:
        lease = await client.lock("held").acquire()
        backend = client._opening.engine.backend
        if backend.extras.at_once:
            pytest.skip("this store is called without threads")
        go_on, acquire = threading.Event(), backend.acquire

        def hangs(*args):
            go_on.wait(30)
            return acquire(*args)

        backend.acquire = hangs
        tasks = [asyncio.create_task(_short(client.lock(f"n{n}"))) for n in range(20)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            assert (await lease.release()).outcome == "RELEASED"
        go_on.set()
        await asyncio.gather(*tasks)


@in_a_loop
async def test_a_timeout_is_kept_though_no_thread_is_free(harness):
    async with client_of(harness, request_timeout=25.0) as client:
        async with client.lock("held").acquire():
            pass
        backend = client._opening.engine.backend
        if backend.extras.at_once:
            pytest.skip("this store is called without threads")
        go_on, acquire = threading.Event(), backend.acquire

        def hangs(*args):
            go_on.wait(30)
            return acquire(*args)

        backend.acquire = hangs
        tasks = [asyncio.create_task(_short(client.lock(f"n{n}"))) for n in range(4)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(15):
            with pytest.raises(BackendUnavailable, match="no thread of this client was free"):
                await client.lock("late").acquire(timeout=0.2)
        go_on.set()
        await asyncio.gather(*tasks)
