"""Acquire: queue up, and hold once it fits. What decides is compared in the transaction that writes.

- Nobody there: one transaction, "if the queue is empty, I hold".
- It fits behind those who hold (a permit, a reader): one look, then "if nobody came since, I hold". Where others come and go
  all the time that says no for ever, so a try queues up, too, in the end; its claim says that it is a try's, and goes again if
  it does not fit.
- Otherwise, or where this client has just waited, it waits, on a lease of the length of a waiter's deadline; when it fits,
  "if my claim is as I saw it, I hold", on the lease that lasts as long as a hold does. Those before it can only go, and a
  resize changes every claim, so that is enough. A mutex that is first does without the look: "if nobody who came before is
  there any more".
"""

from __future__ import annotations

import time

from lockkit.errors import BackendUnavailable, OutcomeUnknown
from lockkit.store.budgets import left
from lockkit.store.queue import agreed
from lockkit.store.spi import Answer, Busy, Claim, Granted, Lapsed, Queued, Refused, Renewal, Unknown
from lockkit_etcd import keys
from lockkit_etcd.leases import Lease
from lockkit_etcd.moving import Move, move_one
from lockkit_etcd.rows import Row, changing, fitting, mark_of, packed, place_of, read, rows, unpacked
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.strangers import renew_strangers
from lockkit_etcd.transport import Compare, Delete, Get, LeaseGone, Op, Put, Txn, TxnAnswer
from lockkit_etcd.view import claim_info

__all__ = ["WAITING_LENGTH", "acquire", "confirm", "drop_guard", "reason"]

WAITING_LENGTH = 6
"""Seconds that a waiter may go without a renewal."""
_TRIES = 3
"""How often a semaphore tries to enter behind its holders before it queues up like others."""
_PAUSE = 0.01
"""Seconds between two looks at a queue in which the tries of others stand for a moment."""
_YOUNG = 0.1
"""Greatest age, in seconds, of a lease for a claim whose time counts from its basis."""


