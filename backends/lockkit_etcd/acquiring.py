"""Acquire: append a claim to the queue, hold once it fits. Each write is conditional on what was read.

- If the queue is empty, one transaction is enough: "if the queue is empty, write my claim as HELD".
- If the claim fits behind the holders (a permit, a reader), it takes a read, then "if no claim was added
  since, write mine as HELD". Where claims are added all the time this fails repeatedly. In the end even a try
  (a claim that does not wait) is added to the queue, marked as a try, and removed if it does not fit.
- Otherwise, or after a wait of this client here just now, the claim waits, on a lease as long as a waiter's
  deadline. When it fits: "if my claim is as I read it, write it as HELD", on a lease as long as a hold.
  (Claims ahead only go away; a resize changes all.) A mutex may need no read: "if no older claim is left".
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from lockkit.errors import BackendUnavailable, OutcomeUnknown
from lockkit.store.exchanges import Exchange, Pause
from lockkit.store.queue import agreed
from lockkit.store.spi import Answer, Busy, Claim, Granted, Lapsed, Queued, Refused, Renewal, Unknown, Why
from lockkit_etcd import keys
from lockkit_etcd.draining import drained
from lockkit_etcd.looking import LAST, Ahead, ahead, can_guard, ends_of, in_front, oldest
from lockkit_etcd.moving import Move, move_one, otherwise, renew_strangers
from lockkit_etcd.rows import (
    Row,
    changing,
    fitting,
    in_time,
    mark_of,
    packed,
    place_of,
    requests_in,
    row_of,
    rows,
    stored_of,
    unpacked,
)
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.transport import (
    Compare,
    Delete,
    Get,
    Header,
    Kv,
    LeaseGone,
    Op,
    Put,
    Txn,
    TxnAnswer,
)

__all__ = ["acquire"]

_WAITING_LENGTH = 6
"""Seconds that a waiter may go without a renewal."""
_TRIES = 3
"""Attempts to hold at once behind other holders, before the claim is added to the queue as a waiting one."""
_PAUSE = 0.01
"""Seconds between two reads of a queue that contains tries of others, which are there only for a moment."""
_YOUNG = 0.1
"""Greatest age, in seconds, of a lease for a claim whose max_hold or min_hold counts from its basis."""
_WHY: dict[str, Why] = {"evicted": "evicted", "lapsed": "lingering"}
"""The reason to answer with, by the reason in a renewal; for all others the claim is absent."""


def acquire(store: EtcdStore, claim: Claim, create: bool, budget: float) -> Exchange[Answer]:  # noqa: FBT001
    """See :meth:`lockkit.store.spi.Backend.acquire`."""
    end = time.monotonic() + budget
    if store.buried(claim.token):
        return Lapsed("late")
    entry = store.entries.get(claim.token)
    if entry is None:
        if not create:
            return (yield from _strangers(store, claim, end))
        entry = store.entry(claim)
    if entry.stage == "ENDING":
        return Lapsed("late")
    if entry.stage == "HELD":
        return (yield from _confirm(store, entry, end))
    new = entry.stage == "NEW"
    try:
        return (yield from _asked(store, entry, claim, end))
    except Refused as refusal:
        if entry.stage == "NEW":
            if not store.in_doubt(entry):
                store.over(entry, entry.hold)
        elif new:  # the claim is in the queue by now: only the next step is refused
            raise Unknown(refusal.error, retry=refusal.retry) from refusal
        raise


def _asked(store: EtcdStore, entry: Entry, claim: Claim, end: float) -> Exchange[Answer]:
    for _ in range(_TRIES):
        try:
            if entry.stage == "WAITING":
                return (yield from _turn(store, entry, end))
            return (yield from _enter(store, entry, claim, end))
        except LeaseGone:  # use other leases, and remember those on which a request may be under way
            for lease in (entry.hold, entry.guard):
                if lease is not None and lease.doubtful:
                    store.keep(entry, lease)
            entry.hold = entry.guard = None
    text = f"{store.transport.where}: etcd's leases end as soon as they are granted"
    hint = "find out whether another program revokes them: etcdctl lease list, and etcd's log"
    raise Refused(BackendUnavailable(text, hint=hint))


def _enter(store: EtcdStore, entry: Entry, claim: Claim, end: float) -> Exchange[Answer]:
    """Hold at once if the claim fits, or add it to the queue."""
    crowded = claim.wait and store.crowded(entry.packed_terms)
    if not crowded:  # otherwise it gets that lease when its turn comes, most likely from the claim before it
        yield from _ready(store, entry, end)
    queue = entry.packed_terms.queue
    when: tuple[Compare, ...] = (Compare(queue.key, "VERSION", "EQUAL", 0, queue.end),)
    most = 0 if crowded or (claim.wait and store.crowds.likely(queue.key)) else _TRIES + 1
    for tries in range(most):
        answer = yield from _hold_if(store, entry, when, end)
        if answer.succeeded:
            return _granted(store, entry, answer.header.revision)
        found = rows(answer.found())
        place = place_of(found, entry.mark)
        if place >= 0:  # an earlier copy of this request has arrived
            return (yield from _settle(store, entry, answer.header.revision, found, end))
        yield from _unless_drained(store, entry, answer, end)
        _leave_alone(store, entry, found)
        would = [*found, _newcomer(entry, claim)]
        if fitting(would) < len(would):
            if not claim.wait and _in_the_way(would, len(found)):
                return (yield from _busy(store, entry, found, end))
            break
        if tries >= _TRIES:
            break
        in_time(claim.terms.name, end)
        when = (
            Compare(queue.key, "MOD", "LESS", answer.header.revision + 1, queue.end),
            Compare(entry.key, "VERSION", "EQUAL", 0),
        )
    if entry.wait is None or entry.wait.over(store.clock.now()):
        lease = yield from store.leases.take(_WAITING_LENGTH, end)
        if entry.wait is not None and entry.wait.doubtful:
            store.keep(entry, entry.wait)
        entry.wait = lease
    value = entry.packed_terms.value(claim, entry.mark, "WAITING", store.clock.wall())
    put = Put(entry.key, value, entry.wait.id)
    absent = Compare(entry.key, "VERSION", "EQUAL", 0)
    look = ends_of(queue) if claim.wait else (queue,)
    try:
        request = Txn((absent, store.undrained), (put, *look), (store.mark, queue))
        answer = yield from store.txn(request, end, entry.wait)
    except LeaseGone:
        entry.wait = None
        raise
    if answer.succeeded:
        entry.stage = "WAITING"
        if claim.wait and answer.count() > LAST:
            queued = _joined(store, entry, answer)
            if queued is not None:
                return queued
            header, found = yield from store.queue(queue, end)
            return (yield from _settle(store, entry, header.revision, found, end))
    found = rows(answer.found())
    if place_of(found, entry.mark) < 0:
        yield from _unless_drained(store, entry, answer, end)
    _leave_alone(store, entry, found)
    return (yield from _settle(store, entry, answer.header.revision, found, end))


def _joined(store: EtcdStore, entry: Entry, answer: TxnAnswer) -> Queued | None:
    """The answer for a claim that joined a long queue, by its first and last claims; None if unclear."""
    queue, revision, count = entry.packed_terms.queue.key, answer.header.revision, answer.count()
    head, last = rows(answer.found(-2)), rows(answer.found())
    store.ends.joined(queue, last)
    if any(map(can_guard, (*head, *last))):
        return None
    entry.fence = entry.modified = entry.looked = revision
    entry.stored = b""
    return _behind(store, entry, head[0], in_front(head[0], last, count))


def _leave_alone(store: EtcdStore, entry: Entry, found: list[Row]) -> None:
    """Give a claim another key if its key belongs to another claim, which is left as it is."""
    if not entry.doubtful and any(row.key == entry.key and row.mark != entry.mark for row in found):
        entry.key = store.recycled_keys.take(entry.packed_terms.queue.key)


def _ready(store: EtcdStore, entry: Entry, end: float) -> Exchange[None]:
    """Get the lease on which the claim is to hold, with enough time left, and the lease of a needed guard."""
    terms, packed_terms = entry.claim.terms, entry.packed_terms
    now = store.clock.now()
    exact = terms.max_hold is not None or bool(terms.min_hold)  # both count from the basis
    hold = entry.hold
    if hold is None or (
        not hold.doubtful and (not store.leases.usable(hold) or (exact and now - hold.basis > _YOUNG))
    ):
        entry.hold = None
        entry.hold = yield from store.leases.take(packed_terms.length, end, _YOUNG if exact else None)
    guard = entry.guard
    if packed_terms.guard and (guard is None or (not guard.doubtful and now - guard.basis > _YOUNG)):
        yield from _drop_guard(store, entry, end)
        entry.guard = yield from store.leases.grant(packed_terms.guard, end)


def _drop_guard(store: EtcdStore, entry: Entry, end: float) -> Exchange[None]:
    """Remove the guard of a claim that does not hold, because it would block until min_hold is over."""
    guard = entry.guard
    if guard is None or guard.doubtful:  # then the claim may hold
        return
    entry.guard = None
    try:
        yield from store.transport.revoke(guard.id, end)
    except (LeaseGone, Refused, Unknown):
        return


def _hold_if(
    store: EtcdStore, entry: Entry, when: tuple[Compare, ...], end: float, look: tuple[Get, ...] = ()
) -> Exchange[TxnAnswer]:
    """Make a ready claim hold; if it cannot, or in a drain, read the mark, and ``look`` or all the queue."""
    look = look or (entry.packed_terms.queue,)
    request = Txn((*when, store.undrained), _held(store, entry), (store.mark, *look))
    return store.txn(request, end, entry.hold, entry.guard)


def _unless_drained(store: EtcdStore, entry: Entry, answer: TxnAnswer, end: float) -> Exchange[None]:
    """Go on if a transaction was not done for another reason than a drain.

    Raises:
        Refused: With Drained.
    """
    refusal = drained(store, answer)
    if refusal is not None:
        yield from _drop_guard(store, entry, end)
        raise refusal


def _held(store: EtcdStore, entry: Entry) -> tuple[Op, ...]:
    """The operations that write the claim as one that holds."""
    hold = entry.hold
    assert hold is not None
    waiting, wall = entry.waiting, store.clock.wall()
    changed = None if waiting is None else waiting.changed
    if changed is None:
        value = entry.packed_terms.value(entry.claim, entry.mark, "HELD", wall)
    else:
        value = packed({**changed, "state": "HELD", "since": wall})
    ops: tuple[Op, ...] = (Put(entry.key, value, hold.id),)
    if entry.guard is not None:
        if waiting is not None:  # the guard is created after the claim, and blocks in its place
            value = packed({**json.loads(value), "place": entry.fence})
        ops += (Put(keys.guard_of(entry.key), value, entry.guard.id),)
    if changed is not None and (requests := requests_in(changed)) is not None:
        ops += (Put(store.note(entry.id), packed({"note": requests}), hold.id),)
    return ops


def _in_the_way(queue: list[Row], place: int) -> bool:
    """Whether claims other than tries, which are about to leave, are in the way of the claim at a place."""
    fits = fitting(queue)
    stay = [
        row for at, row in enumerate(queue[:place]) if at < fits or row.holding or not row.value.get("try")
    ]
    return fitting([*stay, *queue[place:]]) <= len(stay)


def _newcomer(entry: Entry, claim: Claim) -> Row:
    terms = claim.terms
    return Row(entry.mark, 1 << 63, "WAITING", terms.weight, terms.capacity, 0, 0, False, entry.key, {})


def _granted(store: EtcdStore, entry: Entry, fence: int) -> Granted:
    assert entry.hold is not None
    store.granted(entry, fence)
    return Granted(fence, entry.hold.basis)


def _busy(store: EtcdStore, entry: Entry, found: list[Row], end: float) -> Exchange[Busy]:
    head = found[0]
    yield from _drop_guard(store, entry, end)
    if not entry.doubtful:
        store.over(entry, entry.hold)
    return Busy(head.capacity, head.info(entry.claim.terms.name, 0))


# -- waiting


def _turn(store: EtcdStore, entry: Entry, end: float) -> Exchange[Answer]:
    """Ask again for a claim that waits."""
    queue, waiting = entry.packed_terms.queue, entry.waiting
    unchanged = bool(entry.modified) and entry.modified == entry.fence
    ahead_only = unchanged and (entry.unguarded or store.ends.unguarded(queue.key, entry.fence))
    if ahead_only:
        entry.unguarded, entry.alone = True, entry.packed_terms.exclusive
    far = ahead_only and entry.place > LAST
    seen = queue._replace(until=entry.fence, keys_only=far) if ahead_only else queue
    look = (oldest(queue), seen) if far else (seen,)
    if entry.alone and waiting is not None:
        yield from _ready(store, entry, end)
        first = Compare(queue.key, "CREATE", "GREATER", entry.fence - 1, queue.end)
        answer = yield from _hold_if(store, entry, (waiting.unchanged, first), end, look)
        if answer.succeeded:
            return _granted(store, entry, entry.fence)
    else:
        answer = yield from store.txn(Txn((), look), end)
    header, kvs = answer.header, answer.found()
    if far:
        entry.looked = header.revision
        known, exclusive = entry.seen[1] if entry.seen else (), entry.packed_terms.exclusive
        there = ahead(kvs, entry.key, entry.fence, known, exclusive=exclusive)
        heads = rows(answer.found(-2))
        queued = _behind(store, entry, heads[0], there) if heads else None
        if queued is not None:
            return queued
        seen = queue._replace(until=entry.fence)
        header, kvs = yield from _read(store, seen, end)
    if seen is not queue and not any(kv.key == entry.key and kv.created == kv.modified for kv in kvs):
        header, kvs = yield from _read(store, queue, end)
        seen = queue
    return (yield from _settle(store, entry, header.revision, rows(kvs), end, whole=seen is queue))


def _read(store: EtcdStore, what: Get, end: float) -> Exchange[tuple[Header, Sequence[Kv]]]:
    answer = yield from store.range(what, end)
    return answer.header, answer.kvs


def _settle(
    store: EtcdStore, entry: Entry, revision: int, found: list[Row], end: float, *, whole: bool = True
) -> Exchange[Answer]:
    """Decide by a queue with the claim: hold, wait, or start anew. ``whole``: it was read to the end."""
    queue = entry.packed_terms.queue
    while True:
        if whole:
            store.ends.saw(queue.key, found)
        place = place_of(found, entry.mark)
        if place < 0:
            return (yield from _absent(store, entry, end))
        row = found[place]
        entry.fence, entry.looked = row.fence, revision
        entry.modified, entry.stored = row.modified, stored_of(row)
        if row.state == "LINGERING":
            return Lapsed("lingering")
        if row.state == "HELD":
            return (yield from _replayed(store, entry, row, end))
        entry.stage = "WAITING"
        fits = entry.fits = place < fitting(found)
        if not fits and not entry.claim.wait:
            if _in_the_way(found, place):
                return (yield from _go_again(store, entry, found, end))
            in_time(entry.claim.terms.name, end)
            yield Pause(_PAUSE)
            header, found = yield from store.queue(queue, end)
            revision, whole = header.revision, True
            continue
        if not fits:
            yield from _drop_guard(store, entry, end)
            store.crowds.note(queue.key)
            return _queued(store, entry, found, place)
        yield from _ready(store, entry, end)
        answer = yield from _hold_if(store, entry, (row.unchanged,), end)
        if answer.succeeded:
            return _granted(store, entry, row.fence)
        revision, found, whole = answer.header.revision, rows(answer.found()), True
        held = row_of(found, entry.mark)
        if held is None or held.state == "WAITING":
            yield from _unless_drained(store, entry, answer, end)
        in_time(entry.claim.terms.name, end)


def _go_again(store: EtcdStore, entry: Entry, found: list[Row], end: float) -> Exchange[Busy]:
    """Remove the claim of a try that does not fit."""
    mine = Compare(entry.key, "CREATE", "EQUAL", entry.fence)
    yield from store.txn(Txn((mine,), (Delete(entry.key),)), end)
    others = [row for row in found if row.mark != entry.mark]
    store.no_longer_waits(entry)
    return (yield from _busy(store, entry, others or found, end))


def _replayed(store: EtcdStore, entry: Entry, row: Row, end: float) -> Exchange[Answer]:
    """Answer for a claim that an earlier copy of this acquire made hold, if this client knows its lease."""
    if row.evicted:
        return Lapsed("evicted")
    known = store.own(entry, row.lease)
    if known is None:
        hint = "another client has moved it to that lease; give the claim up and acquire again"
        text = (
            f"{entry.claim.terms.name!r}: the claim is held, "
            "but on a lease of etcd that this client does not know"
        )
        raise Unknown(OutcomeUnknown(text, hint=hint))
    if known is not entry.hold and entry.hold is not None and entry.hold.doubtful:
        store.keep(entry, entry.hold)
    entry.hold = known
    granted = _granted(store, entry, row.fence)
    return granted if known.young(store.clock.now()) else (yield from _confirm(store, entry, end))


def _queued(store: EtcdStore, entry: Entry, found: list[Row], place: int) -> Queued:
    row, blockers = found[place], entry.saw(found, place)
    entry.unguarded = not any(map(can_guard, found[:place]))
    entry.alone = (
        entry.packed_terms.exclusive
        and not any(each.holding for each in found[place + 1 :])
        and entry.unguarded  # a guard ahead may be created after this claim
    )
    head = found[0]
    return Queued(
        position=place,
        blockers=blockers,
        capacity=agreed(entry.claim.terms.capacity, row.capacity, head.capacity),
        holder=store.head(entry.claim.terms.name, head),
    )


def _behind(store: EtcdStore, entry: Entry, head: Row, there: Ahead | None) -> Queued | None:
    """The answer for a claim, unchanged so far, that waits for those ahead; None if these are not known."""
    if there is None:
        return None
    entry.place, entry.seen, entry.fits = there.place, (entry.fence, there.blockers), False
    store.crowds.note(entry.packed_terms.queue.key)
    capacity = entry.claim.terms.capacity
    return Queued(
        position=there.place,
        blockers=there.blockers,
        capacity=agreed(capacity, capacity, head.capacity),
        holder=store.head(entry.claim.terms.name, head),
    )


def _absent(store: EtcdStore, entry: Entry, end: float) -> Exchange[Lapsed]:
    """Answer for a claim that is gone; a note to its owner may say why."""
    notes = (yield from store.range(Get(store.note(entry.id)), end)).kvs
    why = unpacked(notes[0]).get("why") if notes else None
    if not store.in_doubt(entry):
        store.over(entry, entry.hold)  # the other lease may carry a note
        store.bury(entry.claim.token)
    return Lapsed(why if why in ("evicted", "resized") else "absent")


# -- confirming


def _confirm(store: EtcdStore, entry: Entry, end: float) -> Exchange[Answer]:
    """Confirm a claim that holds, as far as this client knows, and renew it for a whole ttl."""
    for _ in range(2):
        hold = entry.hold
        assert hold is not None
        began = store.clock.now()
        kept = (yield from store.transport.keepalive((hold.id,), end)).get(hold.id)
        look = yield from store.txn(store.logged(Get(entry.key)), end)
        header, found = look.header, rows(look.found())
        row = found[0] if found else None
        if (gone := otherwise(row, entry.fence)) is not None:
            return _answer(gone, entry.fence)
        if hold.over(store.clock.now()):
            return Lapsed("absent")
        on_it = row is not None and row.lease == hold.id and not row.leaving
        on_it = on_it and entry.hold is hold and entry.settled
        if on_it and store.leases.keeps(hold, kept, header.term):
            return Granted(entry.fence, hold.basis)
        renewal = yield from move_one(store, Move(entry.claim, entry, entry.fence), end)
        if renewal.state != "HELD" or renewal.basis >= began:
            return _answer(renewal, entry.fence)
    raise changing(entry.claim.terms.name)


def _answer(renewal: Renewal, fence: int) -> Answer:
    if renewal.state == "HELD":
        return Granted(fence, renewal.basis)
    if renewal.state == "LOST":
        return Lapsed(_WHY.get(renewal.why, "absent"))
    raise Unknown(OutcomeUnknown(f"the claim is {renewal.state}", hint="ask again"))


def _strangers(store: EtcdStore, claim: Claim, end: float) -> Exchange[Answer]:
    """Confirm a claim that another client object made, for a caller that has its token."""
    packed_terms = store.known(claim.terms)
    header, found = yield from store.queue(packed_terms.queue, end)
    place = place_of(found, mark_of(claim.token))
    if place < 0:
        return Lapsed("absent")
    row = found[place]
    if row.state == "WAITING":
        entry = Entry(claim, packed_terms, row.key)
        entry.fence, entry.looked = row.fence, header.revision
        return _queued(store, entry, found, place)
    return _answer((yield from renew_strangers(store, claim, row.fence, end)), row.fence)
