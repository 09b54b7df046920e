"""The calls that the store makes to etcd, seven and a watch, over any transport: which member is asked, and for how long.

The seven are exchanges (:mod:`lockkit.store.exchanges`): generators, performed by :attr:`Cluster.perform` or by whoever else can
perform their steps. A cluster is thread-safe and belongs to the process that made it: in a forked child every call is Refused
before a byte is sent. Each call has an ``end`` on ``time.monotonic()`` and obeys it; one that begins later has a moment
(:func:`lockkit.store.budgets.left`). Nothing is sent twice, except requests that do no harm twice: reads, keepalives, and a
request that was turned away because its login had expired or because that member had no leader. Every request carries etcd's
metadata ``hasleader: true``, so that a member without a leader says so at once.

A call ends with an answer, or raises one of:

- :class:`lockkit.store.spi.Refused`: definitely not done. That includes: no member can be reached.
- :class:`lockkit.store.spi.Unknown`: it may be done, now or later.
- :class:`LeaseGone`, :class:`LeaseTaken`: definitely not done, because of the lease that was named.

One table decides which (:mod:`lockkit_etcd.failures`); an error that the table does not list is Unknown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Generic, TypeVar

from lockkit.clock import Clock
from lockkit.store.budgets import left, shares
from lockkit.store.exchanges import Exchange, Parser, Route, in_parallel
from lockkit.store.performing import Blocking
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.address import Address
from lockkit_etcd.failures import Elsewhere, Forbidden, TokenExpired
from lockkit_etcd.transport import (
    Get,
    Granted,
    Kept,
    News,
    Op,
    Ranged,
    Remaining,
    Status,
    Stream,
    Txn,
    TxnAnswer,
)

__all__ = ["Cluster", "Member"]

_SHARE = 0.6
"""The part of the remaining time that one member may use while there are others to ask."""
_BATCH = 500
"""Leases in one keepalive."""
_AT_ONCE = 4
"""Keepalives at the same time: a follower passes each lease on to the leader with a round trip of its own."""

T = TypeVar("T")


class Member:
    """One member, as a transport reaches it, and the login there.

    Attributes:
        where: ``host:port``.
        token: The login, as the transport sends it, once there is one. A member that restarts forgets it.
    """

    def __init__(self, where: str, address: Address) -> None:
        self.where = where
        self.token: Any = None
        self._address = address

    def _log_in(self, user: str, password: str, end: float) -> Exchange[Any]:
        """Log in, and return the token."""
        raise NotImplementedError

    def ready(self, end: float) -> Exchange[None]:
        """Log in, if that is needed and not done yet.

        Raises:
            Refused: The login failed.
        """
        if self._address.user is None or self.token:
            return
        try:
            self.token = yield from self._log_in(self._address.user, self._address.password or "", end)
        except Unknown as unknown:  # the request that needs the login was not sent
            raise Elsewhere(unknown.error) from unknown

    def ask(self, send: Callable[[], Exchange[T]], end: float) -> Exchange[T]:
        """Send a request; if the login has expired, log in and send it once more."""
        yield from self.ready(end)
        token = self.token
        try:
            return (yield from send())
        except TokenExpired:
            if not token:
                raise
        if self.token == token:  # otherwise another call has logged in meanwhile
            self.token = None
        yield from self.ready(end)
        return (yield from send())


M = TypeVar("M", bound=Member)


class Cluster(Generic[M]):
    """The base of both transports: the members that may be asked, and the calls to them. See the module.

    Attributes:
        name: The transport, for ``doctor``: ``JSON gateway``, ``gRPC (python-etcd3)``.
        where: The members as a user wrote them, without secrets.
        pid: The process that the connections belong to.
        tls: The context in which to connect; None without TLS.
        yields: Its exchanges yield what they send, instead of making their calls themselves.
        perform: Performs an exchange in the calling thread, and returns its result.

    Args:
        clock: For the times at which keepalives are sent.
        members: In the order of the URL.
        first: The index of the member to ask first.
    """

    tls: SSLContext | None = None
    yields = False

    def __init__(self, where: str, clock: Clock, members: Sequence[M], first: int, pid: int) -> None:
        self.where = where
        self.pid = pid or os.getpid()
        self._clock = clock
        self._members = members
        self._first = first % len(members)
        self._performer: Blocking[Any] = Blocking(self._connect, self.opening, where, pid=self.pid)
        self.perform = self._performer.perform

    # -- what differs between the transports

    @property
    def name(self) -> str:
        raise NotImplementedError

    def _call(self, member: M, call: str, request: Any, end: float) -> Exchange[Any]:
        """Ask one member, until an end. ``call`` is the name of one of the calls below, ``request`` its arguments.

        Raises:
            Refused: Also in a forked child, where nothing may be sent.
        """
        raise NotImplementedError

    def _connect(self, step: Any) -> Any:
        """Connect; not needed where exchanges make their calls themselves."""
        raise NotImplementedError

    def opening(self, route: Route, end: float) -> Exchange[Any]:
        """Open a connection to a route; not needed where exchanges make their calls themselves."""
        raise NotImplementedError

    def parser(self) -> Parser:
        """The parser of the replies on a new connection; not needed where exchanges make their calls themselves."""
        raise NotImplementedError

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> Stream:
        """Watch the keys from ``key`` up to ``end``, from revision ``start`` on. Returns at once, never raises.

        Without an ``end`` only that key. ``also``: further single keys, none of them among those; the news of different keys may
        come in any order.

        ``heard`` is told the news, in order, on a thread of the transport's; it must not block. After WatchEnded comes
        nothing more: open another. A connection that is dead without a sign is noticed within 15 s where the operating
        system can.
        """
        raise NotImplementedError

    def fresh(self) -> Cluster[M]:
        """The same cluster over connections of their own, beginning with another member where there are several."""
        raise NotImplementedError

    # -- calls

    def txn(self, request: Txn, end: float) -> Exchange[TxnAnswer]:
        """Do a transaction.

        Raises:
            LeaseGone: A Put of the branch taken names a lease that is gone. Nothing was done.
        """
        again = not request.when and all(type(op) is Get for op in request.then)
        return self._ask("txn", request, end, again=again, ops=(*request.then, *request.otherwise))

    def range(self, request: Get, end: float) -> Exchange[Ranged]:
        """Read linearizably."""
        return self._ask("range", request, end, again=True, ops=(request,))

    def grant(self, lease: int, ttl: int, end: float) -> Exchange[Granted]:
        """Grant a lease under an id of the caller's choice (1 to 2**63 - 1), for so many seconds.

        Raises:
            LeaseTaken: There is one.
        """
        return self._ask("grant", (lease, ttl), end)

    def revoke(self, lease: int, end: float) -> Exchange[None]:
        """Revoke a lease: its keys go, and every later put that names it is refused.

        Raises:
            LeaseGone: There is none (any more).
        """
        return self._ask("revoke", lease, end)

    def remaining(self, lease: int, end: float) -> Exchange[Remaining]:
        """Ask how long a lease lasts without a keepalive."""
        return self._ask("remaining", lease, end, again=True)

    def keepalive(self, leases: Sequence[int], end: float) -> Exchange[Mapping[int, Kept]]:
        """Keep leases alive: what was answered, by id. Nothing is known of a lease that is missing.

        Raises:
            Refused, Unknown: None of them was answered.
        """
        kept: dict[int, Kept] = {}
        troubles: list[Refused | Unknown] = []

        def keep(some: Sequence[int]) -> Exchange[None]:
            try:
                kept.update((yield from self._ask("keepalive", some, end, again=True)))
            except (Refused, Unknown) as trouble:
                troubles.append(trouble)

        batches = [leases[at : at + _BATCH] for at in range(0, len(leases), _BATCH)]
        yield from in_parallel(
            batches, keep, _AT_ONCE, "lockkit-etcd-keepalive", time.monotonic() + left(end)
        )
        if troubles and not kept:
            raise troubles[0]
        return dict(kept)

    def status(self, end: float) -> Exchange[Sequence[Status | Exception]]:
        """Ask each member for its status, in order; a Refused or Unknown stands in the place of one without an answer. Never raises."""
        found: list[Status | Exception] = []
        for member, until in shares(self._members, end):
            try:
                answer: Status = yield from self._call(member, "status", None, until)
                answer.endpoint = member.where
                found.append(answer)
            except (Refused, Unknown) as trouble:
                found.append(trouble)
        return found

    def close(self) -> None:
        """Close connections and streams. Never raises, may be called twice."""
        self._performer.close()

    # -- turns

    def _ask(
        self, call: str, request: Any, end: float, *, again: bool = False, ops: Sequence[Op] = ()
    ) -> Exchange[Any]:
        return self._in_turn(
            lambda member, until: self._call(member, call, request, until), end, again=again, ops=ops
        )

    def _in_turn(
        self, ask: Callable[[M, float], Exchange[T]], end: float, *, again: bool, ops: Sequence[Op] = ()
    ) -> Exchange[T]:
        """Ask the members in turn until one has answered.

        Args:
            ask: Asks one member, until an end.
            end: For all of it.
            again: The request may be sent twice. Otherwise a member that has it and is silent ends the search.
            ops: The operations, for the error if the user may not do them.

        Raises:
            Refused, Unknown: No member has answered, or this process may not ask; the error is that of the last member asked.
        """
        end = time.monotonic() + left(end)
        many, first = len(self._members), self._first
        for turn in range(many):
            at = (first + turn) % many
            now = time.monotonic()
            until = end if turn == many - 1 else now + max(end - now, 0.0) * _SHARE
            try:
                return (yield from ask(self._members[at], until))
            except Forbidden as refusal:
                if not ops:
                    raise
                raise refusal.asked(self.where, ops) from refusal
            except (Elsewhere, Unknown) as trouble:
                if self._first == at:
                    self._first = (at + 1) % many
                more = turn < many - 1 and time.monotonic() < end
                if not (more and (again or isinstance(trouble, Elsewhere))):
                    raise
        raise AssertionError("unreachable")

    def _second(self) -> int:
        """The index of the member that would be asked second."""
        return self._first + 1

    def _inherited(self) -> bool:
        """Whether this process is a forked child, and the connections are its parent's."""
        return self.pid != os.getpid()
