"""The store's calls to etcd over any transport, seven and a watch: which member is asked, and for how long.

The seven are exchanges (:mod:`lockkit.store.exchanges`), generators that :attr:`Cluster.perform` or another
performer performs. A cluster is thread-safe and belongs to the process that made it: in a forked child every
call is Refused before a byte is sent. Each call obeys its ``end``, on ``time.monotonic()``; a call that
starts later still gets a moment (:func:`lockkit.store.budgets.left`). No request is sent twice, but for
reads, keepalives, and requests rejected for an expired login or because the member had no leader. Every
request carries etcd's metadata ``hasleader: true``, so that a member without a leader says so at once.

A call ends with an answer, or raises one of:

- :class:`lockkit.store.spi.Refused`: The request was definitely not executed, as when no member is reached.
- :class:`lockkit.store.spi.Unknown`: The request may have been executed, or may yet be.
- :class:`LeaseGone`, :class:`LeaseTaken`: Definitely not executed, because of the lease that it named.

One table decides (:mod:`lockkit_etcd.failures`); an error that the table does not list is Unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Generic, TypeVar

from lockkit.lib.clock import Clock
from lockkit.lib.origin import Origin, this_origin
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
    KeyOp,
    News,
    Ranged,
    Remaining,
    Status,
    Stream,
    Txn,
    TxnAnswer,
)

__all__ = ["Cluster", "Member", "watched_ranges"]

_SHARE = 0.6
"""The part of the remaining time that one member may take while other members are left to ask."""
_BATCH = 100
"""Leases in one keepalive, which has to be answered completely in time: a slow server manages small ones."""
_AT_ONCE = 4
"""Simultaneous keepalive requests: a follower asks the leader about each lease in its own round trip."""

T = TypeVar("T")


def watched_ranges(
    key: bytes, end: bytes, start: int, also: Sequence[bytes], past: int
) -> list[tuple[bytes, bytes, int]]:
    """The watches that :meth:`Cluster.watch` opens: each a range of keys and the revision it starts with."""
    ranges = [(key, end), *((each, b"") for each in also)]
    return [(*each, begin) for begin in ((start, past) if past else (start,)) for each in ranges]


class Member:
    """One member, as a transport reaches it, and the login there.

    Attributes:
        where: ``host:port``.
        anonymous: Whether nobody logs in.
        token: The login, as the transport sends it, once there is one. A member that restarts forgets it.
    """

    def __init__(self, where: str, address: Address) -> None:
        self.where = where
        self.anonymous = address.user is None
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
        origin: The process that the connections belong to.
        tls: The context in which to connect; None without TLS.
        yields: Whether its exchanges yield the requests to send; otherwise they make blocking calls.
        perform: Performs an exchange in the calling thread, and returns its result.

    Args:
        clock: The clock for the times at which keepalives are sent.
        members: In the order of the URL.
        first: The index of the member to ask first.
    """

    tls: SSLContext | None = None
    yields = False

    def __init__(
        self, where: str, clock: Clock, members: Sequence[M], first: int, origin: Origin | None
    ) -> None:
        self.where = where
        self.origin = origin or this_origin()
        self._clock = clock
        self._members = members
        self._first = first % len(members)
        self._performer: Blocking[Any] = Blocking(self._connect, self.opening, where, origin=self.origin)
        self.perform = self._performer.perform

    # -- what differs between the transports

    @property
    def name(self) -> str:
        raise NotImplementedError

    def _call(self, member: M, call: str, request: Any, end: float) -> Exchange[Any]:
        """Ask one member, until an end. ``call`` names one of the calls below; ``request`` is its arguments.

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
        """The parser of replies on a new connection; not needed where exchanges make their own calls."""
        raise NotImplementedError

    def watch(
        self,
        key: bytes,
        end: bytes,
        start: int,
        heard: Callable[[News], None],
        also: Sequence[bytes] = (),
        past: int = 0,
    ) -> Stream:
        """Watch the keys from ``key`` up to ``end``, from revision ``start``. Returns at once, never raises.

        If ``end`` is empty, watch only ``key``. ``also`` names further single keys. News of different keys
        may come in any order. With ``past`` each key is watched a second time, from that revision on, so that
        nothing is missed before ``start``: such news is up to 100 ms late, and changes may come twice.

        ``heard`` is called with the news, in order, on a thread of the transport; it must not block.
        WatchEnded is the last news of a stream; open another then. A connection that died without a sign is
        noticed within 15 s if the operating system can notice it.
        """
        raise NotImplementedError

    def fresh(self) -> Cluster[M]:
        """The same cluster over new connections, beginning with another member if there are several."""
        raise NotImplementedError

    # -- calls

    def txn(self, request: Txn, end: float) -> Exchange[TxnAnswer]:
        """Execute a transaction.

        Raises:
            LeaseGone: A Put of the branch taken names a lease that no longer exists. Nothing was written.
        """
        return self._ask("txn", request, end, again=request.harmless, ops=request.keyed)

    def range(self, request: Get, end: float) -> Exchange[Ranged]:
        """Read linearizably."""
        return self._ask("range", request, end, again=True, ops=(request,))

    def grant(self, lease: int, ttl: int, end: float) -> Exchange[Granted]:
        """Grant a lease of ``ttl`` seconds, with an id that the caller chooses (1 to 2**63 - 1).

        Raises:
            LeaseTaken: A lease with this id exists.
        """
        return self._ask("grant", (lease, ttl), end)

    def revoke(self, lease: int, end: float) -> Exchange[None]:
        """Revoke a lease: its keys are deleted, and every later put that names it is refused.

        Raises:
            LeaseGone: The lease does not exist (any more).
        """
        return self._ask("revoke", lease, end)

    def remaining(self, lease: int, end: float) -> Exchange[Remaining]:
        """Ask how long a lease lasts without a keepalive."""
        return self._ask("remaining", lease, end, again=True)

    def keepalive(self, leases: Sequence[int], end: float) -> Exchange[Mapping[int, Kept]]:
        """Keep leases alive; return the answers by id. A lease that is missing there had no answer.

        Raises:
            Refused, Unknown: No lease had an answer.
        """
        answers: list[Mapping[int, Kept]] = []
        troubles: list[Refused | Unknown] = []

        def keep(some: Sequence[int]) -> Exchange[None]:
            try:
                answers.append((yield from self._ask("keepalive", some, end, again=True)))
            except (Refused, Unknown) as trouble:
                troubles.append(trouble)

        batches = [leases[at : at + _BATCH] for at in range(0, len(leases), _BATCH)]
        yield from in_parallel(
            batches, keep, _AT_ONCE, "lockkit-etcd-keepalive", time.monotonic() + left(end)
        )
        kept: dict[int, Kept] = {}
        for answer in answers:  # a copy: an answer that comes after the end must not count as one before it
            kept.update(answer)
        if troubles and not kept:
            raise troubles[0]
        return kept

    def status(self, end: float) -> Exchange[Sequence[Status | Exception]]:
        """Ask each member for its status, in order; a failed member's result is its error. Never raises."""
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
        self,
        call: str,
        request: Any,
        end: float,
        *,
        again: bool = False,
        ops: Sequence[KeyOp] = (),
    ) -> Exchange[Any]:
        return self._in_turn(
            lambda member, until: self._call(member, call, request, until), end, again=again, ops=ops
        )

    def _in_turn(
        self,
        ask: Callable[[M, float], Exchange[T]],
        end: float,
        *,
        again: bool,
        ops: Sequence[KeyOp] = (),
    ) -> Exchange[T]:
        """Ask the members in turn until one has answered.

        Args:
            ask: Asks one member, until an end.
            end: When to give up, for all members together.
            again: Whether the request may be sent to another member after one that got it did not answer.
            ops: The operations, for the error if the user has no right to them.

        Raises:
            Refused, Unknown: No member has answered, or this process may not ask; the error is the last one.
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

    def inherited(self) -> bool:
        """Whether this process is a forked child, and the connections are its parent's."""
        return not self.origin.is_here()
