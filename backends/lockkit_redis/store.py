"""The state of one open server or Cluster."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from lockkit.store.perlock import per_lock
from lockkit.store.spi import Claim, OpenOptions
from lockkit_redis.address import Address
from lockkit_redis.index import Index
from lockkit_redis.keys import Keys, channel
from lockkit_redis.packed_terms import PackedTerms
from lockkit_redis.scripts import Script
from lockkit_redis.server import Server
from lockkit_redis.topology import Cluster, Single, Topology

if TYPE_CHECKING:
    from lockkit_redis.renewing import Plan

__all__ = ["RedisStore"]


class RedisStore:
    """One open store.

    Attributes:
        channel: Where the waiters of this client are told that it is their turn.
        known: The packed words of a lock.
        index: The index of names.
        unsure: Tokens whose creating acquire is under way, or may be for all that is known.
        copies: The replicas that must confirm a grant.
        plans: The commands of the last few batches of renewals, under the mutex.
    """

    def __init__(self, address: Address, options: OpenOptions) -> None:
        self.clock = options.clock
        self.namespace = options.namespace
        self.channel = channel(options.namespace, os.urandom(8).hex())
        self.unsure: dict[str, None] = {}
        self.copies = address.min_replicas
        self.plans: dict[tuple[str, int], Plan] = {}
        self.mutex = threading.Lock()
        self.known = per_lock(lambda terms: PackedTerms.of(options.namespace, terms, self.channel))
        owner = options.owner
        name = f"lockkit:{owner.host or 'unknown'}:{owner.pid or os.getpid()}".replace(" ", "_")
        kind = Cluster if address.cluster else Single
        self.topology: Topology = kind(address, name, options.clock, options.namespace, options.budget / 2)
        self.index = Index(self)

    def server(self, claim: Claim) -> Server:
        """The server that has a claim's queue."""
        return self.topology.at(self.known(claim.terms).keys.queue)

    def run(self, script: Script, name: str, budget: float, *words: str | bytes | int) -> Any:
        """Run a script on a name's queue."""
        keys = Keys.of(self.namespace, name)
        return script.run(self.topology.at(keys.queue), budget, keys[:5], *words)
