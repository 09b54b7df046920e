"""gRPC and os.fork: children connect, parents go on, and what cannot be waited for is refused."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time

import pytest

if importlib.util.find_spec("etcd3") is None:
    pytest.skip("python-etcd3 is not installed", allow_module_level=True)

from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.children import in_child
from lockkit.testing.processes import PATIENCE, installed, until
from lockkit_etcd.transport import Put, Txn, WatchEnded
from lockkit_etcd3 import forks, private
from lockkit_etcd3.forks import gate
from support.etcd_transports import connect
from support.importing import unprotected_imports
from support.servers.etcd import EtcdServer
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")

BUDGET = 2.0


server = started(EtcdServer)


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:

        def opened(server):
            transport = connect(url(server), SYSTEM)
            stack.callback(transport.close)
            return transport

        yield opened


def url(server):
    return server.url().replace("etcd:", "etcd+grpc:", 1)


@pytest.fixture
def patient(monkeypatch):
    """A fork waits so long that one which waits in vain is told from one on a busy machine."""
    monkeypatch.setattr(forks, "_PATIENCE", 40.0)


def put(transport, key):
    return transport.txn(Txn((), (Put(key),)), BUDGET)


def test_forks_among_calls_and_watches(opened, server, patient):
    """Children connect, the parent's threads go on, and nobody hangs."""
    transport = opened(server)
    stop, troubles, heard = threading.Event(), [], []

    def work():
        while not stop.wait(0.003):
            try:
                put(transport, b"busy")
                transport.keepalive([1, 2], BUDGET)
            except BaseException as error:
                troubles.append(error)

    def watch(news):
        heard.append(news)
        if isinstance(news, WatchEnded) and not stop.is_set():
            transport.watch(b"busy", b"", 0, watch)

    def child():
        mine = connect(url(server), SYSTEM)
        put(mine, b"child")
        mine.close()
        return "done"

    transport.watch(b"busy", b"", 0, watch)
    workers = [threading.Thread(target=work) for _ in range(3)]
    for each in workers:
        each.start()
    try:
        for _ in range(8):
            began = time.monotonic()
            assert in_child(child) == "done"
            assert time.monotonic() - began < 20.0
    finally:
        stop.set()
        for each in workers:
            each.join()
    assert not troubles
    assert any(isinstance(news, WatchEnded) for news in heard)
    last = len(heard)
    put(transport, b"busy")
    until(lambda: len(heard) > last, "the watch has been opened again")


def test_at_a_fork_no_thread_of_grpc_is_left(opened, server, patient):
    """gRPC ends its threads with the last channel; a child forked meanwhile hangs in its first call."""
    transport = opened(server)
    for _ in range(20):
        put(transport, b"a")
        assert private.threads()
        assert in_child(lambda: "done") == "done"
        assert not private.threads()


def test_a_channel_of_another_library_holds_up_no_fork(opened, server, patient):
    """Another library's open channel keeps gRPC's threads alive, so a fork does not wait for them."""
    put(opened(server), b"a")
    import grpc  # later: who imports it before lockkit does decides that it cannot be used after a fork

    theirs = grpc.insecure_channel(server.address)
    grpc.channel_ready_future(theirs).result(PATIENCE)

    def child():
        mine = connect(url(server), SYSTEM)
        put(mine, b"child")
        mine.close()
        return "done"

    began = time.monotonic()
    for _ in range(5):
        assert in_child(child) == "done"
    assert time.monotonic() - began < 20.0
    grpc.channel_ready_future(theirs).result(PATIENCE)
    theirs.close()


def test_a_child_is_refused_where_the_end_of_the_threads_could_not_be_waited_for(monkeypatch, opened, server):
    transport = opened(server)
    put(transport, b"a")
    monkeypatch.setattr(gate, "_ended", lambda: False)

    def child():
        with pytest.raises(Refused) as caught:
            connect(url(server), SYSTEM)
        return str(caught.value), caught.value.retry

    said, retry = in_child(child)
    assert "while gRPC was at work in its parent" in said
    assert not retry
    put(transport, b"b")


