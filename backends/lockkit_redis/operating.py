"""Operations for people: look at queues, evict, resize, annotate; and the records that outlive claims.

Queues are looked at with plain reads, so that an observer needs no right to run scripts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from lockkit.facts import Evicted, LockInfo, Record
from lockkit.store.budgets import left
from lockkit.store.comparing import annotate as by_compare
from lockkit.store.layouts import record_in
from lockkit.store.notes import note_text, patched
from lockkit.store.queue import check_capacity
from lockkit.store.spi import NOTE_LIMIT, Conflict
from lockkit.store.untrusted import object_in
from lockkit_redis import scripts
from lockkit_redis.connection import pack
from lockkit_redis.keys import Keys
from lockkit_redis.store import RedisStore
from lockkit_redis.view import READER, lock_info, tokens

__all__ = ["annotate", "evict", "inspect", "put_record", "record", "resize"]


def inspect(store: RedisStore, name: str, budget: float) -> LockInfo:
    """See :meth:`lockkit.store.spi.Backend.inspect`."""
    return lock_info(name, _read(store, name, budget))


def evict(
    store: RedisStore, name: str, claim_id: str, budget: float, *, at_once: bool, waiting: bool = False
) -> Evicted:
    """See :meth:`lockkit.store.spi.Backend.evict`. With ``waiting``, only a waiting claim is evicted."""
    end = time.monotonic() + budget
    read = _read(store, name, budget)
    token = tokens(read).get(claim_id)
    shown = next((each for each in lock_info(name, read).claims if each.claim_id == claim_id), None)
    if token is None or shown is None:
        return Evicted("ABSENT")
    how = "waiting" if waiting else "now" if at_once else "mark"
    answer = store.run(scripts.EVICT, name, left(end), token, how)
    if answer[0] == b"MARKED":
        until = int(answer[1]) / 1e3
        return Evicted("MARKED", until, shown._replace(evicted=True, deadline=until))
    return Evicted("REMOVED", claim=shown) if answer[0] == b"REMOVED" else Evicted("ABSENT")


def resize(store: RedisStore, name: str, capacity: int, budget: float) -> int:
    """See :meth:`lockkit.store.spi.Backend.resize`.

    Raises:
        ConfigError: Not a whole number of at least 1.
    """
    check_capacity(capacity, name)
    return int(store.run(scripts.RESIZE, name, budget, capacity))


def annotate(store: RedisStore, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
    """See :meth:`lockkit.store.spi.Backend.annotate`. Merged here, as Lua confuses ``{}`` with ``[]``.

    Raises:
        ConfigError: The patch or the resulting note exceeds :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    end = time.monotonic() + budget

    def attempt() -> bool | None:
        read = _read(store, name, left(end))
        token = tokens(read).get(claim_id)
        if token is None:
            return False
        claims = dict(zip(read[2][::2], read[2][1::2], strict=True))
        before = claims.get(f"{token}:note".encode(), b"")
        after = note_text(patched(object_in(before) or {}, patch), NOTE_LIMIT)
        done = store.run(scripts.ANNOTATE, name, left(end), token, before, after)
        return bool(done > 0) if done else None

    return by_compare(name, patch, attempt)


def record(store: RedisStore, name: str, budget: float) -> Record | None:
    """See :meth:`lockkit.store.spi.Backend.record`."""
    key = Keys.of(store.namespace, name).record
    stored = store.ask(key, pack("GET", key), budget)
    return None if stored is None else record_in(name, stored, READER)


def put_record(
    store: RedisStore, name: str, value: Mapping[str, object], version: int, budget: float
) -> Record:
    """See :meth:`lockkit.store.spi.Backend.put_record`.

    Raises:
        Conflict: The record has another version.
        ConfigError: The value is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    text = note_text(value, NOTE_LIMIT, "record")
    written = store.clock.wall()
    stored = f'{{"v":1,"version":{version + 1},"written":{written!r},"value":{text}}}'
    key = Keys.of(store.namespace, name).record
    end, before = time.monotonic() + budget, b""
    while True:
        command = scripts.RECORD.packed((key,), version, stored, before)
        answer = store.ask(key, command, max(end - time.monotonic(), 0.0), script=scripts.RECORD)
        if answer == 1:
            return Record(name, json.loads(text), version + 1, written)
        current = None if answer is None else record_in(name, answer, READER)
        if current is None or not current.damaged or current.version != version or before == answer:
            raise Conflict(current)
        before = answer  # the script cannot judge what is damaged, so it compares all of that record


def _read(store: RedisStore, name: str, budget: float) -> list[Any]:
    """The queue, the deadlines, the claims and the server's clock, all of one moment."""
    keys = Keys.of(store.namespace, name)
    packed = b"".join(
        (
            pack("MULTI"),
            pack("ZRANGE", keys.queue, 0, -1, "WITHSCORES"),
            pack("ZRANGE", keys.deadlines, 0, -1, "WITHSCORES"),
            pack("HGETALL", keys.claims),
            pack("TIME"),
            pack("EXEC"),
        )
    )
    return store.ask(keys.queue, packed, budget, 6)  # type: ignore[no-any-return]
