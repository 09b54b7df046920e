"""ZooKeeper servers that are gone or silent: each call returns in time, leaving nothing; and forks."""

from __future__ import annotations

import _thread
import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("kazoo")

from lockkit.errors import BackendUnavailable
from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import Claim, Granted, OpenOptions, Refused, Terms, Unknown
from lockkit.sync.client import connect
from lockkit.testing.children import in_child
from lockkit.testing.claims import BUDGET, claim, renew, take
from lockkit.testing.processes import free_port, until
from lockkit.testing.troubles import both_ways, trouble
from lockkit_zookeeper.address import parse
from lockkit_zookeeper.backend import open_store
from lockkit_zookeeper.connecting import Handler
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.store import ZooKeeperStore
from support.servers.proxy import Proxy
from support.servers.zookeeper import ZooKeeperServer

TICK = 0.15
TTL = 2.4
"""Seconds; for claims that are to lapse."""
LONG = 60.0
"""Seconds; a third of it is the least that a call takes which waits for a silent server."""
AT_ONCE = 15.0
"""Seconds that a call without such a wait may take on a busy machine."""


@pytest.fixture
def server():
    with ZooKeeperServer(tick=TICK) as server:
        yield server


def url(server):
    return f"{server.url('/app')}?tick={TICK}&max_ttl=60"


@both_ways
def test_a_closed_port_is_told(way):
    error = trouble(f"zookeeper://127.0.0.1:{free_port()}/app", way)

    assert isinstance(error, BackendUnavailable)
    assert "refused" in str(error)


@both_ways
def test_a_server_that_answers_nothing_is_told(way, server):
    server.pause()  # it still accepts connections

    error = trouble(url(server), way)

    assert "cannot reach" in str(error)
    server.resume()


CALLS = {
    "acquire": lambda store, one: store.acquire(claim("new", ttl=LONG), True, 0.3),
    "acquire with another ttl": lambda store, one: store.acquire(claim("new", ttl=LONG / 2), True, 0.3),
    "ask again": lambda store, one: store.acquire(one, False, 0.3),
    "release": lambda store, one: store.release(one, 0.3),
    "abandon": lambda store, one: store.abandon(one, 0.3),
    "emergency_release": lambda store, one: store.emergency_release(one, 0.3),
    "inspect": lambda store, one: store.inspect("a", 0.3),
    "names": lambda store, one: store.names("", 0.3),
    "evict": lambda store, one: store.evict("a", "0" * 12, 0.3),
    "resize": lambda store, one: store.resize("a", 2, 0.3),
    "annotate": lambda store, one: store.annotate("a", "0" * 12, {}, 0.3),
    "record": lambda store, one: store.record("a", 0.3),
    "put_record": lambda store, one: store.put_record("a", {}, 0, 0.3),
    "check": lambda store, one: store.check(0.3),
    "renew another's": lambda store, one: store.renew([(claim(ttl=LONG), 1)], 0.3),
}


def test_every_call_obeys_its_budget_against_a_server_that_stopped_answering(server):
    with contextlib.closing(open_store(url(server), OpenOptions())) as store:
        for what, call in CALLS.items():
            one, _ = take(store, what, ttl=LONG)
            server.pause()
            began = time.monotonic()
            with pytest.raises((Refused, Unknown)):
                call(store, one)
            assert time.monotonic() - began < AT_ONCE, what
            began = time.monotonic()
            store.watch("a", ["x"], lambda: None, one).close()
            assert time.monotonic() - began < AT_ONCE, f"watch, after {what}"
            server.resume()
            until(lambda: quiet(store), "it answers again")


def test_what_can_be_read_or_written_is_told_and_so_are_hang_ups_and_closed_sockets(server):
    handler = Handler(parse(url(server)), 1.0)
    one, other = socket.socketpair()
    assert handler.select([one], [one], [], 0.0) == ([], [one], [])
    began = time.monotonic()
    assert handler.select([one], [], [], 0.05) == ([], [], [])
    assert time.monotonic() - began >= 0.05
    other.send(b"x")
    assert handler.select([one, other], [], [], None) == ([one], [], [])
    other.close()
    assert handler.select([one], [one], [], None) == ([one], [one], [])
    one.close()
    with pytest.raises((OSError, ValueError)):
        handler.select([one], [], [], 0.0)


