"""The state of one open store: this client's claims, their keys and leases."""

from __future__ import annotations

import os
import threading
from collections.abc import Container, Sequence
from typing import Literal

from lockkit.store.budgets import left
from lockkit.store.perlock import per_lock
from lockkit.store.queue import in_the_way
from lockkit.store.spi import Claim, OpenOptions, Refused
from lockkit.store.tombstones import Tombstones
from lockkit_etcd import keys
from lockkit_etcd.leases import Lease, Leases
from lockkit_etcd.packed_terms import PackedTerms
from lockkit_etcd.recycled_keys import RecycledKeys
from lockkit_etcd.rows import Row, id_of, mark_of, place_of, rows
from lockkit_etcd.terms import Observed, RaftTerms
from lockkit_etcd.transport import Get, Header, LeaseGone, Transport, Txn, TxnAnswer, after

__all__ = ["Entry", "EtcdStore"]

_LINES = 16_384
"""How many queues are remembered in which somebody stands."""
_MOMENT = 1.0
"""Seconds for which a queue is believed to have waiters still."""
_REMEMBERED = 4096
"""Tokens of which it is remembered that they are over: the last so many."""


class Entry:
    """One claim of this client, as far as this client knows.

    Attributes:
        key: The key under which the claim is, or will be, stored.
        mark: The claim's name in stored values.
        stage: NEW (nothing of it is known to be stored), WAITING, HELD, or ENDING: nothing keeps it alive any more.
        fence: The claim's place, once it has one.
        row: The stored claim as last seen while it waited.
        alone: No holder stands behind the claim, so it may hold as soon as it is the first.
        fits: The claim was seen to fit, so its offer is not kept alive.
        wait: The lease that it lies on while it waits.
        hold: The lease that it lies on when it holds.
        guard: The lease of its guard, which blocks until since + min_hold.
        looked: The revision at which the queue was last looked at for it.
        placed: The revision that put it on the lease that it is on, where it has moved.
        mover: The thread's object that is moving it to another lease. Until the move is definite no keepalive of the present lease counts.
        unsure: A move had no answer: only a read shows which lease it is on.
        granted_at: When its grant was read, by CLOCK_BOOTTIME; its min_hold has begun by then.
        seen: What a heartbeat compares with what is stored, to see that nothing has changed for a waiter: the revision that
            last changed its claim, and each blocker's key with the revision that created it. None before a look.
    """

    __slots__ = (
        "alone",
        "claim",
        "fence",
        "fits",
        "granted_at",
        "guard",
        "hold",
        "key",
        "looked",
        "mark",
        "mover",
        "packed_terms",
        "placed",
        "row",
        "seen",
        "stage",
        "unsure",
        "wait",
    )

    def __init__(self, claim: Claim, packed_terms: PackedTerms, key: bytes) -> None:
        self.claim = claim
        self.packed_terms = packed_terms
        self.key = key
        self.mark = mark_of(claim.token)
        self.stage: Literal["NEW", "WAITING", "HELD", "ENDING"] = "NEW"
        self.fence = 0
        self.row: Row | None = None
        self.alone = False
        self.fits = False
        self.wait: Lease | None = None
        self.hold: Lease | None = None
        self.guard: Lease | None = None
        self.looked = 0
        self.granted_at: float | None = None
        self.seen: tuple[int, dict[bytes, int]] | None = None
        self.placed = 0
        self.mover: object = None
        self.unsure = False

    @property
    def settled(self) -> bool:
        """Whether this client knows the lease that the claim is on."""
        return self.mover is None and not self.unsure

    def saw(self, found: Sequence[Row], place: int) -> list[Row]:
        """Remember the queue as it is for this claim, which does not fit; its blockers."""
        chosen = [found[at] for at in in_the_way(found, [each.holding for each in found], place)[0]]
        self.seen = found[place].modified, {each.key: each.fence for each in chosen if not each.guard}
        if any(each.guard for each in chosen):  # its place may be older than its key
            self.seen = None
        return chosen

    @property
    def id(self) -> str:
        """The claim id, for places where tokens must not be seen."""
        return id_of(self.mark)

    @property
    def leases(self) -> list[Lease]:
        """All that a key of it may be on, but for the guard."""
        return [lease for lease in (self.wait, self.hold) if lease is not None]

    @property
    def doubtful(self) -> bool:
        """Whether a request of it may still be under way."""
        return any(lease.doubtful for lease in self.leases)


