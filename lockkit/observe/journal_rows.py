"""Rows of the event journals: which can be read, and what one of them says of the past."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, MsgspecError, Struct, convert
from msgspec.json import Decoder
from msgspec.structs import replace

from lockkit.config.store_names import is_local, one_name
from lockkit.facts import LOSSES, NOTHING, Kind, Owner
from lockkit.observe.past import Happening, PastHold, PastResize, PastStep, PastWait, StoreKey

__all__ = [
    "Row",
    "bounded",
    "happening_of",
    "hold_of",
    "holder_of",
    "key_of",
    "owner_of",
    "resizes",
    "resource_of",
    "row_of",
    "seconds_in",
    "short_of",
    "step_of",
    "wait_of",
    "with_end",
]

_LATEST = 253_402_300_800.0
"""The first second of the year 10,000. A journal writes no such time, and none that is not a number."""
_Seconds: TypeAlias = Annotated[float, Meta(ge=0, lt=_LATEST)]
_STEPS: Mapping[str, Literal["opened", "written", "refused"]] = {
    "guard_written": "written",
    "guard_refused": "refused",
}


class Row(Struct):
    """One line of a journal, as :mod:`lockkit.observe.event_journal` writes it."""

    v: Literal[1]
    writer: str
    n: int
    kind: str
    at: _Seconds
    store: str
    scope: str
    namespace: str
    host: str
    pid: int
    user: str = ""
    boot: str = ""
    started: _Seconds = 0.0
    program: str = ""
    task: str | None = None
    name: str = ""
    claim: str = ""
    fence: int = 0
    reason: str = ""
    boottime: _Seconds = 0.0
    duration: _Seconds = 0.0
    until: _Seconds | None = None
    lock: str = "mutex"
    weight: int = 1
    capacity: int = 1
    alert: str = ""
    priority: str = ""
    message: str = ""
    data: Mapping[str, Any] = NOTHING


_decode = Decoder(Row).decode


def row_of(line: bytes) -> Row | None:
    """A line as a row; None if the line is torn, of another version, or not from a journal."""
    with contextlib.suppress(MsgspecError, ValueError, RecursionError):
        return _decode(line)
    try:  # the standard library accepts half a surrogate pair, as in a program's name; msgspec does not
        return convert(json.loads(line.decode("utf-8", errors="replace")), Row)
    except (MsgspecError, ValueError, RecursionError):
        return None


def seconds_in(data: Mapping[str, object], key: str) -> float | None:
    """Seconds in the data of an event; None if there are none."""
    value = data.get(key)
    sane = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LATEST
    return float(value) if sane and isinstance(value, (int, float)) else None


def short_of(owner: str) -> str:
    """An owner in words, without the name of the program, which may change."""
    return owner.partition(" (")[0]


def owner_of(row: Row) -> Owner:
    """The process that wrote the row."""
    return Owner(row.user, row.host, row.pid, row.boot, row.started, row.program, None, row.task)


def key_of(row: Row) -> StoreKey:
    """The store and namespace of the row."""
    within = {
        "process": f"{row.host} pid {row.pid} {row.boot} {row.started}",
        "user": f"{row.user}@{row.host}",
        "host": row.host,
    }
    scope, store = row.scope, one_name(row.store)
    if scope not in within and is_local(store):
        scope = "host"  # each host has a store of its own at this URL
    return StoreKey(store, row.namespace, within.get(scope, ""))


def hold_of(row: Row, key: StoreKey, owner: Owner, ttl: float | None) -> PastHold:
    """The hold that an ``acquired`` row begins."""
    longest = seconds_in(row.data, "max_hold")
    kind: Kind = row.lock if row.lock in ("mutex", "semaphore", "read", "write") else "mutex"  # type: ignore[assignment]
    return PastHold(
        key,
        row.name,
        row.claim,
        row.fence,
        owner,
        row.at,
        row.duration,
        kind=kind,
        weight=row.weight,
        capacity=row.capacity,
        began_boottime=row.boottime,
        ttl=ttl,
        latest=None if longest is None else row.at + longest,
    )


def with_end(hold: PastHold, row: Row) -> PastHold:
    """The hold, ended by a row. Of several ends the first counts, and the earliest end of certainty."""
    until = row.until
    ended = max(hold.began, row.at if until is None else hold.began + until - hold.began_boottime)
    if hold.until_boottime is not None:
        until = hold.until_boottime if until is None else min(until, hold.until_boottime)
    if hold.told is not None and hold.told <= row.at:
        return replace(hold, until_boottime=until)
    return replace(hold, until_boottime=until, ended=ended, end=row.kind, reason=row.reason, told=row.at)


def bounded(hold: PastHold, at: float, boottime: float, boot: str) -> PastHold:
    """The hold, over at the latest by a moment, given in wall and boot time of the boot that read them."""
    if boot != hold.owner.boot_id:
        return replace(hold, latest_elsewhere=_earlier(hold.latest_elsewhere, at))
    latest = hold.began + max(0.0, boottime - hold.began_boottime)
    return replace(hold, latest=_earlier(hold.latest, latest))


def _earlier(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)


def resizes(row: Row) -> tuple[PastResize, ...]:
    """A change of capacity; nothing if there was no claim to change."""
    capacity, claims = row.data.get("capacity"), row.data.get("claims")
    if not isinstance(capacity, int) or not isinstance(claims, int) or claims < 1:
        return ()
    took = row.duration
    return (PastResize(capacity, row.at - took, row.boottime - took, row.boot, took),)


def holder_of(row: Row) -> str:
    """The holder that was in the way, in words; empty if the row has none."""
    holder = row.data.get("holder")
    return "" if holder is None else str(holder)


def wait_of(row: Row, key: StoreKey, owner: Owner, holder: str) -> PastWait:
    """The attempt whose end the row records."""
    return PastWait(key, row.name, owner, row.kind, row.at, row.duration, holder)


def resource_of(row: Row) -> str:
    """The resource of a step, with the host if another host has another one of this name."""
    resource = str(row.data.get("resource", ""))
    return f"{resource} on {row.host}" if row.data.get("local") else resource


def step_of(row: Row, key: StoreKey, owner: Owner, resource: str) -> PastStep:
    """The step of a guard that the row records."""
    stored = row.data.get("stored")
    return PastStep(
        key,
        row.name,
        resource,
        _STEPS.get(row.kind, "opened"),
        row.fence,
        row.claim,
        owner,
        row.at,
        row.boottime,
        row.duration,
        stored if isinstance(stored, int) else 0,
    )


def happening_of(row: Row, key: StoreKey, owner: Owner) -> Happening:
    """The row as a happening."""
    told = [
        row.message,
        LOSSES.get(row.reason, row.reason) if row.kind == "lost" else row.reason,
        *(row.data.get(each) for each in ("plugin", "outcome", "error")),
    ]
    return Happening(
        key,
        row.alert or row.kind,
        row.at,
        row.name,
        row.claim,
        owner,
        row.priority,
        " ".join(str(each) for each in told if each),
    )
