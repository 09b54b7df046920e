"""One Redis or Valkey server, or one Cluster, as a store: each call is one script, one round trip."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from lockkit.facts import Evicted, Finding, LockInfo, Record
from lockkit.store.base import ExchangingBackend
from lockkit.store.budgets import left, shares
from lockkit.store.dangers import warnings_of
from lockkit.store.spi import Claim, Extras, OpenOptions, ReadingWatch, Refused, Renewal, Unknown, Watch
from lockkit.values.names import check_namespace
from lockkit_redis import health, operating, renewing
from lockkit_redis.address import Address, parse
from lockkit_redis.capabilities import CAPABILITIES
from lockkit_redis.connection import pack
from lockkit_redis.draining import Mark
from lockkit_redis.exchanges import RedisExchanges
from lockkit_redis.keys import Keys
from lockkit_redis.store import RedisStore
from lockkit_redis.wakes import Wakes

__all__ = ["RedisBackend", "open_store"]

_LEAST = 0.2


def open_store(url: str, options: OpenOptions) -> RedisBackend:
    """Open a server. Connects, so that a wrong address or password is reported at once.

    Raises:
        ConfigError: The URL or the namespace is not allowed.
        Refused: The server cannot be reached or used.
    """
    check_namespace(options.namespace)
    return RedisBackend(parse(url), options)


class RedisBackend(ExchangingBackend):
    """One open server. Thread-safe; a forked child is refused every call."""

    capabilities = CAPABILITIES

    def __init__(self, address: Address, options: OpenOptions) -> None:
        end = time.monotonic() + options.budget
        self.store = RedisStore(address, options)
        self.exchanges = RedisExchanges(self.store)
        self.perform = self.store.perform
        self._wakes = Wakes(self.store)
        try:
            self._look_round(options, end)
        except BaseException:
            self.close()
            raise

    def _look_round(self, options: OpenOptions, end: float) -> None:
        """Warn of what is wrong with the servers, at opening, where somebody reads it.

        Raises:
            Refused, Unknown: No server can be used; or, if ``strict``, one is unsafe for locks.
        """
        servers = self.store.servers()
        troubles: list[Refused | Unknown] = []
        warnings: list[str] = []
        for server, until in shares(servers, end, least=_LEAST):
            who = server.where if self.store.topology.one else server.node
            try:
                self.store.call(server, pack("PING"), left(until))
                bad = health.known_bad(self.store, server, left(until))
            except (Refused, Unknown) as trouble:
                troubles.append(trouble)
                told = trouble.error.message.replace(server.where, who)
                warnings.append(f"a node cannot be used: {told} ({trouble.error.hint})")
                continue
            warnings += warnings_of(bad, strict=options.strict, who=who)
        if len(troubles) == len(servers):
            raise troubles[0]
        # One missing node does not matter here: names on the other nodes can be locked.
        for warning in warnings:
            options.warn(warning)

    # -- claims

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        return self.perform(renewing.extend(self.store, claim, fence, ttl, budget))

    def watch(
        self,
        name: str,
        blockers: Sequence[str],
        wake: Callable[[], None],
        claim: Claim,
    ) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`. The watch is for the claim's own turn."""
        where = Keys.of(self.store.namespace, name).claims
        return self._wakes.watch(blockers[0], where, claim.token, wake, reads=False)

    @property
    def extras(self) -> Extras:
        """See :class:`lockkit.store.spi.Extras`."""
        return Extras(
            exchanges=self.exchanges,
            listen=self._listen,
            namespaces=self.store.index.namespaces,
            drains=Mark(self.store),
        )

    def _listen(
        self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim
    ) -> ReadingWatch:
        where = Keys.of(self.store.namespace, name).claims
        return self._wakes.watch(blockers[0], where, claim.token, wake, reads=True)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`."""
        return operating.inspect(self.store, name, budget)

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:
        """See :meth:`lockkit.store.spi.Backend.names`. Reads the index; ``deep`` scans every key."""
        return self.store.index.names(prefix, time.monotonic() + budget, deep=deep)

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`. ``now=True`` removes before the holder knows."""
        return operating.evict(self.store, name, claim_id, budget, at_once=now)

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        return operating.resize(self.store, name, capacity, budget)

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`."""
        return operating.annotate(self.store, name, claim_id, patch, budget)

    def record(self, name: str, budget: float) -> Record | None:
        """See :meth:`lockkit.store.spi.Backend.record`."""
        return operating.record(self.store, name, budget)

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`."""
        return operating.put_record(self.store, name, value, version, budget)

    def check(self, budget: float) -> Sequence[Finding]:
        """See :meth:`lockkit.store.spi.Backend.check`."""
        return health.check(self.store, budget)

    def close(self) -> None:
        """Close the connections."""
        self._wakes.close()
        self.store.close()
