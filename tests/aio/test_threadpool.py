"""The threads for calls that an event loop must not make itself."""

from __future__ import annotations

import threading
import time

import pytest

from lockkit.drivers import threadpool as module
from lockkit.drivers.threadpool import ThreadPool
from support.striking import LONG, strike_each_place


@pytest.fixture
def pool():
    pool = ThreadPool("test-pool", 3)
    yield pool
    pool.close()


def threads():
    return [each for each in threading.enumerate() if each.name == "test-pool"]


def result(job):
    until(job.done)
    return job.result()


def until(happened):
    end = time.monotonic() + 30.0
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_calls_are_made_in_order_and_their_results_and_errors_kept(pool):
    order = []
    jobs = [pool.submit(lambda n=n: order.append(n) or n) for n in range(20)]
    assert [result(job) for job in jobs] == list(range(20))
    with pytest.raises(ZeroDivisionError):
        result(pool.submit(lambda: 1 / 0))


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
        result(job)


def test_many_callers_never_leave_work_behind_a_busy_thread(pool):
    """A call that was counted on a thread that has just become busy is taken by another one."""
    for _ in range(200):
        go_on = threading.Event()
        slow = [pool.submit(lambda: go_on.wait(30)) for _ in range(2)]  # noqa: B023 (done within the turn)
        assert result(pool.submit(lambda: 7)) == 7
        go_on.set()
        for job in slow:
            result(job)


def test_a_job_that_has_not_begun_can_be_cancelled(pool):
    go_on = threading.Event()
    for _ in range(3):
        pool.submit(lambda: go_on.wait(30))
    late = pool.submit(lambda: pytest.fail("it was cancelled"))
    assert late.cancel()
    go_on.set()


@pytest.mark.parametrize(
    "ask",
    [
        lambda job: job.done(),
        lambda job: job.cancelled(),
        lambda job: job.add_done_callback(lambda _: None),
        lambda job: job.cancel(),
    ],
    ids=["done", "cancelled", "add_done_callback", "cancel"],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_a_signal_handler_interrupts_hangs_no_other_thread(pool, ask, begun):
    def prepare():
        """A pool whose threads are busy, and a job that one of them makes, or will make."""
        go_on, inside = threading.Event(), threading.Semaphore(0)

        def hang():
            inside.release()
            return go_on.wait(LONG)

        busy = [pool.submit(hang) for _ in range(3)]
        for _ in busy:
            assert inside.acquire(timeout=LONG)
        return busy[0] if begun else pool.submit(lambda: 7), go_on

    for where, (job, go_on) in strike_each_place(prepare, lambda prepared: ask(prepared[0])):
        go_on.set()
        ended = threading.Event()
        job.add_done_callback(lambda _, ended=ended: ended.set())
        assert ended.wait(LONG), where


def test_a_closed_pool_ends_its_threads_and_still_makes_calls(pool):
    go_on = threading.Event()
    jobs = [pool.submit(lambda: go_on.wait(30)) for _ in range(3)]
    go_on.set()
    for job in jobs:
        result(job)
    pool.close()
    until(lambda: not threads())
    assert result(pool.submit(lambda: 7)) == 7
    until(lambda: not threads())


def test_idle_threads_end(pool, monkeypatch):
    monkeypatch.setattr(module, "_IDLE", 0.02)
    assert result(pool.submit(lambda: 7)) == 7
    until(lambda: not threads())
    assert result(pool.submit(lambda: 8)) == 8


def test_the_caller_makes_the_call_where_no_thread_can_be_started(pool, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "start", refuse)
    assert pool.submit(threading.get_ident).result() == threading.get_ident()