def quiet(store):
    try:
        store.names("", BUDGET)
    except (Refused, Unknown):
        return False
    return True


def test_closing_does_not_wait_for_a_server_that_stopped_answering(server):
    client = connect(url(server))
    lease = client.lock("a", ttl=LONG).acquire(5.0)
    server.pause()
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < AT_ONCE
    assert not lease.valid()
    server.resume()


def test_the_end_of_the_interpreter_does_not_wait_for_a_server_that_stopped_answering(server):
    program = textwrap.dedent(f"""
        import os, signal, sys, time
        from lockkit.sync.client import connect
        client = connect({url(server)!r})
        lease = client.lock("a", ttl={LONG}).acquire(5.0)
        print("held", flush=True)
        sys.stdin.readline()
    """)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    server.pause()
    began = time.monotonic()
    process.communicate(b"\n", timeout=60)
    assert time.monotonic() - began < AT_ONCE
    assert process.returncode == 0
    server.resume()


def test_a_silent_server_is_left_for_another(server):
    with ZooKeeperServer(tick=TICK) as deaf:
        deaf.pause()
        hosts = f"{deaf.address},{server.address}"
        for _ in range(4):  # kazoo shuffles
            with contextlib.closing(
                open_store(f"zookeeper://{hosts}/app?tick={TICK}&max_ttl=3", OpenOptions())
            ) as store:
                take(store, ttl=TTL)
                store.release(*take(store, "b", ttl=TTL)[:1], BUDGET)
            with server.connect() as look:
                for node in look.get_children("/app/lockkit/default/q/a"):
                    look.delete(f"/app/lockkit/default/q/a/{node}")
        deaf.resume()


