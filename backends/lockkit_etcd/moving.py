"""Moves of claims to other leases: to longer ones (extend), and to new ones after the raft term has changed.

A lease of etcd cannot be made longer, and a keepalive in another term than the lease's own proves nothing
(:mod:`lockkit_etcd.terms`). So the claim moves: read its lease, have a new one granted, and then "if the
claim is as I read it, put it on the new lease". Key, place and fence stay. The transaction compares a
revision, which never repeats, so a request that arrives twice moves the claim at most once. While a move is
under way, or had no answer, no keepalive counts. The next move reads the claim's lease again.

A client that has only the handle of a claim may extend it too, and its request may arrive when the new lease
is nearly over. So it announces the move before a lease is granted for it: it marks the claim as leaving, and
writes a note to the claim's own client, on the claim's present lease. The own client counts a keepalive only
if a later read shows no such note, and moves a leaving claim to a new lease of its own. So each keepalive
counted was sent before the other client's grant (docs/decisions/etcd-announced-moves.md).

Many claims share a read and a transaction; each needs a grant of its own. Claims nearest to their end move
first. Claims for which there is no time are left to the next heartbeat, a quarter of a second later.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from lockkit.store.budgets import left
from lockkit.store.exchanges import Exchange, Pause, in_parallel
from lockkit.store.spi import Claim, Refused, Renewal, Unknown
from lockkit_etcd.leases import EtcdLease
from lockkit_etcd.rows import Row, changing, in_time, mark_of, packed, row_of, rows, seconds
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.transport import Delete, Get, LeaseGone, Op, Put, Txn, TxnAnswer

__all__ = ["Move", "extend", "move", "move_one", "otherwise", "renew_strangers"]

_AT_ONCE = 60
"""Claims that move in one transaction: two operations each, and etcd allows 128 by default."""
_FEWEST = 8
"""Claims of a batch, so that a few dozen are not moved one by one."""
_WORKERS = 24
"""Batches of a client that move at the same time; the round trip of a grant limits each of them."""
_ROUNDS = 3
"""How often a transaction is tried when others change the revisions that it compares."""
_SHARE = 0.8
"""The share of the time after which no further batch starts."""
_PAUSE = 0.01
"""Seconds until a claim that another call moves is looked at again."""
_NONE = 0
"""A note's lease number when a client announces a move. (Earlier versions wrote the lease to which they had
moved the claim.)"""


class Move(NamedTuple):
    """A claim that is to move.

    Attributes:
        entry: The client's record of the claim.
        fence: The fence of its hold; None while the claim waits.
        ttl: The new ttl, if the claim is extended.
    """

    claim: Claim
    entry: Entry
    fence: int | None
    ttl: float | None = None

    @property
    def lease(self) -> EtcdLease | None:
        """The lease that the claim is on, as far as this client knows."""
        return self.entry.wait if self.fence is None else self.entry.hold

    @property
    def ends(self) -> float:
        """When that lease may be over."""
        lease = self.lease
        return lease.basis + lease.length if lease is not None else 0.0


def extend(store: EtcdStore, claim: Claim, fence: int, ttl: float, budget: float) -> Exchange[Renewal]:
    """See :meth:`lockkit.store.spi.Backend.extend`: the claim moves to a lease that is long enough.

    Raises:
        Refused, Unknown: The claim has not moved, or it is not known whether it has.
    """
    end = time.monotonic() + budget
    entry = store.entries.get(claim.token)
    if entry is not None:
        return (yield from move_one(store, Move(claim, entry, fence, ttl), end))
    if store.buried(claim.token):
        return Renewal("LOST", why="absent")
    return (yield from _move_strangers(store, claim, fence, end, ttl))


def renew_strangers(store: EtcdStore, claim: Claim, fence: int | None, end: float) -> Exchange[Renewal]:
    """Renew a claim that another client object made: a held claim by a move, a waiting one by a keepalive.

    Raises:
        Refused, Unknown: No renewal of the claim is certain.
    """
    if fence is not None:
        return (yield from _move_strangers(store, claim, fence, end))
    _, row = yield from store.find(claim, end)
    if row is not None and otherwise(row, None) is None:
        yield from store.transport.keepalive((row.lease,), end)
    return otherwise(row, None) or Renewal("WAITING")


def _move_strangers(
    store: EtcdStore, claim: Claim, fence: int, end: float, ttl: float | None = None
) -> Exchange[Renewal]:
    """Move a claim that another client object made: announce the move, have a lease granted, move the claim.

    Raises:
        Refused: The claim has not moved.
        Unknown: The claim may have moved.
    """
    for _ in range(_ROUNDS):
        header, row = yield from store.find(claim, end)
        if (answer := otherwise(row, fence)) is not None:
            return answer
        assert row is not None
        if not row.leaving:
            announced = _rewritten(row, leaving=row.lease)
            # On the lease whose keepalives the claim's client counts: the note lasts as long as they count.
            note = Put(store.note_on(row), packed({"lease": _NONE}), row.lease)
            then = (Put(row.key, packed(announced), same_lease=True), note)
            written = yield from store.txn(Txn((row.unchanged,), then), end)
            if not written.succeeded:
                continue
            row = row._replace(value=announced, modified=written.header.revision)
        yield from store.leases.learn(header.term, end)
        # Only after the announcement: each keepalive that the claim's client counts was sent before this,
        # so the client's validity ends before the lease does, however late the move arrives.
        lease = yield from store.leases.grant(_length(row, ttl), end)
        moved = Put(row.key, packed(_rewritten(row, ttl, leaving=lease.id)), lease.id)
        try:
            written = yield from store.txn(Txn((row.unchanged,), (moved,)), end, lease)
        except LeaseGone:  # this process stood still for the whole length of the lease
            continue
        if written.succeeded:
            return Renewal("HELD", lease.basis, row.requests)
    raise changing(claim.terms.name)


def otherwise(row: Row | None, fence: int | None) -> Renewal | None:
    """The outcome if a claim does not hold with this fence (None: does not wait); None if it does."""
    if row is None:
        return Renewal("LOST", why="absent")
    if row.evicted:
        return Renewal("LOST", why="evicted")
    if row.state == "LINGERING":
        return Renewal("LOST", why="lapsed")
    if fence is None:
        return None if row.state == "WAITING" else Renewal("OFFERED")
    return None if row.state == "HELD" and row.fence == fence else Renewal("LOST", why="fence")


def move(store: EtcdStore, moves: Sequence[Move], end: float) -> Exchange[list[Renewal | None]]:
    """Move as many claims as there is time for; return the outcome for each, None for those not reached."""
    answers: list[Renewal | None] = [None] * len(moves)
    order = sorted(range(len(moves)), key=lambda at: moves[at].ends)
    size = max(_FEWEST, min(_AT_ONCE, -(-len(moves) // _WORKERS)))
    batches = [order[at : at + size] for at in range(0, len(order), size)][::-1]
    nearest, now = batches[-1], time.monotonic()
    begin_by = now + _SHARE * max(end - now, 0.0)

    def work(some: list[int]) -> Exchange[None]:
        if some is not nearest and time.monotonic() >= begin_by:
            return
        batch = _Batch(store, [moves[at] for at in some], begin_by, end)
        try:
            yield from batch.run()
        except (Refused, Unknown) as trouble:
            unknown = Renewal("UNKNOWN", trouble=str(trouble))
            batch.answers = [answer or unknown for answer in batch.answers]
        for at, answer in zip(some, batch.answers, strict=True):
            answers[at] = answer

    yield from in_parallel(batches, work, _WORKERS, "lockkit-etcd-move", time.monotonic() + left(end))
    return list(answers)


def move_one(store: EtcdStore, one: Move, end: float) -> Exchange[Renewal]:
    """Move a claim.

    Raises:
        Refused: The claim has not moved.
        Unknown: The claim may have moved.
    """
    while True:
        batch = _Batch(store, [one], end, end)
        yield from batch.run()
        if (answer := batch.answers[0]) is not None:
            return answer
        in_time(one.claim.terms.name, end)
        yield Pause(_PAUSE)  # another call is moving it


class _Batch:
    """Some claims that move in one transaction."""

    def __init__(self, store: EtcdStore, moves: Sequence[Move], begin_by: float, end: float) -> None:
        self.store = store
        self.moves = moves
        self.answers: list[Renewal | None] = [None] * len(moves)
        self._begin_by = begin_by
        self._end = end
        self._granted: set[EtcdLease] = set()
        self.over = False

    def run(self) -> Exchange[None]:
        """Move them; claims that another call is moving, or for which there is no time, get no answer.

        Raises:
            Refused, Unknown: As soon as one call ends so.
        """
        try:
            free = [at for at, one in enumerate(self.moves) if self.store.begin_move(one.entry, self)]
            if free:
                yield from self._run(free)
        finally:
            self.over = True  # first, and without a call: a signal may strike in each of the others
            for one in self.moves:
                self.store.end_move(one.entry, self)

    def _run(self, places: list[int]) -> Exchange[None]:
        answer = yield from self.store.txn(Txn((), self._gets(places)), self._end)
        yield from self.store.leases.learn(answer.header.term, self._end)
        for _ in range(_ROUNDS):
            begun: list[_Step] = []
            for nth, at in enumerate(places):
                try:
                    row = row_of(rows(answer.found(nth)), mark_of(self.moves[at].claim.token))
                except Refused as refusal:  # a key that another program has spoiled must not stop the others
                    if len(self.moves) == 1:
                        raise
                    self.answers[at] = Renewal("UNKNOWN", trouble=str(refusal))
                    continue
                known = self._judged(self.moves[at], row)
                if known is not None:
                    self.answers[at] = known
                elif row is not None and (not begun or time.monotonic() < self._begin_by):
                    begun.append(_Step(at, row, (yield from self._lease(self.moves[at], row))))
            if not begun:
                return
            places = [step.at for step in begun]
            try:
                answer = yield from self._send(begun)
            except LeaseGone:  # this process stood still for the whole length of one of these leases
                for step in begun:
                    step.lease.basis -= step.lease.length
                answer = yield from self.store.txn(Txn((), self._gets(places)), self._end)
                continue
            if answer.succeeded:
                for step in begun:
                    self.answers[step.at] = self._moved(step, answer.header.revision)
                return

    def _gets(self, places: Sequence[int]) -> tuple[Get, ...]:
        return tuple(Get(self.moves[at].entry.key) for at in places)

    def _judged(self, one: Move, row: Row | None) -> Renewal | None:
        """The outcome for a claim that needs no move; None if it is to move."""
        entry, lease = one.entry, one.lease
        if row is None or entry.stage == "ENDING":
            return Renewal("LOST", why="absent")
        if (answer := otherwise(row, one.fence)) is not None:
            return answer
        if lease is not None and one.fence is not None and lease.over(self.store.clock.now()):
            return Renewal("LOST", why="lapsed")
        own = self._own(entry, row)
        if own is None or own is lease:
            return None
        lease = own  # an earlier move had no answer, and has arrived
        self.store.moved(entry, lease, row.modified, waits=one.fence is None)
        entry.unsure = False
        if one.ttl is None and lease.term == self.store.raft.known:
            return _kept(one, row, lease)
        return None

    def _own(self, entry: Entry, row: Row) -> EtcdLease | None:
        """The lease that a claim is on; None if another client has moved it there, or is about to move it."""
        return None if row.leaving else self.store.own(entry, row.lease)

    def _lease(self, one: Move, row: Row) -> Exchange[EtcdLease]:
        """The lease that a claim is to move to.

        Raises:
            Refused, Unknown: There is none to be had.
        """
        entry, lease = one.entry, one.lease
        if one.fence is None and lease is not None:
            length = lease.length
        else:
            length = _length(row, one.ttl)
            if one.ttl is None and lease is not None:
                length = max(length, lease.length)
        # The client that moved the claim counts validity from its lease's grant. A spare lease may be older
        # and end sooner, so only a new one will do.
        found = self.store.spare(entry, length, self._granted) if self._own(entry, row) else None
        if found is None:
            found = yield from self.store.leases.grant(length, self._end)
            self._granted.add(found)
            self.store.keep(entry, found)
        return found

    def _send(self, begun: Sequence[_Step]) -> Exchange[TxnAnswer]:
        """Put the claims on their new leases, and read them again if that fails.

        Raises:
            Refused, Unknown, LeaseGone: See :mod:`lockkit_etcd.cluster`.
        """
        then: list[Op] = []
        entries = [self.moves[step.at].entry for step in begun]
        for at, row, lease in begun:
            said = _rewritten(row, self.moves[at].ttl)
            key = self.store.note(row.id)
            note = Delete(key) if row.requests is None else Put(key, packed({"note": row.requests}), lease.id)
            then += [Put(row.key, packed(said), lease.id), note]
        when = tuple(step.row.unchanged for step in begun)
        request = Txn(when, tuple(then), self._gets([step.at for step in begun]))
        before = [entry.unsure for entry in entries]
        for entry in entries:
            entry.unsure = True
        definite = False
        try:
            answer = yield from self.store.txn(request, self._end, *[step.lease for step in begun])
            definite = not answer.succeeded
        except (Refused, LeaseGone):
            definite = True
            raise
        finally:
            if definite:  # they have not moved
                for entry, unsure in zip(entries, before, strict=True):
                    entry.unsure = unsure
        return answer

    def _moved(self, step: _Step, revision: int) -> Renewal:
        one = self.moves[step.at]
        entry = one.entry
        self.store.moved(entry, step.lease, revision, waits=one.fence is None)
        entry.unsure = False
        if entry.modified == step.row.modified:
            entry.modified = revision
        if entry.seen is not None and entry.seen[0] == step.row.modified:
            entry.seen = revision, entry.seen[1]
        return _kept(one, step.row, step.lease)


class _Step(NamedTuple):
    """One claim of a batch: where it was seen, and where it goes."""

    at: int
    row: Row
    lease: EtcdLease


def _lasting(row: Row, ttl: float | None) -> float:
    """The ttl of a claim after a move: never less than before, because its holder counts on it."""
    stored: float = row.value.get("ttl", 0.0)
    return stored if ttl is None else max(stored, ttl)


def _rewritten(row: Row, ttl: float | None = None, leaving: int | None = None) -> dict[str, Any]:
    """The value of a claim after a move or its announcement; ``leaving`` is the id of its lease then."""
    # A holder of an earlier version stays on another client's lease if the claim names that lease's term.
    said = {name: value for name, value in row.value.items() if name not in ("leaving", "term")}
    said["ttl"] = _lasting(row, ttl)
    return said if leaving is None else {**said, "leaving": leaving}


def _length(row: Row, ttl: float | None) -> int:
    """The length of the lease that a claim moves to."""
    lasting = _lasting(row, ttl)
    return seconds(min(lasting, row.value.get("max_hold", lasting)) + row.value.get("lock_delay", 0.0))


def _kept(one: Move, row: Row, lease: EtcdLease) -> Renewal:
    if one.fence is None:
        return Renewal("WAITING")
    return Renewal("HELD", lease.basis, row.requests)
