"""Waits that another thread cancels."""

from __future__ import annotations

import signal
import threading
import time

import pytest

import lockkit
from lockkit import AcquireCancelled, Cancel, ConfigError
from lockkit.lib.clock import SYSTEM
from lockkit.testing.stage import Work


@pytest.fixture
def client():
    with lockkit.connect("memory://cancelling") as client:
        yield client


@pytest.fixture
def other():
    with lockkit.connect("memory://cancelling") as other:
        yield other


def soon(what, why):
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.001)


def waiting(client, take):
    before = len(client.driver().beats.waiting())
    work = Work(take)
    soon(lambda: len(client.driver().beats.waiting()) > before or work.done, "it waits")
    return work


def test_one_switch_ends_any_number_of_waits_and_stays_on(client, other):
    stop = Cancel()
    with other.lock("a").acquire():
        waits = [waiting(client, lambda: client.lock("a").acquire(cancel=stop)) for _ in range(3)]
        assert not stop.cancelled()
        stop.cancel()
        stop.cancel()
        assert stop.cancelled()
        for wait in waits:
            error = wait.error()
            assert isinstance(error, AcquireCancelled)
            assert error.name == "a"
            assert "cancelled" in str(error)
        soon(lambda: len(other.inspect("a").claims) == 1, "nothing is left")
    with pytest.raises(AcquireCancelled, match="before it began"):
        client.lock("a").acquire(cancel=stop)
    assert client.inspect("a").claims == ()
    assert stop._rings == {}


def test_other_waits_go_on(client, other):
    with other.lock("a").acquire():
        goes_on = waiting(client, lambda: client.lock("a").acquire(timeout=20, cancel=Cancel()))
        stop = Cancel()
        ends = waiting(client, lambda: client.lock("a").acquire(cancel=stop))
        stop.cancel()
        assert isinstance(ends.error(), AcquireCancelled)
        assert not goes_on.done
    goes_on.result().release()


@pytest.mark.parametrize("many", ["all_of", "any_of", "pool"])
def test_locks_taken_together_too(client, other, many):
    stop = Cancel()
    with other.lock("b").acquire(), other.pool("p", ["x"]).acquire():
        if many == "pool":
            factory = client.pool("p", ["x"])
        elif many == "all_of":
            factory = client.all_of([client.lock("a"), client.lock("b")])
        else:
            factory = client.any_of([client.lock("b")])
        wait = waiting(client, lambda: factory.acquire(timeout=None, cancel=stop))
        stop.cancel()
        assert isinstance(wait.error(), AcquireCancelled)
        soon(lambda: client.leases() == [] and other.inspect("a").claims == (), "nothing is left")
        soon(lambda: len(other.inspect("b").claims) == 1, "nothing is left")
        with pytest.raises(AcquireCancelled):
            factory.acquire(cancel=stop)


def test_a_pause_after_a_failure_ends_at_once(client, monkeypatch):
    stop = Cancel()
    failing = threading.Event()

    def refuse(*_):
        failing.set()
        raise lockkit.store.spi.Refused(lockkit.BackendUnavailable("down"))

    monkeypatch.setattr(client.driver().backend, "acquire", refuse)
    tools = client.driver().tools._replace(random=lambda: 60.0)  # pauses of a minute
    monkeypatch.setattr(client.driver(), "tools", tools)
    began = SYSTEM.now()
    wait = Work(lambda: client.lock("a").acquire(timeout=None, cancel=stop))
    assert failing.wait(30)
    stop.cancel()
    assert isinstance(wait.error(), AcquireCancelled)
    assert SYSTEM.now() - began < 30


def test_a_signal_handler_may_cancel_the_wait_that_it_interrupts(client, other):
    stop = Cancel()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.cancel())
    try:
        with other.lock("a").acquire():
            strike = Work(
                lambda: (
                    soon(client.driver().beats.waiting, "it waits"),
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1),
                )
            )
            with pytest.raises(AcquireCancelled):
                client.lock("a").acquire(timeout=30, cancel=stop)
            strike.result()
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("cancel", [threading.Event(), True, "stop"])
def test_what_cannot_wake_a_wait_is_refused_before_any_request(client, cancel):
    with pytest.raises(ConfigError, match=r"must be a lockkit\.Cancel"):
        client.lock("a").acquire(cancel=cancel)
    with pytest.raises(ConfigError, match=r"must be a lockkit\.Cancel"):
        client.all_of([client.lock("a")]).acquire(cancel=cancel)
    assert not client.is_open


def test_a_coroutine_is_told_to_cancel_its_task():
    client = lockkit.aio.connect("memory://cancelling")
    with pytest.raises(TypeError, match=r"task\.cancel\(\)"):
        client.lock("a").acquire(cancel=Cancel())
