"""A worker that is to stop ends the waits of its tasks, and nothing else."""

from __future__ import annotations

import os
import select
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery.states import REJECTED, RETRY

from lockkit.integrations.celery import LockedTask, stopping, worker_pool
from lockkit.integrations.celery.retrying import HEADER
from lockkit.testing.processes import until


@pytest.fixture
def worker(app, monkeypatch):
    """The step by which a worker of threads that has started in this process ends its waits."""
    monkeypatch.setattr(worker_pool, "_kinds", ["threads"])
    for name in ("_switch", "_pipe", "_hearing"):
        monkeypatch.setattr(stopping, name, getattr(stopping, name))
    stopping.end_waits_with(app)
    (step,) = app.steps["worker"]
    return step


@pytest.fixture
def begin(client):
    """Begin a run on a thread, and wait until it waits for the lock `a`."""
    with ThreadPoolExecutor(1) as pool:

        def start(run, *words):
            future = pool.submit(run, *words)
            until(lambda: client.inspect("a").waiters, "it waits")
            return future

        yield start


def work_on(app, max_wait=30, **options):
    @app.task(base=LockedTask, lock="a", on_busy="wait", max_wait=max_wait, **options)
    def work():
        return "ran"

    return work


@pytest.fixture
def close(worker):
    return lambda: worker.close(None, None)


def test_a_message_that_is_acknowledged_late_goes_back(app, client, rival, deliver, queued, begin, close):
    rival("a")
    run = begin(deliver, work_on(app, acks_late=True))
    close()
    info = run.result(30).info
    assert (info.state, info.retval.requeue) == (REJECTED, True)
    assert str(info.retval.reason).endswith("goes on in another worker, because this one is to stop")
    assert list(queued()) == []
    until(lambda: not client.inspect("a").waiters, "its claim is gone")


def test_a_message_that_is_acknowledged_is_sent_again_at_once_and_its_clock_goes_on(
    app, rival, deliver, queued, begin, close
):
    rival("a")
    since = time.time() - 50
    before = {HEADER: {"since": since, "tries": 3, "retries": 0}}
    run = begin(lambda: deliver(work_on(app, max_wait=80), headers=before))
    close()
    assert run.result(30).info.state == RETRY
    (message,) = queued()
    assert message.headers[HEADER] == {"since": since, "tries": 4, "retries": 0}
    assert message.headers["retries"] == 0


def test_a_call_without_a_message_waits_on(app, client, rival, begin, close):
    """Such a call may be part of a function that runs."""
    lease = rival("a")
    run = begin(work_on(app))
    close()
    lease.release()
    assert run.result(30) == "ran"


def test_a_function_that_runs_goes_on(app, deliver, close):
    @app.task(bind=True, base=LockedTask, lock="a", on_busy="wait")
    def work(self):
        close()
        self.lease.ensure_held()
        return "ran"

    assert deliver(work).retval == "ran"


def test_the_next_worker_in_the_same_process_waits_again(app, client, rival, deliver, begin, close):
    close()
    stopping.end_waits_with(app)
    lease = rival("a")
    run = begin(deliver, work_on(app))
    lease.release()
    assert run.result(30).retval == "ran"


def test_forked_processes_hear_of_it_also_if_they_are_forked_later(app, monkeypatch, worker):
    monkeypatch.setattr(worker_pool, "_kinds", ["prefork"])
    stopping.end_waits_with(app)
    heard = [in_a_child()]
    worker.close(None, None)
    heard.append(in_a_child())
    for pid in heard:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for end in stopping._pipe:
        os.close(end)


def in_a_child():
    """Fork a process that ends with 0 when its waits have been ended."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            stop = stopping.waits_end()
            mine, theirs = os.pipe()
            stop.attach(lambda: os.write(theirs, b"."))
            if stop.cancelled() or select.select([mine], [], [], 30)[0]:
                code = 0
        finally:
            os._exit(code)
    return pid
