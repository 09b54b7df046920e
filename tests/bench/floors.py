"""The floors of each kind of server, which no lock there can beat."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from lockkit.testing.bench.trial import Contender
from lockkit.values.names import new_token

__all__ = ["AWAKE", "FLOOR", "FLOORS", "PLAIN", "QUEUES", "WOKEN", "Makers", "kazoo"]

Makers: TypeAlias = Mapping[str, Callable[[ExitStack, str], Contender]]
"""By name: opens a contender on a server with a URL, until the stack is closed."""

_TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', 30000) then return redis.call('INCR', KEYS[2]) end
"""
_DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"
_FAIR = (
    "return redis.call('RPUSH', KEYS[1], ARGV[1])",
    "return 1",
    """
redis.call('LPOP', KEYS[1])
local following = redis.call('LINDEX', KEYS[1], 0)
if following then redis.call('PUBLISH', following, '1') end
return 1
""",
)
"""The scripts of the least fair lock: queue up, take the place, hand it on."""
_CLOCK = """
local call, format, q, d, c, f, token = redis.call, string.format, KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
local clock = call('TIME')
local us = clock[1] * 1000000 + clock[2]
local now = math.floor(us / 1000)
"""
_RECORDED = [
    _CLOCK + script
    for script in (
        """
call('ZADD', q, us, token)
call('ZADD', d, now + 6000, token)
call('HSET', c, token, '{"since":' .. format('%.0f', now) .. ',' .. ARGV[2], token .. ':owner', ARGV[3])
call('SET', f, format('%.0f', us), 'PX', 86400000)
for at = 1, 3 do call('PEXPIRE', KEYS[at], 90000) end
return { call('ZRANK', q, token), us }
""",
        """
call('HGET', c, token)
call('HSET', c, token, '{"since":' .. format('%.0f', now) .. ',' .. ARGV[2])
call('ZADD', d, now + 30000, token)
return call('ZSCORE', q, token)
""",
        """
call('ZREM', q, token)
call('ZREM', d, token)
call('HDEL', c, token, token .. ':owner')
local following = call('ZRANGE', q, 0, 0)[1]
if following then
  local state = call('HGET', c, following)
  call('HSET', c, following, state)
  call('ZADD', d, now + 6000, following)
  call('PUBLISH', string.match(state, '"wake":"([^"]+)"'), '1')
end
return 1
""",
    )
]
"""The same with what lockkit writes: place, deadline, state, owner, fence, expiry. Nothing is checked."""
_TERMS = '"kind":"mutex","weight":1,"capacity":1,"ttl":30000,"min_hold":0,"lock_delay":0,"wake":"%s"}'
_OWNER = '{"host":"bench","pid":12345,"thread":"MainThread","client":"0123456789abcdef"}'


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)


def _packed(script: str, *words: str) -> bytes:
    return _command("EVALSHA", hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest(), *words)


def _pair(key: str, drop: str = _DROP) -> tuple[bytes, bytes]:
    """The plainest fenced pair: one script takes and counts, one compares and deletes."""
    return _packed(_TAKE, "2", key, f"{key}:fence", "token"), _packed(drop, "1", key, "token")


