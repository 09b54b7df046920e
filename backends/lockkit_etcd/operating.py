"""Operations for people: look at queues, evict, resize, annotate; and the records that outlive claims."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lockkit.facts import ClaimInfo, Evicted, LockInfo, Record
from lockkit.store.budgets import left
from lockkit.store.comparing import ROUNDS
from lockkit.store.exchanges import Exchange, in_parallel
from lockkit.store.layouts import check_reader, record_in
from lockkit.store.notes import merged, note_of, note_text, patched
from lockkit.store.queue import check_capacity
from lockkit.store.spi import NOTE_LIMIT, Conflict, Refused, Unknown
from lockkit.values.names import encode
from lockkit_etcd import keys
from lockkit_etcd.rows import LAYOUT, Row, changing, fitting, packed, rows, seconds, unpacked
from lockkit_etcd.store import EtcdStore
from lockkit_etcd.transport import Compare, Delete, Get, Kv, LeaseGone, Op, Put, Remaining, Txn, after

__all__ = ["annotate", "evict", "inspect", "names", "namespaces", "put_record", "record", "resize"]

_ASKED = 16
"""Leases whose remaining time ``inspect`` asks for; of the others it shows the latest possible end."""
_AT_A_TIME = 8
"""Leases that are asked for at the same time."""
_PAGE = 5000
_AT_ONCE = 60
"""Claims that a resize rewrites in one transaction: two operations each, and etcd allows 128 by default."""


def inspect(store: EtcdStore, name: str, budget: float) -> Exchange[LockInfo]:
    """See :meth:`lockkit.store.spi.Backend.inspect`."""
    end = time.monotonic() + budget
    found = rows((yield from store.range(keys.queue(store.namespace, name), end)).kvs, shown=True)
    fits = fitting(found)
    told = yield from _remaining(store, [row.lease for row in found[:_ASKED] if row.lease], end)
    wall = store.clock.wall()
    infos: list[ClaimInfo] = []
    for place, row in enumerate(found):
        state = "OFFERED" if row.state == "WAITING" and place < fits else row.state
        remaining = told.get(row.lease)
        if remaining is None:
            length = int(row.value.get("ttl", 0)) + 1
            remaining = Remaining(length, length)
        infos.append(row.info(name, place, state=state, remaining=remaining, wall=wall))
    return LockInfo(name, tuple(infos), wall)


def _remaining(store: EtcdStore, leases: Sequence[int], end: float) -> Exchange[Mapping[int, Remaining]]:
    """How long leases last, by lease: asked at once, in half the time left; unanswered ones are missing."""
    end = time.monotonic() + left(end) / 2
    told: dict[int, Remaining] = {}
    troubles: list[Refused | Unknown] = []

    def ask(lease: int) -> Exchange[None]:
        if troubles:
            return
        try:
            told[lease] = yield from store.transport.remaining(lease, end)
        except (Refused, Unknown) as trouble:  # the queue is known: show it without how long its claims last
            troubles.append(trouble)

    yield from in_parallel(list(dict.fromkeys(leases)), ask, _AT_A_TIME, "lockkit-etcd-inspect", end)
    return dict(told)


def names(store: EtcdStore, prefix: str, budget: float) -> Exchange[Sequence[str]]:
    """See :meth:`lockkit.store.spi.Backend.names`. Always exact: etcd lists the keys of one namespace."""
    end = time.monotonic() + budget
    start = keys.queues(store.namespace)
    stop = after(start)
    start += encode(prefix).encode()
    found: dict[str, None] = {}
    while True:
        page = yield from store.range(Get(start, stop, keys_only=True, limit=_PAGE), end)
        for kv in page.kvs:
            try:
                found[keys.name_in(kv.key)] = None
            except ValueError:  # a key of another program
                continue
        if not page.more:
            return sorted(name for name in found if name.startswith(prefix))
        start = page.kvs[-1].key + b"\0"


def namespaces(store: EtcdStore, budget: float) -> Exchange[Sequence[str]]:
    """See :class:`lockkit.store.spi.Extras`. Reads at most two keys per namespace, however many it has."""
    end = time.monotonic() + budget
    start, stop = keys.ROOT, after(keys.ROOT)
    found: list[str] = []
    while True:
        page = yield from store.range(Get(start, stop, keys_only=True, limit=1), end)
        if not page.kvs:
            return found
        namespace = keys.namespace_in(page.kvs[0].key)
        if namespace:
            queues = keys.queues(namespace)
            looks = (
                Get(queues, after(queues), keys_only=True, limit=1),
                Get(keys.mark(namespace), keys_only=True),
            )
            answer = yield from store.txn(Txn((), looks), end)
            found += [namespace] if answer.found(0) or answer.found(1) else []
        start = after(keys.ROOT + page.kvs[0].key[len(keys.ROOT) :].partition(b"/")[0] + b"/")


def _note(store: EtcdStore, row: Row, said: Mapping[str, Any]) -> tuple[Op, ...]:
    """Write a note to the client of a claim, on the lease whose keepalives the client counts.

    A leaving claim needs no note, because its client reads it. For damaged ones see :func:`_as_it_was`.
    """
    return () if row.leaving or not row.value else (Put(store.note_on(row), packed(said), row.lease),)


def _change(
    store: EtcdStore,
    name: str,
    claim_id: str,
    end: float,
    change: Callable[[Row], tuple[Op, ...]],
    *,
    shown: bool = False,
    removed: bool = False,
) -> Exchange[tuple[Row, int, bool] | None]:
    """Change a claim by compare: ``change`` makes the operations, or none. ``shown`` includes damaged ones.

    With ``removed``, ``change`` gets a damaged claim as it was before, so that its client can be notified.

    The result is the claim as it was, its place, and whether it was changed; None if there is no such claim.
    """
    queue = keys.queue(store.namespace, name)
    found = rows((yield from store.range(queue, end)).kvs, shown=shown)
    for _ in range(ROUNDS):
        place = next((place for place, row in enumerate(found) if row.id == claim_id), -1)
        if place < 0:
            return None
        row = found[place]
        if removed and not row.value:
            row = yield from _as_it_was(store, row, end)
        ops = change(row)
        if not ops:
            return row, place, False
        try:
            answer = yield from store.txn(Txn((row.unchanged,), ops, (queue,)), end)
        except LeaseGone:  # the lease that a damaged claim was on has ended just now
            continue
        if answer.succeeded:
            return row, place, True
        found = rows(answer.found(), shown=shown)
    raise changing(name)


def _as_it_was(store: EtcdStore, row: Row, end: float) -> Exchange[Row]:
    """A damaged claim as it was before; as it is if it never was one, or its client counts no keepalives.

    If the claim went without a note, its client would keep its hold valid beside the next holder's.

    Raises:
        Refused: The claim as it was has been compacted.
    """
    modified = row.modified
    while True:
        page = yield from store.range(Get(row.key, at=modified - 1), end)
        if not page.kvs or page.kvs[0].created != row.fence:
            return row
        (before,) = rows(page.kvs, shown=True)
        if before.value:
            kept = yield from store.transport.remaining(before.lease, end)
            return row if kept.ttl < 0 else before._replace(modified=row.modified)
        modified = before.modified


def evict(
    store: EtcdStore, name: str, claim_id: str, budget: float, *, at_once: bool, waiting: bool = False
) -> Exchange[Evicted]:
    """See :meth:`lockkit.store.spi.Backend.evict`. With ``waiting``, only a waiting claim is evicted.

    A claim that holds is marked, and its client's next heartbeat reads a note: the client stops renewing the
    claim, and removes it once its validity is over. If the client is dead, the claim's lease ends by then.
    """
    end = time.monotonic() + budget

    def change(row: Row) -> tuple[Op, ...]:
        check_reader(row.value, LAYOUT, f"a claim on {name!r}")
        note = {"note": row.value["note"]} if "note" in row.value else {}
        why = "removed" if at_once and row.state == "HELD" else "evicted"
        tell = _note(store, row, {"why": why, **note})
        if at_once or row.state == "WAITING":
            gone = (Delete(row.key), Delete(keys.guard_of(row.key)))
            # The note outlives the claim: it is on the client's lease, for the client's next heartbeat.
            return gone if row.state == "LINGERING" else (*gone, *tell)
        if row.state == "HELD" and not waiting:
            return Put(row.key, packed({**row.value, "evicted": True}), same_lease=True), *tell
        return ()

    found = yield from _change(store, name, claim_id, end, change, shown=at_once, removed=at_once)
    if found is None:
        return Evicted("ABSENT")
    row, place, changed = found
    info = row.info(name, place)
    if at_once or row.state == "WAITING":
        return Evicted("REMOVED", claim=info)
    if waiting:
        return Evicted("ABSENT")
    if row.guard:
        return Evicted("MARKED", None, info)
    until = yield from _deadline(store, row, end)
    return Evicted("MARKED", until, info._replace(evicted=True, deadline=until) if changed else info)


def _deadline(store: EtcdStore, row: Row, end: float) -> Exchange[float]:
    """When a claim's lease ends at the latest, if nobody keeps it alive any more."""
    wall = store.clock.wall()
    try:
        left_over = (yield from store.transport.remaining(row.lease, end)).ttl
    except (Refused, Unknown):  # the claim is marked; only its end is not known
        left_over = seconds(row.value.get("ttl", 0.0) + row.value.get("lock_delay", 0.0))
    return wall + max(left_over, 0) + 1.0