@contextlib.contextmanager
def silent(way):
    """The address of a host that says nothing: it accepts connections, or it does not even do that."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        if way == "drops":
            listener.listen(0)
            for _ in range(4):  # a full backlog: the kernel drops what comes
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("way", ["accepts", "drops"])
def test_one_silent_member_stops_nobody_who_starts(way, members, server):
    """With sessions of 30 s, as they are by default: what was waited for was a third of that."""
    with silent(way) as deaf:
        hosts = ",".join([deaf] + [server.address] * (members - 1))
        there = f"zookeeper://{hosts}/app?tick={TICK}&max_ttl=40"
        for _ in range(10):  # the order is by chance
            with contextlib.closing(open_store(there, OpenOptions())) as store:
                assert store.names("", BUDGET) == []


def test_one_silent_member_stops_nobody_who_takes_another_ttl(server):
    with silent("accepts") as deaf:
        there = f"zookeeper://{deaf},{server.address}/app?tick={TICK}&max_ttl=40"
        with contextlib.closing(open_store(there, OpenOptions())) as store:
            for ttl in range(20, 30):
                one = claim("a", ttl=float(ttl))
                assert isinstance(store.acquire(one, True, 2.0), Granted)
                store.release(one, BUDGET)


def test_who_was_silent_is_asked_last_for_a_while(server):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as deaf:
        there = f"zookeeper://127.0.0.1:{deaf.getsockname()[1]},{server.address}/app?tick={TICK}&max_ttl=40"
        for _ in range(12):  # the order is by chance
            open_store(there, OpenOptions()).close()
        deaf.setblocking(False)
        asked = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.accept()[0].close()
                asked += 1
    assert asked <= 1


def test_a_session_whose_server_dies_passes_a_silent_member_by(server):
    with silent("accepts") as deaf:
        there = f"zookeeper://{deaf},{server.address}/app?tick={TICK}&max_ttl=40"
        with contextlib.closing(open_store(there, OpenOptions())) as store:
            for _ in range(5):
                store.sessions()[0].connection.bounce()
                began = time.monotonic()
                until(lambda: quiet(store), "it is connected again")
                assert time.monotonic() - began < AT_ONCE, "a third of the session's timeout"


class Swallowing(Proxy):
    """A proxy that accepts the next connection but never reads from it, like a server during its start."""

    def __init__(self, server):
        self.swallows = False
        self.known, self.swallowed = set(), set()
        super().__init__(server)

    def passing(self, connection, flow, data):
        if connection not in self.known and self.swallows:
            self.swallows = False
            self.swallowed.add(connection)
        self.known.add(connection)
        if connection not in self.swallowed:
            super().passing(connection, flow, data)


def test_a_session_outlasts_a_request_to_connect_that_its_only_server_swallows(server):
    with Swallowing((server.host, server.port)) as proxy:
        there = f"zookeeper://{proxy.address}/app?tick={TICK}&max_ttl=12"
        with contextlib.closing(open_store(there, OpenOptions())) as store:
            one, fence = take(store, ttl=12.0)
            turn = session(store, one).connection.turn
            proxy.swallows = True
            proxy.drop()
            until(lambda: session(store, one).connection.turn > turn, "it is connected again", 30.0)
            assert proxy.swallowed
            assert renew(store, one, fence).state == "HELD"


def test_a_server_slower_than_the_first_patience_is_waited_for_in_the_end(server):
    with Proxy(("127.0.0.1", server.port), delay=0.7) as slow, silent("accepts") as deaf:
        store = ZooKeeperStore(
            parse(f"zookeeper://{deaf},{slow.address},{deaf}/app?tick={TICK}&max_ttl=40"), OpenOptions()
        )
        with contextlib.closing(store):
            store.open(15.0)


# -- forks


def descriptors():
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(fd.readlink()))
    return found


def test_a_child_has_none_of_its_parents_connections(server):
    with contextlib.closing(open_store(url(server), OpenOptions())) as store:
        one, fence = take(store, ttl=LONG)
        ours = {each for each in descriptors() if each.startswith("socket:")}

        def child():
            store.close()
            left = [each for each in descriptors() if each in kazoos]
            try:
                store.inspect("a", BUDGET)
            except Refused as refusal:
                return [left, str(refusal)]
            return [left, "answered"]

        connection = session(store, one).connection._client._connection
        kazoos = {
            str(Path(f"/proc/self/fd/{sock.fileno()}").readlink())
            for sock in (connection._socket, connection._read_sock, connection._write_sock)
        }
        assert kazoos <= ours
        left, told = in_child(child)
        assert left == []
        assert "not open in this process" in told
        for _ in range(10):
            time.sleep(0.3)
            assert store.renew([(one, fence)], BUDGET)[0].state == "HELD", (
                "the child ended its parent's session"
            )


def session(store, one):
    return store.entry(one.token)[0]


def test_a_child_that_outlives_its_parent_does_not_keep_the_claim(server):
    program = textwrap.dedent(f"""
        import os, signal, time
        from lockkit.sync.client import connect
        client = connect({url(server)!r})
        lease = client.lock("a", ttl={TTL}).acquire(5.0)
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            time.sleep(60)
            os._exit(0)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE)
    child = int(process.stdout.readline())
    try:
        process.wait(10)
        with connect(url(server)) as client:
            client.lock("a", ttl=TTL).acquire(30.0).release()
        os.kill(child, 0)  # it lives
    finally:
        os.kill(child, 9)
        process.stdout.close()


def lockkits():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lockkit-zookeeper")]


def test_threads_and_sockets_are_gone_after_closing(server):
    store = open_store(url(server), OpenOptions())
    for ttl in (TTL, 3.0, 4.5):
        one = Claim(os.urandom(16).hex(), Terms("a", ttl=ttl))
        assert isinstance(store.acquire(one, True, BUDGET), Granted)
        store.release(one, BUDGET)
    assert lockkits()
    store.close()
    until(lambda: not lockkits(), "its threads end")
    with server.session():
        until(lambda: int(server.mntr()["num_alive_connections"]) <= 2, "its connections are closed")


def only_threads(monkeypatch, number):
    """Let this many more threads start, as a limit of the system does."""
    start, left = _thread.start_new_thread, iter(range(number))

    def starts(*args):
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        return start(*args)

    monkeypatch.setattr(_thread, "start_new_thread", starts)
    monkeypatch.setattr(threading, "_start_new_thread", starts)


