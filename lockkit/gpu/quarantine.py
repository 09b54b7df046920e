"""The quarantine: cards that nobody gets, by a mark (:mod:`lockkit.gpu.marks`) of a person or for a fault."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from lockkit.facts import Event, Owner, Record
from lockkit.gpu.devices import Device
from lockkit.gpu.homes import mend_home
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.marks import ALL, CARD_DAMAGED, Kept, Quarantined, change_marks, kept_in, record_name
from lockkit.lib.namedtuples import NamedTuple
from lockkit.notes.members import pool_name
from lockkit.notes.records import Records, change, is_damaged

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = [
    "Capped",
    "Found",
    "Quarantined",
    "clear",
    "find_faulty",
    "give_back",
    "limit",
    "mark_of",
    "mark_of_damage",
    "quarantine",
    "quarantine_faulty",
    "quarantined",
    "spared",
]

_WHOLE: Mapping[str, str] = {}
"""The parents where no card is divided into slices."""
Mark = TypeVar("Mark")


class Capped(NamedTuple):
    """The refusal of a quarantine without a person that leaves too few cards. The card stays in use.

    Attributes:
        count: The cards of the host that are quarantined.
        limit: The most that may be, without a person.
    """

    count: int  # type: ignore[assignment]  # shadows the method of tuples, which nobody needs here
    limit: int


class Found(NamedTuple):
    """The answer to a card that was found faulty.

    Attributes:
        done: The mark of the card, or why the card has none.
        fresh: Whether to raise an alert: this call has set the mark, or the limit keeps the card in use, and
            no alert has said so within the last hour.
    """

    done: Quarantined | Capped
    fresh: bool


def limit(cards: int) -> int:
    """The most cards of a host to quarantine without a person: at least one, and at most half of all."""
    return max(1, cards // 2)


def quarantined(records: Records, host: str, cards: Iterable[str] = ()) -> dict[str, Quarantined]:
    """The marks of a host, by UUID; one for all (``ALL``) if damaged. One request, and one for each card.

    Args:
        records: A client.
        host: The host.
        cards: The cards that have a mark also if their own records are damaged.
    """
    marks = dict(kept_in(records.record(record_name(host))).marks)
    for uuid in cards:
        mark = mark_of_damage(uuid, records.record(_card(host, uuid)))
        if mark is not None:
            marks.setdefault(uuid, mark)
    return marks


def mark_of_damage(uuid: str, record: Record | None) -> Quarantined | None:
    """The mark of a card whose own record, with its capacity and receipt, is damaged; None if it is not."""
    return Quarantined(uuid, CARD_DAMAGED) if is_damaged(record) else None


def spared(records: Records, host: str) -> frozenset[str]:
    """The faulty cards of a host that the limit kept in use within the last hour. One request."""
    return frozenset(kept_in(records.record(record_name(host))).spared)


def mark_of(marks: Mapping[str, Mark], device: Device) -> Mark | None:
    """The mark that keeps a card from everybody: its own, that of a slice's card, or one for all; else None.

    Args:
        marks: The marks of a host, by UUID, or words about them.
        device: The card or slice.
    """
    return marks.get(device.uuid) or marks.get(device.parent or "") or marks.get(ALL)


def quarantine(
    records: Records, host: str, uuid: str, reason: str, by: Owner, cards: Collection[str] | None = None
) -> Quarantined:
    """Quarantine a card for everybody, by a person's word. A mark that is there already is replaced.

    Args:
        records: A client.
        host: The host.
        uuid: The card.
        reason: Why.
        by: The owner of the process in which the person says so.
        cards: The UUIDs of all cards of the host, to replace damaged marks, otherwise an error.

    Raises:
        ConfigError: The record has no room for one more mark.
        BackendError: The store did not do it, or the marks are damaged.
    """
    mark = Quarantined(uuid, reason, _who(by), _now())
    change_marks(records, host, lambda kept: _with(kept, mark), cards=cards)
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

    A driver's update may make all cards look faulty, and must not take all out of use. So at least one, and
    at most half, of the ``cards`` are quarantined like this, persons' marks included. An existing mark stays.

    Args:
        records: A client.
        host: The host.
        uuid: The card.
        reason: What was found.
        by: The owner of the process that found it.
        cards: The UUIDs of all cards of the host, without slices.
        parents: The card of each slice. A card counts once, however many of its slices are quarantined; a
            slice of an unknown card counts as a card.
        lasting: Whether the mark stays until a person clears it, although the driver shows no fault.
    """
    return find_faulty(records, host, uuid, reason, by, cards, parents, lasting=lasting).done


