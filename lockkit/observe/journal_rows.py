"""Rows of the event journals: which can be read, and what one of them says of the past."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from lockkit.facts import LOSSES, NOTHING, Kind, Owner
from lockkit.observe.past import Happening, PastHold, PastResize, PastStep, PastWait, StoreKey
from lockkit.observe.store_names import one_name

if TYPE_CHECKING:
    from lockkit.facts import Scope

__all__ = [
    "bounded",
    "data_of",
    "happening_of",
    "hold_of",
    "key_of",
    "number_of",
    "owner_of",
    "readable",
    "resizes",
    "short_of",
    "step_of",
    "wait_of",
    "with_end",
]

_LATEST = 253_402_300_800.0
"""The first second of the year 10,000; a time from then on, or one that is no number, was not written by a journal."""
_STEPS: Mapping[str, Literal["opened", "written", "refused"]] = {
    "guard_written": "written",
    "guard_refused": "refused",
}
_LOOPBACK = re.compile(
    r"[a-z0-9+]+://(?:[^/@]*@)?(?:localhost|127\.[0-9.]+|\[::1\])(?:[:/,]|$)", re.IGNORECASE
)


def readable(line: Mapping[str, object]) -> bool:
    """Whether a line has what every line has, so that nothing below fails on a line that somebody wrote by hand."""
    texts = all(isinstance(line.get(key), str) for key in ("kind", "store", "scope", "namespace", "host"))
    times = [line.get(key) for key in ("at", "boottime", "duration", "until", "started")]
    sane = all(isinstance(each, (int, float)) and 0 <= each < _LATEST for each in times if each is not None)
    return texts and sane and times[0] is not None and isinstance(line.get("pid"), int)


def number_of(line: Mapping[str, object], key: str) -> float:
    """The number at a key; 0 if there is none."""
    value = line.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _whole(line: Mapping[str, object], key: str, default: int) -> int:
    value = line.get(key)
    return value if isinstance(value, int) else default


def seconds_in(data: Mapping[str, object], key: str) -> float | None:
    """Seconds in the data of an event; None if there are none."""
    value = data.get(key)
    sane = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LATEST
    return float(value) if sane and isinstance(value, (int, float)) else None


def data_of(line: Mapping[str, object]) -> Mapping[str, object]:
    """The data of the event."""
    data = line.get("data")
    return data if isinstance(data, dict) else NOTHING


def short_of(owner: str) -> str:
    """An owner in words, without the name of the program, which may change."""
    return owner.partition(" (")[0]


def owner_of(line: Mapping[str, object]) -> Owner:
    """The process that wrote the line."""
    task = line.get("task")
    return Owner(
        user=str(line.get("user", "")),
        host=str(line["host"]),
        pid=_whole(line, "pid", 0),
        boot_id=str(line.get("boot", "")),
        started=number_of(line, "started"),
        program=str(line.get("program", "")),
        task=None if task is None else str(task),
    )


def key_of(line: Mapping[str, object]) -> StoreKey:
    """The store and namespace of the line."""
    owner = owner_of(line)
    within = {
        "process": f"{owner.host} pid {owner.pid} {owner.boot_id} {owner.started}",
        "user": f"{owner.user}@{owner.host}",
        "host": owner.host,
    }
    scope: Scope | str = str(line["scope"])
    store = one_name(str(line["store"]))
    if scope not in within and _LOOPBACK.match(store):
        scope = "host"  # each host has a store of its own at this URL
    return StoreKey(store, str(line["namespace"]), within.get(scope, ""))


def hold_of(line: Mapping[str, object]) -> PastHold:
    """The hold that an ``acquired`` line begins."""
    lock = str(line.get("lock", "mutex"))
    kind: Kind = lock if lock in ("mutex", "semaphore", "read", "write") else "mutex"  # type: ignore[assignment]
    data = data_of(line)
    longest = seconds_in(data, "max_hold")
    return PastHold(
        key=key_of(line),
        name=str(line.get("name", "")),
        claim_id=str(line.get("claim", "")),
        fence=_whole(line, "fence", 0),
        owner=owner_of(line),
        began=number_of(line, "at"),
        waited=number_of(line, "duration"),
        kind=kind,
        weight=_whole(line, "weight", 1),
        capacity=_whole(line, "capacity", 1),
        began_boottime=number_of(line, "boottime"),
        ttl=seconds_in(data, "ttl"),
        latest=None if longest is None else number_of(line, "at") + longest,
    )


def with_end(hold: PastHold, line: Mapping[str, object]) -> PastHold:
    """The hold, with an end that a line tells. Of several ends the first counts, and the earliest end of certainty."""
    told = line.get("until")
    until = float(told) if isinstance(told, (int, float)) else None
    known = [each for each in (hold.until_boottime, until) if each is not None]
    certain = min(known) if known else None
    if hold.end:
        return hold._replace(until_boottime=certain)
    ended = number_of(line, "at") if until is None else hold.began + until - hold.began_boottime
    reason = str(line.get("reason", ""))
    return hold._replace(
        until_boottime=certain, ended=max(ended, hold.began), end=str(line["kind"]), reason=reason
    )


def bounded(hold: PastHold, line: Mapping[str, object]) -> PastHold:
    """The hold, with the latest end that a line leaves it: ``closed`` of its own client, or ``evicted`` or ``dropped`` of its claim.

    An evicted or dropped claim is renewed no more, so its holder is certain for one ttl more at the longest. The ttl is that of the line, because it
    may have been extended since the grant.
    """
    more = 0.0 if line["kind"] == "closed" else seconds_in(data_of(line), "ttl")
    if more is None:
        return hold
    if owner_of(line).boot_id != hold.owner.boot_id:
        return hold._replace(latest_elsewhere=_earlier(hold.latest_elsewhere, number_of(line, "at") + more))
    passed = number_of(line, "boottime") - hold.began_boottime
    return hold._replace(latest=_earlier(hold.latest, hold.began + max(0.0, passed + more)))


def _earlier(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)


def resizes(line: Mapping[str, object]) -> tuple[PastResize, ...]:
    """A change of capacity; nothing if there was no claim to change."""
    capacity, claims = data_of(line).get("capacity"), data_of(line).get("claims")
    if not isinstance(capacity, int) or not isinstance(claims, int) or claims < 1:
        return ()
    took = number_of(line, "duration")
    began = number_of(line, "at") - took, number_of(line, "boottime") - took
    return (PastResize(capacity, *began, owner_of(line).boot_id, took),)


def wait_of(line: Mapping[str, object]) -> PastWait:
    """The attempt whose end the line tells."""
    holder = data_of(line).get("holder")
    return PastWait(
        key_of(line),
        str(line.get("name", "")),
        owner_of(line),
        str(line["kind"]),
        number_of(line, "at"),
        number_of(line, "duration"),
        "" if holder is None else str(holder),
    )


def step_of(line: Mapping[str, object]) -> PastStep:
    """The step of a guard that the line tells."""
    data, owner = data_of(line), owner_of(line)
    resource = str(data.get("resource", ""))
    return PastStep(
        key_of(line),
        str(line.get("name", "")),
        f"{resource} on {owner.host}" if data.get("local") else resource,
        _STEPS.get(str(line["kind"]), "opened"),
        _whole(line, "fence", 0),
        str(line.get("claim", "")),
        owner,
        number_of(line, "at"),
        number_of(line, "boottime"),
        number_of(line, "duration"),
        _whole(data, "stored", 0),
    )


def happening_of(line: Mapping[str, object]) -> Happening:
    """The line as a happening."""
    data, reason = data_of(line), str(line.get("reason") or "")
    told = [
        line.get("message"),
        LOSSES.get(reason, reason) if line["kind"] == "lost" else reason,
        data.get("plugin"),
        data.get("outcome"),
        data.get("error"),
    ]
    return Happening(
        key_of(line),
        str(line.get("alert", line["kind"])),
        number_of(line, "at"),
        str(line.get("name", "")),
        str(line.get("claim", "")),
        owner_of(line),
        str(line.get("priority", "")),
        " ".join(str(each) for each in told if each),
        data,
    )
