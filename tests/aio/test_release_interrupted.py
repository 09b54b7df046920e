"""A signal handler that raises inside a release's task: the release ends, then the exception is raised."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import signal

import pytest

from lockkit.drivers import loopreleases
from lockkit.protocol.releasing import releasing
from lockkit.testing.interrupts import CtrlC
from lockkit.testing.processes import until
from support.aio import client_of, soon
from support.harnesses.memory import MemoryHarness


class TimeLimit(Exception):
    """A soft time limit, as Celery's."""


@pytest.fixture
def harness(tmp_path):
    harness = MemoryHarness(tmp_path)
    yield harness
    harness.close()


@pytest.fixture(params=[KeyboardInterrupt, TimeLimit])
def kind(request):
    def handler(*_):
        raise request.param

    before = signal.signal(signal.SIGALRM, handler)
    yield request.param
    signal.signal(signal.SIGALRM, before)


def struck(engine, where, times, monkeypatch):
    """Have the signal arrive in the next steps of a release, or in its next requests."""
    left = [None] * times

    def strike():
        if left:
            left.pop()
            signal.raise_signal(signal.SIGALRM)

    def steps(pipeline, now):
        strike()
        return (yield from releasing(pipeline, now))

    def release(*args, **keywords):
        strike()
        return call(*args, **keywords)

    call = engine.backend.release
    if where == "step":
        monkeypatch.setattr(loopreleases, "releasing", steps)
    else:
        monkeypatch.setattr(engine.backend, "release", release)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("where", ["step", "request"])
def test_what_a_handler_raises_in_a_release_comes_out_when_the_release_is_over(
    harness, kind, where, times, monkeypatch, caplog
):
    leases = []

    async def main():
        async with client_of(harness) as client:
            leases.append(await client.lock("a").acquire(timeout=5))
            struck(client._opening.engine, where, times, monkeypatch)
            await leases[0].release()

    with pytest.raises(kind):
        asyncio.run(main())
    gc.collect()

    assert not caplog.records, "the loop reported it as well"
    assert leases[0].report.outcome == "RELEASED"
    assert harness.stored("a") == []


def test_a_handler_that_raises_in_every_step_ends_the_task_and_a_thread_goes_on(harness, kind, monkeypatch):
    leases = []

    async def main():
        async with client_of(harness) as client:
            leases.append(await client.lock("a").acquire(timeout=5))
            struck(client._opening.engine, "step", 100, monkeypatch)
            with contextlib.suppress(TimeLimit):
                await leases[0].release()
            monkeypatch.undo()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
    monkeypatch.undo()

    assert leases[0].report.outcome == "RELEASED"
    assert harness.stored("a") == []


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_handler_that_raises_beside_the_first_step_of_the_task_of_a_release_stops_nobody(
    harness, kind, where, monkeypatch
):
    """The caller waits for a task of its own that a signal has ended, and goes on with the release itself."""
    leases, left, begun = [], [None], []

    class Struck(loopreleases._Begun):
        def send(self, value):
            if left:
                left.pop()
                begun.append(self._steps)
                if where == "before":
                    self.close()  # never begun, which Python would complain about
                else:
                    super().send(value)
                signal.raise_signal(signal.SIGALRM)
            return super().send(value)

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with client_of(harness) as client:
            leases.append(await client.all_of([client.lock("a"), client.lock("b")]).acquire(timeout=5))
            monkeypatch.setattr(loopreleases, "_Begun", Struck)
            try:
                await leases[0].release()
            finally:  # a task that was ended between two steps leaves none that keeps a connection
                assert inspect.getcoroutinestate(begun[0]) == inspect.CORO_CLOSED

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(asyncio.wait_for(main(), 30))
    gc.collect()

    assert all(lease.report.outcome == "RELEASED" for lease in leases[0])
    assert harness.stored("a") == harness.stored("b") == []


def test_what_a_handler_raises_in_one_of_several_releases_comes_out(harness, kind, monkeypatch):
    """The task of the release is over before anybody waits for it."""
    leases, left = [], [None]

    def steps(pipeline, now):
        if pipeline.hold.name == "a" and left:
            left.pop()
            signal.raise_signal(signal.SIGALRM)
        return (yield from releasing(pipeline, now))

    async def main():
        async with client_of(harness) as client:
            leases.append(await client.all_of([client.lock("a"), client.lock("b")]).acquire(timeout=5))
            monkeypatch.setattr(loopreleases, "releasing", steps)
            await leases[0].release()

    with pytest.raises(kind):
        asyncio.run(main())

    assert harness.stored("a") == harness.stored("b") == []


def test_a_release_that_ended_its_loop_keeps_no_lease_that_nobody_else_can_reach(harness, monkeypatch):
    """Ctrl-C in a release's task refers to the frames it ends, and they to other leases. The task is lost."""
    client = client_of(harness)

    def interrupted(pipeline, now):
        raise CtrlC
        yield

    async def hold():
        async with client.lock("b").acquire(timeout=30):
            await asyncio.sleep(60)

    async def begin_release():
        lease = await client.lock("a").acquire(timeout=30)
        await soon(lambda: harness.stored("b"))
        lease.begin_release("normal")
        await asyncio.sleep(60)

    def work(loop):
        holder = loop.create_task(hold())
        monkeypatch.setattr(loopreleases, "releasing", interrupted)
        loop.run_until_complete(begin_release())
        return holder

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    with pytest.raises(CtrlC):
        work(loop)
    loop.close()  # at once, as by a second Ctrl-C while asyncio.run ends the tasks
    monkeypatch.undo()

    def free():
        gc.collect()  # once more when the first release is over, which refers to what interrupted it
        return not harness.stored("a") and not harness.stored("b")

    until(free, "both locks are free")
    client._client.close()
