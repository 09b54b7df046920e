"""Raft terms: the term in which a lease was granted decides whether a later keepalive proves anything.

A leader that stood still for longer than a ttl and goes on revokes, before it learns that it is deposed, every lease whose
end it has seen by its own clock, although its successor has kept the lease alive (on etcd 3.5.16 in 7 of 16 such failovers, each
time 30 of 30 leases). A deposed leader does not know the leases granted in a later term, so:

- A lease belongs to one term, and a keepalive counts only in that term. In any other term the basis of the lease stays.
- A claim on a lease of another term moves to a new lease (:mod:`lockkit_etcd.moving`).

Both ends err towards "another term". *The term of a lease* is never later than the term of the entry that granted the
lease: a member showed the term in an answer that took a consensus, and the same member gave a second such answer, asked for
after the first was read, before the grant was sent. One answer is not enough, nor is the answer to the grant: a member may
read under one leader and fill in the header under the next, and may answer after an election for a grant of the old leader.
*The term of a keepalive* is never earlier than the term of the leader that answered the keepalive: a read sent after the
keepalive was answered shows the term. If the two are equal, the leader of that term was the only one to know the lease, and
still led when the read was answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from lockkit_etcd.transport import (
    Found,
    Get,
    Granted,
    Header,
    Kept,
    News,
    Remaining,
    Status,
    Stream,
    Transport,
    Txn,
    TxnAnswer,
)

__all__ = ["Observed", "RaftTerms"]


class RaftTerms:
    """A client's knowledge of the raft term.

    Attributes:
        known: A term such that every grant sent from now on is granted in it or a later one; 0 for not known.
        shown: The latest term that each member has shown. Replaced, never changed.
    """

    def __init__(self) -> None:
        self.known = 0
        self.shown: Mapping[int, int] = {}
        self._mutex = threading.Lock()

    def heard(self, header: Header, before: Mapping[int, int]) -> None:
        """Take in an answer that took a consensus.

        Such an answer shows no earlier term than those before it, whichever member gives it. If it does, the servers have begun
        anew (they lost their data, or are others), and what was known before is of no use: a lease must not be taken for one of
        a term that these servers will come to yet.

        Args:
            header: The header of the answer.
            before: :attr:`shown`, as it was when the request was sent.
        """
        member, term = header.member, header.term
        if term < max(before.values(), default=0):
            with self._mutex:
                if term < max(self.shown.values(), default=0):
                    self.known, self.shown = 0, {member: term}
            return
        first = before.get(member, 0)
        if first > self.known or term > self.shown.get(member, 0):
            with self._mutex:
                self.known = max(self.known, first)
                if term > self.shown.get(member, 0):
                    self.shown = {**self.shown, member: term}


class Observed:
    """A transport whose answers tell :class:`RaftTerms` of the term. See :class:`lockkit_etcd.transport.Transport`."""

    def __init__(self, transport: Transport, terms: RaftTerms) -> None:
        self._transport = transport
        self._terms = terms
        self.name = transport.name
        self.where = transport.where

    def txn(self, request: Txn, budget: float) -> TxnAnswer:
        before = self._terms.shown
        answer = self._transport.txn(request, budget)
        self._terms.heard(answer.header, before)
        return answer

    def range(self, request: Get, budget: float) -> tuple[Header, Found]:
        before = self._terms.shown
        header, found = self._transport.range(request, budget)
        self._terms.heard(header, before)
        return header, found

    def grant(self, lease: int, ttl: int, budget: float) -> Granted:
        before = self._terms.shown
        granted = self._transport.grant(lease, ttl, budget)
        self._terms.heard(granted.header, before)
        return granted

    def revoke(self, lease: int, budget: float) -> None:
        self._transport.revoke(lease, budget)

    def keepalive(self, leases: Sequence[int], budget: float) -> Mapping[int, Kept]:
        return self._transport.keepalive(leases, budget)

    def remaining(self, lease: int, budget: float) -> Remaining:
        return self._transport.remaining(lease, budget)

    def status(self, budget: float) -> Sequence[Status | Exception]:
        return self._transport.status(budget)

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> Stream:
        return self._transport.watch(key, end, start, heard, also)

    def fresh(self) -> Observed:
        return Observed(self._transport.fresh(), self._terms)

    def close(self) -> None:
        self._transport.close()