def test_a_fork_waits_a_moment_for_calls_and_then_cuts_them(opened, server):
    """A call to a member that stands still would hold it up, and the child could not use gRPC."""
    with EtcdServer() as silent:
        transport = opened(silent)
        put(transport, b"a")
        silent.pause()
        troubles = []

        def call():
            try:
                transport.txn(Txn((), (Put(b"b"),)), 60.0)
            except BaseException as error:
                troubles.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        until(lambda: gate._inside, "the call is under way")
        began = time.monotonic()

        def child():
            mine = connect(url(server), SYSTEM)
            put(mine, b"child")
            return "done"

        assert in_child(child) == "done"
        thread.join()
        assert time.monotonic() - began < 20.0
        assert isinstance(troubles[0], Unknown)
        silent.resume()
        put(transport, b"c")


def test_who_was_cut_short_on_its_way_out_holds_up_no_fork(opened, server, patient):
    """Ctrl-C comes anywhere. Here it came to this thread, and to another that has ended since."""
    put(opened(server), b"a")
    other = threading.Thread(target=gate.enter, args=(1.0,))
    other.start()
    other.join()
    gate.enter(1.0)
    began = time.monotonic()

    def child():
        mine = connect(url(server), SYSTEM)
        put(mine, b"child")
        return "done"

    assert in_child(child) == "done"
    assert time.monotonic() - began < 20.0
    gate.leave()


def test_a_thread_that_is_called_like_one_that_was_cut_short_holds_up_no_fork(opened, server, patient):
    """The system gives the identifier of a thread that has ended to one that begins."""
    put(opened(server), b"a")
    short = threading.Thread(target=gate.enter, args=(1.0,))
    short.start()
    name = short.ident
    short.join()
    stop, later = threading.Event(), []
    try:
        for _ in range(50):
            later.append(threading.Thread(target=stop.wait))
            later[-1].start()
            if later[-1].ident == name:
                break
        began = time.monotonic()
        assert in_child(lambda: "done") == "done"
        assert time.monotonic() - began < 20.0
    finally:
        stop.set()
        for each in later:
            each.join()


def test_a_fork_waits_no_longer_for_a_thread_that_ends_without_leaving(opened, server, patient, monkeypatch):
    put(opened(server), b"a")
    inside, end = threading.Event(), threading.Event()

    def cut_short():
        gate.enter(1.0)
        inside.set()
        end.wait()

    empty = gate._empty

    def looked():
        try:
            return empty()
        finally:
            end.set()

    monkeypatch.setattr(gate, "_empty", looked)
    short = threading.Thread(target=cut_short)
    short.start()
    inside.wait()
    began = time.monotonic()

    assert in_child(lambda: "done") == "done"

    assert time.monotonic() - began < 20.0
    short.join()


def test_a_child_of_a_process_that_used_grpc_before_is_refused_by_name(server):
    """Rather than to hang: whoever imports gRPC first decides whether it can be used after a fork."""
    program = f"""
import os, grpc
from lockkit.plugins import PluginManager
from lockkit.store.spi import OpenOptions, Refused
def look():
    store = PluginManager(()).open({url(server)!r}, OpenOptions())
    print(store.names("", 2.0), flush=True)
    store.close()
look()
child = os.fork()
if not child:
    try:
        look()
    except Refused as refusal:
        print(refusal.retry, refusal.error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    environ = {key: value for key, value in os.environ.items() if key != "GRPC_ENABLE_FORK_SUPPORT"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False, timeout=100
    )
    parent, child = done.stdout.splitlines()
    assert parent in {"[]", "()"}
    assert child.startswith("False ")
    assert "without GRPC_ENABLE_FORK_SUPPORT=1" in child


def test_nothing_is_imported_while_a_fork_may_come_in_between(server, tmp_path):
    assert unprotected_imports(url(server), tmp_path) == []
