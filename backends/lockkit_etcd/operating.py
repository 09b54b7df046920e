"""Operations for people: look at queues, evict, resize, annotate; and the records that outlive claims."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lockkit.facts import ClaimInfo, Evicted, LockInfo, Record
from lockkit.names import encode
from lockkit.store.budgets import left
from lockkit.store.comparing import ROUNDS
from lockkit.store.comparing import annotate as by_compare
from lockkit.store.notes import merged, note_text, patched
from lockkit.store.queue import check_capacity
from lockkit.store.spi import NOTE_LIMIT, Conflict, Refused, Unknown
from lockkit_etcd import keys
from lockkit_etcd.keys import Keys
from lockkit_etcd.packed_terms import seconds
from lockkit_etcd.rows import LAYOUT, Row, changing, fitting, packed, rows, strange, unpacked
from lockkit_etcd.store import EtcdStore
from lockkit_etcd.together import together
from lockkit_etcd.transport import Compare, Delete, Get, Kv, Op, Put, Remaining, Txn, after
from lockkit_etcd.view import claim_info

__all__ = ["annotate", "evict", "inspect", "names", "put_record", "record", "resize"]

_ASKED = 16
"""Leases whose remaining time ``inspect`` asks for; of others it shows when they end at the latest."""
_AT_A_TIME = 8
"""Leases that are asked for at the same time."""
_PAGE = 5000
_AT_ONCE = 60
"""Claims that a resize rewrites in one transaction: two operations each, and etcd allows 128 by default."""


def inspect(store: EtcdStore, name: str, budget: float) -> LockInfo:
    """See :meth:`lockkit.store.spi.Backend.inspect`."""
    end = time.monotonic() + budget
    _, found = store.queue(Get(*Keys.of(store.namespace, name)), end)
    fits = fitting(found)
    told = _remaining(store, [row.lease for row in found[:_ASKED] if row.lease], end)
    wall = store.clock.wall()
    infos: list[ClaimInfo] = []
    for place, row in enumerate(found):
        state = "OFFERED" if row.state == "WAITING" and place < fits else row.state
        remaining = told.get(row.lease)
        if remaining is None:
            ttl = row.value.get("ttl", 0)
            length = (int(ttl) if type(ttl) in (int, float) else 0) + 1
            remaining = Remaining(length, length)
        infos.append(claim_info(name, row, place, state=state, remaining=remaining, wall=wall))
    return LockInfo(name, tuple(infos), wall)


def _remaining(store: EtcdStore, leases: Sequence[int], end: float) -> Mapping[int, Remaining]:
    """How long leases last, by lease, asked at once: one after the other would take as many round trips as there are claims.

    Half of the time until ``end`` is spent on it. A lease of which nothing was heard by then is missing.
    """
    end = time.monotonic() + left(end) / 2
    todo = list(dict.fromkeys(leases))
    told: dict[int, Remaining] = {}
    troubles: list[Refused | Unknown] = []

    def work() -> None:
        while todo and not troubles:
            try:
                lease = todo.pop()
            except IndexError:  # another thread was faster
                return
            try:
                told[lease] = store.transport.remaining(lease, left(end))
            except (
                Refused,
                Unknown,
            ) as trouble:  # the queue is known: show it without how long its claims last
                troubles.append(trouble)

    together(work, min(len(todo), _AT_A_TIME), "lockkit-etcd-inspect", end)
    return dict(told)


def names(store: EtcdStore, prefix: str, budget: float) -> Sequence[str]:
    """See :meth:`lockkit.store.spi.Backend.names`. Always exact: etcd lists the keys of a namespace, and no others'."""
    end = time.monotonic() + budget
    start = keys.queues(store.namespace)
    stop = after(start)
    start += encode(prefix).encode()
    found: dict[str, None] = {}
    while True:
        _, page = store.transport.range(Get(start, stop, keys_only=True, limit=_PAGE), left(end))
        for kv in page.kvs:
            try:
                found[keys.name_in(kv.key)] = None
            except ValueError:  # a key of another program
                continue
        if not page.more:
            return sorted(name for name in found if name.startswith(prefix))
        start = page.kvs[-1].key + b"\0"


def _find(found: Sequence[Row], claim: str) -> tuple[Row, int] | None:
    return next(((row, place) for place, row in enumerate(found) if row.id == claim), None)


def _unchanged(row: Row) -> Compare:
    return Compare(row.key, "MOD", "EQUAL", row.modified)


def _note(store: EtcdStore, row: Row, said: Mapping[str, Any]) -> Put:
    """Tell the client of a claim something, for as long as that claim's lease lasts."""
    key = keys.note(store.namespace, str(row.value.get("client", "")), row.id)
    return Put(key, packed(said), row.lease)


def evict(store: EtcdStore, name: str, claim_id: str, budget: float, *, at_once: bool) -> Evicted:
    """See :meth:`lockkit.store.spi.Backend.evict`.

    A claim that holds is marked, and its client is left a note that its heartbeats read: it stops to believe in the claim, and
    removes it once its validity has run out. Should it be dead, the claim's lease ends in the same time.
    """
    end = time.monotonic() + budget
    queue = Get(*Keys.of(store.namespace, name))
    _, found = store.queue(queue, end)
    for _ in range(ROUNDS):
        at = _find(found, claim_id)
        if at is None:
            return Evicted("ABSENT")
        row, place = at
        if row.guard and not at_once:
            return Evicted("MARKED", None, claim_info(name, row, place))
        said: dict[str, Any] = {"why": "evicted"}
        if "note" in row.value:
            said["note"] = row.value["note"]
        ops: tuple[Op, ...]
        if at_once or row.state == "WAITING":
            # The note outlives the claim: its lease is its client's, which reads it with the next heartbeat.
            ops = (Delete(row.key), Delete(keys.guard_of(row.key)), _note(store, row, said))
            if row.guard or row.state == "LINGERING":
                ops = ops[:2]
        elif row.state == "HELD":
            marked = packed({**row.value, "evicted": True})
            ops = (Put(row.key, marked, same_lease=True), _note(store, row, said))
        else:
            return Evicted("MARKED", _deadline(store, row, end), claim_info(name, row, place))
        answer = store.txn(Txn((_unchanged(row),), ops, (queue,)), end)
        if answer.succeeded:
            if at_once or row.state == "WAITING":
                return Evicted("REMOVED", claim=claim_info(name, row, place))
            until = _deadline(store, row, end)
            info = claim_info(name, row, place)
            return Evicted("MARKED", until, info._replace(evicted=True, deadline=until))
        found = rows(answer.found())
    raise changing(name)


