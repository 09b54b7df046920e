"""The transport over etcd's JSON gateway: its choice of member, missing answers, and reports of watches."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from pathlib import Path

import pytest

from lockkit.errors import BackendUnavailable, PermissionDenied
from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.children import in_child
from lockkit.testing.processes import PATIENCE, free_port, installed, until
from lockkit_etcd.transport import (
    Compare,
    Delete,
    Found,
    Get,
    LeaseGone,
    LeaseTaken,
    Put,
    Remaining,
    Txn,
    Watched,
    WatchEnded,
)
from support.etcd_transports import connect
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdUser
from support.servers.etcd_groups import EtcdCluster
from support.servers.proxy import Proxy
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer, users=[EtcdUser("locker", "secret", {"": "READWRITE"})])


@contextlib.contextmanager
def opened(url):
    with contextlib.closing(connect(url, SYSTEM)) as transport:
        yield transport


@pytest.fixture
def transport(server):
    with opened(server.url("root", "root")) as transport:
        transport.txn(Txn((), (Delete(b"\0", b"\0"),)), 2.0)
        yield transport


def put(transport, key, value=b"v", lease=0):
    return transport.txn(Txn((), (Put(key, value, lease),)), 2.0)


# -- calls


def test_a_transaction_compares_writes_and_reads_in_one_step(transport):
    absent = Compare(b"k", "VERSION", "EQUAL", 0)
    request = Txn((absent,), (Put(b"k", b"\0\xff"), Get(b"k")), (Get(b"k"), Delete(b"k")))
    first, second = transport.txn(request, 2.0), transport.txn(request, 2.0)
    assert (first.succeeded, second.succeeded) == (True, False)
    (kv,) = first.found()
    assert (kv.value, kv.created, kv.lease) == (b"\0\xff", first.header.revision, 0)
    assert second.found(0) == [kv]
    assert transport.range(Get(b"k"), 2.0)[1] == Found([])


def test_a_comparison_of_a_range_holds_for_every_key_of_it_and_for_none(transport):
    last = put(transport, b"q/1").header.revision
    put(transport, b"q/2")
    for to, holds in ((last + 2, True), (last + 1, False)):
        newer = Compare(b"q/", "MOD", "LESS", to, b"q0")
        assert transport.txn(Txn((newer,), ()), 2.0).succeeded is holds
    assert transport.txn(Txn((Compare(b"x/", "VERSION", "EQUAL", 0, b"x0"),), ()), 2.0).succeeded


def test_a_put_may_leave_the_lease_as_it_is(transport):
    transport.grant(71, 60, 2.0)
    put(transport, b"k", b"one", 71)
    transport.txn(Txn((), (Put(b"k", b"two", same_lease=True),)), 2.0)
    (kv,) = transport.range(Get(b"k"), 2.0)[1].kvs
    assert (kv.value, kv.lease) == (b"two", 71)
    with pytest.raises(Refused):
        transport.txn(Txn((), (Put(b"missing", b"x", same_lease=True),)), 2.0)
    transport.revoke(71, 2.0)


def test_what_becomes_of_a_lease_is_told(transport):
    assert transport.grant(72, 60, 2.0).ttl == 60
    with pytest.raises(LeaseTaken):
        transport.grant(72, 60, 2.0)
    assert transport.remaining(72, 2.0) in (Remaining(59, 60), Remaining(60, 60))
    transport.revoke(72, 2.0)
    assert transport.remaining(72, 2.0).ttl == -1
    with pytest.raises(LeaseGone):
        transport.revoke(72, 2.0)
    with pytest.raises(LeaseGone):
        put(transport, b"k", lease=72)
    assert transport.keepalive((72,), 2.0)[72].ttl == 0


@pytest.mark.parametrize("many", [1, 8, 9, 100, 1300])
def test_every_lease_of_a_keepalive_is_answered(transport, many):
    leases = [1000 + at for at in range(many)]
    for lease in leases[::50]:
        transport.grant(lease, 60, 2.0)
    kept = transport.keepalive(leases, 5.0)
    assert sorted(kept) == leases
    assert [kept[lease].ttl for lease in leases] == [0 if at % 50 else 60 for at in range(many)]
    for lease in leases[::50]:
        transport.revoke(lease, 2.0)


def test_a_read_may_be_cut_into_pages(transport):
    for at in range(5):
        put(transport, b"p/%d" % at)
    _, page = transport.range(Get(b"p/", b"p0", keys_only=True, limit=3), 2.0)
    assert [kv.key for kv in page.kvs] == [b"p/0", b"p/1", b"p/2"]
    assert page.more
    assert page.kvs[0].value == b""


# -- logins


def test_a_wrong_password_is_told_at_once(server):
    with opened(server.url("locker", "wrong")) as transport, pytest.raises(Refused) as told:
        transport.range(Get(b"k"), 2.0)
    assert isinstance(told.value.error, PermissionDenied)
    assert not told.value.retry
    assert "wrong" not in str(told.value.error).replace("is wrong", "")


def test_no_password_is_told(server):
    with opened(server.url()) as transport, pytest.raises(Refused, match="a user and a password") as told:
        transport.range(Get(b"k"), 2.0)
    assert not told.value.retry


def test_a_password_where_there_are_no_users_is_told():
    with (
        EtcdServer() as plain,
        opened(plain.url("a", "b")) as transport,
        pytest.raises(Refused, match="authentication is off in this etcd"),
    ):
        transport.range(Get(b"k"), 2.0)


def test_a_login_that_the_member_has_forgotten_is_renewed():
    users = [EtcdUser("locker", "secret", {"": "READWRITE"})]
    with EtcdServer(users=users) as server, opened(server.url("locker", "secret")) as transport:
        put(transport, b"k")
        server.restart(lose_data=False)
        with contextlib.suppress(Unknown):  # the old connection
            put(transport, b"k")
        put(transport, b"k", b"again")
        assert transport.range(Get(b"k"), 2.0)[1].kvs[0].value == b"again"


# -- no answer


def test_nobody_there_is_refused():
    with opened(f"etcd://127.0.0.1:{free_port()}") as transport, pytest.raises(Refused) as told:
        transport.range(Get(b"k"), 2.0)
    assert isinstance(told.value.error, BackendUnavailable)
    assert told.value.retry


def test_a_member_that_stands_still_leaves_a_write_unknown_within_its_budget(transport, server):
    put(transport, b"k")
    server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(Unknown):
            put(transport, b"k")
        assert time.monotonic() - began < 3.8  # its budget is 2 s
        with pytest.raises((Refused, Unknown)):
            transport.range(Get(b"k"), 0.3)
    finally:
        server.resume()
    until(lambda: transport.range(Get(b"k"), 2.0), "it answers again")


def test_a_connection_that_owes_an_answer_is_not_used_again(server):
    with Proxy((server.host, server.port)) as proxy, opened(f"etcd://root:root@{proxy.address}") as transport:
        put(transport, b"k", b"one")
        proxy.hold(to_server=False)
        with pytest.raises(Unknown):
            transport.txn(Txn((), (Get(b"k"), Put(b"other", b""))), 0.3)
        proxy.heal()
        assert transport.range(Get(b"k"), 2.0)[1].kvs[0].value == b"one"
        assert proxy.opened > 1


def test_a_connection_that_the_member_closed_while_it_was_idle_is_noticed(server):
    with Proxy((server.host, server.port)) as proxy, opened(f"etcd://root:root@{proxy.address}") as transport:
        put(transport, b"k")
        proxy.drop()
        time.sleep(1.1)  # only then it is looked at
        put(transport, b"k")


def test_a_name_that_takes_long_to_resolve_is_within_the_budget(monkeypatch):
    asked, over = threading.Event(), threading.Event()

    def slow(*_args, **_keywords):
        asked.set()
        over.wait(20.0)
        raise OSError("not found")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with opened("etcd://slow.invalid") as transport:
        began = time.monotonic()
        with pytest.raises(Refused):
            transport.range(Get(b"k"), 0.2)
        assert time.monotonic() - began < 5  # the machine may be busy
        assert asked.is_set()
        over.set()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
    ],
)
def test_what_is_no_gateway_is_unknown_to_a_write(said):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.recv(4096)
                    connection.sendall(said)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        with opened(f"etcd://127.0.0.1:{port}") as transport, pytest.raises(Unknown):
            put(transport, b"k")
        listener.shutdown(socket.SHUT_RDWR)


def test_a_forked_child_sends_nothing(transport, server):
    put(transport, b"k", b"mine")

    def child():
        try:
            put(transport, b"k", b"the child's")
        except Refused as refused:
            return str(refused.error)
        return "sent"

    assert "not open in this process" in in_child(child)
    assert transport.range(Get(b"k"), 2.0)[1].kvs[0].value == b"mine"


def test_closing_it_leaves_no_thread_and_no_descriptor(server):
    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    threads, before = {*threading.enumerate()}, descriptors()
    for _ in range(3):
        with opened(server.url("root", "root")) as transport:
            heard = queue.Queue()
            transport.watch(b"k", b"l", 0, heard.put)
            heard.get(timeout=PATIENCE)
            put(transport, b"k")
    until(lambda: threads.issuperset(threading.enumerate()), "no thread is left")
    until(lambda: descriptors() <= before, f"{before} descriptors again")


# -- watches


def test_a_watch_tells_what_happens_from_its_start_on(transport):
    first = put(transport, b"w/1").header.revision
    heard = queue.Queue()
    stream = transport.watch(b"w/", b"w0", first, heard.put)
    transport.txn(Txn((), (Delete(b"w/1"),)), 2.0)
    put(transport, b"x")
    put(transport, b"w/2")
    changes = []
    while len(changes) < 3:
        news = heard.get(timeout=PATIENCE)
        assert isinstance(news, Watched)
        changes += news.changes
    assert [(each.kind, each.kv.key) for each in changes] == [
        ("PUT", b"w/1"),
        ("DELETE", b"w/1"),
        ("PUT", b"w/2"),
    ]
    assert changes[1].kv.modified == first + 1
    stream.close()


def test_a_watch_of_what_is_compacted_away_says_from_where_on_there_is_something(transport, server):
    put(transport, b"w")
    put(transport, b"w")
    compacted = server.compact()
    heard = queue.Queue()
    transport.watch(b"w", b"x", 1, heard.put)
    while not isinstance(news := heard.get(timeout=PATIENCE), WatchEnded):
        pass
    assert news.compacted == compacted


def test_a_watch_that_is_cut_ends(server):
    with Proxy((server.host, server.port)) as proxy, opened(f"etcd://root:root@{proxy.address}") as transport:
        heard = queue.Queue()
        transport.watch(b"w", b"x", 0, heard.put)
        assert isinstance(heard.get(timeout=PATIENCE), Watched)
        proxy.drop()
        assert isinstance(heard.get(timeout=PATIENCE), WatchEnded)


def test_a_watch_that_is_not_allowed_ends(server):
    users = [EtcdUser("guest", "secret", {"app/": "READ"})]
    with EtcdServer(users=users) as strict, opened(strict.url("guest", "secret")) as transport:
        heard = queue.Queue()
        transport.watch(b"x", b"y", 0, heard.put)
        while not isinstance(news := heard.get(timeout=PATIENCE), WatchEnded):
            pass
        assert "denied" in news.why


def test_the_operating_system_is_told_to_notice_a_watch_whose_other_end_is_gone(transport, monkeypatch):
    kept = []
    real = socket.socket.setsockopt

    def spied(self, *words):
        kept.append(words)
        return real(self, *words)

    monkeypatch.setattr(socket.socket, "setsockopt", spied)
    heard = queue.Queue()
    transport.watch(b"w", b"x", 0, heard.put)
    heard.get(timeout=PATIENCE)
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in kept
    assert (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 14_000) in kept


# -- several members


cluster = started(EtcdCluster)


def test_a_member_that_is_down_is_passed_over(cluster):
    down = free_port()
    with opened(f"etcd://127.0.0.1:{down},{cluster.members[0].address}") as transport:
        put(transport, b"k")


def test_a_member_without_a_leader_says_so_at_once_and_another_is_asked(cluster):
    alone = cluster.followers()[0]
    url = ",".join([alone.address, *(each.address for each in cluster.members if each is not alone)])
    with EtcdCluster() as lost:
        survivor = lost.followers()[0]
        for member in lost.members:
            if member is not survivor:
                member.kill()
        with opened(f"etcd://{survivor.address}") as transport:

            def leaderless():
                began = time.monotonic()
                with pytest.raises((Refused, Unknown)) as told:
                    put(transport, b"k")
                return isinstance(told.value, Refused) and time.monotonic() - began < 0.5

            until(leaderless, "it knows that it has no leader", 20.0)
        with opened(f"etcd://{survivor.address},{url}") as transport:
            put(transport, b"k", b"elsewhere")
            assert transport.range(Get(b"k"), 2.0)[1].kvs[0].value == b"elsewhere"


def test_a_read_goes_on_elsewhere_when_a_member_stands_still_and_a_write_is_unknown_once(cluster):
    still = cluster.followers()[0]
    url = ",".join([still.address, *(each.address for each in cluster.members if each is not still)])
    with opened(f"etcd://{url}") as transport:
        put(transport, b"k")
        still.pause()
        try:
            transport.range(Get(b"k"), 4.0)  # or it would be out of time
            put(transport, b"k")  # from now on another is asked first
        finally:
            still.resume()
    with opened(f"etcd://{url}") as transport:
        still.pause()
        try:
            with pytest.raises(Unknown):
                put(transport, b"k")
            put(transport, b"k")
        finally:
            still.resume()


def test_fresh_begins_with_another_member(cluster):
    first, second, third = cluster.members
    with opened(f"etcd://{first.address},{second.address},{third.address}") as transport:
        other = transport.fresh()
        assert other.range(Get(b"k"), 2.0)[0].member != transport.range(Get(b"k"), 2.0)[0].member
        other.close()


def test_each_member_is_asked_for_its_status(cluster):
    with opened(f"etcd://127.0.0.1:{free_port()},{cluster.members[0].address}") as transport:
        nobody, first = transport.status(2.0)
        assert isinstance(nobody, Refused)
        assert first.version.startswith("3.")
        assert first.leader
