"""Heartbeats: keepalives in large batches, then one read: the notes to this client, and the queues that it waits in.

The read serves three ends. Its answer shows the raft term in which the keepalives before it were answered: for a lease of
another term they prove nothing, and its claim moves to another lease (:mod:`lockkit_etcd.moving`). A claim that a note names
is lost (evicted), or has requests for its holder. And whoever waits is told what no watch may have told: that its turn has
come, or that its claim is gone. Of a queue only the keys of the claims that wait and of their blockers are read, without
values: while they all stand as they were seen, nothing has changed for those that wait. Only where one does not, the whole
queue is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from lockkit.store.budgets import left
from lockkit.store.spi import Beat, Refused, Renewal, Unknown
from lockkit_etcd.leases import Lease
from lockkit_etcd.moving import Move, move
from lockkit_etcd.rows import Row, fitting, place_of, rows, unpacked
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.strangers import renew_strangers
from lockkit_etcd.transport import Get, Header, Kept, Kv, Txn
from lockkit_etcd.watching import Watches

__all__ = ["renew"]

_ROUNDS = 2
_READS = 120
"""Reads in one transaction; etcd allows 128 by default."""
_SINGLE = 16
"""Keys of one queue that are read one by one; of more, all of the queue's are listed, without values."""
_THIRD = 3.0
_SHARE = 0.6
_OFFERED, _WAITING = Renewal("OFFERED"), Renewal("WAITING")
_SILENT = "no answer to the keepalive of its lease"


