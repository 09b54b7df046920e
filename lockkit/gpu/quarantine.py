"""The quarantine: cards of a host that nobody gets, by a person's word or because a program found them faulty.

All marks of a host stand in one record, that of the gate of its pool. So one request reads them, and the limit on what is quarantined
without a person holds whoever else writes at the same moment: each change compares the version of the record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, TypeVar

from lockkit.devices import Device
from lockkit.errors import ConfigError
from lockkit.facts import Event, Owner
from lockkit.gpu.host_pools import host_pool
from lockkit.members import pool_name
from lockkit.namedtuples import NamedTuple
from lockkit.noted import moment
from lockkit.printable import printable
from lockkit.records import Records, change
from lockkit.store.spi import NOTE_LIMIT

if TYPE_CHECKING:
    from lockkit.client import Client

__all__ = [
    "Capped",
    "Quarantined",
    "clear",
    "give_back",
    "limit",
    "mark_of",
    "quarantine",
    "quarantine_faulty",
    "quarantined",
    "record_name",
]

_KEY = "quarantine"
_LENGTHS = (200, 80, 40, 16)
"""Characters to which the reasons are cut, the first at which the record is not too long."""


_WHOLE: Mapping[str, str] = {}
"""The parents where no card is divided into slices."""
Mark = TypeVar("Mark")


class Quarantined(NamedTuple):
    """The mark of a quarantined card.

    Attributes:
        uuid: The card, or the slice.
        reason: Why nobody gets it; "" if the mark cannot be read. The card is quarantined all the same.
        by: The user and host that quarantined it.
        since: When, in seconds since the epoch; 0 if unknown.
        automatic: Whether no person did.
        lasting: Whether only a person can tell that the card is well again, because the driver does not show what was found.
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


class Capped(NamedTuple):
    """The answer to a quarantine without a person that would leave too few cards. The card stays in use, and a person should look.

    Attributes:
        count: The cards of the host that are quarantined.
        limit: The most that may be, without a person.
    """

    count: int  # type: ignore[assignment]  # shadows the method of tuples, which nobody needs here
    limit: int


