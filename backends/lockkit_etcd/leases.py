"""Leases: one for each claim, used again for the next while all that is known of it is definite.

What matters of a lease is its *basis*: when the last request was sent of which it is certain that it moved the lease's
deadline. A grant is certain, for it goes through consensus. A keepalive is not: a leader that stood still and was replaced
meanwhile answers it from its memory (14 of 14 times after a SIGSTOP, on etcd 3.5.16), while the new leader may have ended the
lease. So a keepalive counts only between two answers of the same member that took a consensus, one before it was sent and
one to a request sent after it was answered, all three of one raft term.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from lockkit.clock import Clock
from lockkit.spi import Refused, Unknown
from lockkit_etcd.budget import left
from lockkit_etcd.transport import Header, Kept, LeaseGone, LeaseTaken, Transport

__all__ = ["Lease", "Leases"]

_KEPT = 64
"""Free leases of one length that are remembered; what is forgotten ends by itself."""
_GOODBYE = (8, 0.1)
"""Free leases that are revoked when the store is closed, and within how many seconds."""
_HALF = 0.5


class Lease:
    """One lease of this client's.

    Attributes:
        length: Seconds that it lasts from its basis on; it may last longer.
        basis: CLOCK_BOOTTIME seconds.
        doubtful: A request that puts a key on it is under way, or may be for all that is known. It is never used again.
        borrowed: Another client granted it: it is neither used again nor revoked.
    """

    __slots__ = ("basis", "borrowed", "doubtful", "id", "length")

    def __init__(self, id: int, length: int, basis: float, *, borrowed: bool = False) -> None:  # noqa: A002
        self.id = id
        self.length = length
        self.basis = basis
        self.doubtful = False
        self.borrowed = borrowed

    def young(self, now: float) -> bool:
        """Whether more than half of it is left: with less, nothing new begins on it."""
        return now - self.basis < self.length * _HALF

    def over(self, now: float) -> bool:
        """Whether it may have run out."""
        return now >= self.basis + self.length


class Leases:
    """The free leases of a client, and what is known of the members that answer."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._free: dict[int, list[Lease]] = {}
        self._terms: dict[int, int] = {}

    def take(self, length: int, end: float, *, new: bool = False) -> Lease:
        """A lease of some length (seconds) with at least half of it left; a new one if asked for, or if none is free.

        Raises:
            Refused, Unknown: There is none to be had. One that was granted all the same ends by itself.
        """
        free = self._free.get(length)
        while free and not new:
            try:
                lease = free.pop()
            except IndexError:
                break
            if lease.young(self._clock.now()):
                return lease
        return self.grant(length, end)

    def grant(self, length: int, end: float, transport: Transport | None = None) -> Lease:
        """A new lease; over another transport than the store's, where that may be dead.

        Raises:
            Refused, Unknown: There is none to be had.
        """
        while True:
            id_ = secrets.randbits(62) + 1
            sent = self._clock.now()
            try:
                granted = (transport or self._transport).grant(id_, length, left(end))
            except LeaseTaken:  # somebody else's; once in a lifetime
                continue
            self.heard(granted.header)
            return Lease(id_, length, sent)

    def give_back(self, lease: Lease | None) -> None:
        """Nothing of this client's is on it any more, for certain, unless it is doubtful."""
        if lease is None or lease.doubtful or lease.borrowed or not lease.young(self._clock.now()):
            return
        free = self._free.setdefault(lease.length, [])
        if len(free) < _KEPT:
            free.append(lease)

    def heard(self, header: Header) -> None:
        """An answer that took a consensus."""
        self._terms[header.member] = header.term

    def witnesses(self) -> Mapping[int, int]:
        """The terms of the members, as of now; for :meth:`counts`."""
        return dict(self._terms)

    @staticmethod
    def counts(kept: Kept, before: Mapping[int, int], after: Header) -> bool:
        """Whether an answered keepalive is certain to have moved the deadline.

        Args:
            kept: What was answered.
            before: What was known before it was sent.
            after: Of the answer to a read that was sent when it was answered.
        """
        return (after.member, after.term) == (kept.member, kept.term) and before.get(kept.member) == kept.term

    def close(self) -> None:
        """Revoke what is free, in a moment, as far as that goes. The rest ends by itself."""
        most, seconds = _GOODBYE
        end = time.monotonic() + seconds
        for free in list(self._free.values()):  # others may still give some back
            for lease in free[-most:]:
                if time.monotonic() >= end:
                    break
                try:
                    self._transport.revoke(lease.id, end - time.monotonic())
                except LeaseGone:
                    continue
                except (Refused, Unknown):
                    end = 0.0
        self._free.clear()
