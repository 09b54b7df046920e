"""Redis under test: real servers, shared by all harnesses of a kind in a process; a database for each."""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from lockkit.facts import ClaimState
from lockkit.lib.clock import SYSTEM
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.testing.server_clock import ServerClock
from lockkit.values.names import claim_id
from support.harnesses.exclusions import EXCLUSIONS
from support.servers.redis import RedisServer
from support.servers.redis_groups import RedisCluster, RedisSentinels
from support.servers.redis_queue import PREFIX, Lying, queue, queue_key

__all__ = ["RedisClusterHarness", "RedisHarness", "RedisSentinelHarness", "ValkeyHarness"]

DATABASES = 1024
"""More than the machine ever has open at once; they are used again."""
_KINDS = {b"q": "queues", b"d": "deadlines", b"c": "claims", b"r": "records"}
_PASSING = (b"f", b"g")
"""Fences and tombstones vanish by themselves."""

_databases = itertools.cycle(range(DATABASES))


@functools.cache  # one for all harnesses of a kind, not one per example; a forked child has its parent's
def _started(kind: type[RedisHarness]) -> Any:
    return kind.start()


class RedisHarness(Harness):
    """A database of a real server, which runs on a clock that the test moves where there is a C compiler.

    ``LOCKKIT_TEST_REDIS=valkey-server`` takes another program. Harnesses of a kind share a clock in turns.
    """

    name = "redis"
    exclusions = EXCLUSIONS.get("redis", {})
    virtual = ServerClock.possible()
    ttl = 30.0 if virtual else 3.0
    short_ttl = 0.4
    examples = (100, 40) if virtual else (12, 15)
    program: ClassVar[str | None] = os.environ.get("LOCKKIT_TEST_REDIS")

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._servers = _started(type(self))
        self._db = self.database()
        self._shifted = ShiftedClock()
        if self._servers.clock is not None:
            self._servers.clock.reset()
            self.clock = self._shifted
        # The server counts from the epoch, the clients from boot. Measured once: equal times must read equal.
        self._epoch = SYSTEM.wall() - SYSTEM.now()
        self._looks: dict[RedisServer, Any] = {node: node.connect(db=self._db) for node in self.nodes()}
        self.wipe()

    @classmethod
    def start(cls) -> Any:
        """Start what all harnesses of this kind share."""
        return RedisServer(program=cls.program, clock=cls.virtual, databases=DATABASES)

    @classmethod
    def database(cls) -> int:
        """One that no harness has that is played now."""
        return next(_databases)

    def nodes(self) -> Sequence[RedisServer]:
        """The servers that keys are written to."""
        return [self._servers]

    def node_of(self, key: str) -> RedisServer:  # noqa: ARG002 - one has them all
        """The one that has this key."""
        return self.nodes()[0]

    def wipe(self) -> None:
        """Throw all data away, as a stranger may."""
        for look in self._looks.values():
            look.execute_command("FLUSHDB")

    @property
    def url(self) -> str:
        return str(self._servers.url(db=self._db))

    def advance(self, seconds: float) -> None:
        if self._servers.clock is None:
            super().advance(seconds)
            return
        # The clients first: for the moment in between they trust their claims too little, not too much.
        self._shifted.advance(seconds)
        self._servers.clock.step(seconds)

    def freeze(self) -> None:
        if self._servers.clock is not None:
            self._shifted.freeze()
            self._servers.clock.stand(self._epoch + self._shifted.now())

    def stored(self, name: str) -> list[StoredClaim]:
        look = self._looks[self.node_of(queue_key(name))]
        return [self._claim(each) for each in queue(look, name)]

    def _claim(self, each: Lying) -> StoredClaim:
        return StoredClaim(
            claim_id(each.token),
            each.fence,
            cast("ClaimState", each.state["state"]),
            each.state["weight"],
            each.state["capacity"],
            None if each.deadline is None else each.deadline / 1000 - self._epoch,
            bool(each.state.get("evicted")),
        )

    def residue(self) -> dict[str, int]:
        """Keys of every kind but those that the server removes by itself."""
        found = Counter(_kind(key) for look in self._looks.values() for key in _keys(look))
        return {kind: found[kind] for kind in sorted(found) if kind}

    def requests(self) -> int:
        return sum(node.requests() for node in self.nodes())

    def close(self) -> None:
        self.wipe()
        for look in self._looks.values():
            look.close()


class ValkeyHarness(RedisHarness):
    """A database of a Valkey server."""

    program = "valkey-server"
    examples = (25, 40) if RedisHarness.virtual else (6, 15)


class RedisClusterHarness(RedisHarness):
    """A Cluster of three nodes on one clock. It has no databases: each harness begins with an empty one."""

    examples = (25, 40) if RedisHarness.virtual else (6, 15)

    @classmethod
    def start(cls) -> RedisCluster:
        return RedisCluster(program=cls.program, clock=cls.virtual)

    @classmethod
    def database(cls) -> int:
        return 0

    @property
    def url(self) -> str:
        return str(self._servers.url())

    def nodes(self) -> Sequence[RedisServer]:
        return cast("Sequence[RedisServer]", self._servers.nodes)

    def node_of(self, key: str) -> RedisServer:
        return cast("RedisServer", self._servers.node_of(key))


class RedisSentinelHarness(RedisHarness):
    """A primary named by three sentinels, and a replica that must have each grant; no failover here."""

    examples = (25, 40) if RedisHarness.virtual else (6, 15)

    @classmethod
    def start(cls) -> RedisSentinels:
        # A machine that is busy for a moment is no reason for a failover.
        return RedisSentinels(program=cls.program, clock=cls.virtual, silence=60.0, databases=DATABASES)

    @property
    def url(self) -> str:
        return f"{self._servers.url(db=self._db)}?min_replicas=1"

    def nodes(self) -> Sequence[RedisServer]:
        return [self._servers.pair[0]]


def _keys(look: Any) -> list[bytes]:
    keys, cursor = set[bytes](), b"0"
    while True:
        cursor, some = look.execute_command("SCAN", cursor, "COUNT", 1000)
        keys.update(some)
        if cursor in (b"0", 0):
            return sorted(keys)


def _kind(key: bytes) -> str:
    """The name under which a key is counted; empty for keys that do not count."""
    if key == PREFIX + b"names":
        return ""
    if not key.startswith(PREFIX + b"{"):
        return f"strange: {key!r}"
    kind = key.rpartition(b":")[2]
    return "" if kind in _PASSING else _KINDS.get(kind, f"strange: {key!r}")
