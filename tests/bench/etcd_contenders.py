"""The contenders on etcd: floors that no lock there can beat, and the libraries that people use for it.

Each library is used as its own documentation shows it first, with a ttl of 30 s.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from lockkit.testing.bench.contender import Contender

__all__ = ["FLOOR", "MAKERS", "PEERS", "RAW", "WAITING", "WOKEN"]

FLOOR = "floor: 2 Txn"
RAW = "floor: 2 Txn, raw socket"
WOKEN = "floor: delete, watch, Txn"
PEERS = {"etcd3": "etcd3", "etcd3gw": "etcd3gw"}
"""pip's name of each library, and the module that it brings. ``etcd3`` is python-etcd3."""
WAITING: tuple[str, ...] = ()
"""Libraries whose lock can wait. That of etcd3gw asks once; that of etcd3 raises when it has to wait."""

_TTL = 30


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _txns(key: str) -> tuple[bytes, bytes]:
    """The plainest fenced pair: write a key if there is none (its revision is the fence); delete it if it is ours."""
    name, token = _coded(key), _coded("token")
    take = {
        "compare": [{"key": name, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
        "success": [{"request_put": {"key": name, "value": token}}],
    }
    drop = {
        "compare": [{"key": name, "target": "VALUE", "result": "EQUAL", "value": token}],
        "success": [{"request_delete_range": {"key": name}}],
    }
    return json.dumps(take).encode(), json.dumps(drop).encode()


class _Plain:
    """A persistent HTTP connection of the standard library."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port or 0)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stack.callback(self._connection.close)

    def done(self, body: bytes) -> bool:
        """Whether a Txn succeeded."""
        self._connection.request("POST", "/v3/kv/txn", body)
        return b'"succeeded":true' in self._connection.getresponse().read()


def _floor(stack: ExitStack, url: str) -> Contender:
    plain, (take, drop) = _Plain(stack, url), _txns("floor")
    return Contender(FLOOR, lambda: plain.done(take), lambda _: plain.done(drop))


def _raw(stack: ExitStack, url: str) -> Contender:
    """The same without any library: each answer is one short block."""
    place = urlsplit(url)
    sock = stack.enter_context(socket.create_connection((place.hostname or "", place.port or 0)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = b"POST /v3/kv/txn HTTP/1.1\r\nHost: etcd\r\nContent-Length: %d\r\n\r\n%b"
    take, drop = (head % (len(body), body) for body in _txns("raw"))

    def ask(packed: bytes) -> bytes:
        sock.sendall(packed)
        return sock.recv(4096)

    return Contender(RAW, lambda: ask(take), lambda _: ask(drop))


def _woken(stack: ExitStack, url: str) -> Contender:
    """The fastest possible hand-off over etcd: the holder deletes the key; a waiter that hears of it takes the lock. No queue, no lease, no fairness."""
    plain, listening, (take, drop) = _Plain(stack, url), _Watch(stack, url, "woken"), _txns("woken")

    def acquire() -> None:
        while not plain.done(take):
            listening.hear()

    return Contender(WOKEN, acquire, lambda _: plain.done(drop))


class _Watch:
    """A stream of the deletions of one key."""

    def __init__(self, stack: ExitStack, url: str, key: str) -> None:
        place = urlsplit(url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 0)
        stack.callback(connection.close)
        wanted = {"create_request": {"key": _coded(key), "filters": ["NOPUT"]}}
        connection.request("POST", "/v3/watch", json.dumps(wanted))
        self._stream = connection.getresponse()
        self.hear()  # that it stands

    def hear(self) -> bytes:
        """The next news."""
        return self._stream.readline()


def _python_etcd3(stack: ExitStack, url: str) -> Contender:
    place = urlsplit(url)
    module: Any = import_module("etcd3")
    client = stack.enter_context(module.client(host=place.hostname, port=place.port))
    lock = client.lock("etcd3", ttl=_TTL)
    return Contender("etcd3", lock.acquire, lambda _: lock.release())


def _etcd3gw(stack: ExitStack, url: str) -> Contender:
    place = urlsplit(url)
    module: Any = import_module("etcd3gw.client")
    client = module.Etcd3Client(host=place.hostname, port=place.port)
    stack.callback(client.session.close)
    lock = client.lock("etcd3gw", ttl=_TTL)
    return Contender("etcd3gw", lock.acquire, lambda _: lock.release())


MAKERS: dict[str, Callable[[ExitStack, str], Contender]] = {
    FLOOR: _floor,
    RAW: _raw,
    WOKEN: _woken,
    "etcd3": _python_etcd3,
    "etcd3gw": _etcd3gw,
}
