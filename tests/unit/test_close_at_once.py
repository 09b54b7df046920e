"""close(): every hold through every layer, once, whatever interrupts the thread that closes."""

from __future__ import annotations

import contextvars
import gc
import signal
import threading
import time

import pytest

import lockkit
from lockkit.drivers.ticker import Ticker
from lockkit.lib.clock import SYSTEM

LONG = 30.0
"""Seconds to wait for what is to happen at once."""


def until(what):
    """Wait for something that nobody announces."""
    end = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


class Cleans:
    """A cleanup hook that waits to be let on, and tells what it saw."""

    def __init__(self):
        self.began = threading.Semaphore(0)
        self.go = threading.Event()
        self.cleaned = []

    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        self.began.release()
        self.go.wait(LONG)
        self.cleaned.append(context.name)


class CtrlC:
    """Ctrl-C as Python has it; ``struck`` are set one by one."""

    def __init__(self):
        self.struck = [threading.Event(), threading.Event()]
        self._count = 0

    def handle(self, number, frame):
        self._count += 1
        self.struck[self._count - 1].set()
        raise KeyboardInterrupt

    def strike(self, count, when):
        """Strike the main thread so many times, once ``when`` has returned."""

        def run():
            when()
            for struck in self.struck[:count]:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                struck.wait(LONG)

        threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def ctrl_c():
    ctrl_c = CtrlC()
    before = signal.signal(signal.SIGINT, ctrl_c.handle)
    yield ctrl_c
    signal.signal(signal.SIGINT, before)


def test_one_ctrl_c_in_close_waits_for_the_end_of_all_releases(ctrl_c):
    plugin = Cleans()
    client = lockkit.connect("memory:", plugins=[plugin])
    leases = [client.lock(name).acquire() for name in "abc"]

    def all_began():
        for _ in leases:
            assert plugin.began.acquire(timeout=LONG)

    ctrl_c.strike(1, all_began)
    threading.Thread(target=lambda: (ctrl_c.struck[0].wait(LONG), plugin.go.set()), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        client.close()
    assert sorted(plugin.cleaned) == ["a", "b", "c"]
    assert [lease.report.outcome for lease in leases] == ["RELEASED"] * 3


def test_a_second_ctrl_c_ends_close_and_another_close_waits_for_the_rest(ctrl_c):
    plugin = Cleans()
    client = lockkit.connect("memory:", plugins=[plugin])
    leases = [client.lock(name).acquire() for name in "abc"]
    ctrl_c.strike(2, lambda: plugin.began.acquire(timeout=LONG))
    with pytest.raises(KeyboardInterrupt):
        client.close()
    assert plugin.cleaned == []
    plugin.go.set()
    client.close()
    assert sorted(plugin.cleaned) == ["a", "b", "c"]
    assert [lease.report.outcome for lease in leases] == ["RELEASED"] * 3


def test_the_hooks_of_close_see_the_variables_of_the_thread_that_closes():
    variable, seen = contextvars.ContextVar("variable"), []

    class Looks:
        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            seen.append(variable.get(None))

    client = lockkit.connect("memory:", plugins=[Looks()])
    leases = [client.lock(name).acquire() for name in "ab"]
    variable.set("here")
    client.close()
    assert seen == ["here", "here"]
    assert [lease.report.outcome for lease in leases] == ["RELEASED"] * 2


def test_close_from_several_threads_is_one_close():
    plugin = Cleans()
    client = lockkit.connect("memory:", plugins=[plugin])
    lease = client.lock("a").acquire()
    closing = [threading.Thread(target=client.close) for _ in range(4)]
    for thread in closing:
        thread.start()
    assert plugin.began.acquire(timeout=LONG)
    plugin.go.set()
    for thread in closing:
        thread.join(LONG)
    assert plugin.cleaned == ["a"]
    assert lease.report.outcome == "RELEASED"


def test_a_client_that_is_dropped_after_two_ctrl_c_in_close_lets_go_of_its_store(ctrl_c, monkeypatch):
    plugin, left = Cleans(), threading.Event()
    client = lockkit.connect("memory:", plugins=[plugin])
    monkeypatch.setattr(client.driver().backend, "close", left.set)
    lease = client.lock("a").acquire()
    ctrl_c.strike(2, lambda: plugin.began.acquire(timeout=LONG))
    with pytest.raises(KeyboardInterrupt):
        client.close()
    del client, lease
    gc.collect()
    assert not left.is_set()
    plugin.go.set()
    assert left.wait(LONG)
    assert plugin.cleaned == ["a"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("busy", [False, True])
def test_a_client_whose_leases_a_signal_released_lets_go_of_its_store_when_it_is_dropped(monkeypatch, busy):
    left, go = threading.Event(), threading.Event()
    client = lockkit.connect("memory:")
    monkeypatch.setattr(client.driver().backend, "close", left.set)
    lease = client.lock("a").acquire()
    if busy:  # the threads that would look are to end, and have not noticed yet
        heartbeat = client.driver().heartbeat
        for ticker in (heartbeat._beating, heartbeat._looking):
            assert ticker.lend(lambda: go.wait(LONG))
        del heartbeat, ticker
    client.release_all("sigterm")
    assert lease.report.outcome == "RELEASED"
    del client, lease
    gc.collect()
    go.set()
    assert left.wait(LONG)


@pytest.mark.parametrize("process_bound", [False, True])
def test_a_close_that_was_cut_short_before_it_began_goes_on_by_itself(tmp_path, process_bound):
    client = lockkit.connect(f"sqlite:{tmp_path}/locks.db")
    lease = client.lock("a", ttl=1.5, process_bound=process_bound).acquire()
    until(lambda: client.stats()["renewals"] >= 4)  # nobody looks at its first deadline any more
    client.driver().ending.leave("exit")  # and Ctrl-C
    until(lambda: lease.report is not None)
    assert lease.report.outcome == "RELEASED"
    client.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dropped_lease_does_not_lapse_before_a_close_that_has_begun_comes_to_it():
    plugin = Cleans()
    plugin.go.set()
    client = lockkit.connect("memory:", plugins=[plugin])
    lease = client.lock("a", ttl=1.5).acquire()
    engine = client.driver()
    closing = engine.ending.leave("exit")

    with closing._turn:  # its thread gets no processor
        del lease
        gc.collect()
        began = SYSTEM.now()
        until(lambda: SYSTEM.now() - began > 1.8)
        engine.heartbeat.look()
    closing.do()

    assert plugin.cleaned == ["a"]


def test_what_was_lent_to_a_thread_is_done_although_the_thread_is_to_end():
    ticker = Ticker("test", lambda: float("inf"), SYSTEM)
    began, go, done = threading.Event(), threading.Event(), threading.Event()
    ticker.start()
    assert ticker.lend(lambda: (began.set(), go.wait(LONG)))
    assert began.wait(LONG)
    assert ticker.lend(done.set)
    ticker.close()
    assert not ticker.lend(done.set)
    go.set()
    assert done.wait(LONG)
    ticker.join(LONG)
    assert not ticker.running
