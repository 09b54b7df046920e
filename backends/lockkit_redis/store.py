"""The state of one open server or Cluster, and the performer of its exchanges on blocking connections."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lockkit.errors import BackendUnavailable
from lockkit.store.budgets import shares
from lockkit.store.certificates import tls_context
from lockkit.store.connecting import connect
from lockkit.store.exchanges import Connect, Exchange
from lockkit.store.performing import Blocking
from lockkit.store.perlock import per_lock
from lockkit.store.spi import OpenOptions, Refused
from lockkit_redis.address import Address
from lockkit_redis.connection import Connection
from lockkit_redis.failures import checked
from lockkit_redis.index import Index
from lockkit_redis.keys import Keys, channel
from lockkit_redis.opening import opening
from lockkit_redis.packed_terms import PackedTerms
from lockkit_redis.requests import ask, send
from lockkit_redis.scripts import Script
from lockkit_redis.server import Server
from lockkit_redis.topology import Cluster, Topology

if TYPE_CHECKING:
    from lockkit_redis.renewing import Plan

__all__ = ["RedisStore"]


class RedisStore:
    """One open store.

    Raises:
        ConfigError: A certificate cannot be used.
        Refused: A Cluster has no node that answers.

    Attributes:
        where: The URL, without secrets.
        channel: The channel on which this client's waiters are notified of their turn.
        known: The packed words of a lock.
        index: The index of names.
        unsure: Tokens whose creating acquire is under way, or may be for all that is known.
        copies: The replicas that must confirm a grant.
        plans: The commands of the last few batches of renewals, under the mutex.
        tls: The context in which to connect; None without TLS.
        performer: The connections.
    """

    def __init__(self, address: Address, options: OpenOptions) -> None:
        self.where = address.shown
        self.clock = options.clock
        self.namespace = options.namespace
        self.channel = channel(options.namespace, os.urandom(8).hex())
        self.unsure: dict[str, None] = {}
        self.copies = address.min_replicas
        self.plans: dict[tuple[str, int], Plan] = {}
        self.mutex = threading.Lock()
        self.known = per_lock(
            lambda terms: PackedTerms.of(options.namespace, terms, self.channel, cluster=address.cluster)
        )
        self.tls = None if address.tls is None else tls_context(address.tls, address.shown)
        self.performer = Blocking(self._connect, opening, address.shown)
        self.perform = self.performer.perform
        owner = options.owner
        name = f"lockkit:{owner.host or 'unknown'}:{owner.pid or os.getpid()}".replace(" ", "_")

        def server(address: Address, cluster: Cluster | None = None) -> Server:
            return Server(address, name, options.clock, options.namespace, cluster)

        self.topology: Topology
        if address.cluster:
            self.topology = cluster = Cluster(address, server)
            try:
                self.perform(cluster.read(time.monotonic() + options.budget / 2))
            except BaseException:
                self.performer.close()
                raise
        else:
            self.topology = Topology(server(address))
        self.index = Index(self)

    def find(self, key: str) -> Exchange[Server]:
        """The server that has a key.

        Raises:
            Refused: There is none.
        """
        if self.topology.stale:
            yield from self.topology.look_again()
        return self.topology.at(key)

    # -- blocking calls

    def servers(self) -> Sequence[Server]:
        """Every server that has keys."""
        if self.topology.stale:
            self.perform(self.topology.look_again())
        return self.topology.servers()

    def connect(self, budget: float) -> tuple[Server, Connection]:
        """A connection to any server: messages that are published at one are heard at all.

        Raises:
            Refused: No server can be reached.
        """
        end = time.monotonic() + budget
        text, hint = f"{self.where}: no node can be reached", "see CLUSTER INFO; is one running?"
        trouble = Refused(BackendUnavailable(text, hint=hint))
        for server, until in shares(self.servers(), end):
            try:
                return server, self.performer.open(server, until)
            except Refused as refusal:
                trouble = refusal
        raise trouble

    def row(self, server: Server, packed: bytes, budget: float, count: int, *, whole: bool = False) -> Any:
        """See :func:`lockkit_redis.requests.send`."""
        return self.perform(send(server, packed, time.monotonic() + budget, count, whole=whole))

    def call(self, server: Server, packed: bytes, budget: float) -> Any:
        """Send one command and return its reply.

        Raises:
            Refused, Unknown: See :mod:`lockkit_redis.failures`.
        """
        return checked(self.row(server, packed, budget, 1), server)[0]

    def ask(
        self, key: str, packed: bytes, budget: float, count: int = 1, script: Script | None = None
    ) -> Any:
        """Send commands to the server that has a key, and return the last reply. Several are MULTI to EXEC.

        Raises:
            Refused, Unknown: See :mod:`lockkit_redis.failures`.
        """
        end = time.monotonic() + budget

        def asked() -> Exchange[Any]:
            server = yield from self.find(key)
            _, replies = yield from ask(server, packed, end, count, script=script, whole=count > 1)
            return checked(replies[-1], server) if count > 1 else replies[-1]

        return self.perform(asked())

    def run(self, script: Script, name: str, budget: float, *words: str | bytes | int) -> Any:
        """Run a script on a name's queue."""
        keys = Keys.of(self.namespace, name)
        return self.ask(keys.queue, script.packed(keys[:5], *words), budget, script=script)

    def close(self) -> None:
        """Close the connections."""
        self.performer.close()

    def _connect(self, step: Connect) -> Connection:
        return Connection(connect(step.place, self.tls, step.end - time.monotonic(), "lockkit-redis-connect"))
