"""Several Redis servers that belong together: a primary with a replica and sentinels, and a Cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lockkit.testing.processes import ServerFailed, free_port, until
from lockkit.testing.server_clock import ServerClock
from support.servers.group import Group
from support.servers.redis import RedisServer

__all__ = ["RedisCluster", "RedisSentinels"]

SLOTS = 16384


NEVER = 1 << 30
"""Seconds or milliseconds that no test waits for: on a clock that is moved, silence says nothing."""


class _Group(Group):
    """Servers of Redis.

    Attributes:
        clock: The clock that those with data share, if it is not the machine's.
    """

    clock: ServerClock | None = None

    def _start(self, make: Callable[[], RedisServer]) -> RedisServer:
        server = self._servers.enter_context(make())
        self.clock = self.clock or server.clock
        return server


class RedisSentinels(_Group):
    """A primary, a replica, and three sentinels that fail over soon after the primary has gone silent.

    Attributes:
        service: What the sentinels call the pair.
        pair: The first primary and the first replica; a failover makes them change places.
        sentinels: Three.
    """

    service = "kit"

    def __init__(
        self, *, program: str | None = None, clock: bool = False, silence: float = 0.5, **lines: Any
    ) -> None:
        """Start them, and wait until they know each other.

        Args:
            program: See :class:`~support.servers.redis.RedisServer`.
            clock: Give the pair a clock of its own; the sentinels keep the machine's.
            silence: Seconds after which the sentinels call a server that does not answer down.
            lines: Further lines of the pair's configuration.
        """
        super().__init__()
        try:
            lines = {"repl_diskless_sync_delay": 0, **({"repl_timeout": NEVER} if clock else {}), **lines}
            first = self._start(lambda: RedisServer(program=program, clock=clock, **lines))
            follow = f"{first.host} {first.port}"
            second = self._start(
                lambda: RedisServer(program=program, clock=self.clock or False, replicaof=follow, **lines)
            )
            self.pair = (first, second)
            watch = [
                f"monitor {self.service} {first.host} {first.port} 2",
                f"down-after-milliseconds {self.service} {round(silence * 1000)}",
                f"failover-timeout {self.service} 3000",
            ]
            until(
                lambda: b"master_link_status:up" in second.cli("INFO", "replication"),
                "the replica is in step",
            )
            self.sentinels = [
                self._start(lambda: RedisServer(program=program, as_sentinel=True, sentinel=watch))
                for _ in range(3)
            ]
            until(self._acquainted, "the sentinels know each other and the replica")
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> list[str]:
        """Where the sentinels are, as ``host:port``."""
        return [each.address for each in self.sentinels]

    def url(self, db: int = 0) -> str:
        """``redis+sentinel://host:port,host:port,host:port/service/db``."""
        return f"redis+sentinel://{','.join(self.addresses)}/{self.service}/{db}"

    @property
    def primary(self) -> RedisServer:
        """The one of the pair that the sentinels call the primary."""
        for sentinel in self.sentinels:
            if sentinel.alive:
                _, port = sentinel.cli("SENTINEL", "get-master-addr-by-name", self.service)
                return next(each for each in self.pair if each.port == int(port))
        raise ServerFailed("no sentinel is running")

    def fail_over(self) -> RedisServer:
        """Kill the primary, and wait for the other one to be it. Returns the new primary."""
        old = self.primary
        old.kill()
        until(lambda: self.primary is not old, "the sentinels agree on another primary", 30.0)
        new = self.primary
        until(lambda: new.cli("ROLE")[0] == b"master", "the replica takes over")
        return new

    def _acquainted(self) -> bool:
        for sentinel in self.sentinels:
            answer = sentinel.cli("SENTINEL", "master", self.service)
            facts = dict(zip(answer[::2], answer[1::2], strict=True))
            if (facts[b"num-other-sentinels"], facts[b"num-slaves"], facts[b"flags"]) != (
                b"2",
                b"1",
                b"master",
            ):
                return False
        return True


