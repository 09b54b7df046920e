"""The contenders on Redis: floors that no lock there can beat, and the libraries that people use for it.

Each library is used as its own documentation shows it first, with its defaults, but for a ttl of 30 s where it would have
none: a lock without one outlives its holder. Redis' client and the libraries are imported by those who open them.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from lockkit.testing.bench.contender import Contender
from lockkit.values.names import new_token

__all__ = ["AWAKE", "FAIR", "FLOOR", "MAKERS", "PEERS", "PLAIN", "RAW", "RECORDED", "WOKEN"]

FLOOR = "floor: 2 EVALSHA"
RAW = "floor: 2 EVALSHA, raw socket"
PLAIN = "no lock: SET NX and DEL, nothing compared"
AWAKE = "floor: 2 EVALSHA, raw socket, awake"
WOKEN = "floor: release script, pub/sub, confirm"
FAIR = "floor: fair queue"
RECORDED = "floor: fair queue with records"
PEERS = {
    "redis": "redis",
    "python-redis-lock": "redis_lock",
    "sherlock": "sherlock",
    "tooz": "tooz",
    "pottery": "pottery",
}
"""pip's name of each library, and the module that it brings. The lock of ``redis`` is redis-py's own."""

_TTL = 30
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
_RECORDED = (
    _CLOCK
    + """
call('ZADD', q, us, token)
call('ZADD', d, now + 6000, token)
call('HSET', c, token, '{"since":' .. format('%.0f', now) .. ',' .. ARGV[2], token .. ':owner', ARGV[3])
call('SET', f, format('%.0f', us), 'PX', 86400000)
for at = 1, 3 do call('PEXPIRE', KEYS[at], 90000) end
return { call('ZRANK', q, token), us }
""",
    _CLOCK
    + """
call('HGET', c, token)
call('HSET', c, token, '{"since":' .. format('%.0f', now) .. ',' .. ARGV[2])
call('ZADD', d, now + 30000, token)
return call('ZSCORE', q, token)
""",
    _CLOCK
    + """
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
"""The same with what lockkit writes: the place, the deadline, the state, the owner and the fence, and their expiry. Nothing is checked."""
_TERMS = '"kind":"mutex","weight":1,"capacity":1,"ttl":30000,"min_hold":0,"lock_delay":0,"wake":"%s"}'
_OWNER = '{"host":"bench","pid":12345,"thread":"MainThread","client":"0123456789abcdef"}'
_DROP_AND_TELL = f"{_DROP[:-4]} + redis.call('PUBLISH', KEYS[1], '1') end"


def _packed(script: str, *words: str) -> bytes:
    sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    return _command("EVALSHA", sha, *words)


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)