def resize(store: EtcdStore, name: str, capacity: int, budget: float) -> Exchange[int]:
    """See :meth:`lockkit.store.spi.Backend.resize`.

    One step for up to 60 claims. A longer queue is rewritten from its head in several; in between nothing is
    granted that would not be granted after.

    Raises:
        ConfigError: Not a whole number of at least 1.
    """
    check_capacity(capacity, name)
    end = time.monotonic() + budget
    queue = keys.queue(store.namespace, name)
    overtaken = 0
    while overtaken < ROUNDS and time.monotonic() < end:
        page = yield from store.range(queue, end)
        found = sorted(page.kvs, key=lambda kv: kv.created)
        count = len(rows(found))
        todo = [kv for kv in found if unpacked(kv)["capacity"] != capacity]
        if not todo:
            return count
        some, more = todo[:_AT_ONCE], len(todo) > _AT_ONCE
        nobody_came = Compare(queue.key, "MOD", "LESS", page.header.revision + 1, queue.end)
        stand = tuple(Compare(kv.key, "CREATE", "EQUAL", kv.created) for kv in some)
        ops = tuple(op for kv in some for op in _resized(store, kv, capacity))
        answer = yield from store.txn(Txn((nobody_came, *stand), ops), end)
        if not answer.succeeded:
            overtaken += 1
        elif not more:
            return count
    raise changing(name)


