"""Heartbeats: keepalives in large batches, then one read of notes to this client and of its queues.

The read has three purposes. Its answer shows the raft term in which the keepalives before it were answered:
they prove nothing for a lease of another term, whose claim therefore moves (:mod:`lockkit_etcd.moving`). The
notes say which claims are lost (evicted), and what others ask of a holder. And a waiter learns what its watch
may have missed: that its turn has come, or that its claim is gone. Of a queue only the keys of waiting claims
and of their blockers are read, without values: while these are unchanged, no turn has come. Otherwise the
whole queue is read, unless its keys were listed and show enough, as in a mutex: values, read by each
heartbeat during a thousand hand-offs, would keep a busy machine from sending the next keepalive in time.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from lockkit.store.budgets import left
from lockkit.store.exchanges import Exchange
from lockkit.store.notes import note_of
from lockkit.store.spi import Beat, Refused, Renewal, Unknown
from lockkit_etcd.leases import EtcdLease
from lockkit_etcd.moving import Move, move, renew_strangers
from lockkit_etcd.rows import Row, fitting, last_of, rows, unpacked, where_of
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.transport import Get, Header, Kept, Kv, Txn
from lockkit_etcd.watching import Watches

__all__ = ["renew"]

_ROUNDS = 2
_READS = 120
"""Reads in one transaction; etcd allows 128 by default."""
_SINGLE = 16
"""Keys of one queue that are read one by one; for more, all its keys are listed, without values."""
_THIRD = 3.0
_SHARE = 0.6
_OFFERED, _WAITING = Renewal("OFFERED"), Renewal("WAITING")
_SILENT = "no answer to the keepalive of its lease"


def renew(
    store: EtcdStore, watches: Watches, beats: Sequence[Beat], budget: float
) -> Exchange[Sequence[Renewal]]:
    """See :meth:`lockkit.store.spi.Backend.renew`.

    Raises:
        Refused, Unknown: No member answers.
    """
    end = time.monotonic() + budget
    answers: list[Renewal | None] = [None] * len(beats)
    holding: dict[int, Entry] = {}
    waiting: list[tuple[int, Entry]] = []
    strangers: list[int] = []
    for at, (claim, fence) in enumerate(beats):
        entry = store.entries.get(claim.token)
        if entry is None:
            if store.buried(claim.token):
                answers[at] = Renewal("LOST", why="absent")
            else:
                strangers.append(at)
        elif entry.stage == "HELD" and fence is not None:
            if fence == entry.fence:
                holding[at] = entry
            else:
                answers[at] = Renewal("LOST", why="fence")
        elif entry.stage == "WAITING" and fence is None:
            waiting.append((at, entry))
        elif entry.stage == "ENDING" or fence is not None:
            answers[at] = Renewal("LOST", why="absent" if entry.stage == "ENDING" else "fence")
        else:  # its grant was not read, or its create is under way: do not extend its lease
            answers[at] = _OFFERED if entry.stage == "HELD" else _WAITING
    if holding or waiting:
        yield from _beat(store, watches, holding, waiting, answers, end)
    for at in strangers:
        claim, fence = beats[at]
        answers[at] = yield from renew_strangers(store, claim, fence, end)
    return [answer or Renewal("UNKNOWN", trouble=_SILENT) for answer in answers]


def _beat(
    store: EtcdStore,
    watches: Watches,
    holding: Mapping[int, Entry],
    waiting: Sequence[tuple[int, Entry]],
    answers: list[Renewal | None],
    end: float,
) -> Exchange[None]:
    silent: Mapping[int, Entry] = holding
    for turn in range(_ROUNDS):
        leases = sorted(_to_keep(store, silent.values(), () if turn else waiting), key=_ending)
        kept: Mapping[int, Kept] = {}
        try:
            if leases:
                share = time.monotonic() + _SHARE * left(end)  # the rest is for the read that confirms them
                kept = yield from store.transport.keepalive([lease.id for lease in leases], share)
            header, notes, queues = yield from _look(store, silent.values(), () if turn else waiting, end)
        except (Refused, Unknown):
            if turn:  # an error here must not cost what the first round renewed
                break
            raise
        moves: dict[int, Move] = {}
        now = store.clock.now()
        for at, entry in _kept_alive(store, silent, kept, header.term, notes, now, answers).items():
            said = _held(store, entry, kept, header.term, notes, now)
            if isinstance(said, Move):
                moves[at] = said
            else:
                answers[at] = said
        if turn == 0 and waiting:
            _tell_waiting(watches, waiting, queues, notes, answers)
            moves |= _read_waits(store, waiting, kept, header, answers)
        if moves:
            outcomes = yield from move(store, list(moves.values()), end)
            for at, moved in zip(moves, outcomes, strict=True):
                answers[at] = moved or _as_before(moves[at])
        silent = {at: entry for at, entry in silent.items() if answers[at] is None}
        if not silent or time.monotonic() >= end:
            break
    for at in silent:
        answers[at] = Renewal("UNKNOWN", trouble=_SILENT)


def _read_waits(
    store: EtcdStore,
    waiting: Sequence[tuple[int, Entry]],
    kept: Mapping[int, Kept],
    header: Header,
    answers: Sequence[Renewal | None],
) -> dict[int, Move]:
    """Take in the keepalives of waiting claims; return the claims that have to move to keep their places."""
    moves: dict[int, Move] = {}
    for at, entry in waiting:
        wait, answer = entry.wait, answers[at]
        if wait is None or answer is None or answer.state != "WAITING":
            continue
        if wait.term != header.term or not entry.settled:
            moves[at] = Move(entry.claim, entry, None)
        else:
            store.leases.keeps(wait, kept.get(wait.id), header.term)
    return moves


def _as_before(one: Move) -> Renewal:
    """The answer for a claim that the next heartbeat goes on moving: its basis has not moved."""
    lease = one.lease
    return Renewal("WAITING") if one.fence is None or lease is None else Renewal("HELD", lease.basis)


def _to_keep(
    store: EtcdStore, holding: Iterable[Entry], waiting: Sequence[tuple[int, Entry]]
) -> Iterator[EtcdLease]:
    """The leases of which a keepalive may prove something."""
    now, term = store.clock.now(), store.raft.known
    for entry in holding:
        if entry.hold is not None and entry.hold.term == term:
            yield entry.hold
    for _, entry in waiting:
        if entry.fits:  # an offer is not extended
            continue
        if entry.wait is not None and entry.wait.term == term:
            yield entry.wait
        hold = entry.hold
        if (
            hold is not None
            and hold.term == term
            and now - hold.basis > hold.length / _THIRD
            and not hold.over(now)
        ):
            yield hold  # it will hold on this lease


def _ending(lease: EtcdLease) -> float:
    """When a lease is over, unless it is kept alive: those with the least time left go first."""
    return lease.basis + lease.length


def _look(
    store: EtcdStore, holding: Iterable[Entry], waiting: Sequence[tuple[int, Entry]], end: float
) -> Exchange[tuple[Header, dict[str, Mapping[str, Any]], dict[bytes, _Listing | _Read | Refused]]]:
    """The notes to this client, and those of its waiters' queues that changed; the header of the first read.

    A backup that lacks any of the claims that hold lacks the newest of them. So that one is read, too: if it
    is gone without a note, the servers restarted from a backup. (Or somebody has deleted its key by hand.)
    """
    newest, since = max(holding, key=lambda entry: entry.fence, default=None), store.raft.since
    own = [] if newest is None else [Get(newest.key, keys_only=True)]
    by_queue: dict[bytes, list[Entry]] = {}
    for _, entry in waiting:
        by_queue.setdefault(entry.packed_terms.queue.key, []).append(entry)
    glances = {queue: _glance(entries) for queue, entries in by_queue.items()}
    wanted = [store.notes, *own, *(get for some in glances.values() for get in some)]
    header, found = yield from _read(store, wanted, end, proof=True)
    notes = {kv.key.rpartition(b"/")[2].decode(errors="replace"): _note(kv) for kv in found[store.notes]}
    gone = newest is not None and all(kv.created != newest.fence for kv in found[own[0]])
    # Its stage after the read: it may have been released meanwhile.
    if newest is not None and gone and newest.stage == "HELD" and newest.id not in notes:
        store.raft.begin_anew(since)
        header.term = store.raft.known  # in which no lease was granted yet
    changed: list[Get] = []
    queues: dict[bytes, _Listing | _Read | Refused] = {}
    for queue, entries in by_queue.items():
        listing = _Listing(kv for get in glances[queue] for kv in found[get])
        if glances[queue] and all(listing.shows(entry) for entry in entries):
            continue
        whole = entries[0].packed_terms.queue
        if whole._replace(keys_only=True) in glances[queue] and all(
            listing.tells(store, entry) for entry in entries
        ):
            queues[queue] = listing
        else:
            changed.append(whole)
    read = (yield from _read(store, changed, end))[1] if changed else {}
    for get, kvs in read.items():
        try:
            queues[get.key] = _Read(rows(kvs))
        except Refused as refusal:  # a queue that another program has spoiled must not stop the others
            queues[get.key] = refusal
    return header, notes, queues


def _read(
    store: EtcdStore, wanted: Sequence[Get], end: float, *, proof: bool = False
) -> Exchange[tuple[Header, dict[Get, Sequence[Kv]]]]:
    """Read in as few transactions as possible. The header is that of the first, logged with ``proof``."""
    first: Header | None = None
    found: dict[Get, Sequence[Kv]] = {}
    for at in range(0, len(wanted), _READS):
        reads = wanted[at : at + _READS]
        plain = first is not None or not proof
        answer = yield from store.txn(Txn((), tuple(reads)) if plain else store.logged(*reads), end)
        first = first or answer.header
        found.update({get: answer.found(place) for place, get in enumerate(reads)})
    assert first is not None
    return first, found


def _glance(entries: Sequence[Entry]) -> list[Get]:
    """Reads that show whether a queue has changed for some waiters; none if one has not looked yet."""
    wanted: dict[bytes, None] = {}
    for entry in entries:
        if entry.seen is None:
            return []
        wanted[entry.key] = None
        wanted.update({entry.packed_terms.queue.key + last_of(each): None for each in entry.seen[1]})
    if len(wanted) > _SINGLE:
        return [entries[0].packed_terms.queue._replace(keys_only=True)]
    return [Get(key, keys_only=True) for key in wanted]


class _Listing:
    """The keys of a queue, or those of its keys that its waiters need, without values.

    Attributes:
        standing: The claims, each by its key and the revision that created the key.
    """

    def __init__(self, kvs: Iterable[Kv]) -> None:
        self._stand = {kv.key: kv for kv in kvs}
        self._order = sorted((kv.created, kv.key) for kv in self._stand.values())
        self.standing = {(key, created) for created, key in self._order}

    def _own(self, entry: Entry) -> Kv | None:
        own = self._stand.get(entry.key)
        return None if own is None or own.created != entry.fence else own

    def shows(self, entry: Entry) -> bool:
        """Whether a claim and its blockers are as they were seen."""
        seen, own = entry.seen, self._own(entry)
        if seen is None or own is None or own.modified != seen[0]:
            return False
        queue = entry.packed_terms.queue.key
        return all(
            (kv := self._stand.get(queue + last_of(each))) is not None
            and where_of(kv.key, kv.created) == each
            for each in seen[1]
        )

    def tells(self, store: EtcdStore, entry: Entry) -> bool:
        """Whether all keys of the queue, without values, show what has become of a claim.

        They do if it is gone or as it was seen. If it needs the whole capacity, so that any claim ahead
        blocks it, they do while it is as created and no guard can get ahead: see :mod:`lockkit_etcd.looking`.
        """
        own = self._own(entry)
        if own is None or self.shows(entry):
            return True
        queue = entry.packed_terms.queue.key
        unguarded = entry.unguarded or store.ends.unguarded(queue, entry.fence)
        return entry.packed_terms.exclusive and own.modified == own.created and unguarded

    def tell(self, entry: Entry, why: object) -> Renewal:
        """The answer for a claim; ``why`` is what a note to its owner says."""
        if self._own(entry) is None:
            return _gone(why)
        if not self.shows(entry):
            place = bisect.bisect_left(self._order, (entry.fence, b""))
            entry.fits = not place
            if place:
                created, key = self._order[place - 1]
                entry.place, entry.seen = place, (entry.fence, (where_of(key, created),))
        return _OFFERED if entry.fits else _WAITING


class _Read:
    """A queue as a heartbeat has read it, for all waiters in it: each takes the same time, however many.

    Attributes:
        standing: As that of :class:`_Listing`.
    """

    def __init__(self, found: Sequence[Row]) -> None:
        self._places = {row.mark: place for place, row in enumerate(found)}
        """The place of each claim, or of the guard in its place, by mark."""
        self._fits = fitting(found)
        self._found = found
        self._stand = {row.where for row in found}
        self.standing = {(row.key, row.fence) for row in found}

    def tell(self, entry: Entry, why: object) -> Renewal:
        """The answer for a claim; ``why`` is what a note to its owner says."""
        found, place = self._found, self._places.get(entry.mark, -1)
        if place < 0 or found[place].guard:
            return _gone(why)
        held = found[place].state == "HELD"
        entry.fits = place < self._fits
        if entry.fits or held:
            return _OFFERED
        seen = entry.seen
        if seen is not None and found[place].modified == seen[0] and self._stand.issuperset(seen[1]):
            entry.place = place
        else:
            entry.saw(found, place)
        return _WAITING


def _gone(why: object) -> Renewal:
    return Renewal("LOST", why="evicted" if why == "evicted" else "absent")


def _note(kv: Kv) -> Mapping[str, Any]:
    try:
        said = unpacked(kv)
    except Refused as refusal:  # the note cannot be read: do not renew the claim
        return {"strange": str(refusal)}
    return {**said, "note": note_of(said["note"])} if "note" in said else said


def _kept_alive(
    store: EtcdStore,
    holding: Mapping[int, Entry],
    kept: Mapping[int, Kept],
    term: int,
    notes: Mapping[str, Mapping[str, Any]],
    now: float,
    answers: list[Renewal | None],
) -> dict[int, Entry]:
    """Answer for the claims whose keepalives count and of which there is no more to say; return the others.

    Among ten thousand claims each call and each object costs time. So whether a keepalive counts is decided
    once for all leases with the same answer, and their claims share an answer too.
    """
    rest: dict[int, Entry] = {}
    last, last_term, sent, renewal = None, 0, 0.0, None
    for at, entry in holding.items():
        hold = entry.hold
        assert hold is not None
        answer = kept.get(hold.id)
        if answer is not last or hold.term != last_term:
            last, last_term, renewal = answer, hold.term, None
            if answer is not None and store.leases.counts(last_term, answer, term):
                sent, renewal = answer.sent, Renewal("HELD", answer.sent)
        odd = (
            renewal is None or entry.mover is not None or entry.unsure or sent < hold.basis or hold.over(now)
        )
        if odd or (notes and entry.id in notes):
            rest[at] = entry
            continue
        hold.basis = sent
        answers[at] = renewal
    return rest


def _held(
    store: EtcdStore,
    entry: Entry,
    kept: Mapping[int, Kept],
    term: int,
    notes: Mapping[str, Mapping[str, Any]],
    now: float,
) -> Renewal | Move | None:
    """The outcome for a holding claim, or its move if a keepalive proves too little; None if unknown."""
    hold, note = entry.hold, notes.get(entry.id)
    assert hold is not None
    leaving, requests = False, None
    if note:
        if note.get("why"):
            why: Literal["absent", "evicted"] = "evicted" if note["why"] == "evicted" else "absent"
            return Renewal("LOST", why=why, requests=note.get("note"))
        if "strange" in note:
            return Renewal("UNKNOWN", trouble=note["strange"])
        leaving = note.get("lease", hold.id) != hold.id  # another client is moving the claim, or has moved it
        requests = note.get("note")
    if entry.mover is not None and entry.moving:
        return Renewal("HELD", hold.basis, requests)
    if not leaving and not entry.unsure:
        answer, over = kept.get(hold.id), hold.over(now)
        if not over and store.leases.keeps(hold, answer, term):
            return Renewal("HELD", hold.basis, requests)
        if hold.term == term and answer is None:
            return None
        if hold.term == term and over:
            return Renewal("LOST", why="lapsed")
    return Move(entry.claim, entry, entry.fence)


def _tell_waiting(
    watches: Watches,
    waiting: Sequence[tuple[int, Entry]],
    queues: Mapping[bytes, _Listing | _Read | Refused],
    notes: Mapping[str, Mapping[str, Any]],
    answers: list[Renewal | None],
) -> None:
    for at, entry in waiting:
        found = queues.get(entry.packed_terms.queue.key)
        if found is None:  # nothing has changed
            answers[at] = _OFFERED if entry.fits else _WAITING
        elif isinstance(found, Refused):
            answers[at] = Renewal("UNKNOWN", trouble=str(found))
        else:
            answers[at] = found.tell(entry, notes.get(entry.id, {}).get("why") if notes else None)
    for queue in {entry.packed_terms.queue.key for _, entry in waiting}:
        found = queues.get(queue)
        if not isinstance(found, Refused):
            watches.look(queue, None if found is None else found.standing)
