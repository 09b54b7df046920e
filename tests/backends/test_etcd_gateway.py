"""The transport over etcd's JSON gateway alone; what both transports do is in test_etcd_transports.py."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time

import pytest

from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.processes import PATIENCE, installed, until
from lockkit_etcd.transport import Delete, Get, Put, Txn
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


# -- no answer


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


# -- watches


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
