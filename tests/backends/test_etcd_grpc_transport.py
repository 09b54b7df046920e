"""What only the transport by way of python-etcd3 has to be held to: its library, forks, and connections that are dead."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

if importlib.util.find_spec("etcd3") is None:
    pytest.skip("python-etcd3 is not installed", allow_module_level=True)

from lockkit.clock import SYSTEM
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.children import in_child
from lockkit.testing.processes import installed, until
from lockkit_etcd import grpc_package
from lockkit_etcd.address import parse
from lockkit_etcd.grpc_forks import gate
from lockkit_etcd.transport import Get, Put, Txn, Watched, WatchEnded, after
from lockkit_etcd.transports import connect
from support.servers.etcd import EtcdServer

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")

BUDGET = 2.0


@pytest.fixture(scope="module")
def server():
    with EtcdServer() as server:
        yield server


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:

        def opened(server, options=""):
            transport = connect(parse(url(server) + options), SYSTEM)
            stack.callback(transport.close)
            return transport

        yield opened


def url(server):
    scheme, colon, rest = server.url().partition(":")
    return f"{scheme}+grpc{colon}{rest}"


def put(transport, key):
    return transport.txn(Txn((), (Put(key),)), BUDGET)


def threads():
    """Of Python's, those that a transport may have started."""
    return [each for each in threading.enumerate() if each is not threading.main_thread()]


# -- the library


def test_it_says_which_package_is_in_use(opened, server):
    usable, said = grpc_package.in_use()
    assert opened(server).name == f"gRPC ({said})"
    assert usable
    assert said.startswith("python-etcd3 0.12.0, grpcio ")
    assert ", protobuf 3." in said


def run(folder, program):
    """What a Python prints that finds modules in a folder first."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


OPEN = """
from lockkit.errors import ConfigError
from lockkit.plugins import PluginManager
from lockkit.store.spi import OpenOptions
from lockkit_etcd.grpc_package import in_use
try:
    PluginManager(()).open("etcd+grpc://127.0.0.1:1", OpenOptions())
except ConfigError as error:
    print(error, error.hint)