def _deadline(store: EtcdStore, row: Row, end: float) -> float:
    """When a claim's lease ends at the latest, if nobody keeps it alive any more."""
    wall = store.clock.wall()
    try:
        left_over = store.transport.remaining(row.lease, left(end)).ttl
    except (Refused, Unknown):  # the claim is marked; only its end is not known
        left_over = seconds(row.value.get("ttl", 0.0) + row.value.get("lock_delay", 0.0))
    return wall + max(left_over, 0) + 1.0


def resize(store: EtcdStore, name: str, capacity: int, budget: float) -> int:
    """See :meth:`lockkit.store.spi.Backend.resize`.

    In one step for up to 60 claims. A longer queue is rewritten from its head in several; in between nothing is granted that
    would not be granted after.

    Raises:
        ConfigError: Not a whole number of at least 1.
    """
    check_capacity(capacity, name)
    end = time.monotonic() + budget
    queue = Get(*Keys.of(store.namespace, name))
    overtaken = 0
    while overtaken < ROUNDS and time.monotonic() < end:
        header, page = store.transport.range(queue, left(end))
        found = sorted(page.kvs, key=lambda kv: kv.created)
        count = len(rows(found))
        todo = [kv for kv in found if unpacked(kv)["capacity"] != capacity]
        if not todo:
            return count
        some, more = todo[:_AT_ONCE], len(todo) > _AT_ONCE
        nobody_came = Compare(queue.key, "MOD", "LESS", header.revision + 1, queue.end)
        stand = tuple(Compare(kv.key, "CREATE", "EQUAL", kv.created) for kv in some)
        ops = tuple(op for kv in some for op in _resized(store, kv, capacity))
        answer = store.txn(Txn((nobody_came, *stand), ops), end)
        if not answer.succeeded:
            overtaken += 1
        elif not more:
            return count
    raise changing(name)


def _resized(store: EtcdStore, kv: Kv, capacity: int) -> tuple[Op, ...]:
    row = rows([kv])[0]
    if row.state == "WAITING" and row.weight > capacity:
        return Delete(kv.key), _note(store, row, {"why": "resized"})
    return (Put(kv.key, packed({**row.value, "capacity": capacity}), same_lease=True),)


def annotate(store: EtcdStore, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
    """See :meth:`lockkit.store.spi.Backend.annotate`.

    Raises:
        ConfigError: The patch, or the note it would make, is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    end = time.monotonic() + budget
    queue = Get(*Keys.of(store.namespace, name))
    found: list[Row] | None = None

    def attempt() -> bool | None:
        nonlocal found
        if found is None:
            _, found = store.queue(queue, end)
        at = _find(found, claim_id)
        if at is None or at[0].guard:
            return False
        row, _ = at
        note = patched(row.value.get("note", {}), patch)
        value = packed({**row.value, "note": note, "asked": True})
        said: dict[str, Any] = {"note": note, "lease": row.lease}
        if row.evicted:
            said["why"] = "evicted"
        ops = (Put(row.key, value, same_lease=True), _note(store, row, said))
        answer = store.txn(Txn((_unchanged(row),), ops, (queue,)), end)
        if answer.succeeded:
            return True
        found = rows(answer.found())
        return None

    return by_compare(name, patch, attempt)


def record(store: EtcdStore, name: str, budget: float) -> Record | None:
    """See :meth:`lockkit.store.spi.Backend.record`."""
    _, found = store.transport.range(Get(keys.record(store.namespace, name)), budget)
    return _record(name, found.kvs[0]) if found.kvs else None


def put_record(
    store: EtcdStore, name: str, value: Mapping[str, object], version: int, budget: float
) -> Record:
    """See :meth:`lockkit.store.spi.Backend.put_record`.

    Raises:
        Conflict: The record has another version.
        ConfigError: The value is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    note_text(value, NOTE_LIMIT, "record")
    end = time.monotonic() + budget
    get = Get(keys.record(store.namespace, name))
    _, found = store.transport.range(get, left(end))
    current = _record(name, found.kvs[0]) if found.kvs else None
    if (current.version if current else 0) != version:
        raise Conflict(current)
    written = store.clock.wall()
    stored = {"v": LAYOUT, "version": version + 1, "written": written, "value": dict(value)}
    unchanged = Compare(get.key, "MOD", "EQUAL", found.kvs[0].modified if found.kvs else 0)
    answer = store.txn(Txn((unchanged,), (Put(get.key, packed(stored)),), (get,)), end)
    if answer.succeeded:
        return Record(name, merged({}, value), version + 1, written)
    kvs = answer.found()
    raise Conflict(_record(name, kvs[0]) if kvs else None)


def _record(name: str, kv: Kv) -> Record:
    value = unpacked(kv)
    try:
        return Record(name, value["value"], value["version"], value["written"])
    except KeyError:
        raise strange(kv) from None