def _resized(store: EtcdStore, kv: Kv, capacity: int) -> tuple[Op, ...]:
    row = rows([kv])[0]
    if row.state == "WAITING" and row.weight > capacity:
        return Delete(kv.key), *_note(store, row, {"why": "resized"})
    return (Put(kv.key, packed({**row.value, "capacity": capacity}), same_lease=True),)


def annotate(
    store: EtcdStore, name: str, claim_id: str, patch: Mapping[str, object], budget: float
) -> Exchange[bool]:
    """See :meth:`lockkit.store.spi.Backend.annotate`.

    Raises:
        ConfigError: The patch or the resulting note exceeds :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    note_text(patch, NOTE_LIMIT)

    def change(row: Row) -> tuple[Op, ...]:
        check_reader(row.value, LAYOUT, f"a claim on {name!r}")
        if row.guard or not row.value:
            return ()
        note = patched(note_of(row.value.get("note")), patch)
        value = packed({**row.value, "note": note, "asked": True})
        said: dict[str, Any] = {"note": note}
        if row.evicted:
            said["why"] = "evicted"
        return Put(row.key, value, same_lease=True), *_note(store, row, said)

    found = yield from _change(store, name, claim_id, time.monotonic() + budget, change, shown=True)
    return found is not None and found[2]


def record(store: EtcdStore, name: str, budget: float) -> Exchange[Record | None]:
    """See :meth:`lockkit.store.spi.Backend.record`."""
    end = time.monotonic() + budget
    kvs = (yield from store.range(Get(keys.record(store.namespace, name)), end)).kvs
    return record_in(name, kvs[0].value, LAYOUT) if kvs else None


def put_record(
    store: EtcdStore, name: str, value: Mapping[str, object], version: int, budget: float
) -> Exchange[Record]:
    """See :meth:`lockkit.store.spi.Backend.put_record`.

    Raises:
        Conflict: The record has another version.
        ConfigError: The value is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    note_text(value, NOTE_LIMIT, "record")
    end = time.monotonic() + budget
    get = Get(keys.record(store.namespace, name))
    kvs = (yield from store.range(get, end)).kvs
    current = record_in(name, kvs[0].value, LAYOUT) if kvs else None
    if (current.version if current else 0) != version:
        raise Conflict(current)
    written = store.clock.wall()
    stored = {"v": LAYOUT, "version": version + 1, "written": written, "value": dict(value)}
    unchanged = Compare(get.key, "MOD", "EQUAL", kvs[0].modified if kvs else 0)
    answer = yield from store.txn(Txn((unchanged,), (Put(get.key, packed(stored)),), (get,)), end)
    if answer.succeeded:
        return Record(name, merged({}, value), version + 1, written)
    now = answer.found()
    raise Conflict(record_in(name, now[0].value, LAYOUT) if now else None)