class RedisCluster(_Group):
    """A Cluster of three primaries, a third of the slots each, without replicas.

    Attributes:
        nodes: In the order of their slots.
    """

    def __init__(self, *, program: str | None = None, clock: bool = False, **lines: Any) -> None:
        """Start it, and wait until every node calls it complete.

        Args:
            program: See :class:`~support.servers.redis.RedisServer`.
            clock: Give the nodes a clock of their own; none calls another down then.
            lines: Further lines of every node's configuration.
        """
        super().__init__()
        try:
            lines = {"cluster_node_timeout": NEVER if clock else 2000, **lines}
            self.nodes = [
                self._start(lambda: self._node(program=program, clock=self.clock or clock, **lines))
                for _ in range(3)
            ]
            first = self.nodes[0]
            for at, node in enumerate(self.nodes):
                node.cli("CLUSTER", "ADDSLOTSRANGE", at * SLOTS // 3, (at + 1) * SLOTS // 3 - 1)
                node.cli("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
            for node in self.nodes[1:]:
                bus = int(node.cli("CONFIG", "GET", "cluster-port")[1])
                first.cli("CLUSTER", "MEET", node.host, node.port, bus)
            until(self._complete, "every node knows every slot", 30.0)
        except BaseException:
            self.close()
            raise

    def url(self) -> str:
        """``redis+cluster://host:port,host:port,host:port``."""
        return f"redis+cluster://{','.join(node.address for node in self.nodes)}"

    def node_of(self, key: str) -> RedisServer:
        """The node that a key lives on."""
        slot = int(self.nodes[0].cli("CLUSTER", "KEYSLOT", key))
        return next(node for at, node in enumerate(self.nodes) if slot < (at + 1) * SLOTS // 3)

    @contextmanager
    def on_its_way(self, slot: int, source: RedisServer, target: RedisServer) -> Iterator[None]:
        """The slot is being moved, and is where it was afterwards."""
        target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source.cli("CLUSTER", "MYID"))
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", target.cli("CLUSTER", "MYID"))
        try:
            yield
        finally:
            for node in (source, target):
                node.cli("CLUSTER", "SETSLOT", slot, "STABLE")

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot with its keys, and wait until every node has heard of it from the target.

        A node that takes a slot raises its epoch above all that it knows. If it takes the slot back before it
        knows the epoch of the move before, it stays below, and loses the slot when that message comes: then
        each of the two names the other, for good. The message may come tens of milliseconds after the answer.
        """
        with self.on_its_way(slot, source, target):
            for key in source.cli("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.cli("MIGRATE", target.host, target.port, key, 0, 5000)
            for node in (target, source, *self.nodes):
                node.cli("CLUSTER", "SETSLOT", slot, "NODE", target.cli("CLUSTER", "MYID"))
        until(self.agrees, "every node knows the epoch and the slots of every other")

    def agrees(self) -> bool:
        """Whether all nodes know the same epoch and the same slots of each."""
        first, *others = map(self._owners, self.nodes)
        return all(each == first for each in others)

    @staticmethod
    def _node(**lines: Any) -> RedisServer:
        for left in range(4, -1, -1):
            try:
                return RedisServer(cluster_enabled="yes", cluster_port=free_port(), **lines)
            except ServerFailed:  # somebody may have taken the bus's port
                if not left:
                    raise
        raise AssertionError

    @staticmethod
    def _owners(node: RedisServer) -> dict[bytes, list[bytes]]:
        """The epoch and the slots of each node, by its id, as one of them knows them."""
        known = {}
        for line in node.cli("CLUSTER", "NODES").splitlines():
            name, _, _, _, _, _, epoch, _, *slots = line.split()
            known[name] = [epoch, *(each for each in slots if not each.startswith(b"["))]  # [...]: on its way
        return known

    def _complete(self) -> bool:
        for node in self.nodes:
            facts = node.cli("CLUSTER", "INFO")
            if b"cluster_state:ok" not in facts or b"cluster_known_nodes:3" not in facts:
                return False
        return self.agrees()