def renew(store: EtcdStore, watches: Watches, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
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
        else:  # its grant has not been read, or its create is under way: its lease is not extended
            answers[at] = _OFFERED if entry.stage == "HELD" else _WAITING
    if holding or waiting:
        _beat(store, watches, holding, waiting, answers, end)
    for at in strangers:
        claim, fence = beats[at]
        answers[at] = renew_strangers(store, claim, fence, end)
    return [answer or Renewal("UNKNOWN", trouble=_SILENT) for answer in answers]


def _beat(
    store: EtcdStore,
    watches: Watches,
    holding: Mapping[int, Entry],
    waiting: Sequence[tuple[int, Entry]],
    answers: list[Renewal | None],
    end: float,
) -> None:
    silent: Mapping[int, Entry] = holding
    for turn in range(_ROUNDS):
        leases = list(_to_keep(store, silent.values(), () if turn else waiting))
        kept: Mapping[int, Kept] = {}
        try:
            if leases:
                share = _SHARE * left(end)  # the rest is for the read that confirms them
                kept = store.transport.keepalive([lease.id for lease in leases], share)
            header, notes, queues = _look(store, () if turn else waiting, end)
        except (Refused, Unknown):
            if turn:  # an error here must not cost what the first round renewed
                break
            raise
        moves = _read_holds(store, silent, kept, header, notes, answers)
        if turn == 0 and waiting:
            _tell_waiting(watches, waiting, queues, notes, answers)
            moves |= _read_waits(store, waiting, kept, header, answers)
        if moves:
            for at, moved in zip(moves, move(store, list(moves.values()), end), strict=True):
                answers[at] = moved or _as_before(moves[at])
        silent = {at: entry for at, entry in silent.items() if answers[at] is None}
        if not silent or time.monotonic() >= end:
            break
    for at in silent:
        answers[at] = Renewal("UNKNOWN", trouble=_SILENT)


def _read_holds(
    store: EtcdStore,
    holding: Mapping[int, Entry],
    kept: Mapping[int, Kept],
    header: Header,
    notes: Mapping[str, Mapping[str, Any]],
    answers: list[Renewal | None],
) -> dict[int, Move]:
    """Answer for the claims that are kept alive, or that a note names; returns those that have to move."""
    now, term, counts = store.clock.now(), header.term, store.leases.counts
    same: dict[float, Renewal] = {}
    moves: dict[int, Move] = {}
    for at, entry in holding.items():
        hold = entry.hold
        assert hold is not None
        each = kept.get(hold.id)
        plain = counts(hold.term, each, term) and not notes and entry.settled
        if plain and each is not None and not hold.over(now):
            basis = hold.basis = max(hold.basis, each.sent)
            answers[at] = same.get(basis) or same.setdefault(basis, Renewal("HELD", basis))
        elif isinstance(said := _held(store, entry, each, term, notes.get(entry.id, {}), now), Move):
            moves[at] = said
        else:
            answers[at] = said
    return moves


def _read_waits(
    store: EtcdStore,
    waiting: Sequence[tuple[int, Entry]],
    kept: Mapping[int, Kept],
    header: Header,
    answers: Sequence[Renewal | None],
) -> dict[int, Move]:
    """Count what was answered for claims that wait; returns those that have to move, so that they keep their places."""
    moves: dict[int, Move] = {}
    for at, entry in waiting:
        wait, answer = entry.wait, answers[at]
        if wait is None or answer is None or answer.state != "WAITING":
            continue
        each = kept.get(wait.id)
        if wait.term != header.term or not entry.settled:
            moves[at] = Move(entry.claim, entry, None)
        elif each is not None and store.leases.counts(wait.term, each, header.term):
            wait.basis = max(wait.basis, each.sent)
    return moves


def _as_before(one: Move) -> Renewal:
    """The answer for a claim that the next heartbeat goes on moving: its basis has not moved."""
    lease = one.lease
    return Renewal("WAITING") if one.fence is None or lease is None else Renewal("HELD", lease.basis)


def _to_keep(
    store: EtcdStore, holding: Iterable[Entry], waiting: Sequence[tuple[int, Entry]]
) -> Iterator[Lease]:
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
            yield hold  # kept for its turn


def _look(
    store: EtcdStore, waiting: Sequence[tuple[int, Entry]], end: float
) -> tuple[Header, dict[str, Mapping[str, Any]], dict[bytes, list[Row] | Refused]]:
    """The notes to this client, and those queues that it waits in and that have changed; the header is of the first read."""
    by_queue: dict[bytes, list[Entry]] = {}
    for _, entry in waiting:
        by_queue.setdefault(entry.packed_terms.keys.queue, []).append(entry)
    glances = {queue: _glance(entries) for queue, entries in by_queue.items()}
    header, found = _read(store, [store.notes, *(get for some in glances.values() for get in some)], end)
    notes = {kv.key.rpartition(b"/")[2].decode(errors="replace"): _note(kv) for kv in found[store.notes]}
    changed: list[Get] = []
    for queue, entries in by_queue.items():
        stand = {kv.key: kv for get in glances[queue] for kv in found[get]}
        if not (glances[queue] and all(_stands(entry, stand) for entry in entries)):
            changed.append(Get(*entries[0].packed_terms.keys))
    queues: dict[bytes, list[Row] | Refused] = {}
    for get, kvs in _read(store, changed, end)[1].items() if changed else ():
        try:
            queues[get.key] = rows(kvs)
        except Refused as refusal:  # a queue that another program has spoiled must not stop the others
            queues[get.key] = refusal
    return header, notes, queues


def _read(store: EtcdStore, wanted: Sequence[Get], end: float) -> tuple[Header, dict[Get, Sequence[Kv]]]:
    """Read, in as few transactions as it takes; the header is of the first."""
    first: Header | None = None
    found: dict[Get, Sequence[Kv]] = {}
    for at in range(0, len(wanted), _READS):
        reads = wanted[at : at + _READS]
        answer = store.transport.txn(Txn((), tuple(reads)), left(end))
        first = first or answer.header
        found.update({get: answer.found(place) for place, get in enumerate(reads)})
    assert first is not None
    return first, found


def _glance(entries: Sequence[Entry]) -> list[Get]:
    """Reads that show whether a queue is as it was for some that wait in it; none where that is not known of one."""
    wanted: dict[bytes, None] = {}
    for entry in entries:
        if entry.seen is None:
            return []
        wanted[entry.key] = None
        wanted.update(dict.fromkeys(entry.seen[1]))
    if len(wanted) > _SINGLE:
        return [Get(*entries[0].packed_terms.keys, keys_only=True)]
    return [Get(key, keys_only=True) for key in wanted]


def _stands(entry: Entry, stand: Mapping[bytes, Kv]) -> bool:
    """Whether a claim and its blockers are as they were seen."""
    seen, own = entry.seen, stand.get(entry.key)
    if seen is None or own is None or own.created != entry.fence or own.modified != seen[0]:
        return False
    return all((kv := stand.get(key)) is not None and kv.created == fence for key, fence in seen[1].items())


def _note(kv: Kv) -> Mapping[str, Any]:
    try:
        return unpacked(kv)
    except Refused as refusal:  # the note cannot be read: do not renew the claim
        return {"strange": str(refusal)}


def _held(
    store: EtcdStore, entry: Entry, kept: Kept | None, term: int, note: Mapping[str, Any], now: float
) -> Renewal | Move | None:
    """The outcome for a claim that holds; None if nothing is known. The claim moves where a keepalive does not prove enough."""
    if note.get("why"):
        why: Literal["absent", "evicted"] = "absent" if note["why"] == "released" else "evicted"
        return Renewal("LOST", why=why, requests=note.get("note"))
    if "strange" in note:
        return Renewal("UNKNOWN", trouble=note["strange"])
    hold = entry.hold
    assert hold is not None
    if entry.mover is not None:
        return Renewal("HELD", hold.basis, note.get("note"))
    elsewhere = note.get("lease", hold.id) != hold.id  # another client has extended it
    if not elsewhere and not entry.unsure and hold.term == term:
        if kept is None:
            return None
        if hold.over(now):
            return Renewal("LOST", why="lapsed")
        if store.leases.counts(hold.term, kept, term):
            hold.basis = max(hold.basis, kept.sent)
            return Renewal("HELD", hold.basis, note.get("note"))
    return Move(entry.claim, entry, entry.fence)


def _tell_waiting(
    watches: Watches,
    waiting: Sequence[tuple[int, Entry]],
    queues: Mapping[bytes, list[Row] | Refused],
    notes: Mapping[str, Mapping[str, Any]],
    answers: list[Renewal | None],
) -> None:
    for at, entry in waiting:
        found = queues.get(entry.packed_terms.keys.queue)
        if found is None:  # nothing has changed
            answers[at] = _OFFERED if entry.fits else _WAITING
            continue
        if isinstance(found, Refused):
            answers[at] = Renewal("UNKNOWN", trouble=str(found))
            continue
        place = place_of(found, entry.mark)
        if place < 0:
            why = notes.get(entry.id, {}).get("why")
            answers[at] = Renewal("LOST", why="evicted" if why == "evicted" else "absent")
            continue
        held = found[place].state == "HELD"
        entry.fits = place < fitting(found)
        if not (entry.fits or held):
            entry.saw(found, place)
        answers[at] = _OFFERED if entry.fits or held else _WAITING
    for queue in {entry.packed_terms.keys.queue for _, entry in waiting}:
        found = queues.get(queue)
        if not isinstance(found, Refused):
            watches.look(queue, None if found is None else {(row.key, row.fence) for row in found})