class EtcdStore:
    """One open store.

    Attributes:
        client: This client's name in the keys of the notes to it.
        known: The packed words of a lock.
        notes: The range of these keys.
        raft: The raft term, as far as it is known.
        recycled_keys: The keys of its claims.
        entries: This client's claims, by token.
        waited_at: When a claim of this client was last seen waiting, by queue: a client that comes soon after queues up at once.
        spoilt: Leases that an entry had and that must be revoked with it, by token.
    """

    def __init__(self, transport: Transport, options: OpenOptions) -> None:
        self.raft = RaftTerms()
        self.transport: Transport = Observed(transport, self.raft)
        self.clock = options.clock
        self.namespace = options.namespace
        self.client = os.urandom(8).hex()
        prefix = keys.notes(options.namespace, self.client)
        self.notes = Get(prefix, after(prefix))
        self.leases = Leases(self.transport, options.clock, self.raft, self.notes)
        self.recycled_keys = RecycledKeys(self.client)
        self.known = per_lock(lambda terms: PackedTerms.of(options.namespace, terms, self.client))
        self.entries: dict[str, Entry] = {}
        self.waited_at: dict[bytes, float] = {}
        self.spoilt: dict[str, list[Lease]] = {}
        self._ends = threading.RLock()
        self._gone = Tombstones(lasting=float("inf"), most=_REMEMBERED)

    def entry(self, claim: Claim) -> Entry:
        """Return the entry of a claim; make one, the first time."""
        entry = self.entries.get(claim.token)
        if entry is None:
            packed_terms = self.known(claim.terms)
            key = self.recycled_keys.take(packed_terms.keys.queue)
            entry = self.entries[claim.token] = Entry(claim, packed_terms, key)
        return entry

    def over(self, entry: Entry, *leases: Lease | None) -> None:
        """Forget a claim of which nothing is stored, nor will be by a request under way: its key and leases may serve another."""
        # First forgotten, then given back: cut short in between they end by themselves; the other way round they would
        # be given back once more by whoever repeats this, when they serve another claim.
        with self._ends:  # two threads may end one claim, or one extend it still
            if self.entries.pop(entry.claim.token, None) is None:
                return
            own = entry.leases
            for lease in leases:
                if lease in own:
                    self.leases.give_back(lease)
            # Otherwise a guard may still block under its key.
            if not (entry.packed_terms.guard or entry.packed_terms.terms.lock_delay):
                self.recycled_keys.give_back(entry.packed_terms.keys.queue, entry.key)

    def at_stake(self, entry: Entry) -> list[Lease]:
        """All that a key of a claim may be on, or get on yet, but for the guard."""
        with self._ends:
            return [*self.spoilt.get(entry.claim.token, ()), *entry.leases]

    def spoil(self, entry: Entry, lease: Lease) -> bool:
        """Mark a lease of a claim, so that it is never used again; False if the lease is no longer that claim's and may serve another."""
        token = entry.claim.token
        with self._ends:
            its_own = (*entry.leases, *self.spoilt.get(token, ()))
            if self.entries.get(token) is not entry or lease not in its_own:
                return False
            lease.doubtful = True
            return True

    # -- claims that move to another lease

    def begin_move(self, entry: Entry, mover: object) -> bool:
        """Have nobody else move a claim, and no keepalive count for it, until :meth:`end_move`; False if somebody else does."""
        with self._ends:
            if entry.mover is None:
                entry.mover = mover
            return entry.mover is mover

    def end_move(self, entry: Entry, mover: object) -> None:
        """Let others move the claim again."""
        with self._ends:
            if entry.mover is mover:
                entry.mover = None

    def spare(self, entry: Entry, length: int, granted: Container[Lease]) -> Lease | None:
        """A lease that an earlier move of a claim left over, and that serves for the next.

        None that is older than what the claim is on has been renewed to: the move would bring its end forward while its holder
        counts from the renewal. So the move that left it over is the one under way, or has had no answer: since then no
        keepalive has counted.

        Args:
            entry: The claim, which is being moved.
            length: Seconds, at least.
            granted: The leases that were granted for the move under way.
        """
        with self._ends:
            present = entry.wait if entry.stage == "WAITING" else entry.hold
            since = present.basis if present is not None else 0.0
            for lease in self.spoilt.get(entry.claim.token, ()):
                if not (entry.unsure or lease in granted) or lease.basis < since:
                    continue
                if not lease.borrowed and lease.length >= length and self.leases.usable(lease):
                    return lease
        return None

    def keep(self, entry: Entry, lease: Lease) -> None:
        """Remember a lease to which a claim may move."""
        with self._ends:
            kept = self.spoilt.setdefault(entry.claim.token, [])
            if lease not in kept:
                kept.append(lease)

    def own(self, entry: Entry, lease: int) -> Lease | None:
        """The lease of a claim with this id, if this client has one."""
        return next((each for each in self.at_stake(entry) if each.id == lease), None)

    def moved(self, entry: Entry, lease: Lease, revision: int, *, waits: bool) -> None:
        """Note that a claim is on another lease since a revision; its earlier leases stay remembered only if they are doubtful."""
        token = entry.claim.token
        with self._ends:
            if self.entries.get(token) is not entry or revision <= entry.placed:
                return
            entry.placed = revision
            if entry.stage == "ENDING":  # the thread that ends it revokes all its leases
                self.keep(entry, lease)
                return
            others: list[Lease] = [each for each in self.spoilt.pop(token, ()) if each is not lease]
            if waits is not (
                entry.stage == "WAITING"
            ):  # its turn has come meanwhile: it lies on another lease
                others.append(lease)
            else:
                old = entry.wait if waits else entry.hold
                if old is not None and old is not lease:
                    others.append(old)
                if waits:
                    entry.wait = lease
                else:
                    entry.hold = lease
            doubtful = [each for each in others if each.doubtful]
            if doubtful:
                self.spoilt[token] = doubtful
            for each in others:
                self.leases.give_back(each)

    def granted(self, entry: Entry, fence: int) -> None:
        """Note that a claim holds."""
        with self._ends:
            entry.fence = fence
            entry.stage = "HELD"
            entry.row = None
            entry.granted_at = self.clock.now()
            wait = entry.wait
            if wait is not None and not wait.doubtful:
                entry.wait = None  # first: otherwise a repetition after Ctrl-C would give it back twice
                self.leases.give_back(wait)

    def note_waiting(self, queue: bytes) -> None:
        """Note that a claim of this client waits in a queue."""
        if len(self.waited_at) >= _LINES:
            self.waited_at.clear()
        self.waited_at[queue] = self.clock.now()

    def likely_waits(self, queue: bytes) -> bool:
        """Whether that was so a moment ago."""
        return self.clock.now() - self.waited_at.get(queue, 0.0) < _MOMENT

    # -- tokens that are over

    def bury(self, token: str) -> None:
        """This client gave the claim up: a late call for it grants nothing. Late copies of requests die with their lease."""
        self._gone.bury(token, self.clock.now())

    def buried(self, token: str) -> bool:
        """Whether it gave the claim up."""
        return self._gone.why(token, self.clock.now()) is not None

    # -- asking

    def txn(self, request: Txn, end: float, *leases: Lease | None) -> TxnAnswer:
        """Do a transaction that puts keys on leases of this client's.

        Raises:
            Refused, Unknown, LeaseGone: See :mod:`lockkit_etcd.transport`. Cut short in whatever way, but for a refusal,
                it leaves the leases doubtful.
        """
        doubts = [lease for lease in leases if lease is not None and not lease.doubtful]
        for lease in doubts:
            lease.doubtful = True
        try:
            answer = self.transport.txn(request, left(end))
        except (Refused, LeaseGone):
            for lease in doubts:
                lease.doubtful = False
            raise
        for lease in doubts:
            lease.doubtful = False
        return answer

    def find(self, claim: Claim, end: float) -> tuple[Header, Row | None]:
        """Look for a claim, of which this client may know no more than the token; not for its guard.

        Raises:
            Refused, Unknown: See :mod:`lockkit_etcd.failures`.
        """
        entry = self.entries.get(claim.token)
        where = Get(entry.key) if entry is not None else Get(*self.known(claim.terms).keys)
        header, found = self.queue(where, end)
        place = place_of(found, mark_of(claim.token))
        return header, found[place] if place >= 0 else None

    def queue(self, request: Get, end: float) -> tuple[Header, list[Row]]:
        """Look at a queue.

        Raises:
            Refused, Unknown: See :mod:`lockkit_etcd.failures`.
        """
        header, found = self.transport.range(request, left(end))
        return header, rows(found.kvs)
