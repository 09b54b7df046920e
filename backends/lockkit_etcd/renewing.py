"""Heartbeats: keepalives in large batches, then one read: the notes to this client, and the queues that it waits in.

The read serves three ends. Its answer shows the raft term in which the keepalives before it were answered: for a lease of
another term they prove nothing, and its claim moves to another lease (:mod:`lockkit_etcd.moving`). A claim that a note names
is lost (evicted), or has requests for its holder. And whoever waits is told what no watch may have told: that its turn has
come, or that its claim is gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from lockkit.spi import Beat, Refused, Renewal, Unknown
from lockkit_etcd.budget import left
from lockkit_etcd.leases import Lease
from lockkit_etcd.moving import Move, move
from lockkit_etcd.rows import Row, fitting, place_of, rows, unpacked
from lockkit_etcd.store import Entry, Store
from lockkit_etcd.strangers import renew_strangers
from lockkit_etcd.transport import Get, Header, Kept, Kv, Txn
from lockkit_etcd.watching import Watches

__all__ = ["renew"]

_ROUNDS = 2
_READS = 64
"""Reads in one transaction; etcd allows 128 by default."""
_THIRD = 3.0
_SHARE = 0.6
_OFFERED, _WAITING = Renewal("OFFERED"), Renewal("WAITING")
_SILENT = "no answer to the keepalive of its lease"


def renew(store: Store, watches: Watches, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
    """See :meth:`lockkit.spi.Backend.renew`.

    Raises:
        Refused, Unknown: Nobody answers.
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
        else:  # its grant has not been read, or its create is under way: it lives by what it has
            answers[at] = _OFFERED if entry.stage == "HELD" else _WAITING
    if holding or waiting:
        _beat(store, watches, holding, waiting, answers, end)
    for at in strangers:
        claim, fence = beats[at]
        answers[at] = renew_strangers(store, claim, fence, end)
    return [answer or Renewal("UNKNOWN", trouble=_SILENT) for answer in answers]


def _beat(
    store: Store,
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
                share = _SHARE * left(end)  # the look that shows what they are worth needs the rest
                kept = store.transport.keepalive([lease.id for lease in leases], share)
            header, notes, queues = _look(store, () if turn else waiting, end)
        except (Refused, Unknown):
            if turn:  # must not cost what the first round renewed
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
    store: Store,
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
    store: Store,
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
    """What is to be said of a claim whose move the next heartbeat goes on with: its basis has not moved."""
    lease = one.lease
    return Renewal("WAITING") if one.fence is None or lease is None else Renewal("HELD", lease.basis)


def _to_keep(store: Store, holding: Iterable[Entry], waiting: Sequence[tuple[int, Entry]]) -> Iterator[Lease]:
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
            yield hold  # for the moment when its turn comes


def _look(
    store: Store, waiting: Sequence[tuple[int, Entry]], end: float
) -> tuple[Header, dict[str, Mapping[str, Any]], dict[bytes, list[Row] | Refused]]:
    """The notes to this client, and the queues that it waits in; the header is of the first read."""
    wanted = list({entry.stated.keys.queue: Get(*entry.stated.keys) for _, entry in waiting}.values())
    first: Header | None = None
    notes: dict[str, Mapping[str, Any]] = {}
    queues: dict[bytes, list[Row] | Refused] = {}
    while first is None or wanted:
        reads = wanted[: _READS - 1]
        wanted = wanted[_READS - 1 :]
        answer = store.transport.txn(Txn((), (store.notes, *reads)), left(end))
        if first is None:
            first = answer.header
            notes = {kv.key.rpartition(b"/")[2].decode(): _note(kv) for kv in answer.found(0)}
        for at, get in enumerate(reads, 1):
            try:
                queues[get.key] = rows(answer.found(at))
            except Refused as refusal:  # a queue that a stranger has spoiled must not cost the others
                queues[get.key] = refusal
    return first, notes, queues


def _note(kv: Kv) -> Mapping[str, Any]:
    try:
        return unpacked(kv)
    except Refused as refusal:  # who knows what it says: the claim is not renewed
        return {"strange": str(refusal)}


def _held(
    store: Store, entry: Entry, kept: Kept | None, term: int, note: Mapping[str, Any], now: float
) -> Renewal | Move | None:
    """What became of a claim that holds; None if nothing is known. It moves where a keepalive does not prove enough."""
    if note.get("why"):
        why: Literal["absent", "evicted"] = "absent" if note["why"] == "released" else "evicted"
        return Renewal("LOST", why=why, requests=note.get("note"))
    if "strange" in note:
        return Renewal("UNKNOWN", trouble=note["strange"])
    hold = entry.hold
    assert hold is not None
    if entry.mover is not None:
        return Renewal("HELD", hold.basis, note.get("note"))
    elsewhere = note.get("lease", hold.id) != hold.id  # somebody else has extended it
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
        found = queues[entry.stated.keys.queue]
        if isinstance(found, Refused):
            answers[at] = Renewal("UNKNOWN", trouble=str(found))
            continue
        place = place_of(found, entry.mark)
        if place < 0:
            why = notes.get(entry.id, {}).get("why")
            answers[at] = Renewal("LOST", why="evicted" if why == "evicted" else "absent")
            continue
        entry.fits = place < fitting(found)
        answers[at] = _OFFERED if entry.fits or found[place].state == "HELD" else _WAITING
    for queue, found in queues.items():
        if not isinstance(found, Refused):
            watches.look(queue, {(row.key, row.fence) for row in found})
