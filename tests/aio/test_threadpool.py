"""The threads for calls that an event loop must not make itself."""

from __future__ import annotations

import threading
import time

import pytest

from lockkit.drivers import threadpool as module
from lockkit.drivers.threadpool import ThreadPool


@pytest.fixture
def pool():
    pool = ThreadPool("test-pool", 3)
    yield pool
    pool.close()


def threads():
    return [each for each in threading.enumerate() if each.name == "test-pool"]


def until(happened):
    end = time.monotonic() + 30.0
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_calls_are_made_in_order_and_their_results_and_errors_kept(pool):
    order = []
    jobs = [pool.submit(lambda n=n: order.append(n) or n) for n in range(20)]
    assert [job.result(30) for job in jobs] == list(range(20))
    assert isinstance(pool.submit(lambda: 1 / 0).exception(5), ZeroDivisionError)


def test_a_thread_is_started_when_the_others_are_busy_and_no_more_than_allowed(pool):
    go_on, inside = threading.Event(), threading.Semaphore(0)

    def hang():
        inside.release()
        go_on.wait(30)

    jobs = [pool.submit(hang) for _ in range(5)]
    for _ in range(3):
        assert inside.acquire(timeout=30)
    assert not inside.acquire(timeout=0.05)
    assert len(threads()) == 3
    go_on.set()
    for job in jobs:
        job.result(30)


def test_many_callers_never_leave_work_behind_a_busy_thread(pool):
    """A call that was counted on a thread that has just become busy is taken by another one."""
    for _ in range(200):
        go_on = threading.Event()
        slow = [pool.submit(lambda: go_on.wait(30)) for _ in range(2)]  # noqa: B023 (it is over within the turn)
        assert pool.submit(lambda: 7).result(30) == 7
        go_on.set()
        for job in slow:
            job.result(30)


def test_a_job_that_has_not_begun_can_be_cancelled(pool):
    go_on = threading.Event()
    for _ in range(3):
        pool.submit(lambda: go_on.wait(30))
    late = pool.submit(lambda: pytest.fail("it was cancelled"))
    assert late.cancel()
    go_on.set()


def test_a_closed_pool_ends_its_threads_and_still_makes_calls(pool):
    go_on = threading.Event()
    jobs = [pool.submit(lambda: go_on.wait(30)) for _ in range(3)]
    go_on.set()
    for job in jobs:
        job.result(30)
    pool.close()
    until(lambda: not threads())
    assert pool.submit(lambda: 7).result(30) == 7
    until(lambda: not threads())


def test_idle_threads_end(pool, monkeypatch):
    monkeypatch.setattr(module, "_IDLE", 0.02)
    assert pool.submit(lambda: 7).result(30) == 7
    until(lambda: not threads())
    assert pool.submit(lambda: 8).result(30) == 8


def test_the_caller_makes_the_call_where_no_thread_can_be_started(pool, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "start", refuse)
    assert pool.submit(threading.get_ident).result(0) == threading.get_ident()
