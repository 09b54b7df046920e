"""The state of one open store: this client's claims, their keys and leases."""

from __future__ import annotations

import os
import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lockkit.facts import ClaimInfo
from lockkit.store.crowds import Crowds
from lockkit.store.exchanges import Exchange
from lockkit.store.perlock import per_lock
from lockkit.store.queue import in_the_way
from lockkit.store.spi import Claim, OpenOptions, Refused
from lockkit.store.tombstones import Tombstones
from lockkit_etcd import keys
from lockkit_etcd.cluster import Cluster
from lockkit_etcd.keys import RecycledKeys
from lockkit_etcd.leases import EtcdLease, EtcdLeases
from lockkit_etcd.looking import LAST, Ends
from lockkit_etcd.rows import PackedTerms, Row, WaitingRow, id_of, mark_of, row_of, rows
from lockkit_etcd.terms import RaftTerms
from lockkit_etcd.transport import Compare, Get, Header, LeaseGone, Ranged, Txn, TxnAnswer, after

__all__ = ["Entry", "EtcdStore"]

_REMEMBERED = 4096
"""Tokens that are remembered as given up: the latest."""
_HEADS = 1024
"""First claims that are remembered; beyond that all are forgotten."""


class Mover(Protocol):
    """A batch that moves claims.

    Attributes:
        over: Whether it has ended.
    """

    over: bool


@dataclass(slots=True, eq=False)
class Entry:
    """One claim of this client, as far as this client knows.

    Attributes:
        key: The key under which the claim is, or will be, stored.
        stage: NEW (not stored as far as is known), WAITING, HELD, or ENDING: nothing keeps it alive any more.
        fence: The claim's place, once it has one.
        modified: The revision that last changed the stored claim, as last seen while it waited; else 0.
        stored: As that of :class:`~lockkit_etcd.rows.WaitingRow`.
        alone: No holder is behind the claim, so it may hold as soon as it is the first.
        unguarded: No claim ahead of it can leave a guard, as is known; so all claims ahead are older.
        fits: The claim was seen to fit, so its offer is not kept alive.
        wait: The lease that it is on while it waits.
        hold: The lease that it is on, or will be, when it holds.
        guard: The lease of its guard, which blocks until since + min_hold.
        looked: The revision at which the queue was last looked at for it.
        place: The number of claims ahead of it, at a look.
        placed: The revision of its last move to another lease; 0 if there was none.
        mover: The batch that is moving it to another lease. Until that is definite no keepalive counts.
        unsure: A move had no answer: only a read shows which lease it is on.
        granted_at: When its grant was read, by CLOCK_BOOTTIME; its min_hold has started by then.
        seen: What a heartbeat compares to see that nothing has changed for a waiter: the revision that last
            changed its claim, and its blockers, each as :attr:`Row.where`. None before a look.
        spoilt: Earlier leases of it, which must be revoked with it.
    """

    claim: Claim
    packed_terms: PackedTerms
    key: bytes
    stage: Literal["NEW", "WAITING", "HELD", "ENDING"] = "NEW"
    fence: int = 0
    modified: int = 0
    stored: bytes = b""
    alone: bool = False
    unguarded: bool = False
    fits: bool = False
    wait: EtcdLease | None = None
    hold: EtcdLease | None = None
    guard: EtcdLease | None = None
    looked: int = 0
    place: int = 0
    placed: int = 0
    mover: Mover | None = None
    unsure: bool = False
    granted_at: float | None = None
    seen: tuple[int, tuple[str, ...]] | None = None
    spoilt: Sequence[EtcdLease] = ()

    # Worked out each time: a thousand waiters need it seldom, and would keep 81 bytes each.

    @property
    def mark(self) -> str:
        """The claim's name in stored values."""
        return mark_of(self.claim.token)

    @property
    def waiting(self) -> WaitingRow | None:
        """The stored claim as last seen while it waited."""
        return WaitingRow(self.key, self.modified, self.stored) if self.modified else None

    @property
    def moving(self) -> bool:
        """Whether a batch is moving the claim."""
        return self.mover is not None and not self.mover.over

    @property
    def settled(self) -> bool:
        """Whether this client knows the lease that the claim is on."""
        return not self.moving and not self.unsure

    def saw(self, found: Sequence[Row], place: int) -> tuple[str, ...]:
        """Remember the queue of this claim, which does not fit; return its blockers, as :attr:`Row.where`."""
        chosen = [found[at] for at in in_the_way(found, [each.holding for each in found], place)[0]]
        self.place = place
        blockers = tuple([each.where for each in chosen])
        # The place of a guard may be older than its key.
        self.seen = None if any(each.guard for each in chosen) else (found[place].modified, blockers)
        return blockers

    @property
    def id(self) -> str:
        """The claim id, for places where tokens must not be seen."""
        return id_of(self.mark)

    @property
    def leases(self) -> list[EtcdLease]:
        """The leases that its key may be on; not the guard's."""
        return [lease for lease in (self.wait, self.hold) if lease is not None]

    @property
    def doubtful(self) -> bool:
        """Whether a request of it may still be under way."""
        return any(lease.doubtful for lease in self.leases)