def limit(cards: int) -> int:
    """The most cards of a host with this number of cards that are quarantined without a person: at least one, at most half of them."""
    return max(1, cards // 2)


def record_name(host: str) -> str:
    """The name whose record has the marks of a host: the gate of its pool of cards."""
    return pool_name(host_pool(host))


def quarantined(records: Records, host: str) -> dict[str, Quarantined]:
    """The marks of a host, by UUID. One request."""
    record = records.record(record_name(host))
    return {} if record is None else _marks(record.value)


def mark_of(marks: Mapping[str, Mark], device: Device) -> Mark | None:
    """The mark that keeps a card from everybody: its own, or for a slice also that of its card; None if there is none.

    Args:
        marks: The marks of a host, by UUID, or words about them.
        device: The card or slice.
    """
    return marks.get(device.uuid) or marks.get(device.parent or "")


def quarantine(records: Records, host: str, uuid: str, reason: str, by: Owner) -> Quarantined:
    """Quarantine a card for everybody, by a person's word. A mark that is there already is replaced.

    Raises:
        ConfigError: The record has no room for one more mark.
    """
    mark = Quarantined(uuid, reason, _who(by), _now())
    _change(records, host, lambda marks: {**marks, uuid: mark})
    return mark


def quarantine_faulty(
    records: Records,
    host: str,
    uuid: str,
    reason: str,
    by: Owner,
    cards: Collection[str],
    parents: Mapping[str, str] = _WHOLE,
    *,
    lasting: bool = False,
) -> Quarantined | Capped:
    """Quarantine a card without a person, because it was found faulty, if enough others are left.

    A driver's update may make every card look faulty at once, and must not take every card out of use. So of the ``cards`` of a host at least
    one, and at most half, are quarantined in this way; those that a person quarantined count too. A mark that is there already stays.

    Args:
        records: A client.
        host: The host.
        uuid: The card.
        reason: What was found.
        by: The owner of the process that found it.
        cards: The UUIDs of all cards of the host, without slices.
        parents: The card of each slice. A card counts once, however many of its slices are quarantined; one whose card is not told counts
            as a card of its own.
        lasting: Whether the mark stays until a person clears it, although the driver shows no fault.
    """
    new = Quarantined(uuid, reason, _who(by), _now(), automatic=True, lasting=lasting)
    answer: list[Quarantined | Capped] = []

    def decide(marks: dict[str, Quarantined]) -> dict[str, Quarantined]:
        hit = {
            parents.get(one, one) for one in marks if one in cards or marks[one].automatic or one in parents
        }
        most, count = limit(len(cards)), len(hit)
        if uuid in marks:
            answer.append(marks[uuid])
            return marks
        if count >= most and parents.get(uuid, uuid) not in hit:
            answer.append(Capped(count, most))
            return marks
        answer.append(new)
        return {**marks, uuid: new}

    _change(records, host, decide)
    return answer[-1]


def clear(records: Records, host: str, uuid: str, *, only: Quarantined | None = None) -> Quarantined | None:
    """Give a card back to everybody.

    Args:
        records: A client.
        host: The host.
        uuid: The card.
        only: The mark to remove; any other one stays. None for whatever mark there is.

    Returns:
        The mark that this call has removed, or another one that stays; None if there was none.
    """
    found: list[Quarantined | None] = []

    def decide(marks: dict[str, Quarantined]) -> dict[str, Quarantined]:
        found.append(marks.get(uuid))
        if only is not None and found[-1] != only:
            return marks
        return {key: mark for key, mark in marks.items() if key != uuid}

    if not _change(records, host, decide):
        return found[-1]
    # A request without an answer may have been applied; then the next look finds nothing to remove.
    return next((mark for mark in reversed(found) if mark is not None), None)


def give_back(client: Client, host: str, uuid: str, reason: str, by: Owner) -> Quarantined | None:
    """Give a card back to everybody by a person's word, and tell of it as the event ``gpu_cleared``. Returns the mark that it had, if any.

    Args:
        client: The client.
        host: The host.
        uuid: The card.
        reason: Why; empty if none was given.
        by: The owner of the process in which the person says so.
    """
    mark = clear(client, host, uuid)
    if mark is not None:
        data = {"uuid": uuid, "by": _who(by), "mark": str(mark)}
        client.driver().dispatcher.tell(Event("gpu_cleared", record_name(host), reason=reason, data=data))
    return mark


def _change(
    records: Records, host: str, decide: Callable[[dict[str, Quarantined]], Mapping[str, Quarantined]]
) -> bool:
    """Change the marks of a host, and leave all else in the record as it is. Returns whether this call has, or may have."""
    name = record_name(host)

    def decided(value: Mapping[str, object]) -> Mapping[str, object] | None:
        before = _marks(value)
        after = decide(before)
        return None if after == before else _written(value, after, name)

    return change(records, name, decided)


def _written(rest: Mapping[str, object], marks: Mapping[str, Quarantined], name: str) -> dict[str, object]:
    for length in _LENGTHS:
        kept = {
            uuid: {
                "why": mark.reason[:length],
                "by": mark.by,
                "at": round(mark.since),
                "auto": mark.automatic,
                **({"stays": True} if mark.lasting else {}),
            }
            for uuid, mark in marks.items()
        }
        value = {**rest, _KEY: kept}
        if len(json.dumps(value, separators=(",", ":"))) <= NOTE_LIMIT:
            return value
    raise ConfigError(
        f"the record of {name!r} has no room for {len(marks)} quarantined cards",
        name=name,
        hint="clear some of them: lockkit gpu clear UUID",
    )


def _marks(value: Mapping[str, object]) -> dict[str, Quarantined]:
    """The marks in a record. A mark that cannot be read quarantines its card all the same."""
    kept = value.get(_KEY)
    return {uuid: _mark(uuid, one) for uuid, one in kept.items()} if isinstance(kept, Mapping) else {}


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


def _who(owner: Owner) -> str:
    return f"{owner.user}@{owner.host}"[:64]


def _now() -> float:
    """The time, to the second, as a mark keeps it."""
    return float(round(time.time()))
