"""The record with the marks of the quarantined cards of a host: reading and changing it.

All marks of a host are in one record, that of the gate of its pool. So one request reads them, and concurrent
writers keep to the limit on quarantines without a person: each change compares the version of the record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping

from lockkit.errors import ConfigError
from lockkit.facts import NOTHING, Record
from lockkit.gpu.host_pools import host_pool
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.noted import moment
from lockkit.lib.printable import printable
from lockkit.notes.members import pool_name
from lockkit.notes.records import Records, change, damaged
from lockkit.store.spi import NOTE_LIMIT

__all__ = ["ALL", "CARD_DAMAGED", "DAMAGED", "Kept", "Quarantined", "change_marks", "kept_in", "record_name"]

ALL = "*"
"""In place of a UUID: the mark of all cards of a host, because the record of the marks is damaged."""
DAMAGED = "the record of its mark in the store is damaged"
"""The reason for a card that is quarantined because nobody knows whether it had a mark."""
CARD_DAMAGED = "its record in the store is damaged"
"""The reason for a card of which nobody knows its capacity, nor how its last holder left it."""
_KEY = "quarantine"
_SPARED = "spared"
"""The key of the cards that the limit kept in use, each with the time of the last alert."""
_TELL_AGAIN = 3600.0
"""Seconds after which another alert reports a card that the limit keeps in use."""
_LENGTHS = (200, 80, 40, 16)
"""Characters to which the reasons are cut, the first at which the record is not too long."""
_NONE: Mapping[str, float] = {}
_DAMAGED: Mapping[str, object] = {_KEY: None}


class Quarantined(NamedTuple):
    """The mark of a quarantined card.

    Attributes:
        uuid: The card, or the slice.
        reason: Why nobody gets it; "" if the mark cannot be read. The card is quarantined all the same.
        by: The user and host that quarantined it.
        since: When, in seconds since the epoch; 0 if unknown.
        automatic: Whether no person did.
        lasting: Whether only a person can find the card well again: the driver does not show the fault.
    """

    uuid: str
    reason: str = ""
    by: str = ""
    since: float = 0.0
    automatic: bool = False
    lasting: bool = False

    def __str__(self) -> str:
        how = "found faulty" if self.automatic else "quarantined"
        who = f" by {self.by}" if self.by else ""
        return printable(f"{how}{who}: {self.reason or 'for an unknown reason'}")


class Kept(NamedTuple):
    """The marks of a host, and the time of the last alert for each card that the limit kept in use."""

    marks: Mapping[str, Quarantined]
    spared: Mapping[str, float] = _NONE


def record_name(host: str) -> str:
    """The name whose record has the marks of a host: the gate of its pool of cards."""
    return pool_name(host_pool(host))


def kept_in(record: Record | None) -> Kept:
    """The marks in a record, and cards that the limit spared in the last hour. Damage marks all cards."""
    if record is None:
        return Kept({})
    return _kept(_DAMAGED if record.damaged else record.value)


def _kept(value: Mapping[str, object]) -> Kept:
    return Kept(_marks(value), _spared(value))


def change_marks(
    records: Records, host: str, decide: Callable[[Kept], Kept], *, cards: Collection[str] | None = None
) -> bool:
    """Change the marks of a host, and nothing else in the record. Returns whether this call has, or may have.

    Args:
        records: A client.
        host: The host.
        decide: Returns the new marks for the present ones.
        cards: By a person's command, the UUIDs of all cards of the host: damaged marks are replaced by one of
            each card. None if no person asked for the change.

    Raises:
        BackendError: As :func:`lockkit.notes.records.change`; also for damaged marks if ``cards`` is None.
    """
    name = record_name(host)

    def decided(value: Mapping[str, object]) -> Mapping[str, object] | None:
        before = _kept(value)
        if ALL in before.marks:
            if cards is None:
                raise damaged(name)
            now = float(round(time.time()))
            before = Kept({uuid: Quarantined(uuid, DAMAGED, since=now) for uuid in cards})
        after = decide(before)
        return None if after == _kept(value) else _written(value, after, name)

    return change(records, name, decided, instead=None if cards is None else _DAMAGED)


def _written(rest: Mapping[str, object], kept: Kept, name: str) -> dict[str, object]:
    others = {key: value for key, value in rest.items() if key != _SPARED}
    told = {_SPARED: {uuid: round(at) for uuid, at in kept.spared.items()}} if kept.spared else {}
    for length in _LENGTHS:
        marks = {
            uuid: {
                "why": mark.reason[:length],
                "by": mark.by,
                "at": round(mark.since),
                "auto": mark.automatic,
                **({"stays": True} if mark.lasting else {}),
            }
            for uuid, mark in kept.marks.items()
        }
        for more in (told, {}):  # to be told of a card once more is better than a mark that has no room
            value = {**others, _KEY: marks, **more}
            if len(json.dumps(value, separators=(",", ":"))) <= NOTE_LIMIT:
                return value
    raise ConfigError(
        f"the record of {name!r} has no room for {len(kept.marks)} quarantined cards",
        name=name,
        hint="clear some of them: lockkit gpu clear UUID",
    )


def _spared(value: Mapping[str, object]) -> dict[str, float]:
    """The cards in a record that the limit kept in use within the last hour, each with its last alert."""
    kept = value.get(_SPARED)
    found = {uuid: moment(at) for uuid, at in kept.items()} if isinstance(kept, Mapping) else {}
    now = time.time()
    return {uuid: at for uuid, at in found.items() if at is not None and abs(now - at) < _TELL_AGAIN}


def _marks(value: Mapping[str, object]) -> dict[str, Quarantined]:
    """The marks in a record. A mark that cannot be read quarantines its card all the same."""
    kept = value.get(_KEY, NOTHING)
    if not isinstance(kept, Mapping):
        return {ALL: Quarantined(ALL, DAMAGED)}
    return {uuid: _mark(uuid, one) for uuid, one in kept.items()}


def _mark(uuid: str, stored: object) -> Quarantined:
    if not isinstance(stored, Mapping):
        return Quarantined(uuid)
    return Quarantined(
        uuid,
        str(stored.get("why") or ""),
        str(stored.get("by") or ""),
        moment(stored.get("at")) or 0.0,
        stored.get("auto") is True,
        stored.get("stays") is True,
    )