def find_faulty(
    records: Records,
    host: str,
    uuid: str,
    reason: str,
    by: Owner,
    cards: Collection[str],
    parents: Mapping[str, str] = _WHOLE,
    *,
    lasting: bool = False,
) -> Found:
    """Quarantine a card as :func:`quarantine_faulty`, and say whether this one of several callers alerts."""
    new = Quarantined(uuid, reason, _who(by), _now(), automatic=True, lasting=lasting)
    answer: list[Found] = []

    def decide(kept: Kept) -> Kept:
        # A first call without an answer may have made the change: then the mark has the time of this call.
        marks = kept.marks
        hit = {
            parents.get(one, one) for one in marks if one in cards or marks[one].automatic or one in parents
        }
        most, count = limit(len(cards)), len(hit)
        if uuid in marks:
            mine = bool(answer) and marks[uuid]._replace(reason=reason) == new
            answer.append(Found(marks[uuid], mine))
            return kept
        if count >= most and parents.get(uuid, uuid) not in hit:
            told = kept.spared.get(uuid)
            answer.append(Found(Capped(count, most), told is None or (bool(answer) and told == new.since)))
            return kept if told is not None else kept._replace(spared={**kept.spared, uuid: new.since})
        answer.append(Found(new, fresh=True))
        return _with(kept, new)

    change_marks(records, host, decide)
    return answer[-1]


def clear(
    records: Records,
    host: str,
    uuid: str,
    *,
    only: Quarantined | None = None,
    cards: Collection[str] | None = None,
) -> Quarantined | None:
    """Give a card back to everybody.

    Args:
        records: A client.
        host: The host.
        uuid: The card.
        only: The mark to remove; any other one stays. None for whatever mark there is.
        cards: By a person's word, the UUIDs of all cards: others get new marks in place of damaged ones.

    Returns:
        The mark that this call has removed, or another one that stays; None if there was none.
    """
    found: list[Quarantined | None] = []

    def decide(kept: Kept) -> Kept:
        found.append(kept.marks.get(uuid))
        if found[-1] is None or only not in (None, found[-1]):
            return kept
        # Nothing is spared any more: the limit has room for one.
        return Kept({key: mark for key, mark in kept.marks.items() if key != uuid})

    changed = change_marks(records, host, decide, cards=cards)
    # A request without an answer may have been applied; then the next look finds nothing to remove.
    return next((mark for mark in reversed(found) if mark is not None), None) if changed else found[-1]


def _mend(records: Records, host: str, uuid: str) -> Quarantined | None:
    """Empty the record of a card, if it is damaged. Returns the mark that the card had for that."""
    name = _card(host, uuid)
    mark = mark_of_damage(uuid, records.record(name))
    if mark is not None:
        change(records, name, lambda _: None, instead={})
    return mark


def _card(host: str, uuid: str) -> str:
    return pool_name(host_pool(host), uuid)


def give_back(
    client: Client, host: str, uuid: str, reason: str, by: Owner, cards: Collection[str] | None = None
) -> Quarantined | None:
    """Give a card back by a person's word, and publish ``gpu_cleared``. Returns the mark that it had, if any.

    A damaged record of the card is replaced by an empty one.

    Args:
        client: The client.
        host: The host.
        uuid: The card.
        reason: Why; empty if none was given.
        by: The owner of the process in which the person says so.
        cards: See :func:`clear`.
    """
    damage = _mend(client, host, uuid)
    if mend_home(client, uuid):
        damage = damage or Quarantined(uuid, CARD_DAMAGED)
    mark = clear(client, host, uuid, cards=cards) or damage
    if mark is not None:
        data = {"uuid": uuid, "by": _who(by), "mark": str(mark)}
        client.driver().dispatcher.tell(Event("gpu_cleared", record_name(host), reason=reason, data=data))
    return mark


def _with(kept: Kept, mark: Quarantined) -> Kept:
    rest = {uuid: at for uuid, at in kept.spared.items() if uuid != mark.uuid}
    return Kept({**kept.marks, mark.uuid: mark}, rest)


def _who(owner: Owner) -> str:
    return f"{owner.user}@{owner.host}"[:64]


def _now() -> float:
    """The time, to the second, as a mark keeps it."""
    return float(round(time.time()))
