"""The requests of operators: inspect queues, evict, resize, annotate; and the records that outlive claims."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lockkit.facts import ClaimInfo, Evicted, LockInfo, Record
from lockkit.store.comparing import ROUNDS
from lockkit.store.judging import NOBODY, judged, judgement
from lockkit.store.layouts import record_in
from lockkit.store.notes import note_text, too_long
from lockkit.store.queue import check_capacity
from lockkit.store.spi import NOTE_LIMIT, Conflict, Refused, Unknown
from lockkit.values.names import claim_id, is_namespace
from lockkit_sqlite import statements as sql
from lockkit_sqlite.failures import busy
from lockkit_sqlite.layout import HELD, LINGERING, READER, WAITING
from lockkit_sqlite.pulse import ALIVE, DEAD, UNKNOWN, Health
from lockkit_sqlite.rows import DAMAGED, Row, blocks_until, check_rows, unread
from lockkit_sqlite.store import SQLiteStore

__all__ = ["annotate", "evict", "inspect", "names", "namespaces", "put_record", "record", "resize"]

_MOST = (1 << 40) - 1
"""The largest capacity: the weights of 2 ** 23 such claims add up to no more than an INTEGER holds."""


def inspect(store: SQLiteStore, name: str, end: float) -> LockInfo:
    """See :meth:`lockkit.store.spi.Backend.inspect`.

    Claims of dead processes, which the next acquire removes, are left out, so that what is shown as free is
    free. One that must go on blocking is made to linger first, because its lock_delay only starts then.
    """
    rows, health = _standing(store, name, end)
    if any(_dies(store, row, health) for row in rows):
        try:
            if not store.settle(store.calls, name, rows, store.now(), end):
                store.bury_dead(store.calls, name, rows, end)
            rows, health = _standing(store, name, end)
        except (Refused, Unknown):  # an observer may not write: it sees what is stored
            pass
    claims = tuple(_shown(store, name, rows, place, health) for place in range(len(rows)))
    return LockInfo(name, claims, store.clock.wall())


def _standing(store: SQLiteStore, name: str, end: float) -> tuple[list[Row], dict[str, Health]]:
    """The claims that count now, and what the pulses of all claims say."""
    rows, now = store.seen(store.calls, name, end), store.now()
    health = {fifo: store.pulses.health(fifo) for fifo in {row.fifo for row in rows}}
    standing = []
    for row in rows:
        if unread(row, now):
            standing.append(row)
        elif _dies(store, row, health):
            offset = 0 if row.boot == store.boot else row.epoch - store.epoch()
            if blocks_until(row, now, offset) > now:
                standing.append(row)
        elif row.deadline > now:
            standing.append(row)
    return standing, health


def _dies(store: SQLiteStore, row: Row, health: Mapping[str, Health]) -> bool:
    """Whether the next acquire would remove the claim, because its process is dead."""
    if row.boot != store.boot:
        return health[row.fifo] != ALIVE
    if row.state == LINGERING or row.deadline <= store.now():
        return False
    silent = health[row.fifo] == UNKNOWN and bool(row.process_bound) and row.silence <= store.now()
    return silent or health[row.fifo] == DEAD


def _shown(
    store: SQLiteStore, name: str, rows: list[Row], place: int, health: Mapping[str, Health]
) -> ClaimInfo:
    """A claim as a fact, judged if its pulse is alive, with the processes that outlive its owner."""
    row = rows[place]
    info = store.facts(name, rows, place, health[row.fifo])
    if not info.alive or row.state == LINGERING:
        return info
    known = judged(info)
    if known.process == "gone" or (known.evidence == NOBODY and judgement(info.owner)[0] == "gone"):
        return known._replace(kept_by=store.keepers(row.fifo))
    return info if known.process == "unknown" else known


def names(store: SQLiteStore, prefix: str, end: float) -> Sequence[str]:
    """See :meth:`lockkit.store.spi.Backend.names`."""
    return _texts(store.calls.read(sql.NAMES, (store.namespace, prefix, store.now(), store.boot), end))


def namespaces(store: SQLiteStore, end: float) -> Sequence[str]:
    """See :class:`lockkit.store.spi.Extras`."""
    found = _texts(store.calls.read(sql.NAMESPACES, (store.now(), store.boot), end))
    return [name for name in found if is_namespace(name)]


def _texts(rows: Iterable[Sequence[Any]]) -> list[str]:
    """One column of text. What is no text in it is returned as one that no lock can have for its name."""
    return [each if isinstance(each, str) else repr(each) + "\0" for (each,) in rows]


def evict(
    store: SQLiteStore, name: str, wanted: str, end: float, *, at_once: bool, waiting: bool = False
) -> Evicted:
    """See :meth:`lockkit.store.spi.Backend.evict`. With ``waiting``, only a waiting claim is evicted."""
    calls = store.calls
    for _ in range(ROUNDS):
        rows = store.seen(calls, name, end)
        if store.settle(calls, name, rows, store.now(), end):
            continue
        place = _find(rows, wanted)
        if place is None:
            return Evicted("ABSENT")
        row, claim = rows[place], store.facts(name, rows, place)
        if not (at_once and row.min_reader == DAMAGED):
            check_rows([row], name, store.now())
        key = (store.namespace, name, row.fence)
        if at_once or row.state == WAITING:
            statement = sql.EVICT_NOW if at_once else sql.EVICT_WAITING
            if row.state == HELD:
                store.tell_evicted(row)
            if not calls.change(statement, key, end):
                continue  # the claim was granted, or left, a moment ago
            store.ring(row)
            store.ring_fitting(calls, name, end, next_too=True)
            return Evicted("REMOVED", claim=claim)
        if waiting:
            return Evicted("ABSENT")
        if row.state == HELD and not row.evicted:
            _mark(store, name, row, end)
            continue
        return Evicted("MARKED", blocks_until=claim.deadline, claim=claim)
    raise busy(store.place.path)


def _mark(store: SQLiteStore, name: str, row: Row, end: float) -> None:
    """Announce an eviction to the process that holds the claim, and then mark the claim.

    If this process dies in between, a stopped holder's command may be ended for nothing. In the other order
    the command might still run beside the next holder's.
    """
    store.tell_evicted(row)
    store.calls.write(sql.MARK, lambda now: (store.namespace, name, row.token, now), end)
    store.ring_fitting(store.calls, name, end, next_too=True)


def resize(store: SQLiteStore, name: str, capacity: int, end: float) -> int:
    """See :meth:`lockkit.store.spi.Backend.resize`.

    Raises:
        ConfigError: Not a whole number of at least 1.
    """
    check_capacity(capacity, name, _MOST)
    calls = store.calls
    store.settle(calls, name, store.queue(calls, name, end), store.now(), end)
    count = calls.change(sql.RESIZE, (store.namespace, name, capacity), end)
    heavy = [row for row in store.queue(calls, name, end) if row.state == WAITING and row.weight > capacity]
    if heavy:
        calls.change(sql.DELETE_TOO_HEAVY, (store.namespace, name, capacity), end)
        for row in heavy:
            store.ring(row)
    store.ring_fitting(calls, name, end, next_too=bool(heavy))
    return count


def annotate(store: SQLiteStore, name: str, wanted: str, patch: Mapping[str, object], end: float) -> bool:
    """See :meth:`lockkit.store.spi.Backend.annotate`."""
    text = note_text(patch, NOTE_LIMIT)
    rows = store.seen(store.calls, name, end)
    place = _find(rows, wanted)
    if place is None or rows[place].state == LINGERING or rows[place].deadline <= store.now():
        return False
    token = rows[place].token
    if rows[place].min_reader == DAMAGED:
        return False
    check_rows([rows[place]], name, store.now())
    if store.calls.change(sql.ANNOTATE, (store.namespace, name, token, text, NOTE_LIMIT), end):
        return True
    if any(row.token == token for row in store.seen(store.calls, name, end)):
        raise too_long("note", None, NOTE_LIMIT)
    return False


def record(store: SQLiteStore, name: str, end: float) -> Record | None:
    """See :meth:`lockkit.store.spi.Backend.record`."""
    found = store.calls.read(sql.RECORD, (store.namespace, name), end)
    if not found:
        return None
    return record_in(
        name, dict(zip(("version", "value", "written", "min_reader"), found[0], strict=True)), READER
    )


def put_record(
    store: SQLiteStore, name: str, value: Mapping[str, object], version: int, end: float
) -> Record:
    """See :meth:`lockkit.store.spi.Backend.put_record`."""
    text = note_text(value, NOTE_LIMIT, "record")
    wall = store.clock.wall()
    statement = sql.REPLACE_RECORD if version else sql.NEW_RECORD
    if not store.calls.change(statement, (store.namespace, name, version, text, wall), end):
        raise Conflict(record(store, name, end))
    return Record(name, json.loads(text), version + 1, wall)


def _find(rows: Sequence[Row], wanted: str) -> int | None:
    return next((place for place, row in enumerate(rows) if claim_id(row.token) == wanted), None)