class EtcdStore:
    """One open store.

    Attributes:
        client: This client's name in the keys of the notes to it.
        notes: The range of these keys.
        known: The packed terms of a lock.
        raft: The raft term, as far as it is known.
        recycled_keys: The keys of its claims.
        entries: This client's claims, by token.
        crowds: The queues in which a claim of this client waited a moment ago: the next one waits at once.
        ends: The long queues in which claims of this client wait.
        heads: The first claim of each queue as last shown to a waiter: one fact for all who see the same.
    """

    def __init__(self, transport: Cluster[Any], options: OpenOptions) -> None:
        self.ends = Ends()
        self.raft = RaftTerms(begun_anew=self._begun_anew)
        self.transport = transport
        self.clock = options.clock
        self.namespace = options.namespace
        self.client = os.urandom(8).hex()
        prefix = keys.notes(options.namespace, self.client)
        self.notes = Get(prefix, after(prefix))
        self.mark = Get(keys.mark(options.namespace))
        self.undrained = Compare(self.mark.key, "VERSION", "EQUAL", 0)
        self.leases = EtcdLeases(self.transport, options.clock, self.raft, self.notes)
        self.recycled_keys = RecycledKeys(self.client)
        self.known = per_lock(lambda terms: PackedTerms.of(options.namespace, terms, self.client))
        self.entries: dict[str, Entry] = {}
        self.crowds: Crowds[bytes] = Crowds(options.clock.now)
        self.heads: dict[str, tuple[tuple[int, int, bool], ClaimInfo]] = {}
        self._own: dict[bytes, tuple[int, int]] = {}
        """The number and the weight of this client's claims in each queue."""
        self._ends = threading.RLock()
        self._gone = Tombstones(lasting=float("inf"), most=_REMEMBERED)

    def _begun_anew(self) -> None:
        """Forget what is known by revisions: the servers count them anew."""
        self.ends.clear()
        for entry in list(self.entries.values()):
            entry.placed = 0

    def entry(self, claim: Claim) -> Entry:
        """Return the entry of a claim; make one, the first time."""
        entry = self.entries.get(claim.token)
        if entry is None:
            packed_terms = self.known(claim.terms)
            key = self.recycled_keys.take(packed_terms.queue.key)
            with self._ends:
                entry = self.entries[claim.token] = Entry(claim, packed_terms, key)
                self._count(entry, 1)
        return entry

    def _count(self, entry: Entry, by: int) -> None:
        queue = entry.packed_terms.queue.key
        count, weight = self._own.get(queue, (0, 0))
        if count + by:
            self._own[queue] = count + by, weight + by * entry.claim.terms.weight
        else:
            self._own.pop(queue, None)

    def crowded(self, packed_terms: PackedTerms) -> bool:
        """Whether a queue has, or soon will, so many claims of this client that another waits for long."""
        count, weight = self._own.get(packed_terms.queue.key, (0, 0))
        return count > LAST and weight > packed_terms.terms.capacity

    def over(self, entry: Entry, *leases: EtcdLease | None) -> None:
        """Forget a claim with nothing stored and no request under way; key and leases may serve another."""
        # Forget first, then give back: if cut short, the leases end by themselves. The other way round a
        # second call would give them back once more, when they already serve another claim.
        with self._ends:  # two threads may end one claim, or one extend it still
            if self.entries.pop(entry.claim.token, None) is None:
                return
            self._count(entry, -1)
            own = entry.leases
            for lease in leases:
                if lease in own:
                    self.leases.give_back(lease)
            # Otherwise a guard may still block under its key.
            if not (entry.packed_terms.guard or entry.packed_terms.terms.lock_delay):
                self.recycled_keys.give_back(entry.packed_terms.queue.key, entry.key)

    def at_stake(self, entry: Entry) -> list[EtcdLease]:
        """The leases that a claim's keys may be on, or may still be put on; the guard's is the last."""
        guard = () if entry.guard is None else (entry.guard,)
        with self._ends:
            return [*entry.spoilt, *entry.leases, *guard]

    def in_doubt(self, entry: Entry) -> bool:
        """Whether a request of a claim may still be under way, on any lease that it had."""
        return entry.doubtful or bool(entry.spoilt)

    def spoil(self, entry: Entry, lease: EtcdLease) -> bool:
        """Mark a lease of a claim, so that it is never used again; False if it is no longer that claim's."""
        with self._ends:
            if self.entries.get(entry.claim.token) is not entry or lease not in self.at_stake(entry):
                return False
            lease.doubtful = True
            return True

    # -- claims that move to another lease

    def begin_move(self, entry: Entry, mover: Mover) -> bool:
        """Reserve a claim's move until :meth:`end_move`: no keepalive counts; False if another moves it."""
        with self._ends:
            if not entry.moving:
                entry.mover = mover
            return entry.mover is mover

    def end_move(self, entry: Entry, mover: Mover) -> None:
        """Let others move the claim again."""
        with self._ends:
            if entry.mover is mover:
                entry.mover = None

    def spare(self, entry: Entry, length: int, granted: Container[EtcdLease]) -> EtcdLease | None:
        """A lease that an earlier move of a claim left over, and that serves for the next.

        A lease that is older than the last renewal does not serve: it ends earlier than the holder counts on.
        So the move that left it over is under way, or had no answer, and no keepalive has counted since. A
        longer lease, such as that of the wait, does not serve either: a dead holder would block for as long.

        Args:
            entry: The claim, which is being moved.
            length: Seconds.
            granted: The leases that were granted for the move under way.
        """
        with self._ends:
            present = entry.wait if entry.stage == "WAITING" else entry.hold
            since = present.basis if present is not None else 0.0
            for lease in entry.spoilt:
                if not (entry.unsure or lease in granted) or lease.basis < since:
                    continue
                if lease.length == length and self.leases.usable(lease):
                    return lease
        return None

    def keep(self, entry: Entry, lease: EtcdLease) -> None:
        """Remember a lease to which a claim may move."""
        with self._ends:
            if lease not in entry.spoilt:
                entry.spoilt = [*entry.spoilt, lease]

    def own(self, entry: Entry, lease: int) -> EtcdLease | None:
        """The lease of a claim with this id, if this client has one."""
        return next((each for each in self.at_stake(entry) if each.id == lease), None)

    def moved(self, entry: Entry, lease: EtcdLease, revision: int, *, waits: bool) -> None:
        """Note a claim's new lease since a revision; of its earlier ones only the doubtful are remembered."""
        with self._ends:
            if self.entries.get(entry.claim.token) is not entry or revision <= entry.placed:
                return
            entry.placed = revision
            if entry.stage == "ENDING":  # the thread that ends it revokes all its leases
                self.keep(entry, lease)
                return
            others: list[EtcdLease] = [each for each in entry.spoilt if each is not lease]
            if waits is (entry.stage == "WAITING"):
                old = entry.wait if waits else entry.hold
                if old is not None and old is not lease:
                    others.append(old)
                if waits:
                    entry.wait = lease
                else:
                    entry.hold = lease
            else:  # its turn has come meanwhile: it lies on another lease
                others.append(lease)
            entry.spoilt = [each for each in others if each.doubtful]
            for each in others:
                self.leases.give_back(each)

    def granted(self, entry: Entry, fence: int) -> None:
        """Note that a claim holds."""
        with self._ends:
            entry.fence = fence
            entry.stage = "HELD"
            entry.modified, entry.stored = 0, b""
            entry.granted_at = self.clock.now()
            self.no_longer_waits(entry)

    def no_longer_waits(self, entry: Entry) -> None:
        """Give back the lease on which a claim waited, unless a request of it may be under way."""
        wait = entry.wait
        if wait is not None and not wait.doubtful:
            entry.wait = None  # first: otherwise a repetition after Ctrl-C would give it back twice
            self.leases.give_back(wait)

    def head(self, name: str, row: Row) -> ClaimInfo:
        """The first claim of a queue, as a fact."""
        seen, known = (row.fence, row.modified, row.guard), self.heads.get(name)
        if known is None or known[0] != seen:
            if len(self.heads) >= _HEADS:
                self.heads.clear()
            known = self.heads[name] = seen, row.info(name, 0)
        return known[1]

    def note(self, claim_id: str, client: str | None = None) -> bytes:
        """The key of a note on a claim, to this client or another."""
        return keys.note(self.namespace, self.client if client is None else client, claim_id)

    def note_on(self, row: Row) -> bytes:
        """The key of a note on a stored claim, to its client."""
        return self.note(row.id, str(row.value.get("client", "")))

    # -- tokens that are over

    def bury(self, token: str) -> None:
        """Remember that this client gave a claim up: a late call for it grants nothing."""
        self._gone.bury(token, self.clock.now())

    def buried(self, token: str) -> bool:
        """Whether this client gave a claim up."""
        return self._gone.why(token, self.clock.now()) is not None

    def logged(self, *gets: Get) -> Txn:
        """Reads whose answer proves earlier keepalives. See :meth:`~lockkit_etcd.transport.Txn.logged`."""
        return Txn.logged(gets, self.notes.key)

    # -- requests; each raises what :mod:`lockkit_etcd.cluster` says

    def txn(
        self, request: Txn, end: float, *leases: EtcdLease | None, over: Cluster[Any] | None = None
    ) -> Exchange[TxnAnswer]:
        """Do a transaction, over ``over`` if given; without a definite answer its leases stay doubtful."""
        doubts = [lease for lease in leases if lease is not None and not lease.doubtful]
        for lease in doubts:
            lease.doubtful = True
        try:
            answer = yield from self.raft.shown_by((over or self.transport).txn(request, end))
        except (Refused, LeaseGone):
            for lease in doubts:
                lease.doubtful = False
            raise
        for lease in doubts:
            lease.doubtful = False
        return answer

    def range(self, request: Get, end: float, over: Cluster[Any] | None = None) -> Exchange[Ranged]:
        """Read keys."""
        return self.raft.shown_by((over or self.transport).range(request, end))

    def queue(
        self, request: Get, end: float, over: Cluster[Any] | None = None
    ) -> Exchange[tuple[Header, list[Row]]]:
        """Look at a queue."""
        answer = yield from self.range(request, end, over)
        return answer.header, rows(answer.kvs)

    def find(self, claim: Claim, end: float) -> Exchange[tuple[Header, Row | None]]:
        """Look for a claim, of which this client may know no more than the token; not for its guard."""
        entry = self.entries.get(claim.token)
        where = Get(entry.key) if entry is not None else self.known(claim.terms).queue
        header, found = yield from self.queue(where, end)
        return header, row_of(found, mark_of(claim.token))
