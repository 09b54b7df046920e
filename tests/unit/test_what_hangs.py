"""A hook or a callback that never comes back silences nobody else; it is named, skipped and counted."""

from __future__ import annotations

import logging
import threading

import pytest

import lockkit
from lockkit.config.config import load
from lockkit.drivers import callbacks, delivery

LONG = 30.0
"""Seconds to wait for what is to happen at once."""


@pytest.fixture
def over():
    """Set at the end of the test: what hangs comes back then."""
    event = threading.Event()
    yield event
    event.set()


def lose(client, name, on_lost):
    """A hold that runs out at once."""
    return client.lock(name, ttl=0.2, auto_renew=False, on_lost=on_lost).acquire()


def test_an_event_hook_that_hangs_keeps_no_callback_and_no_alert_from_being_called(over):
    alerted, told = threading.Event(), threading.Event()

    class Hangs:
        @lockkit.hookimpl
        def lockkit_event(self, event):
            over.wait()

        @lockkit.hookimpl
        def lockkit_alert(self, alert):
            alerted.set()

    class Listens:
        @lockkit.hookimpl
        def lockkit_event(self, event):
            if event.kind == "lost":
                told.set()

    lost = threading.Event()
    with lockkit.connect("memory:", plugins=[Hangs(), Listens()]) as client:
        lease = lose(client, "a", lost.set)
        assert lost.wait(LONG), "on_lost waits for a plugin"
        assert alerted.wait(LONG), "an alert waits for an event hook"
        assert told.wait(LONG), "one plugin's events wait for another's"
        lease.release()


def test_a_callback_that_blocks_keeps_no_other_from_being_called(over):
    lost = threading.Event()
    with lockkit.connect("memory:") as client:
        leases = [lose(client, "a", over.wait), lose(client, "b", lost.set)]
        assert leases[0].lost.wait(LONG)
        assert lost.wait(LONG)
        for lease in leases:
            lease.release()


def test_callbacks_run_at_once_on_a_bounded_number_of_threads(over, monkeypatch, caplog):
    monkeypatch.setattr(callbacks, "_MOST", 2)
    monkeypatch.setattr(callbacks, "_MOST_HANGING", 2)
    monkeypatch.setattr(callbacks, "HANGS", -1.0)
    calls = callbacks.Callbacks()
    others = [*threading.enumerate()]
    began = threading.Semaphore(0)

    def block():
        began.release()
        over.wait()

    for name in "ab":
        calls.run(block, name)
    assert began.acquire(timeout=LONG)
    assert began.acquire(timeout=LONG)
    done = threading.Event()
    calls.run(done.set, "c")
    names = [thread.name for thread in threading.enumerate() if thread not in others]
    assert names.count("lockkit-on-lost") == 2
    assert "on_lost callbacks are delayed" in caplog.text
    over.set()
    assert done.wait(LONG), "what waits for a thread is called once there is one"


def test_as_many_callbacks_that_hang_as_there_are_threads_keep_none_from_being_called(
    over, monkeypatch, caplog
):
    monkeypatch.setattr(callbacks, "_MOST", 2)
    monkeypatch.setattr(callbacks, "HANGS", 0.1)
    told = threading.Event()
    with lockkit.connect("memory:") as client:
        leases = [lose(client, name, over.wait) for name in "abc"]
        leases.append(lose(client, "d", told.set))
        assert told.wait(LONG)
        for lease in leases:
            lease.release()
    assert "has not returned" in caplog.text


def test_a_callback_that_raises_ends_nothing(over):
    def fail():
        raise SystemExit

    calls, done = callbacks.Callbacks(), threading.Event()
    calls.run(fail, "a")
    calls.run(done.set, "b")
    assert done.wait(LONG)


def test_a_hook_that_hangs_is_named_skipped_in_the_whole_process_and_counted_until_it_comes_back(
    over, monkeypatch, caplog
):
    monkeypatch.setattr(delivery, "HANGS", -1.0)
    began, again = threading.Semaphore(0), []

    class Hangs:
        @lockkit.hookimpl
        def lockkit_event(self, event):
            began.release()
            over.wait()
            again.append(event.name)

    plugin = Hangs()
    first = lockkit.connect("memory:", plugins=[plugin])
    second = lockkit.connect("memory:", plugins=[plugin])
    first.lock("first").acquire().release()
    assert began.acquire(timeout=LONG)
    first.lock("hangs").acquire().release()
    second.lock("skipped").acquire().release()
    assert "Hangs: its lockkit_event has not returned" in caplog.text
    assert first.stats()["hooks_hanging"] == 1
    assert first.stats()["events_dropped"] > 0
    assert second.stats()["events_dropped"] == 2, "another client starts the hook that hangs"
    monkeypatch.setattr(delivery, "HANGS", LONG)
    with caplog.at_level(logging.WARNING):
        over.set()
        while "has returned" not in caplog.text:
            began.acquire(timeout=0.01)
    second.lock("told").acquire().release()
    second.close()
    first.close()
    assert "told" in again
    assert "skipped" not in again


def test_a_cleanup_hook_that_overran_twice_is_disabled_for_every_client_of_the_process(over):
    started = []

    class Hangs:
        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            started.append(context.name)
            over.wait()

    outcomes, plugin = [], Hangs()
    for _ in range(4):
        with lockkit.connect(config=load(url="memory:", cleanup_budget=0.05), plugins=[plugin]) as client:
            report = client.lock("x").acquire().release()
            outcomes.append(report.layers[0].hooks[0].outcome)
            assert report.outcome == "RELEASED"
    assert outcomes == ["RUNNING", "RUNNING", "SKIPPED", "SKIPPED"]
    assert len(started) == 2
