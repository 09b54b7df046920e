"""No thread can be started: nothing is held without a heartbeat, and nothing is kept for good."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time

import pytest

import lockkit
from lockkit_sqlite.pulses import Listener

LONG = 30.0
"""Seconds to wait for what is to happen at once."""


@pytest.fixture
def refuse(monkeypatch):
    """Refuses to start threads with this prefix, as the system does at a limit; None ends that."""
    start, start_raw = threading.Thread.start, _thread.start_new_thread
    refused = [None]

    def check(name):
        if refused[0] is not None and name.startswith(refused[0]):
            raise RuntimeError("can't start new thread")

    def limited(thread):
        check(thread.name)
        start(thread)

    def limited_raw(function, args):
        check(args[1])
        return start_raw(function, args)

    monkeypatch.setattr(threading.Thread, "start", limited)
    monkeypatch.setattr(_thread, "start_new_thread", limited_raw)

    def set_limit(prefix):
        refused[0] = prefix

    return set_limit


@pytest.mark.parametrize("which", ["lockkit-heartbeat", "lockkit-deadlines"])
@pytest.mark.parametrize("url", ["memory:", "sqlite:"])
def test_an_acquire_without_a_heartbeat_is_refused_before_the_store_is_asked(refuse, tmp_path, url, which):
    with lockkit.connect(url if url == "memory:" else f"sqlite:{tmp_path}/db") as client:
        client.inspect("a")
        refuse(which)
        for call in (lambda: client.lock("a").acquire(1.0), lambda: client.lock("a").try_acquire()):
            with pytest.raises(lockkit.BackendUnavailable, match="no thread can be started for the lock 'a'"):
                call()
        assert client.inspect("a").claims == ()
        assert client.stats()["failed"] == 2
        refuse(None)
        with client.lock("a").acquire(1.0) as lease:
            assert lease.valid()


def test_a_watch_that_no_thread_can_read_costs_latency_and_no_wait(refuse, tmp_path, caplog, monkeypatch):
    """One waiter alone needs no thread, and a second one does."""
    # An earlier test may have left a thread, and a waiter, in this process.
    monkeypatch.setattr("lockkit_sqlite.store.LISTENER", Listener())
    with lockkit.connect(f"sqlite:{tmp_path}/db") as client:
        leases = [client.lock(name).acquire() for name in "ab"]
        refuse("lockkit-sqlite-watcher")
        got, waiters = [], []
        for name in "ab":
            watched = threading.Event()
            # Called once the watch was asked for.
            waits = {"on_wait": lambda _, watched=watched: watched.set()}
            waiters.append(
                threading.Thread(
                    target=lambda lock, waits: got.append(lock.acquire(LONG, **waits)),
                    args=(client.lock(name), waits),
                )
            )
            waiters[-1].start()
            assert watched.wait(LONG)
            assert ("polls instead" in caplog.text) == (name == "b")
        for lease, waiter in zip(leases, waiters, strict=True):
            lease.release()
            waiter.join(LONG)
            got[-1].release()
    assert len(got) == 2


def test_on_lost_is_called_once_a_thread_can_be_had(refuse, caplog):
    lost = threading.Event()
    with lockkit.connect("memory:") as client:
        refuse("lockkit-on-lost")
        lease = client.lock("a", ttl=0.2, auto_renew=False, on_lost=lost.set).acquire()
        assert lease.lost.wait(LONG)
        while "no thread can be started" not in caplog.text:
            lost.wait(0.01)
        assert not lost.is_set()
        refuse(None)
        assert lost.wait(LONG)
        lease.release()


def test_the_orphan_list_goes_on_once_a_thread_can_be_had(refuse):
    removed = threading.Event()

    class Listens:
        @lockkit.hookimpl
        def lockkit_event(self, event):
            if event.kind == "removed":
                removed.set()

    with lockkit.connect("memory:", plugins=[Listens()]) as client:
        client.lock("warm").acquire().release()
        refuse("lockkit-orphans")
        with pytest.warns(ResourceWarning, match="never released"):
            client.lock("a", ttl=0.2).acquire().detach()
        assert not removed.wait(0.5)
        refuse(None)
        assert removed.wait(LONG)


def test_a_cleanup_hook_that_gets_no_thread_has_failed_and_the_lock_is_released_all_the_same(refuse):
    ran = []

    class Cleans:
        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            ran.append(context.name)

    with lockkit.connect("memory:", plugins=[Cleans()]) as client:
        lease = client.lock("a").acquire()
        refuse("lockkit-cleanup")
        report = lease.release()
        refuse(None)
        [hook] = report.layers[0].hooks
        assert (hook.outcome, ran) == ("FAILED", [])
        assert "no thread can be started" in hook.error
        assert report.outcome == "RELEASED"
        assert client.inspect("a").claims == ()


def test_a_client_closes_without_threads(refuse):
    client = lockkit.connect("memory:")
    leases = [client.lock(name).acquire() for name in "abc"]
    refuse("lockkit-close")
    client.close()
    assert [lease.report.outcome for lease in leases] == ["RELEASED"] * 3


@pytest.mark.parametrize("which", ["lockkit", "lockkit-sigterm-release"])
def test_sigterm_releases_where_no_thread_can_be_started(refuse, tmp_path, which):
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append(lease.valid()))
    try:
        client = lockkit.connect(f"sqlite:{tmp_path}/db", on_sigterm="release")
        lease = client.lock("a").acquire()
        refuse(which)
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + LONG
        while not told and time.monotonic() < end:
            time.sleep(0.01)
        refuse(None)
        assert told == [False]
        assert lease.report.outcome == "RELEASED"
        client.close()
    finally:
        signal.signal(signal.SIGTERM, before)
