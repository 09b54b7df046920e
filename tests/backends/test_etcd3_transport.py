"""The transport over python-etcd3: its library, and dead connections. Forks: test_etcd3_forks.py."""

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

from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.processes import PATIENCE, installed, until
from lockkit_etcd.transport import Get, Put, Txn, Watched, WatchEnded, after
from lockkit_etcd3 import library
from support.etcd_transports import connect
from support.handlers import Handler
from support.servers.certificates import Certificates
from support.servers.etcd import EtcdServer
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")

BUDGET = 2.0


server = started(EtcdServer)


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:

        def opened(server, options=""):
            transport = connect(url(server) + options, SYSTEM)
            stack.callback(transport.close)
            return transport

        yield opened


def url(server):
    scheme, colon, rest = server.url().partition(":")
    return f"{scheme}+grpc{colon}{rest}"


def put(transport, key):
    return transport.txn(Txn((), (Put(key),)), BUDGET)


def threads():
    """Threads of Python that a transport may have started."""
    return [each for each in threading.enumerate() if each is not threading.main_thread()]


# -- the library


def test_it_says_which_package_is_in_use(opened, server):
    usable, said = library.in_use()
    assert opened(server).name == f"gRPC ({said})"
    assert usable
    assert said.startswith("python-etcd3 0.12.0, grpcio ")
    assert ", protobuf 3." in said


def run(folder, program):
    """Return the output of a Python that looks for modules in a folder first."""
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
from lockkit_etcd3.library import in_use
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
        ("raise TypeError('Descriptors cannot be created directly.')", "needs a protobuf before 4"),
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
        "import sys, lockkit_etcd, lockkit_etcd3, lockkit_etcd3.library; "
        "print({'etcd3', 'grpc'} & sys.modules.keys())"
    )
    assert run(tmp_path, program) == "set()\n"


# -- connections


def test_a_watch_notices_a_member_that_stands_still(opened):
    """The kernel of a stopped server goes on taking what is sent: only the pings of HTTP/2 tell."""
    with EtcdServer() as server:
        transport = opened(server)
        heard = queue.SimpleQueue()
        transport.watch(b"a", b"b", 0, heard.put)
        assert isinstance(heard.get(timeout=PATIENCE), Watched)
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
            until(lambda: works(transport), "it serves")
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


def test_a_watch_after_another_is_on_the_same_stream_which_ends_in_a_moment(opened):
    with EtcdServer() as server:
        transport = opened(server)
        put(transport, b"a")
        before, running = server.requests(), len(threads())
        for _ in range(3):
            heard = queue.SimpleQueue()
            watch = transport.watch(b"a", b"", 0, heard.put)
            assert isinstance(heard.get(timeout=PATIENCE), Watched)
            watch.close()
        assert server.requests() - before == 1
        until(lambda: len(threads()) <= running, "the stream has ended")
        heard = queue.SimpleQueue()
        transport.watch(b"a", b"", 0, heard.put)
        assert isinstance(heard.get(timeout=PATIENCE), Watched), "another stream has begun"


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
            at, news = heard.get(timeout=PATIENCE)
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
        old = transport._members[0]._channel
        with pytest.raises((Refused, Unknown)):
            put(transport, b"c")
        server.resume()
        put(transport, b"d")
        assert transport._members[0]._channel is not old


# -- signals


def test_no_signal_can_strike_in_grpc(opened, server):
    """No signal strikes in a call, connect or close: a lock of gRPC left taken would hang all later calls."""
    transport = opened(server)
    begun = queue.SimpleQueue()

    def whole():
        put(transport, b"a")
        transport.keepalive([1], BUDGET)
        stream = transport.watch(b"a", b"", 1, begun.put)
        begun.get(timeout=PATIENCE)
        transport.close()
        stream.close()

    struck = Handler(0, lambda: None, file="grpc/_channel.py", beside=("grpc._channel",))
    with struck:
        whole()

    assert struck.seen == 0


def test_a_handler_may_watch_wherever_it_interrupts_a_watch(opened, server):
    """The handler does not wait for what it interrupted, and hears of its own keys."""
    at, seen = 0, 1
    while at <= seen:
        transport, heard, kept = opened(server), queue.SimpleQueue(), []

        def watch(transport=transport, heard=heard, kept=kept):
            kept.append(transport.watch(b"b", b"", 0, heard.put))

        with Handler(at, watch, file="lockkit_etcd3/watching.py") as struck:
            transport.watch(b"a", b"", 0, lambda _: None).close()
        seen = max(seen, struck.seen)
        at += 1
        if kept:
            assert told(transport, heard) == [b"b"]
            kept.pop().close()
    assert at > 3


def told(transport, heard):
    """The keys that a watch on one tells of when it is written."""
    heard.get(timeout=PATIENCE)  # the watch stands
    put(transport, b"b")
    return [change.kv.key for change in heard.get(timeout=PATIENCE).changes]


def test_a_handler_that_raises_in_a_watch_leaves_the_later_ones_their_news(opened, server):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    transport = opened(server)
    at, missed = 0, False
    while not missed:
        at += 1
        heard = queue.SimpleQueue()
        missed = True
        try:
            with Handler(at, stop, file="lockkit_etcd3/watching.py"):
                transport.watch(b"a", b"", 0, lambda _: None).close()
        except Stop:
            missed = False
        watch = transport.watch(b"b", b"", 0, heard.put)
        assert told(transport, heard) == [b"b"]
        watch.close()


# -- TLS


@pytest.mark.parametrize("foreign", [False, True], ids=["none", "of another authority"])
def test_a_client_certificate_that_the_server_does_not_take_is_told(opened, tmp_path, foreign):
    with EtcdServer(tls=True, client_certificates=True) as server:
        options = f"?ca_file={server.certificates.ca}"
        if foreign:
            other = Certificates(tmp_path)
            options += f"&cert_file={other.nameless}&key_file={other.nameless_key}"

        with pytest.raises(Refused) as refused:
            opened(server, options).range(Get(b"a"), BUDGET)

    assert "the client's certificate" in refused.value.error.message
    assert "--trusted-ca-file" in refused.value.error.hint
