"""A connection to Redis: who calls alone stays awake for a moment, and only where that is worth it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest

pytest.importorskip("redis")

import redis.exceptions as theirs

from lockkit.store import awake
from lockkit_redis.connection import Connection, pack

PING = pack("PING")


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    monkeypatch.setattr(awake, "_PROCESSORS", 2)
    monkeypatch.setattr(awake, "_AWAKE", 5.0)
    monkeypatch.setattr(awake._process, "until", 0.0)


@pytest.fixture
def in_vain(monkeypatch):
    """No answer comes while anybody is awake for it."""
    monkeypatch.setattr(awake, "_AWAKE", 0.0)


@pytest.fixture
def pair():
    with contextlib.ExitStack() as stack:
        ours, theirs_ = (stack.enter_context(each) for each in socket.socketpair())
        yield line_on(ours), theirs_


def line_on(sock):
    sock.setblocking(False)
    return Connection(sock)


def soon():
    return time.monotonic() + 5.0


def said(line):
    (reply,) = line.exchange(PING, soon(), 1)
    return reply


def answered_after(seconds, line, server):
    timer = threading.Timer(seconds, server.sendall, (b"+PONG\r\n",))
    timer.start()
    try:
        return said(line)
    finally:
        timer.join()


def test_a_quick_answer_is_there_before_anybody_sleeps(pair, monkeypatch):
    line, server = pair
    # So to sleep would fail.
    monkeypatch.setattr(Connection, "_until", lambda self, end: self._socket.setblocking(False))

    assert answered_after(0.02, line, server) == b"PONG"
    assert line._awake._asleep == 0


def test_an_answer_in_pieces_is_read_to_its_end(pair):
    line, server = pair
    server.sendall(b"$4\r\nPO")
    timer = threading.Timer(0.05, server.sendall, (b"NG\r\n",))
    timer.start()

    assert said(line) == b"PONG"


def test_where_answers_take_longer_it_is_hardly_tried(pair, in_vain):
    line, server = pair
    skipped = []
    for _ in range(4):
        line._awake._asleep = 0
        assert answered_after(0.0, line, server) == b"PONG"
        skipped.append(line._awake._asleep)
    line._awake._in_vain, line._awake._asleep = 1_000, 0
    assert answered_after(0.0, line, server) == b"PONG"

    assert skipped == [1, 3, 7, 15]
    assert line._awake._asleep == 255


def test_a_quick_answer_after_slow_ones_counts_again(pair):
    line, server = pair
    line._awake._in_vain = 7
    server.sendall(b"+PONG\r\n")
    said(line)

    assert (line._awake._asleep, line._awake._in_vain) == (0, 0)


def test_one_thread_of_a_process_stays_awake_at_a_time(pair, in_vain):
    line, server = pair
    awake._process.until = soon()
    assert answered_after(0.02, line, server) == b"PONG"

    assert line._awake._asleep == 0, "it has not tried"


def test_whoever_never_says_that_it_sleeps_keeps_nobody_from_it_for_good(pair):
    """As when Ctrl-C cut its thread short, or this process is a child that was forked at that moment."""
    line, server = pair
    awake._process.until = time.monotonic()
    line._awake._in_vain = 7
    assert answered_after(0.0, line, server) == b"PONG"

    assert line._awake._in_vain == 0, "it was awake for it"


def test_the_end_of_the_connection_is_told(pair):
    line, server = pair
    server.shutdown(socket.SHUT_WR)

    with pytest.raises(ConnectionError):
        said(line)
    assert awake._process.until == 0.0


def test_nobody_stays_awake_on_one_processor(monkeypatch):
    monkeypatch.setattr(awake, "_PROCESSORS", 1)
    ours, server = socket.socketpair()
    with ours, server:
        assert line_on(ours)._awake._asleep > 1e9


def test_nor_on_an_encrypted_connection():
    ours, server = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with context.wrap_socket(ours, do_handshake_on_connect=False) as wrapped, server:
        assert line_on(wrapped)._awake._asleep > 1e9


def test_the_error_that_a_server_says_before_it_hangs_up_is_the_error(pair):
    """As a server with too many clients: it replies to none of the other commands."""
    line, server = pair
    server.sendall(b"-ERR max number of clients reached\r\n")
    server.shutdown(socket.SHUT_WR)

    with pytest.raises(theirs.RedisError, match="max number of clients"):
        line.exchange(3 * PING, soon(), 3)


def test_the_error_of_a_server_that_takes_no_more_is_read(pair):
    line, server = pair
    server.sendall(b"-ERR max number of clients reached\r\n")
    server.close()

    with pytest.raises(theirs.RedisError, match="max number of clients"):
        line.exchange(PING, soon(), 1)


def test_a_request_longer_than_the_host_takes_at_once_is_sent_whole(pair):
    line, server = pair
    long = pack("ECHO", "x" * 3_000_000)
    heard = bytearray()

    def read():
        while len(heard) < len(long):
            heard.extend(server.recv(65_536))
        server.sendall(b"+OK\r\n")

    thread = threading.Thread(target=read)
    thread.start()
    assert line.exchange(long, soon(), 1) == (b"OK",)
    thread.join()
    assert heard == long
