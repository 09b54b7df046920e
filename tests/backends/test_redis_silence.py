"""Redis servers that are away, silent or slow: each is told in time, and holds nothing."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

import pytest

pytest.importorskip("redis")

from lockkit.errors import BackendUnavailable
from lockkit.store.spi import OpenOptions, Refused, Unknown
from lockkit.testing.claims import claim, take
from lockkit.testing.processes import free_port
from lockkit.testing.troubles import IN_TIME, SECRET, both_ways, trouble
from lockkit_redis.address import parse
from lockkit_redis.backend import open_store
from lockkit_redis.connection import pack
from lockkit_redis.store import RedisStore
from support.servers.redis import RedisServer
from support.servers.started import started

server = started(RedisServer)


@both_ways
def test_a_closed_port_is_told(way):
    error = trouble(f"redis://:{SECRET}@127.0.0.1:{free_port()}/0", way)

    assert isinstance(error, BackendUnavailable)
    assert re.search(r"cannot reach redis://.*refused", str(error))


@both_ways
def test_a_server_that_answers_nothing_is_told(way, nothing_held):
    with RedisServer() as server:
        server.pause()  # it still accepts connections

        error = trouble(server.url(password=SECRET), way)

        assert "cannot reach" in str(error)
        server.resume()
        assert nothing_held(server)


def test_a_server_that_stops_answering_is_told_and_what_it_was_sent_holds_nothing(nothing_held):
    with RedisServer() as server, contextlib.closing(open_store(server.url(), OpenOptions())) as store:
        warm, _ = take(store, "warm")
        store.release(warm, 2.0)
        one = claim()
        server.pause()
        began = time.monotonic()
        with pytest.raises(Unknown):
            store.acquire(one, True, 2.0)
        assert time.monotonic() - began < IN_TIME
        server.resume()

        store.abandon(one, 2.0)

        assert nothing_held(server)


class Slow:
    """A server that takes its time over every answer."""

    def __init__(self, server, pause):
        self._server, self._pause = server, pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/1"
        self._threads = [threading.Thread(target=self._run, daemon=True)]
        self._threads[0].start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                there, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(there,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, there):
        with (
            contextlib.suppress(OSError),
            there,
            socket.create_connection((self._server.host, self._server.port)) as here,
        ):
            here.settimeout(0.05)
            while request := there.recv(65536):
                here.sendall(request)
                time.sleep(self._pause)
                with contextlib.suppress(TimeoutError):
                    while answer := here.recv(65536):
                        there.sendall(answer)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def test_the_whole_login_takes_a_slow_server_one_answer(server):
    with contextlib.closing(Slow(server, 3.0)) as slow:
        store = RedisStore(parse(slow.url), OpenOptions())
        began = time.monotonic()
        store.connect(20.0)[1].reset()
        assert time.monotonic() - began < 2 * 3.0


def test_a_server_that_is_too_slow_is_told_in_time(server):
    with contextlib.closing(Slow(server, 4.0)) as slow:
        assert "cannot reach" in str(trouble(slow.url))


def test_no_connection_to_a_demoted_primary_is_used_again_whatever_call_met_it():
    """A single command and one in a row: the first acquire of a name, a renewal."""
    with RedisServer() as server:
        store = RedisStore(parse(server.url()), OpenOptions())
        (node,) = store.servers()
        for send in (
            lambda packed: store.call(node, packed, 2.0),
            lambda packed: store.row(node, packed + pack("PING"), 2.0, 2),
            lambda packed: store.ask("a", packed, 2.0),
        ):
            store.call(node, pack("SET", "a", "b"), 2.0)
            assert len(store.performer._pools[node]._free) == 1
            server.cli("REPLICAOF", "127.0.0.1", "1")
            with contextlib.suppress(Refused):
                send(pack("SET", "a", "b"))
            assert node not in store.performer._pools
            server.cli("REPLICAOF", "NO", "ONE")
        store.close()


@pytest.mark.parametrize("count", ["one", "several"])
def test_what_a_signal_handler_raises_is_not_its_own_cause(server, count, monkeypatch):
    class Interrupt(KeyboardInterrupt):
        pass

    def interrupted(*_):
        raise Interrupt

    store = open_store(server.url(), OpenOptions())
    try:
        store.check(2.0)
        monkeypatch.setattr("lockkit_redis.connection.Connection.exchange", interrupted)
        with pytest.raises(Interrupt) as caught:
            store.acquire(claim(), True, 2.0) if count == "one" else store.inspect("a", 2.0)
        assert caught.value.__cause__ is None
    finally:
        monkeypatch.undo()
        store.close()
