"""Raft terms: the term in which a lease was granted decides whether a later keepalive proves anything.

A leader that was paused for longer than a ttl revokes, before it learns that it is deposed, every lease whose
end it has seen by its own clock, although its successor has kept the lease alive (on etcd 3.5.16 in 7 of 16
such failovers, each time 30 of 30 leases). It does not know the leases of a later term, so:

- A lease belongs to one term, and a keepalive counts only in that term. In any other its basis stays.
- A claim on a lease of another term moves to a new lease (:mod:`lockkit_etcd.moving`).

Both ends err towards "another term". *The term of a lease* is never later than the term of the entry that
granted the lease: a member showed the term in an answer that took a consensus, and the same member gave a
second such answer, asked for after the first was read, before the grant was sent. One answer is not enough,
nor is the answer to the grant: a member may read under one leader and fill in the header under the next, and
may answer after an election for a grant of the old leader. *The term of a keepalive* is never earlier than
that of the leader that answered it: a read sent after that answer shows the term. If both are equal, that
leader alone knew the lease, and still led when the read was answered. The read goes through the log
(:meth:`lockkit_etcd.transport.Txn.logged`): a paused and deposed leader may answer a plain one.

Servers that lost their data, or got a backup back (which may have leases and lack claims), count terms anew.
So terms are counted on here: those of each start are later than all before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from lockkit.store.exchanges import Exchange
from lockkit_etcd.transport import Granted, Header, Ranged, TxnAnswer

__all__ = ["RaftTerms"]

A = TypeVar("A", TxnAnswer, Ranged, Granted)


class RaftTerms:
    """A client's knowledge of the raft term.

    Attributes:
        since: The number added to each term that the servers show. It is 0 until they start anew, as from a
            backup, with terms that may be lower; then it makes their terms count as later than all before.
        known: A term such that every grant sent from now on is granted in it or a later one; 0 for not known.
        shown: The latest term that each member has shown. Replaced, never changed.
        revision: The latest revision of the store that an answer has shown.
    """

    def __init__(self, begun_anew: Callable[[], object] = lambda: None) -> None:
        """Know nothing yet.

        Args:
            begun_anew: Called when the servers have started anew: nothing known by revisions is valid then.
        """
        self.since = 0
        self.known = 0
        self.shown: Mapping[int, int] = {}
        self.revision = 0
        self._begun_anew = begun_anew
        self._mutex = threading.RLock()  # a signal handler may acquire while an answer is taken in

    @property
    def asked(self) -> tuple[int, Mapping[int, int], int]:
        """The knowledge with which a request is sent, for :meth:`heard`."""
        return self.since, self.shown, self.revision

    def heard(self, header: Header, since: int, before: Mapping[int, int], revision: int) -> int:
        """Learn from an answer that took a consensus; return the term that it shows.

        Such an answer shows no earlier term or revision than those before it, whichever member gives it. If
        it does, the servers have lost their data, or are others, and what was known before is of no use.

        Args:
            header: The header of the answer.
            since: :attr:`since`, as it was when the request was sent.
            before: :attr:`shown`, as it was then.
            revision: :attr:`revision`, as it was then.
        """
        member = header.member
        if since + header.term < max(before.values(), default=0) or header.revision < revision:
            self.begin_anew(since)
            since, before = self.since, {}  # the answer is of servers that have started anew
        with self._mutex:
            term = self.since + header.term
            if since == self.since:  # otherwise it may be of the servers before
                self.revision = max(self.revision, header.revision)
                self.known = max(self.known, before.get(member, 0))
                if term > self.shown.get(member, 0):
                    self.shown = {**self.shown, member: term}
        return term

    def begin_anew(self, since: int) -> None:
        """Forget the servers, which have started anew; once for each :attr:`since` under which it shows."""
        with self._mutex:
            if since == self.since:
                self.since = self.known = max(self.shown.values(), default=since) + 1
                self.shown, self.revision = {}, 0
                self._begun_anew()

    def shown_by(self, exchange: Exchange[A]) -> Exchange[A]:
        """Perform an exchange whose answer takes a consensus, learn from it, and adjust its term."""
        asked = self.asked
        answer = yield from exchange
        answer.header.term = self.heard(answer.header, *asked)
        return answer