def acquire(store: EtcdStore, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
    """See :meth:`lockkit.store.spi.Backend.acquire`."""
    end = time.monotonic() + budget
    if store.buried(claim.token):
        return Lapsed("late")
    entry = store.entries.get(claim.token)
    if entry is None:
        if not create:
            return _strangers(store, claim, end)
        entry = store.entry(claim)
    if entry.stage == "ENDING":
        return Lapsed("late")
    if entry.stage == "HELD":
        return confirm(store, entry, end)
    new = entry.stage == "NEW"
    try:
        return _asked(store, entry, claim, end)
    except Refused as refusal:
        if entry.stage == "NEW":
            if not entry.doubtful and claim.token not in store.spoilt:
                store.over(entry, entry.hold)
        elif new:  # the claim is in the queue by now: only the next step is refused
            raise Unknown(refusal.error, retry=refusal.retry) from refusal
        raise


def _asked(store: EtcdStore, entry: Entry, claim: Claim, end: float) -> Answer:
    for _ in range(_TRIES):
        try:
            return _ask(store, entry, claim, end)
        except LeaseGone:
            _forget_leases(store, entry)
    text = f"{store.transport.where}: leases end as soon as they are granted"
    raise Refused(
        BackendUnavailable(text, hint="does somebody revoke them? See etcdctl lease list, and its log")
    )


def _forget_leases(store: EtcdStore, entry: Entry) -> None:
    """One of them is gone: take others. What may be under way on them is remembered."""
    doubtful = [lease for lease in (entry.hold, entry.guard) if lease is not None and lease.doubtful]
    if doubtful:
        store.spoilt.setdefault(entry.claim.token, []).extend(doubtful)
    entry.hold = entry.guard = None


def _ask(store: EtcdStore, entry: Entry, claim: Claim, end: float) -> Answer:
    if entry.stage == "WAITING":
        return _turn(store, entry, end)
    hold = _ready(store, entry, end)
    packed_terms, queue = entry.packed_terms, Get(*entry.packed_terms.keys)
    when: tuple[Compare, ...] = (Compare(queue.key, "VERSION", "EQUAL", 0, queue.end),)
    most = 0 if claim.wait and store.likely_waits(queue.key) else _TRIES + 1
    for tries in range(most):
        held = _held(store, entry, claim)
        answer = store.txn(Txn(when, held, (queue,)), end, hold, entry.guard)
        if answer.succeeded:
            return _granted(store, entry, answer.header.revision)
        found = rows(answer.found())
        place = place_of(found, entry.mark)
        if place >= 0:  # an earlier sending of this request has arrived
            return _settle(store, entry, answer.header.revision, found, end)
        _leave_alone(store, entry, found)
        would = [*found, _newcomer(entry, claim)]
        if fitting(would) < len(would):
            if not claim.wait and _in_the_way(would, len(found)):
                return _busy(store, entry, found, end)
            break
        if tries >= _TRIES:
            break
        if time.monotonic() >= end:
            raise changing(claim.terms.name)
        when = (
            Compare(queue.key, "MOD", "LESS", answer.header.revision + 1, queue.end),
            Compare(entry.key, "VERSION", "EQUAL", 0),
        )
    if entry.wait is None or entry.wait.over(store.clock.now()):
        lease = store.leases.take(WAITING_LENGTH, end)
        if entry.wait is not None and entry.wait.doubtful:
            store.spoilt.setdefault(claim.token, []).append(entry.wait)
        entry.wait = lease
    value = packed_terms.value(claim, entry.mark, "WAITING", store.clock.wall(), entry.wait.term)
    put = Put(entry.key, value, entry.wait.id)
    absent = Compare(entry.key, "VERSION", "EQUAL", 0)
    try:
        answer = store.txn(Txn((absent,), (put, queue), (queue,)), end, entry.wait)
    except LeaseGone:
        entry.wait = None
        raise
    if answer.succeeded:
        entry.stage = "WAITING"
    found = rows(answer.found())
    _leave_alone(store, entry, found)
    return _settle(store, entry, answer.header.revision, found, end)


def _leave_alone(store: EtcdStore, entry: Entry, found: list[Row]) -> None:
    """Give a claim another key if another claim has taken its key, for whatever reason; that one is not touched."""
    if not entry.doubtful and any(row.key == entry.key and row.mark != entry.mark for row in found):
        entry.key = store.recycled_keys.take(entry.packed_terms.keys.queue)


def _ready(store: EtcdStore, entry: Entry, end: float) -> Lease:
    """The lease that the claim is to hold on, with enough of it left; and its guard, if it needs one."""
    terms, packed_terms = entry.claim.terms, entry.packed_terms
    now = store.clock.now()
    exact = terms.max_hold is not None or bool(terms.min_hold)  # both count from the basis
    hold = entry.hold
    if (
        hold is not None
        and not hold.doubtful
        and (not store.leases.usable(hold) or (exact and now - hold.basis > _YOUNG))
    ):
        hold = entry.hold = None
    if hold is None:
        hold = entry.hold = store.leases.take(packed_terms.length, end, new=exact)
    guard = entry.guard
    if packed_terms.guard and (guard is None or (not guard.doubtful and now - guard.basis > _YOUNG)):
        drop_guard(store, entry, end)
        entry.guard = store.leases.grant(packed_terms.guard, end)
    return hold


def drop_guard(store: EtcdStore, entry: Entry, end: float) -> None:
    """Remove the guard of a claim that did not get to hold; it would block for as long as min_hold."""
    guard = entry.guard
    if guard is None or guard.doubtful:  # then the claim may hold
        return
    entry.guard = None
    try:
        store.transport.revoke(guard.id, left(end))
    except (LeaseGone, Refused, Unknown):
        return


def _held(store: EtcdStore, entry: Entry, claim: Claim) -> tuple[Op, ...]:
    """Write the claim as one that holds."""
    hold = entry.hold
    assert hold is not None
    row, wall = entry.row, store.clock.wall()
    if row is None:
        value = entry.packed_terms.value(claim, entry.mark, "HELD", wall, hold.term)
    else:
        value = packed({**row.value, "state": "HELD", "since": wall, "term": hold.term})
    ops: tuple[Op, ...] = (Put(entry.key, value, hold.id),)
    if entry.guard is not None:
        if row is not None:  # the guard is created after the claim, and blocks in its place
            value = packed({**row.value, "state": "HELD", "since": wall, "place": row.fence})
        ops += (Put(keys.guard_of(entry.key), value, entry.guard.id),)
    if row is not None and row.value.get("asked"):
        key = keys.note(store.namespace, store.client, row.id)
        ops += (Put(key, packed({"note": row.value.get("note", {})}), hold.id),)
    return ops


def _in_the_way(queue: list[Row], place: int) -> bool:
    """Whether claims that stay are in the way of the claim at a place, and not only tries that are about to leave."""
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


def _busy(store: EtcdStore, entry: Entry, found: list[Row], end: float) -> Busy:
    head = found[0]
    drop_guard(store, entry, end)
    if not entry.doubtful:
        store.over(entry, entry.hold)
    return Busy(head.capacity, claim_info(entry.claim.terms.name, head, 0))


# -- waiting


def _turn(store: EtcdStore, entry: Entry, end: float) -> Answer:
    """The claim waits: does it hold now?"""
    queue, row = Get(*entry.packed_terms.keys), entry.row
    if entry.alone and row is not None:
        hold = _ready(store, entry, end)
        unchanged = Compare(entry.key, "MOD", "EQUAL", row.modified)
        first = Compare(queue.key, "CREATE", "GREATER", entry.fence - 1, queue.end)
        request = Txn((unchanged, first), _held(store, entry, entry.claim), (queue,))
        answer = store.txn(request, end, hold, entry.guard)
        if answer.succeeded:
            return _granted(store, entry, entry.fence)
        return _settle(store, entry, answer.header.revision, rows(answer.found()), end)
    header, found = store.queue(queue, end)
    return _settle(store, entry, header.revision, found, end)


def _settle(store: EtcdStore, entry: Entry, revision: int, found: list[Row], end: float) -> Answer:
    """The claim has been sent, and this is the queue: hold, wait, or begin anew."""
    while True:
        place = place_of(found, entry.mark)
        if place < 0:
            return _absent(store, entry, end)
        row = found[place]
        entry.fence, entry.row, entry.looked = row.fence, row, revision
        if row.state == "LINGERING":
            return Lapsed("lingering")
        if row.state == "HELD":
            return _replayed(store, entry, row, end)
        entry.stage = "WAITING"
        fits = entry.fits = place < fitting(found)
        if not fits and not entry.claim.wait:
            if _in_the_way(found, place):
                return _go_again(store, entry, found, end)
            if time.monotonic() >= end:
                raise changing(entry.claim.terms.name)
            time.sleep(_PAUSE)
            header, found = store.queue(Get(*entry.packed_terms.keys), end)
            revision = header.revision
            continue
        if not fits:
            drop_guard(store, entry, end)
            store.note_waiting(entry.packed_terms.keys.queue)
            return _queued(entry, found, place)
        hold = _ready(store, entry, end)
        queue = Get(*entry.packed_terms.keys)
        unchanged = Compare(entry.key, "MOD", "EQUAL", row.modified)
        request = Txn((unchanged,), _held(store, entry, entry.claim), (queue,))
        answer: TxnAnswer = store.txn(request, end, hold, entry.guard)
        if answer.succeeded:
            return _granted(store, entry, row.fence)
        revision, found = answer.header.revision, rows(answer.found())
        if time.monotonic() >= end:
            raise changing(entry.claim.terms.name)


def _go_again(store: EtcdStore, entry: Entry, found: list[Row], end: float) -> Busy:
    """Take back the claim of a try that does not fit."""
    mine = Compare(entry.key, "CREATE", "EQUAL", entry.fence)
    store.txn(Txn((mine,), (Delete(entry.key),)), end)
    others = [row for row in found if row.mark != entry.mark]
    if entry.wait is not None and not entry.wait.doubtful:
        wait, entry.wait = entry.wait, None
        store.leases.give_back(wait)
    return _busy(store, entry, others or found, end)


def _replayed(store: EtcdStore, entry: Entry, row: Row, end: float) -> Answer:
    """Answer for a claim that an earlier sending of this acquire has made a holder, on a lease that this client knows."""
    if row.evicted:
        return Lapsed("evicted")
    spoilt = store.spoilt.get(entry.claim.token, [])
    known = next((lease for lease in [*entry.leases, *spoilt] if lease.id == row.lease), None)
    if known is None:
        hint = "somebody else has moved it; give it up and acquire again"
        raise Unknown(OutcomeUnknown("the claim holds on a lease that this client does not know", hint=hint))
    if known is not entry.hold and entry.hold is not None and entry.hold.doubtful:
        store.spoilt.setdefault(entry.claim.token, []).append(entry.hold)
    entry.hold = known
    granted = _granted(store, entry, row.fence)
    return granted if known.young(store.clock.now()) else confirm(store, entry, end)


def _queued(entry: Entry, found: list[Row], place: int) -> Queued:
    row, chosen = found[place], entry.saw(found, place)
    entry.alone = (
        entry.packed_terms.exclusive
        and not any(each.holding for each in found[place + 1 :])
        # A guard of one of these will have been created after this claim.
        and not any(each.value.get("min_hold") for each in found[:place])
    )
    head = found[0]
    return Queued(
        position=place,
        blockers=tuple(each.where for each in chosen),
        capacity=agreed(entry.claim.terms.capacity, row.capacity, head.capacity),
        holder=claim_info(entry.claim.terms.name, head, 0),
    )


def _absent(store: EtcdStore, entry: Entry, end: float) -> Lapsed:
    why = reason(store, entry, end)
    if not entry.doubtful and entry.claim.token not in store.spoilt:
        store.over(entry, entry.hold)  # the other lease may carry a note
        store.bury(entry.claim.token)
    return why


def reason(store: EtcdStore, entry: Entry, end: float) -> Lapsed:
    """Why a claim is gone, as a note to its owner says."""
    key = keys.note(store.namespace, store.client, entry.id)
    _, found = store.transport.range(Get(key), left(end))
    why = unpacked(found.kvs[0]).get("why") if found.kvs else None
    return Lapsed(why if why in ("evicted", "resized") else "absent")


# -- confirming


def confirm(store: EtcdStore, entry: Entry, end: float) -> Answer:
    """The claim holds, for all this client knows: is it so, and from now on for a whole ttl?"""
    for _ in range(2):
        hold = entry.hold
        assert hold is not None
        began = store.clock.now()
        kept = store.transport.keepalive((hold.id,), left(end)).get(hold.id)
        header, found = store.transport.range(Get(entry.key), left(end))
        row = read(found.kvs[0]) if found.kvs else None
        if (over := _over(row, entry.fence)) is not None:
            return over
        if hold.over(store.clock.now()):
            return Lapsed("absent")
        on_it = row is not None and row.lease == hold.id and entry.hold is hold and entry.settled
        if kept is not None and on_it and store.leases.counts(hold.term, kept, header.term):
            hold.basis = max(hold.basis, kept.sent)
            return Granted(entry.fence, hold.basis)
        renewal = move_one(store, Move(entry.claim, entry, entry.fence), end)
        if renewal.state != "HELD" or renewal.basis >= began:
            return _answer(renewal, entry.fence)
    raise changing(entry.claim.terms.name)


def _over(row: Row | None, fence: int) -> Lapsed | None:
    """Why a claim that held does so no more, if that is so."""
    if row is None:
        return Lapsed("absent")
    if row.evicted:
        return Lapsed("evicted")
    if row.state != "HELD" or row.fence != fence:
        return Lapsed("lingering" if row.state == "LINGERING" else "absent")
    return None


def _answer(renewal: Renewal, fence: int) -> Answer:
    if renewal.state == "HELD":
        return Granted(fence, renewal.basis)
    if renewal.state == "LOST":
        return Lapsed("evicted" if renewal.why == "evicted" else "absent")
    raise Unknown(OutcomeUnknown(f"the claim is {renewal.state}", hint="ask again"))


def _strangers(store: EtcdStore, claim: Claim, end: float) -> Answer:
    """A claim that another client object made: confirm it for whoever has its token."""
    packed_terms = store.known(claim.terms)
    header, found = store.queue(Get(*packed_terms.keys), end)
    place = place_of(found, mark_of(claim.token))
    row = found[place] if place >= 0 else None
    if row is not None and row.state == "WAITING":
        entry = Entry(claim, packed_terms, row.key)
        entry.fence, entry.row, entry.looked = row.fence, row, header.revision
        return _queued(entry, found, place)
    if row is None:
        return Lapsed("absent")
    if (over := _over(row, row.fence)) is not None:
        return over
    return _answer(renew_strangers(store, claim, row.fence, end), row.fence)