def _raw(stack: ExitStack, url: str, *, awake: bool = False) -> Callable[[bytes], bytes]:
    """Send a request over a socket of its own, and return the answer, which is short, and comes at once."""
    place = urlsplit(url)
    sock = stack.enter_context(socket.create_connection((place.hostname or "", place.port or 0)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(not awake)

    def ask(packed: bytes) -> bytes:
        sock.sendall(packed)
        while True:
            try:
                return sock.recv(4096)
            except BlockingIOError:
                os.sched_yield()

    return ask


class _Redis:
    """redis-py's connection object, to which packed commands are given."""

    def __init__(self, stack: ExitStack, url: str, *scripts: str, subscribed: str = "") -> None:
        place = urlsplit(url)
        module: Any = import_module("redis")
        self.connection = module.Connection(host=place.hostname, port=place.port, protocol=2)
        self.connection.connect()
        stack.callback(self.connection.disconnect)
        for script in scripts:
            self.ask(_command("SCRIPT", "LOAD", script))
        if subscribed:
            self.ask(_command("SUBSCRIBE", subscribed))

    def ask(self, packed: bytes) -> Any:
        self.connection.send_packed_command((packed,), check_health=False)
        return self.connection.read_response()


def _evalsha(stack: ExitStack, url: str) -> Contender:
    ask, (take, drop) = _Redis(stack, url, _TAKE, _DROP).ask, _pair("floor")
    return Contender(lambda: ask(take), lambda _: ask(drop))


def _uncompared(stack: ExitStack, url: str) -> Contender:
    """The floor without its comparison: a late release frees the lock of the next holder."""
    ask = _Redis(stack, url).ask
    take, drop = _command("SET", "uncompared", "token", "NX", "PX", "30000"), _command("DEL", "uncompared")
    return Contender(lambda: ask(take), lambda _: ask(drop))


def _evalsha_raw(stack: ExitStack, url: str, key: str = "raw", *, awake: bool = False) -> Contender:
    """The same without a client library. If ``awake``, the client yields its processor, but never sleeps."""
    _Redis(stack, url, _TAKE, _DROP)
    ask, (take, drop) = _raw(stack, url, awake=awake), _pair(key)
    return Contender(lambda: ask(take), lambda _: ask(drop))


def _published(stack: ExitStack, url: str) -> Contender:
    """The fastest possible hand-off: a release publishes, and a waiter takes the lock. There is no queue."""
    release = f"{_DROP[:-4]} + redis.call('PUBLISH', KEYS[1], '1') end"
    ask, messages = _Redis(stack, url, _TAKE, release).ask, _Redis(stack, url, subscribed="woken").connection
    take, drop = _pair("woken", release)

    def acquire() -> None:
        while ask(take) is None:
            messages.read_response()

    return Contender(acquire, lambda _: ask(drop))


def _handed_on(stack: ExitStack, url: str, *, recorded: bool) -> Contender:
    """A fair queue by three scripts and one message for each grant."""
    join, take, drop = scripts = _RECORDED if recorded else _FAIR
    channel = f"bench:{new_token()}"
    ask, messages = _Redis(stack, url, *scripts).ask, _Redis(stack, url, subscribed=channel).connection
    keys = [f"recorded:{{bench}}:{letter}" for letter in "qdcf"] if recorded else ["fair"]
    words = [_TERMS % channel, _OWNER] if recorded else []

    def acquire() -> str:
        token = new_token() if recorded else channel
        place = ask(_packed(join, str(len(keys)), *keys, token, *words))
        if place[0] != 0 if recorded else place != 1:
            messages.read_response()
            ask(_packed(take, str(len(keys)), *keys, token, *words[:1]))
        return token

    return Contender(acquire, lambda token: ask(_packed(drop, str(len(keys)), *keys, token)))


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _txns(key: str) -> tuple[bytes, bytes]:
    """The plainest fenced pair: write a key if there is none, for a fence; delete it if it is ours."""
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


class _Etcd:
    """A persistent HTTP connection of the standard library."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port or 0)
        self._connection.connect()
        stack.callback(self._connection.close)

    def ask(self, path: str, body: bytes) -> http.client.HTTPResponse:
        self._connection.request("POST", path, body)
        return self._connection.getresponse()

    def done(self, body: bytes) -> bool:
        """Whether a Txn succeeded."""
        return b'"succeeded":true' in self.ask("/v3/kv/txn", body).read()


def _txn(stack: ExitStack, url: str) -> Contender:
    plain, (take, drop) = _Etcd(stack, url), _txns("floor")
    return Contender(lambda: plain.done(take), lambda _: plain.done(drop))


def _txn_raw(stack: ExitStack, url: str) -> Contender:
    """The same without any library."""
    head = b"POST /v3/kv/txn HTTP/1.1\r\nHost: etcd\r\nContent-Length: %d\r\n\r\n%b"
    ask, (take, drop) = _raw(stack, url), (head % (len(body), body) for body in _txns("raw"))
    return Contender(lambda: ask(take), lambda _: ask(drop))


def _watched(stack: ExitStack, url: str) -> Contender:
    """The fastest possible hand-off: the watch of a key that is deleted. No queue, no lease, no fairness."""
    plain, (take, drop) = _Etcd(stack, url), _txns("woken")
    wanted = {"create_request": {"key": _coded("woken"), "filters": ["NOPUT"]}}
    deletions = _Etcd(stack, url).ask("/v3/watch", json.dumps(wanted).encode())
    deletions.readline()  # the watch has started

    def acquire() -> None:
        while not plain.done(take):
            deletions.readline()

    return Contender(acquire, lambda _: plain.done(drop))


def kazoo(stack: ExitStack, url: str, folder: str) -> Any:
    """A client of kazoo, which has made a folder."""
    made = import_module("kazoo.client").KazooClient(hosts=urlsplit(url).netloc)
    made.start()
    stack.callback(made.close)
    stack.callback(made.stop)
    made.ensure_path(f"/{folder}")
    return made


def _node(stack: ExitStack, url: str) -> Contender:
    """The plainest thing that excludes: an ephemeral node. Its czxid is the fence."""
    client = kazoo(stack, url, "floor")
    return Contender(lambda: client.create("/floor/lock", b"token", ephemeral=True), client.delete)


def _sequential(stack: ExitStack, url: str) -> Contender:
    """A place in a queue, and a look at the queue right behind it."""
    client = kazoo(stack, url, "sequential")

    def acquire() -> str:
        made = client.create_async("/sequential/token-", b"token", ephemeral=True, sequence=True)
        listed = client.get_children_async("/sequential")
        path = made.get()
        listed.get()
        return str(path)

    return Contender(acquire, client.delete)


def _node_watched(stack: ExitStack, url: str) -> Contender:
    """The fastest possible hand-off: the watch of a node that is deleted, and a look at the queue."""
    client = kazoo(stack, url, "woken")

    def acquire() -> str:
        path = str(client.create("/woken/token-", b"token", ephemeral=True, sequence=True))
        while True:
            queue = sorted(client.get_children("/woken"))
            place = queue.index(path.rpartition("/")[2])
            if place == 0:
                return path
            gone = threading.Event()
            if client.exists(f"/woken/{queue[place - 1]}", watch=lambda _, gone=gone: gone.set()):
                gone.wait()

    return Contender(acquire, client.delete)


FLOOR = "floor: 2 EVALSHA"
PLAIN = "no lock: SET NX and DEL, nothing compared"
AWAKE = "floor: 2 EVALSHA, raw socket, awake"
FLOORS: Mapping[str, Makers] = {
    "redis": {
        FLOOR: _evalsha,
        "floor: 2 EVALSHA, raw socket": _evalsha_raw,
        AWAKE: partial(_evalsha_raw, key="awake", awake=True),
        PLAIN: _uncompared,
    },
    "etcd": {"floor: 2 Txn": _txn, "floor: 2 Txn, raw socket": _txn_raw},
    "zookeeper": {
        "floor: create + delete": _node,
        "floor: create sequential and list, + delete": _sequential,
    },
}
"""Floors of a lock that nobody else uses, by the kind of server; to the first all ratios are computed."""
WOKEN: Mapping[str, Makers] = {
    "redis": {"floor: release script, pub/sub, confirm": _published},
    "etcd": {"floor: delete, watch, Txn": _watched},
    "zookeeper": {"floor: delete, watch, list": _node_watched},
}
"""Floors of a hand-off: one for each kind of server."""
QUEUES: Mapping[str, Makers] = {
    "redis": {
        "floor: fair queue": partial(_handed_on, recorded=False),
        "floor: fair queue with records": partial(_handed_on, recorded=True),
    },
    "etcd": {},
    "zookeeper": {},
}
"""Floors of a fair lock that several processes want."""
