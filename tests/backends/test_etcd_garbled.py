"""Answers that no etcd gives, as from a foreign proxy: every call reports trouble with the store, in time."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

import lockkit
from lockkit.errors import LockkitError
from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.transport import Delete, Get, Put, Txn
from support.etcd_transports import connect

BUDGET = 0.3
HEADER = b'"header":{"member_id":"1","raft_term":"2","revision":"3"}'


def http(body, code=b"200 OK", more=b""):
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 " + code + b"\r\nContent-Type: application/json\r\n" + more + length + body


ANSWERS = {
    "a page": http(b"<html>bad</html>", b"502 Bad Gateway"),
    "a string": http(b'"x"'),
    "a list": http(b"[]"),
    "null": http(b"null"),
    "a code that is no number": http(b'{"code":"UNAVAILABLE","message":"x"}', b"503 X"),
    "an error whose code is no number": http(b'{"error":{"code":"x","message":"y"}}', b"500 X"),
    "an endless code": http(b'{"code":1e999}', b"500 X"),
    "no error": http(b'{"error":null}', b"500 X"),
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n{}",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    "a length that never comes": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk of a negative size": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"
    ),
    "deep JSON": http(b"[" * 100_000 + b"]" * 100_000),
    "a deep error": http(b"[" * 100_000 + b"]" * 100_000, b"500 X"),
    "a member that is no number": http(b'{"header":{"member_id":"x","raft_term":"2"}}'),
    "a member of 5000 digits": http(b'{"header":{"member_id":"' + b"9" * 5000 + b'","raft_term":"2"}}'),
    "an infinite term": http(b'{"header":{"member_id":"1","raft_term":Infinity}}'),
    "another place": http(b"", b"301 Moved", b"Location: http://x/\r\n"),
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "no text": http(b'\xff\xfe{"a":1}', b"500 X"),
    "keys that are none": http(b"{" + HEADER + b',"kvs":[{"key":"!!!"}]}'),
    "keys that were not asked for": http(b"{" + HEADER + b',"kvs":[{"key":"/w=="}]}'),
    "more answers than questions": http(b"{" + HEADER + b',"succeeded":true,"responses":[{},{},{},{},{}]}'),
    "answers to other questions": http(b"{" + HEADER + b',"succeeded":true,"responses":[{},{},{}]}'),
}
CALLS = {
    "txn": lambda transport: transport.txn(Txn((), (Put(b"k", b"v"), Get(b"k"), Delete(b"k"))), BUDGET),
    "range": lambda transport: transport.range(Get(b"k", b"l"), BUDGET),
    "grant": lambda transport: transport.grant(1, 60, BUDGET),
    "revoke": lambda transport: transport.revoke(1, BUDGET),
    "remaining": lambda transport: transport.remaining(1, BUDGET),
    "keepalive": lambda transport: transport.keepalive((1, 2), BUDGET),
}
TAKEN = {
    "txn": {"keys that are none", "keys that were not asked for"},
    # An answer without a member or an id of a lease is all that these need.
    "range": {"more answers than questions", "answers to other questions"},
    "revoke": {
        "keys that are none",
        "keys that were not asked for",
        "more answers than questions",
        "answers to other questions",
    },
    "remaining": {name for name in ANSWERS if "member" in name or "keys" in name or "question" in name},
}


@contextlib.contextmanager
def answering(answer):
    """A port where everything that is asked is answered like this."""

    def talk(connection):
        with contextlib.suppress(OSError), connection:
            while connection.recv(65_536):
                connection.sendall(answer)

    def listen(listening):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=listen, args=(listening,), daemon=True).start()
        yield f"etcd://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_call_says_that_it_is_unknown_what_was_done(answer):
    with (
        answering(ANSWERS[answer]) as url,
        contextlib.closing(connect(url, SYSTEM)) as transport,
    ):
        for name, call in CALLS.items():
            if answer in TAKEN.get(name, ()):
                call(transport)
                continue
            with pytest.raises((Refused, Unknown)):
                call(transport)
        said = transport.status(BUDGET)
        assert len(said) == 1


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_client_tells_it_as_trouble_with_the_store_and_closes_in_silence(answer, tmp_path):
    with answering(ANSWERS[answer]) as url:
        client = lockkit.connect(f"{url}?request_timeout=500ms", state_dir=str(tmp_path))
        with pytest.raises(LockkitError):
            client.lock("a", ttl=5).try_acquire()
        client.close()
