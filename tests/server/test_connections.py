"""Peers that are slow, silent or many: each is ended in time, and the others get their answers meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import resource
import select
import socket
from pathlib import Path

import pytest

from lockkit.server import make_app
from lockkit.server.connections import LimitedConnection, LimitedConnections, Limits
from lockkit.server.running import Server

from .conftest import TOKENS

HALF = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Half: "
"""A request whose head does not end."""
BODY = (
    b"POST /api/session HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)
"""A request whose body does not end, as anybody may send it."""
SLOW = Limits(most=1000, head=0.3, idle=1, body=0.5, unread=0.5, closing=0.5)


@pytest.fixture
def limited(client, token_file, running):
    """Start a server with these limits; gives its port."""

    def start(limits, application=None):
        application = application or make_app([client], token_file=str(token_file))
        server = Server(application, limits, lambda _: None, sweep=0.05, port=0, loop="asyncio")
        return running(application, server)

    return start


@pytest.fixture
def sockets():
    """Open connections; they are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(port, data=b"", *, buffer=None):
            one = socket.socket()
            if buffer is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            one.settimeout(30)
            stack.enter_context(one)
            one.connect(("127.0.0.1", port))
            if data:
                one.sendall(data)
            return one

        yield connect


def answered(port, path="/livez", **headers):
    """The status of the answer to a whole request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def read(connection):
    """Everything that comes until the server ends the connection."""
    found = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            found += data
    return bytes(found)


@pytest.mark.parametrize("data", [b"", HALF], ids=["silent", "half a head"])
def test_a_peer_that_sends_no_whole_request_is_ended(limited, sockets, data):
    assert read(sockets(limited(SLOW), data)) == b""


def trickled(connection):
    """Whether the server ends a connection on which one byte comes after the other."""
    connection.settimeout(0.02)
    try:
        for _ in range(1500):
            connection.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                connection.recv(65536)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_bytes_that_come_one_by_one_do_not_put_the_end_off(limited, sockets):
    assert trickled(sockets(limited(SLOW), HALF))


def test_a_peer_whose_body_does_not_come_is_ended(limited, sockets, monkeypatch):
    monkeypatch.setattr("lockkit.server.app._BODY_SECONDS", 3600.0)

    assert read(sockets(limited(SLOW), BODY)) == b""


def test_a_body_that_goes_on_after_its_answer_does_not_put_the_end_off(limited, sockets):
    assert trickled(sockets(limited(SLOW), BODY.replace(b"POST", b"GET")))


def test_a_connection_may_be_used_again_and_ends_when_it_is_not(limited):
    connection = http.client.HTTPConnection("127.0.0.1", limited(SLOW), timeout=30)
    connection.connect()
    kept = connection.sock
    for _ in range(3):
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
        assert connection.sock is kept

    assert read(kept) == b""
    connection.close()


async def long(scope, receive, send):
    """An application whose answer is sent in many parts."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


async def large(scope, receive, send):
    """An application whose answer does not fit into the buffers of a connection."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 16_000_000})


@pytest.mark.parametrize("application", [long, large])
def test_a_peer_that_does_not_read_is_ended(limited, sockets, application):
    silent = sockets(limited(SLOW, application), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", buffer=4096)
    watch = select.poll()
    watch.register(silent, select.POLLHUP)

    assert watch.poll(60_000)


def test_a_stream_that_is_read_goes_on_for_longer_than_any_limit(limited, sockets):
    async def ticking(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(30):
            await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"end\n"})

    assert b"end\n" in read(
        sockets(limited(SLOW, ticking), b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    )


@pytest.mark.parametrize("data", [b"", HALF, BODY], ids=["silent", "half a head", "half a body"])
def test_as_many_connections_as_may_be_shut_nobody_out(limited, sockets, data):
    port = limited(Limits(most=40, head=3600, body=3600))
    for _ in range(60):
        sockets(port, data)

    assert answered(port) == 200
    assert answered(port, "/api/locks", authorization=f"Bearer {TOKENS['view']}") == 200


def test_who_is_answered_makes_no_place_and_a_new_one_is_refused(limited, sockets):
    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def waiting(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await receive()

    async def hearing(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        await waiting(scope, receive, send)

    port = limited(Limits(most=2), hearing)
    first, second = sockets(port, whole), sockets(port, whole)
    for one in (first, second):
        while b"begun" not in one.recv(65536):
            pass

    assert read(sockets(port, whole)) == b""
    for one in (first, second):
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(1)


@pytest.fixture
def many_descriptors():
    """Let this process open as many connections as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this process may not have 4096 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_command_answers_beside_a_thousand_halves_of_requests(begun, sockets, many_descriptors):
    _, line = begun("--json")
    port = int(json.loads(line)["url"].rpartition(":")[2].strip("/"))
    halves = [sockets(port, HALF) for _ in range(1200)]

    assert answered(port) == 200
    assert all(read(one) == b"" for one in halves[:20])


def test_connections_leave_descriptors_for_stores(begun, sockets):
    """A server that may have few descriptors limits its connections before it has none left."""
    process, line = begun("--json", by=("prlimit", "--nofile=256:256"))
    port = int(json.loads(line)["url"].rpartition(":")[2].strip("/"))
    for _ in range(400):
        sockets(port, HALF)

    assert answered(port, "/livez") == 200
    assert len([*Path(f"/proc/{process.pid}/fd").iterdir()]) <= 200
    process.kill()
    _, err = process.communicate()
    assert "system resource" not in err
    assert "there are 128 connections, and more may not be" in err


def test_the_oldest_make_place_first():
    ended = []

    class Peer(LimitedConnection):
        def __init__(self, state, name, phase, since):
            self.name, self.phase, self.since = name, phase, since
            self.transport = self
            self.server_state = state

        def look(self, now):
            pass

        def abort(self):
            ended.append(self.name)

    state = LimitedConnections(Limits(most=3))
    peers = [Peer(state, *of) for of in (("c", "body", 3.0), ("a", "answer", 1.0), ("b", "head", 2.0))]
    new = Peer(state, "new", "head", 9.0)
    state.connections |= {*peers, new}

    state.arrived(new, 9.0)

    assert ended == ["b"]
    assert state.connections == {peers[0], peers[1], new}
