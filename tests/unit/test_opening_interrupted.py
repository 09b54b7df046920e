"""Opening a store while a signal handler locks, closes, forks or raises: one engine, nothing left open."""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
import weakref

import pytest

import lockkit
from lockkit.drivers import lifecycle
from lockkit.errors import AcquireCancelled, BackendUnavailable, ConfigError
from lockkit.hooks import hookimpl
from lockkit.store.spi import BackendSpec, Refused
from lockkit.testing.children import in_child
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit_memory import CAPABILITIES
from lockkit_memory.backend import open_store
from support.handlers import Handler

LONG = 20.0
"""Seconds to wait for what is to happen at once."""


class Store:
    """A plugin with a store that calls something while it opens, and notes which stores were closed."""

    def __init__(self):
        self.on_open = lambda: None
        self.opened, self.closed = [], []

    @hookimpl
    def lockkit_backends(self):
        return [BackendSpec("late", ("late",), self.open, "is late", CAPABILITIES)]

    def open(self, url, options):
        self.on_open()
        backend = open_store("memory://late", options)
        close = backend.close

        def noted():
            self.closed.append(backend)
            close()

        backend.close = noted
        self.opened.append(backend)
        return backend


@pytest.fixture
def make(tmp_path):
    clients = []

    def make():
        store = Store()
        clients.append(lockkit.connect("late://here", plugins=[store], state_dir=str(tmp_path)))
        return store, clients[-1]

    yield make
    for client in clients:
        client.close()


def engines():
    return len(lifecycle._engines)


def test_a_store_that_was_refused_keeps_nothing_of_those_who_asked_for_it(make):
    class Kept:
        pass

    def ask(client):
        kept = Kept()
        with pytest.raises(BackendUnavailable):
            client.lock("a").acquire(timeout=0)
        return weakref.ref(kept)

    store, client = make()

    def refuse():
        raise Refused(BackendUnavailable("no"))

    store.on_open = refuse
    kept = ask(client)
    gc.collect()
    assert kept() is None


def test_a_handler_that_closes_the_client_while_its_store_opens_leaves_it_closed(make):
    store, client = make()
    store.on_open = client.close
    before = engines()

    with pytest.raises(AcquireCancelled, match="closed"):
        client.lock("a").acquire(timeout=1)

    assert store.closed == store.opened
    assert engines() == before


@pytest.mark.parametrize(
    "function, file",
    [
        ("_open", "lockkit/shared/opening.py"),
        ("_start", "lockkit/shared/opening.py"),
        ("__init__", "drivers/threads.py"),
        ("at_exit", "drivers/lifecycle.py"),
    ],
)
@pytest.mark.parametrize("does", ["locks", "closes"])
def test_a_handler_that_uses_the_client_while_its_engine_is_made_leaves_one_engine(
    make, function, file, does
):
    before = engines()
    for at in range(1, 100):
        store, client = make()
        kept = []

        def call(kept=kept, client=client):
            if does == "locks":
                kept.append(client.lock("of the handler").acquire(timeout=1))
            else:
                client.close()

        with Handler(at, call, function, file) as handler:
            try:
                client.lock("a").acquire(timeout=1).release()
            except AcquireCancelled:
                assert does == "closes"
        client.close()
        assert engines() == before, handler.where
        assert not any(lease.valid() for lease in kept)
        assert sorted(map(id, store.closed)) == sorted(map(id, store.opened))
        if not handler.where:
            break
    assert at > 1


def test_a_ctrl_c_at_any_place_of_opening_leaves_no_store_and_no_engine(make):
    before = engines()
    left = {}
    for at in range(1, 10_000):
        store, client = make()
        bomb = Bomb(at)
        try:
            with bomb:
                client.driver()
        except CtrlC:
            pass
        if not bomb.where:
            break
        client.close()
        if store.closed != store.opened or engines() != before:
            left[bomb.where] = len(store.opened) - len(store.closed), engines() - before
            before = engines()
    assert left == {}
    assert at > 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("place", [None, ("_start", "opening.py"), ("at_exit", "lifecycle.py")])
def test_a_child_that_a_handler_forks_while_the_store_opens_has_a_store_of_its_own(make, place):
    store, client = make()
    children = []
    me = os.getpid()

    def fork():
        if not children:
            children.append(os.fork())

    if place is None:
        store.on_open = fork
        handler = Bomb(1 << 30)
    else:
        handler = Handler(1, fork, *place)
    try:
        with handler:
            lease = client.lock("a", ttl=30).acquire(timeout=5)
        told = [lease.valid(), client._opening.engine is not None]
        if os.getpid() != me:
            client.stats()
            client.close()
            told += [not lease.valid(), lease.report.outcome == "RELEASED"]
        lease.release()
    finally:
        if os.getpid() != me:
            os._exit(0 if told == [True] * 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert told == [True, True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_library_that_a_forked_child_lacks_is_named_though_a_thread_of_its_parent_was_opening(make):
    store, client = make()

    def lacks():
        raise ImportError("no module named kazoo", name="kazoo")

    def fork():
        store.on_open = lacks
        with pytest.raises((ConfigError, lockkit.PluginError)) as told:
            client.lock("a").acquire(timeout=1)
        assert "signal handler" not in str(told.value)

    client._opening.here.under_way = True  # as if another thread opened the store
    in_child(fork)


def test_a_client_that_is_collected_ends_its_engine_even_if_a_signal_cuts_its_finalizer_short(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    before = engines()
    for at in (1, 2):
        store = Store()
        client = lockkit.connect("late://here", plugins=[store])
        client.lock("a", ttl=0.5).acquire().release()

        def strike():
            raise CtrlC

        handler = Handler(at, strike, "__del__", "lockkit/shared/opening.py")
        with handler, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del client
            gc.collect()
        assert handler.where
        end = time.monotonic() + LONG
        while engines() != before or store.closed != store.opened:
            assert time.monotonic() < end
            time.sleep(0.01)