@pytest.mark.parametrize("goodbye", [True, False])
def test_a_connection_is_closed_although_no_thread_can_be_started(server, monkeypatch, goodbye):
    before = descriptors()
    connection = Connection(parse(url(server)), TTL, SYSTEM)
    connection.start()
    connection.wait(BUDGET)

    only_threads(monkeypatch, 0)
    connection.close(goodbye=goodbye)

    until(lambda: not lockkits(), "its threads end")
    assert descriptors() <= before
    with server.session():
        until(lambda: int(server.mntr()["num_alive_connections"]) <= 2, "its connection is closed")


@pytest.mark.parametrize("number", range(4))
def test_a_connection_that_gets_too_few_threads_leaves_none(server, monkeypatch, number):
    before = descriptors()
    only_threads(monkeypatch, number)
    connection = Connection(parse(url(server)), TTL, SYSTEM)

    connection.start()

    with pytest.raises(Refused, match="new thread"):
        connection.wait(BUDGET)
    until(lambda: not lockkits(), "its threads end")
    until(lambda: descriptors() <= before, "its sockets are closed")


# -- closed while it connects


@contextlib.contextmanager
def connecting(monkeypatch):
    """Hold back what connects, with a socket that is connected and that nobody else knows of yet."""
    there, go_on = threading.Event(), threading.Event()
    connected = Handler._connected

    def late(*args):
        sock = connected(*args)
        there.set()
        go_on.wait(BUDGET)
        return sock

    monkeypatch.setattr(Handler, "_connected", late)
    yield there
    go_on.set()


def has_session(server, connection):
    return f"{connection.session:#x}" in server.word("dump")


def others(server):
    """The server's connections, without the one that asks."""
    return int(server.mntr()["num_alive_connections"]) - 1


def opened(server, where=None):
    connection = Connection(parse(where or url(server)), LONG, SYSTEM)
    connection.start()
    connection.wait(BUDGET)
    return connection


@pytest.mark.parametrize("goodbyes", [[True], [False], [False, True], [True, False]])
def test_a_connection_that_is_closed_while_it_comes_back_ends(server, monkeypatch, goodbyes):
    connection = opened(server)
    with connecting(monkeypatch) as there:
        connection.bounce()
        assert there.wait(BUDGET)
        for goodbye in goodbyes:
            connection.close(goodbye=goodbye)

    until(lambda: not lockkits(), "its threads end")
    until(lambda: others(server) == 0, "its connection is closed")
    assert connection.turn == 1
    assert has_session(server, connection) is not any(goodbyes)


@pytest.mark.parametrize("goodbye", [True, False])
def test_a_connection_that_is_closed_while_it_connects_makes_no_session(server, monkeypatch, goodbye):
    connection = Connection(parse(url(server)), LONG, SYSTEM)
    with connecting(monkeypatch) as there:
        connection.start()
        assert there.wait(BUDGET)
        connection.close(goodbye=goodbye)

    until(lambda: not lockkits(), "its threads end")
    until(lambda: others(server) == 0, "its connection is closed")
    assert int(server.mntr()["global_sessions"]) == 0


def test_a_goodbye_waits_for_the_answer_to_the_request_to_connect(server):
    with Proxy((server.host, server.port)) as proxy:
        connection = opened(server, f"zookeeper://{proxy.address}/app?tick={TICK}&max_ttl=60")
        until(lambda: others(server) == 1, "it is connected")
        proxy.hold(to_server=False)
        proxy.drop()
        until(lambda: others(server) == 1 and proxy.opened == 2, "it connects again")
        connection.close(goodbye=True)
        proxy.heal()

        until(lambda: not lockkits(), "its threads end")
    assert not has_session(server, connection)


def test_a_store_that_is_closed_while_its_session_comes_back_lets_go_of_its_claim(server, monkeypatch):
    store, other = (open_store(url(server), OpenOptions()) for _ in range(2))
    take(store, "a", ttl=TTL)
    with connecting(monkeypatch) as there:
        store.sessions()[0].connection.bounce()
        assert there.wait(BUDGET)
        store.close()

    until(lambda: not other.inspect("a", BUDGET).claims, "the session ends")
    other.close()


def test_a_connection_whose_time_is_up_says_goodbye_by_itself(server):
    connection = Connection(parse(url(server)), TTL, SYSTEM, until=time.monotonic() + 1.0)
    connection.start()
    connection.wait(BUDGET)
    assert has_session(server, connection)
    until(lambda: not lockkits(), "its threads end")
    assert not has_session(server, connection)