class _Plain:
    """redis-py's connection object, spoken to in packed commands."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        redis: Any = import_module("redis")
        place = urlsplit(url)
        self.connection = redis.Connection(host=place.hostname, port=place.port, protocol=2)
        self.connection.connect()
        stack.callback(self.connection.disconnect)

    def ask(self, packed: bytes) -> Any:
        self.connection.send_packed_command((packed,), check_health=False)
        return self.connection.read_response()

    def load(self, *scripts: str) -> None:
        for script in scripts:
            self.ask(_command("SCRIPT", "LOAD", script))


def _floor(stack: ExitStack, url: str) -> Contender:
    """The plainest fenced pair: one script takes and counts, one compares and deletes."""
    plain = _Plain(stack, url)
    plain.load(_TAKE, _DROP)
    take, drop = _packed(_TAKE, "2", "floor", "floor:fence", "token"), _packed(_DROP, "1", "floor", "token")
    return Contender(FLOOR, lambda: plain.ask(take), lambda _: plain.ask(drop))


def _uncompared(stack: ExitStack, url: str) -> Contender:
    """The floor without its comparison: the key is deleted whoever has it, so a late release frees the lock of the next holder."""
    plain = _Plain(stack, url)
    take, drop = _command("SET", "uncompared", "token", "NX", "PX", "30000"), _command("DEL", "uncompared")
    return Contender(PLAIN, lambda: plain.ask(take), lambda _: plain.ask(drop))


def _socket(stack: ExitStack, url: str) -> socket.socket:
    _Plain(stack, url).load(_TAKE, _DROP)
    place = urlsplit(url)
    sock = stack.enter_context(socket.create_connection((place.hostname or "", place.port or 0)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _raw(stack: ExitStack, url: str) -> Contender:
    """The same without a client library: each answer is one short line."""
    sock = _socket(stack, url)
    take, drop = _packed(_TAKE, "2", "raw", "raw:fence", "token"), _packed(_DROP, "1", "raw", "token")

    def ask(packed: bytes) -> bytes:
        sock.sendall(packed)
        return sock.recv(4096)

    return Contender(RAW, lambda: ask(take), lambda _: ask(drop))


def _awake(stack: ExitStack, url: str) -> Contender:
    """The same by a client that never goes to sleep, but gives way to the server."""
    sock = _socket(stack, url)
    sock.setblocking(False)
    take, drop = _packed(_TAKE, "2", "awake", "awake:fence", "token"), _packed(_DROP, "1", "awake", "token")

    def ask(packed: bytes) -> bytes:
        sock.sendall(packed)
        while True:
            try:
                return sock.recv(4096)
            except BlockingIOError:
                os.sched_yield()

    return Contender(AWAKE, lambda: ask(take), lambda _: ask(drop))


def _woken(stack: ExitStack, url: str) -> Contender:
    """The fastest possible hand-off over Redis: the release publishes; a waiter that hears of it takes the lock. No queue, no fairness."""
    plain, ears = _Plain(stack, url), _Plain(stack, url)
    plain.load(_TAKE, _DROP_AND_TELL)
    ears.ask(_command("SUBSCRIBE", "woken"))
    take = _packed(_TAKE, "2", "woken", "woken:fence", "token")
    drop = _packed(_DROP_AND_TELL, "1", "woken", "token")

    def acquire() -> None:
        while plain.ask(take) is None:
            ears.connection.read_response()

    return Contender(WOKEN, acquire, lambda _: plain.ask(drop))


def _handed_on(
    stack: ExitStack, url: str, name: str, scripts: Sequence[str], keys: Sequence[str], words: Sequence[str]
) -> Contender:
    """A fair queue by three scripts and one message for each grant."""
    plain, ears = _Plain(stack, url), _Plain(stack, url)
    channel = f"{name}:{new_token()}"
    plain.load(*scripts)
    ears.ask(_command("SUBSCRIBE", channel))
    words = [word.replace("%s", channel) for word in words]

    def acquire() -> str:
        token = channel if scripts is _FAIR else new_token()
        place = plain.ask(_packed(scripts[0], str(len(keys)), *keys, token, *words))
        if place != 1 if scripts is _FAIR else place[0] != 0:
            ears.connection.read_response()
            plain.ask(_packed(scripts[1], str(len(keys)), *keys, token, *words[:1]))
        return token

    def release(token: Any) -> None:
        plain.ask(_packed(scripts[2], str(len(keys)), *keys, token))

    return Contender(name, acquire, release)


def _fair(stack: ExitStack, url: str) -> Contender:
    """The least fair lock: a list of channels. No fence, no ttl, no holder."""
    return _handed_on(stack, url, FAIR, _FAIR, ["fair"], [])


def _recorded(stack: ExitStack, url: str) -> Contender:
    """The least fair lock that writes down what lockkit does."""
    keys = [f"recorded:{{bench}}:{letter}" for letter in "qdcf"]
    return _handed_on(stack, url, RECORDED, _RECORDED, keys, [_TERMS, _OWNER])


def _client(stack: ExitStack, url: str) -> Any:
    client: Any = import_module("redis").Redis.from_url(url)
    stack.callback(client.close)
    return client


def _locked(name: str, lock: Any) -> Contender:
    return Contender(name, lock.acquire, lambda _: lock.release())


def _redis(stack: ExitStack, url: str) -> Contender:
    return _locked("redis", _client(stack, url).lock("redis", timeout=_TTL))


def _python_redis_lock(stack: ExitStack, url: str) -> Contender:
    module: Any = import_module("redis_lock")
    return _locked("python-redis-lock", module.Lock(_client(stack, url), "bench", expire=_TTL))


def _sherlock(stack: ExitStack, url: str) -> Contender:
    module: Any = import_module("sherlock")
    lock = module.RedisLock("sherlock", client=_client(stack, url), expire=_TTL)
    return _locked("sherlock", lock)


def _tooz(stack: ExitStack, url: str) -> Contender:
    coordination: Any = import_module("tooz.coordination")
    coordinator = coordination.get_coordinator(url, b"bench")
    coordinator.start()
    stack.callback(coordinator.stop)
    return _locked("tooz", coordinator.get_lock(b"tooz"))


def _pottery(stack: ExitStack, url: str) -> Contender:
    module: Any = import_module("pottery")
    lock = module.Redlock(key="pottery", masters={_client(stack, url)}, auto_release_time=_TTL)
    return _locked("pottery", lock)


MAKERS: dict[str, Callable[[ExitStack, str], Contender]] = {
    FLOOR: _floor,
    PLAIN: _uncompared,
    RAW: _raw,
    AWAKE: _awake,
    WOKEN: _woken,
    FAIR: _fair,
    RECORDED: _recorded,
    "redis": _redis,
    "python-redis-lock": _python_redis_lock,
    "sherlock": _sherlock,
    "tooz": _tooz,
    "pottery": _pottery,
}
