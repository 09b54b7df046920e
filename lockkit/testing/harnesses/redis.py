"""Redis under test: a real server of its own, shared by all harnesses of a process, a database for each."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, cast

from lockkit.clock import SYSTEM
from lockkit.facts import ClaimState
from lockkit.names import claim_id, encode
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.exclusions import EXCLUSIONS
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.testing.servers.clock import ServerClock
from lockkit.testing.servers.redis import RedisServer

__all__ = ["RedisHarness"]

DATABASES = 1024
"""More than the machine ever has open at once; they are used again."""
_PREFIX = b"lockkit:default:"
_KINDS = {b"q": "queues", b"d": "deadlines", b"c": "claims", b"r": "records"}
_PASSING = (b"f", b"g")
"""Fences and tombstones vanish by themselves."""

_server: RedisServer | None = None
_databases = itertools.cycle(range(DATABASES))


def server() -> RedisServer:
    """The server of this process, started when first asked for; a forked child has its parent's."""
    global _server  # noqa: PLW0603 - one for all harnesses, or every example would start one
    if _server is None:
        _server = RedisServer(
            program=os.environ.get("LOCKKIT_TEST_REDIS"), clock=ServerClock.possible(), databases=DATABASES
        )
    return _server


class RedisHarness(Harness):
    """A database of a real server, which runs on a clock that the test moves where there is a C compiler.

    ``LOCKKIT_TEST_REDIS=valkey-server`` takes another program. One harness is played at a time: they share the clock.
    """

    name = "redis"
    exclusions = EXCLUSIONS.get("redis", {})
    virtual = ServerClock.possible()
    ttl = 30.0 if virtual else 3.0
    short_ttl = 0.4
    examples = (100, 40) if virtual else (12, 15)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._server = server()
        self._db = next(_databases)
        self._shifted = ShiftedClock()
        if self._server.clock is not None:
            self._server.clock.reset()
            self.clock = self._shifted
        # The server counts from the epoch, the clients from the start of the machine. Measured once: what is stored
        # must read the same as long as it is the same.
        self._epoch = SYSTEM.wall() - SYSTEM.now()
        self._look: Any = self._server.connect(db=self._db)
        self._look.execute_command("FLUSHDB")

    @property
    def url(self) -> str:
        return self._server.url(db=self._db)

    def advance(self, seconds: float) -> None:
        if self._server.clock is None:
            super().advance(seconds)
            return
        # The clients first: for the moment in between they trust their claims too little, not too much.
        self._shifted.advance(seconds)
        self._server.clock.step(seconds)

    def freeze(self) -> None:
        if self._server.clock is not None:
            self._shifted.freeze()
            self._server.clock.stand(self._epoch + self._shifted.now())

    def stored(self, name: str) -> list[StoredClaim]:
        key = _PREFIX + b"{" + encode(name).encode() + b"}:"
        with self._look.pipeline(transaction=True) as pipe:
            pipe.execute_command("ZRANGE", key + b"q", 0, -1, "WITHSCORES")
            pipe.execute_command("ZRANGE", key + b"d", 0, -1, "WITHSCORES")
            pipe.execute_command("HGETALL", key + b"c")
            queue, deadlines, claims = (_pairs(answer) for answer in pipe.execute())
        return [
            self._claim(token, int(float(fence)), json.loads(claims[token]), deadlines.get(token))
            for token, fence in queue.items()
        ]

    def _claim(self, token: bytes, fence: int, claim: dict[str, Any], deadline: bytes | None) -> StoredClaim:
        return StoredClaim(
            claim_id(token.decode()),
            fence,
            cast("ClaimState", claim["state"]),
            claim["weight"],
            claim["capacity"],
            None if deadline is None else float(deadline) / 1000 - self._epoch,
            bool(claim.get("evicted")),
        )

    def residue(self) -> dict[str, int]:
        """Keys of every kind but those that the server removes by itself."""
        found = Counter(_kind(key) for key in self._keys())
        return {kind: found[kind] for kind in sorted(found) if kind}

    def _keys(self) -> list[bytes]:
        keys, cursor = set[bytes](), b"0"
        while True:
            cursor, some = self._look.execute_command("SCAN", cursor, "COUNT", 1000)
            keys.update(some)
            if cursor in (b"0", 0):
                return sorted(keys)

    def close(self) -> None:
        self._look.execute_command("FLUSHDB")
        self._look.close()


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _kind(key: bytes) -> str:
    """What a key counts as; empty for what does not count."""
    if key == _PREFIX + b"names":
        return ""
    if not key.startswith(_PREFIX + b"{"):
        return f"strange: {key!r}"
    kind = key.rpartition(b":")[2]
    return "" if kind in _PASSING else _KINDS.get(kind, f"strange: {key!r}")
