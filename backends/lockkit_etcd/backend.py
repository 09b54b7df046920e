"""One etcd cluster as a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lockkit.facts import Evicted, Finding, LockInfo, Record
from lockkit.lib.clock import Clock
from lockkit.lib.origin import this_origin
from lockkit.store.base import ExchangingBackend
from lockkit.store.budgets import left
from lockkit.store.dangers import warnings_of
from lockkit.store.exchanges import Exchange, Parser
from lockkit.store.spi import (
    Answer,
    Beat,
    Claim,
    End,
    Extras,
    OpenOptions,
    Refused,
    ReleaseAnswer,
    Removal,
    Renewal,
    Unknown,
    Watch,
)
from lockkit.store.turns import Turns
from lockkit.values.names import check_namespace
from lockkit_etcd import acquiring, health, moving, operating, releasing, removing, renewing
from lockkit_etcd.address import Address, parse
from lockkit_etcd.capabilities import CAPABILITIES
from lockkit_etcd.cluster import Cluster
from lockkit_etcd.draining import Mark
from lockkit_etcd.gateway import connect as connect_gateway
from lockkit_etcd.store import EtcdStore
from lockkit_etcd.watching import Watches

__all__ = ["EtcdBackend", "open_store"]

_GLANCE = 0.5
"""Seconds for which opening waits for the members' status; members that take longer are not waited for."""


def open_store(
    url: str, options: OpenOptions, connect: Callable[[Address, Clock], Cluster[Any]] = connect_gateway
) -> EtcdBackend:
    """Open a cluster over the transport that ``connect`` makes, connecting at once to check URL and login.

    Raises:
        ConfigError: The URL or the namespace is not allowed.
        Refused, Unknown: The cluster cannot be reached or used.
        ImportError: The transport's library cannot be imported.
    """
    check_namespace(options.namespace)
    return EtcdBackend(connect(parse(url), options.clock), options)


class _Exchanges:
    """The hot calls. See :class:`lockkit.store.spi.Exchanges`."""

    def __init__(self, store: EtcdStore, watches: Watches) -> None:
        self._store = store
        self._watches = watches
        self.tls = store.transport.tls
        self.opening = store.transport.opening
        self._turns = Turns(store.transport.where)

    def parser(self) -> Parser:
        return self._store.transport.parser()

    def acquire(self, claim: Claim, create: bool, budget: float) -> Exchange[Answer]:  # noqa: FBT001
        # Renewals, releases, and claims that are in the queue already do not wait behind newcomers.
        ask = partial(acquiring.acquire, self._store, claim, create)
        return self._turns.take(claim.token, ask, budget, late=create)

    def renew(self, beats: Sequence[Beat], budget: float) -> Exchange[Sequence[Renewal]]:
        return renewing.renew(self._store, self._watches, beats, budget)

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> Exchange[ReleaseAnswer]:
        return releasing.release(self._store, claim, budget, how=how)

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> Exchange[ReleaseAnswer]:
        return releasing.release(self._store, claim, budget, how=how)

    def emergency_release(
        self, claim: Claim, budget: float, *, how: End = "released"
    ) -> Exchange[ReleaseAnswer]:
        return releasing.emergency_release(self._store, claim, budget, how=how)


class EtcdBackend(ExchangingBackend):
    """One open cluster. Thread-safe. In a forked child every call is refused."""

    capabilities = CAPABILITIES

    def __init__(self, transport: Cluster[Any], options: OpenOptions) -> None:
        end = time.monotonic() + options.budget
        self.store = EtcdStore(transport, options)
        self._watches = Watches(self.store)
        self.exchanges = _Exchanges(self.store, self._watches)
        self.perform = self.store.transport.perform
        self._origin = this_origin()
        try:
            self._look_round(options, end)
        except BaseException:
            self.close()
            raise

    @property
    def extras(self) -> Extras:
        """See :class:`lockkit.store.spi.Extras`."""
        exchanges = self.exchanges if self.store.transport.yields else None
        return Extras(
            exchanges,
            namespaces=self._namespaces,
            drains=Mark(self.store, self.perform),
            remove_many=self._remove_many,
        )

    def _remove_many(self, removals: Sequence[Removal], budget: float) -> Sequence[Refused | Unknown | None]:
        return self.perform(removing.remove_many(self.store, removals, budget))

    def _namespaces(self, budget: float) -> Sequence[str]:
        return self.perform(operating.namespaces(self.store, budget))

    def _look_round(self, options: OpenOptions, end: float) -> None:
        """Warn of known dangers for locks when the cluster is opened.

        Raises:
            Refused, Unknown: The cluster cannot be used or, if ``strict``, is known to be unsafe for locks.
        """
        self.perform(self.store.range(self.store.notes, end))
        soon = time.monotonic() + min(_GLANCE, left(end))
        bad = health.known_bad(self.perform(self.store.transport.status(soon)))
        for warning in warnings_of(bad, strict=options.strict):
            options.warn(warning)

    # -- claims

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        return self.perform(moving.extend(self.store, claim, fence, ttl, budget))

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.watch`."""
        queue = self.store.known(claim.terms).queue
        return self._watches.watch(queue, self.store.entries.get(claim.token), blockers, wake)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`."""
        return self.perform(operating.inspect(self.store, name, budget))

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.names`. Always exact."""
        return self.perform(operating.names(self.store, prefix, budget))

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`. ``now=True`` removes before the holder knows."""
        return self.perform(operating.evict(self.store, name, claim_id, budget, at_once=now))

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        return self.perform(operating.resize(self.store, name, capacity, budget))

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`."""
        return self.perform(operating.annotate(self.store, name, claim_id, patch, budget))

    def record(self, name: str, budget: float) -> Record | None:
        """See :meth:`lockkit.store.spi.Backend.record`."""
        return self.perform(operating.record(self.store, name, budget))

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`."""
        return self.perform(operating.put_record(self.store, name, value, version, budget))

    def check(self, budget: float) -> Sequence[Finding]:
        """See :meth:`lockkit.store.spi.Backend.check`."""
        return self.perform(health.check(self.store, budget))

    def close(self) -> None:
        """Close the connections, and revoke free leases as far as that takes no time."""
        if self._origin.is_here():
            self._watches.close()
            self.perform(self.store.leases.close())
        self.store.transport.close()
