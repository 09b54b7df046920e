"""Heartbeats: keepalives in large batches, then one read: the notes to this client, and the queues that it waits in.

The read serves three ends. Its answer shows that the keepalives before it were answered by the true leader (see
:mod:`lockkit_etcd.leases`). A claim that a note names is lost (evicted), or has requests for its holder. And whoever waits
is told what no watch may have told: that its turn has come, or that its claim is gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from lockkit.spi import Beat, Claim, Refused, Renewal, Unknown
from lockkit_etcd.budget import left
from lockkit_etcd.leases import Lease
from lockkit_etcd.rows import Row, fitting, place_of, rows, unpacked
from lockkit_etcd.store import Entry, Store
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
_LEADER = "the leader may have changed while it was asked; the next heartbeat will tell"


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
        answers[at] = _stranger(store, claim, fence, end)
    return [answer or Renewal("UNKNOWN", trouble=_LEADER) for answer in answers]


def _beat(
    store: Store,
    watches: Watches,
    holding: Mapping[int, Entry],
    waiting: Sequence[tuple[int, Entry]],
    answers: list[Renewal | None],
    end: float,
) -> None:
    kept: Mapping[int, Kept] = {}
    for turn in range(_ROUNDS):
        left_over = holding if not turn else {at: holding[at] for at in holding if answers[at] is None}
        if turn and not left_over:
            return
        leases = list(_to_keep(store, left_over.values(), () if turn else waiting))
        before = store.leases.witnesses()
        try:
            if leases:
                share = _SHARE * left(end)  # the look that shows what they are worth needs the rest
                kept = store.transport.keepalive([lease.id for lease in leases], share)
            header, notes, queues = _look(store, () if turn else waiting, end)
        except (Refused, Unknown):
            if turn:  # must not cost what the first round renewed
                break
            raise
        now = store.clock.now()
        sure = _sure(store, kept, before, header)
        same: dict[float, Renewal] = {}
        for at, entry in left_over.items():
            hold = entry.hold
            each = sure.get(hold.id) if hold is not None else None
            moving = _moving(store, entry)
            if moving and not all(one.id in sure and sure[one.id].ttl > 0 for one in moving):
                kept = {id_: one for id_, one in kept.items() if hold is None or id_ != hold.id}
                each = None  # the claim may be on a lease that is not known to be kept alive
            if notes or hold is None or each is None or each.ttl <= 0 or hold.over(now):
                answers[at] = _held(store, entry, kept, sure, notes, now)
                continue
            basis = hold.basis = max(hold.basis, min([each.sent, *(sure[one.id].sent for one in moving)]))
            answers[at] = same.get(basis) or same.setdefault(basis, Renewal("HELD", basis))
        if turn == 0 and waiting:
            for lease in leases:
                if (each := sure.get(lease.id)) is not None and each.ttl > 0 and not lease.over(now):
                    lease.basis = max(lease.basis, each.sent)
            _tell_waiting(watches, waiting, queues, notes, answers)
        if time.monotonic() >= end:
            break
    for at, entry in holding.items():
        if answers[at] is None:
            answers[at] = Renewal(
                "UNKNOWN", trouble=_LEADER if entry.hold and entry.hold.id in kept else _SILENT
            )


def _sure(
    store: Store, kept: Mapping[int, Kept], before: Mapping[int, int], after: Header
) -> dict[int, Kept]:
    """Of the answers those that count."""
    verdicts: dict[tuple[int, int], bool] = {}
    sure: dict[int, Kept] = {}
    for id_, each in kept.items():
        who = (each.member, each.term)
        if who not in verdicts:
            verdicts[who] = store.leases.counts(each, before, after)
        if verdicts[who]:
            sure[id_] = each
    return sure


def _to_keep(store: Store, holding: Iterable[Entry], waiting: Sequence[tuple[int, Entry]]) -> Iterator[Lease]:
    now = store.clock.now()
    for entry in holding:
        if entry.hold is not None:
            yield entry.hold
            yield from _moving(store, entry)
    for _, entry in waiting:
        if entry.fits:  # an offer is not extended
            continue
        if entry.wait is not None:
            yield entry.wait
        hold = entry.hold
        if hold is not None and now - hold.basis > hold.length / _THIRD and not hold.over(now):
            yield hold  # for the moment when its turn comes


def _moving(store: Store, entry: Entry) -> list[Lease]:
    """Leases that the claim may be on, or get on yet, because an extend had no answer."""
    spoilt = store.spoilt.get(entry.claim.token)
    return [lease for lease in spoilt if lease.doubtful and lease is not entry.hold] if spoilt else []


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
        store.leases.heard(answer.header)
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
    store: Store,
    entry: Entry,
    kept: Mapping[int, Kept],
    sure: Mapping[int, Kept],
    notes: Mapping[str, Mapping[str, Any]],
    now: float,
) -> Renewal | None:
    """What became of a claim that holds; None if nothing is known."""
    note = notes.get(entry.id, {})
    if note.get("why"):
        why: Literal["absent", "evicted"] = "absent" if note["why"] == "released" else "evicted"
        return Renewal("LOST", why=why, requests=note.get("note"))
    if "strange" in note:
        return Renewal("UNKNOWN", trouble=note["strange"])
    hold = entry.hold
    assert hold is not None
    if note.get("lease", hold.id) != hold.id:  # somebody else has extended it
        store.follow(entry, note["lease"])
        return None
    each = kept.get(hold.id)
    if each is None:
        return None
    if each.ttl <= 0:
        return Renewal("LOST", why="absent") if hold.id in sure else None
    if hold.id not in sure:
        return None
    if hold.over(now):
        return Renewal("LOST", why="lapsed")
    hold.basis = max(hold.basis, each.sent)
    return Renewal("HELD", hold.basis, note.get("note"))


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


def _stranger(store: Store, claim: Claim, fence: int | None, end: float) -> Renewal:
    """A claim that another client object made, renewed for whoever has its token."""
    _, row = store.find(claim, end)
    for _ in range(_ROUNDS):
        if row is None:
            return Renewal("LOST", why="absent")
        if row.evicted:
            return Renewal("LOST", why="evicted")
        if row.state == "LINGERING":
            return Renewal("LOST", why="lapsed")
        if fence is None and row.state == "HELD":
            return _OFFERED
        if fence is not None and (row.state != "HELD" or row.fence != fence):
            return Renewal("LOST", why="fence")
        seen = (row.fence, row.lease)
        before = store.leases.witnesses()
        kept = store.transport.keepalive((row.lease,), left(end)).get(row.lease)
        header, row = store.find(claim, end)
        same = row is not None and (row.fence, row.lease) == seen
        if same and kept is not None and kept.ttl > 0 and store.leases.counts(kept, before, header):
            return _WAITING if fence is None else Renewal("HELD", kept.sent)
    return Renewal("UNKNOWN", trouble=_LEADER)
