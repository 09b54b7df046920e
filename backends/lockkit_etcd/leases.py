"""Leases of etcd, one per claim. A lease is reused once every request that named it was definitely answered.

The *basis* of a lease is the time at which the last request was sent that certainly moved the lease's
deadline, on every member that may still revoke it. A grant is certain, because it takes a consensus. A
keepalive is certain in the raft term of the lease, and in no other: see :mod:`lockkit_etcd.terms`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

from lockkit.lib.clock import Clock
from lockkit.store.exchanges import Exchange
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.cluster import Cluster
from lockkit_etcd.terms import RaftTerms
from lockkit_etcd.transport import Get, Kept, LeaseGone, LeaseTaken

__all__ = ["EtcdLease", "EtcdLeases"]

_KEPT = 64
"""The most free leases of one length that are kept; others are left to end by themselves."""
_GOODBYE = (8, 0.1)
"""Free leases that are revoked when the store is closed, and within how many seconds."""
_HALF = 0.5
_ANSWERS = 2
"""Answers of one member that are needed to know a term."""


@dataclass(slots=True, eq=False)
class EtcdLease:
    """One lease of this client's.

    Attributes:
        length: Seconds that the lease lasts from its basis on, at least.
        basis: CLOCK_BOOTTIME seconds; see the module.
        term: The raft term in which the lease was granted; 0 if it is not known.
        doubtful: Whether a request that puts a key on the lease may be under way; then it is not used again.
    """

    id: int
    length: int
    basis: float
    term: int
    doubtful: bool = False

    def young(self, now: float) -> bool:
        """Whether more than half of the lease is left; with less, no claim starts on it."""
        return now - self.basis < self.length * _HALF

    def over(self, now: float) -> bool:
        """Whether the lease may have run out."""
        return now >= self.basis + self.length


class EtcdLeases:
    """The free leases of a client.

    Args:
        terms: The raft term, as the answers of the transport show it.
        probe: A cheap read, sent only for the term in its answer.
    """

    def __init__(self, transport: Cluster[Any], clock: Clock, terms: RaftTerms, probe: Get) -> None:
        self._transport = transport
        self._clock = clock
        self._terms = terms
        self._probe = probe
        self._free: dict[int, list[EtcdLease]] = {}

    def take(self, length: int, end: float, within: float | None = None) -> Exchange[EtcdLease]:
        """A lease of ``length`` seconds with at least half of it left; a new one if none is free.

        With ``within``, the lease is at most that many seconds old. If all free leases are older, one is
        revoked, because otherwise each claim of this kind would leave one more.

        Raises:
            Refused, Unknown: No lease was granted as far as is known. If one was, it ends by itself.
        """
        free = self._free.get(length)
        while free:
            try:
                lease = free.pop()
            except IndexError:  # another thread was faster
                break
            if self.usable(lease) and (within is None or self._clock.now() - lease.basis <= within):
                return lease
            if within is not None:
                with contextlib.suppress(LeaseGone, Refused, Unknown):  # it ends by itself
                    yield from self._transport.revoke(lease.id, end)
                break
        return (yield from self.grant(length, end))

    def usable(self, lease: EtcdLease) -> bool:
        """Whether a claim may start on a lease; one of an earlier term might not be kept alive."""
        return lease.term == self._terms.known and lease.young(self._clock.now())

    def grant(self, length: int, end: float, over: Cluster[Any] | None = None) -> Exchange[EtcdLease]:
        """A new lease; over ``over``, if given, because the store's own connections may be dead.

        Raises:
            Refused, Unknown: No lease was granted as far as is known.
        """
        transport = over or self._transport
        yield from self.learn(1, end, transport)
        while True:
            id_ = secrets.randbits(62) + 1
            term, sent = self._terms.known, self._clock.now()
            try:
                yield from self._terms.shown_by(transport.grant(id_, length, end))
            except LeaseTaken:  # another client drew the same random id; practically never
                continue
            return EtcdLease(id_, length, sent, term)

    def learn(self, term: int, end: float, over: Cluster[Any] | None = None) -> Exchange[None]:
        """Read, at most twice, until the next grant is known to belong to a certain term or a later one.

        The term stays unknown if the answers come from different members. A lease of an unknown term is as
        good as any other, except that its first heartbeat moves the claim to another lease.

        Raises:
            Refused, Unknown: No member answers.
        """
        for _ in range(_ANSWERS):
            if self._terms.known >= term:
                return
            yield from self._terms.shown_by((over or self._transport).range(self._probe, end))

    @staticmethod
    def counts(term: int, kept: Kept | None, shown: int) -> bool:
        """Whether a keepalive is certain to have moved the deadline of a lease.

        Args:
            term: The raft term of the lease.
            kept: The answer, if there was one.
            shown: The term in the answer to a logged read that was sent after the keepalive was answered.
        """
        return kept is not None and kept.ttl > 0 and shown == term

    def keeps(self, lease: EtcdLease, kept: Kept | None, shown: int) -> bool:
        """Move the basis of a lease to a keepalive that counts; False if it does not. See :meth:`counts`."""
        if kept is None or not self.counts(lease.term, kept, shown):
            return False
        lease.basis = max(lease.basis, kept.sent)
        return True

    def give_back(self, lease: EtcdLease | None) -> None:
        """Take back a lease with no claim of this client on it; a doubtful one is left to end by itself."""
        if lease is None or lease.doubtful or not self.usable(lease):
            return
        free = self._free.setdefault(lease.length, [])
        if len(free) < _KEPT:
            free.append(lease)

    def close(self) -> Exchange[None]:
        """Revoke free leases, as many as can be revoked in a moment. The rest end by themselves."""
        most, seconds = _GOODBYE
        end = time.monotonic() + seconds
        for free in list(self._free.values()):  # others may still give some back
            for lease in free[-most:]:
                if time.monotonic() >= end:
                    break
                try:
                    yield from self._transport.revoke(lease.id, end)
                except LeaseGone:
                    continue
                except (Refused, Unknown):
                    end = 0.0
        self._free.clear()