print(*in_use())
"""


@pytest.mark.parametrize(
    "code, why",
    [
        ("raise ModuleNotFoundError('No module named etcd3', name='etcd3')", "python-etcd3"),
        ("raise TypeError('Descriptors cannot be created directly.')", "wants protobuf before 4"),
        ("class Client: ...", "cannot be imported: No module named 'etcd3.etcdrpc'"),
        ("import sys, types; sys.modules['etcd3.etcdrpc'] = types.ModuleType('none')", "has no KVStub"),
        ("raise ImportError('cannot import name x from six')", "cannot import name x"),
    ],
    ids=["missing", "protobuf", "another package", "another shape", "broken"],
)
def test_a_library_that_cannot_be_used_is_told_with_the_reason_and_what_to_do(tmp_path, code, why):
    (tmp_path / "etcd3").mkdir()
    (tmp_path / "etcd3" / "__init__.py").write_text(code)
    told, doctor = run(tmp_path, OPEN).splitlines()
    assert why in told
    assert 'pip install "lockkit[python-etcd3]"' in told
    assert doctor.startswith("False ")
    assert why in doctor


def test_it_is_not_imported_with_the_plugins(tmp_path):
    program = (
        "import sys, lockkit_etcd, lockkit_etcd.grpc_package; print({'etcd3', 'grpc'} & sys.modules.keys())"
    )
    assert run(tmp_path, program) == "set()\n"


# -- connections


def test_a_watch_notices_a_member_that_stands_still(opened):
    """Its kernel goes on taking what is sent: only the pings of HTTP/2 tell."""
    with EtcdServer() as server:
        transport = opened(server)
        heard = queue.SimpleQueue()
        transport.watch(b"a", b"b", 0, heard.put)
        assert isinstance(heard.get(timeout=5), Watched)
        server.pause()
        began = time.monotonic()
        ended = heard.get(timeout=20)
        assert isinstance(ended, WatchEnded)
        assert time.monotonic() - began < 15


def test_what_found_no_connection_was_not_sent(opened):
    """A connection that was lost while nobody used it: that there was none to send on is certain."""
    with EtcdServer() as server:
        transport = opened(server)
        for _ in range(20):
            until(lambda: works(transport), "it serves", 5.0)
            server.kill()
            with pytest.raises((Refused, Unknown)) as caught:
                put(transport, b"a")
            if isinstance(caught.value, Refused):  # else gRPC had not yet noticed the loss
                assert str(caught.value).startswith(f"cannot reach {server.address}: Failed to connect")
                return
            server.start()
        raise AssertionError("it was Unknown each time")


def works(transport):
    try:
        put(transport, b"a")
    except (Refused, Unknown):
        return False
    return True


def test_a_watch_that_is_closed_is_closed_at_the_member_too(opened):
    with EtcdServer() as server:
        transport = opened(server)

        def watchers():
            with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=5) as page:
                return float(
                    re.search(rb"^etcd_debugging_mvcc_watcher_total (.*)$", page.read(), re.MULTILINE)[1]
                )

        one, two = (transport.watch(key, b"", 0, lambda _: None) for key in (b"a", b"b"))
        until(lambda: watchers() == 2, "both are watched")
        one.close()
        until(lambda: watchers() == 1, "one is watched")
        two.close()
        until(lambda: watchers() == 0, "none is watched")


def test_hundreds_of_watches_leave_room_for_calls(opened):
    """Over TLS etcd takes 250 calls at a time on one connection."""
    with EtcdServer(tls=True) as server:
        transport = opened(server, f"?ca_file={server.certificates.ca}")
        heard = queue.SimpleQueue()
        before = len(threads())
        streams = [
            transport.watch(b"%d/" % at, after(b"%d/" % at), 1, lambda news, at=at: heard.put((at, news)))
            for at in range(300)
        ]
        for at in range(0, 300, 50):
            put(transport, b"%d/" % at)
        seen = set()
        while len(seen) < 6:
            at, news = heard.get(timeout=5)
            seen |= {at} if news.changes else set()
        assert seen == set(range(0, 300, 50))
        assert len(threads()) - before <= 3
        for stream in streams:
            stream.close()
        until(lambda: len(threads()) <= before, "the stream has ended")
        assert transport.range(Get(b"x"), BUDGET)


def test_a_connection_that_has_died_unseen_is_replaced_by_the_next_call(opened):
    with EtcdServer() as server:
        transport = opened(server)
        put(transport, b"a")
        server.pause()
        with pytest.raises(Unknown):
            put(transport, b"b")
        old = transport._endpoints[0]._channel
        with pytest.raises((Refused, Unknown)):
            put(transport, b"c")
        server.resume()
        put(transport, b"d")
        assert transport._endpoints[0]._channel is not old


# -- forks


def test_forks_among_calls_and_watches(opened, server):
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
        mine = connect(parse(url(server)), SYSTEM)
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
            assert time.monotonic() - began < 3.0
    finally:
        stop.set()
        for each in workers:
            each.join()
    assert not troubles
    assert any(isinstance(news, WatchEnded) for news in heard)
    last = len(heard)
    put(transport, b"busy")
    until(lambda: len(heard) > last, "the watch has been opened again")


def test_a_fork_waits_a_moment_for_calls_and_then_cuts_them(opened, server):
    """A call to a member that stands still would hold it up, and the child could not use gRPC."""
    with EtcdServer() as silent:
        transport = opened(silent)
        put(transport, b"a")
        silent.pause()
        troubles = []

        def call():
            try:
                transport.txn(Txn((), (Put(b"b"),)), 10.0)
            except BaseException as error:
                troubles.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        until(lambda: gate._inside, "the call is under way")
        began = time.monotonic()

        def child():
            mine = connect(parse(url(server)), SYSTEM)
            put(mine, b"child")
            return "done"

        assert in_child(child) == "done"
        thread.join()
        assert time.monotonic() - began < 4.0
        assert isinstance(troubles[0], Unknown)
        silent.resume()
        put(transport, b"c")


def test_who_was_cut_short_on_its_way_out_holds_up_no_fork(opened, server):
    """Ctrl-C comes anywhere. Here it came to this thread, and to another that has ended since."""
    put(opened(server), b"a")
    other = threading.Thread(target=gate.enter, args=(1.0,))
    other.start()
    other.join()
    gate.enter(1.0)
    began = time.monotonic()

    def child():
        mine = connect(parse(url(server)), SYSTEM)
        put(mine, b"child")
        return "done"

    assert in_child(child) == "done"
    assert time.monotonic() - began < 1.0
    gate.leave()


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
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False, timeout=30
    )
    parent, child = done.stdout.splitlines()
    assert parent in {"[]", "()"}
    assert child.startswith("False ")
    assert "without GRPC_ENABLE_FORK_SUPPORT=1" in child
