"""Receipts: how a holder left its card. The next holder gets the last one from the card's record.

A killed holder leaves none. So the record also has the granted claims without a receipt: if one of them is no
longer held, the state in which its holder left the card is unknown, whatever an older receipt says.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from itertools import zip_longest
from typing import cast

from lockkit.errors import CapacityMismatch
from lockkit.facts import ClaimInfo, Record
from lockkit.gpu.devices import Device
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.judging import Outcome, Receipt, few
from lockkit.gpu.states import STRAY
from lockkit.lib.noted import moment, whole_number
from lockkit.notes.members import pool_name
from lockkit.notes.records import Records, change, cut, fixed_capacity
from lockkit.store.spi import NOTE_LIMIT
from lockkit.values.sizes import show

__all__ = ["in_record", "last", "last_in", "packed", "put", "put_back", "receipt", "take_over", "unpacked"]

_WORSE: Mapping[Outcome, int] = {"clean": 0, "unknown": 1, "dirty": 2}
_KEY, _TAKEN = "receipt", "taken"
_MOST = 24
"""The most claims without a receipt in a record: the sharers of a card that are named."""
_ROOM = NOTE_LIMIT - 1152
"""The bytes of a record up to which claims without a receipt are kept: the rest is for the receipt."""
_ENDED = "it ended without leaving a receipt"
_HIGHEST = 2**63 - 1
"""The highest fence that a store can give."""
_NAME, _NAMES = 64, 128
"""The bytes, as JSON, to which the name of a holder is cut in a record, and the names of several."""


def put(
    records: Records,
    host: str,
    report: Receipt,
    *,
    before: Device | None = None,
    after: Device | None = None,
    whole: bool = True,
) -> bool:
    """Keep a receipt in the card's record. Returns False if one that counts more is there, which stays.

    What earlier holders left stays noted. A share is judged by its holder's processes alone, so the worse
    receipt stays until the card has no process and at most 1 GiB in use, and two sharers' leftovers are
    added. On a whole card, over 1 GiB without a process at the grant was left before; what is still in use is
    added.

    Args:
        records: A client.
        host: The host.
        report: The receipt.
        before: The card at the grant; None if it was not asked.
        after: The card now; None if it did not answer.
        whole: Whether the holder had the whole card.

    Raises:
        BackendError: The store did not do it.
    """
    done: list[bool] = []

    def decide(value: Mapping[str, object]) -> Mapping[str, object] | None:
        known = unpacked(report.uuid, value.get(_KEY))
        # All later holders share the card with a noted claim, so its receipt is last whatever the fences.
        noted = any(one.get("claim") == report.claim_id for one in _taken(value))
        later = known is not None and known.fence > report.fence and not noted
        # By a request without an answer; what it has added up is not added once more.
        written = known is not None and (known.claim_id, known.fence) == (report.claim_id, report.fence)
        new = report
        if known is not None:
            stays = later or written
            new = known if stays else _with_earlier(report, known, before=before, after=after, whole=whole)
        done.append(written or new is not known)
        rest = _without(value, report.claim_id)
        kept = rest if new is known else {**rest, _KEY: packed(new)}
        return None if kept == value else kept

    change(records, pool_name(host_pool(host), report.uuid), decide)
    return done[-1]


def _with_earlier(
    report: Receipt, known: Receipt, *, before: Device | None, after: Device | None, whole: bool
) -> Receipt:
    """The receipt that counts after one more: with what earlier holders have left, as :func:`put` says."""
    if known.outcome == "clean":
        return report
    if not whole:
        empty = (
            after is not None
            and after.processes == ()
            and after.used is not None
            and after.used <= after.tolerated
        )
        if empty or report.outcome != known.outcome:
            return report if empty or _WORSE[report.outcome] > _WORSE[known.outcome] else known
        return _added(report, known, after)
    if before is None or after is None or report.outcome == "unknown" or before.processes != ():
        return report
    old = min(before.used or 0, after.used or 0)
    if old <= STRAY:
        return report
    left = few((*report.left_by, f"{show(old)} were there before"))
    return report._replace(outcome="dirty", leftover=(report.leftover or 0) + old, left_by=left)


def _added(report: Receipt, known: Receipt, after: Device | None) -> Receipt:
    """The receipt of two sharers who both left the card dirty, or in an unknown state."""
    sizes = [one.leftover for one in (report, known) if one.leftover is not None]
    seen = [after.used] if after is not None and after.used is not None else []
    left = [each for pair in zip_longest(report.left_by, known.left_by) for each in pair if each]
    return report._replace(
        leftover=min([sum(sizes), *seen]) if sizes else None,
        left_by=few(dict.fromkeys(left)),
        by=", ".join(dict.fromkeys(filter(None, [report.by, *known.by.split(", ")]))),
        errors=few(dict.fromkeys((*report.errors, *known.errors))),
    )


def receipt(records: Records, host: str, uuid: str) -> Receipt | None:
    """The receipt that was written last for a card; None if there is none. See also :func:`last`."""
    return in_record(uuid, records.record(pool_name(host_pool(host), uuid)))


def in_record(uuid: str, record: Record | None) -> Receipt | None:
    """The receipt in the record of a card; None if there is none."""
    return None if record is None else unpacked(uuid, record.value.get(_KEY))


def last(records: Records, host: str, uuid: str, live: Collection[str]) -> Receipt | None:
    """How the last holder of a card left it; None if the card was never held. One request.

    Args:
        records: A client.
        host: The host.
        uuid: The card.
        live: The ids of the claims that hold it now. Any other claim without a receipt left an unknown state.
    """
    record = records.record(pool_name(host_pool(host), uuid))
    return None if record is None else last_in(uuid, record.value, live)


def take_over(
    records: Records,
    host: str,
    uuid: str,
    live: Collection[str],
    mine: ClaimInfo,
    *,
    whole: bool = False,
) -> Receipt | None:
    """Note the new holder in the card's record, and return how the last one left it; None if there was none.

    Args:
        records: A client.
        host: The host.
        uuid: The card.
        live: The ids of the claims that hold it now.
        mine: The claim of the new holder.
        whole: Whether the claim is for the whole card.

    Raises:
        CapacityMismatch: A whole card was requested, and resized to more than the claim. Nothing is noted.
        BackendError: The store did not do it.
    """
    name = pool_name(host_pool(host), uuid)
    found: list[Receipt | None] = []
    entry = {
        "claim": mine.claim_id,
        "fence": mine.fence,
        "by": cut(f"{mine.owner.user}@{mine.owner.host}", _NAME),
        "at": round(mine.since),
    }

    def decide(value: Mapping[str, object]) -> Mapping[str, object] | None:
        # A resize writes the record before it looks for claims: one that it missed sees the capacity here.
        capacity = fixed_capacity(value)
        if whole and capacity is not None and mine.weight < capacity:
            raise _resized(name, mine, capacity)
        before = last_in(uuid, value, live)
        if before is not None:  # a larger fence is forged, and must not outlive all later receipts
            before = before._replace(fence=min(before.fence, mine.fence))
        found.append(before)
        others = [
            one for one in _taken(value) if one.get("claim") in live and one.get("claim") != mine.claim_id
        ]
        after: dict[str, object] = {**value, _TAKEN: [*others, entry][-_MOST:]}
        if before is not None:
            after[_KEY] = packed(before)
        while len(noted := cast("list[object]", after[_TAKEN])) > 1 and _bytes(after) > _ROOM:
            after[_TAKEN] = noted[1:]
        return None if after == value else after

    change(records, name, decide)
    return found[-1]


def _resized(name: str, mine: ClaimInfo, capacity: int) -> CapacityMismatch:
    return CapacityMismatch(
        f"{name!r} was resized to {capacity} MiB while all of it was asked for,"
        f" and the claim weighs {mine.weight} MiB",
        name=name,
        hint="ask for it again",
    )


def put_back(records: Records, host: str, uuid: str, claim_id: str) -> None:
    """Undo :func:`take_over` for a claim under which the card was not used.

    Raises:
        BackendError: The store did not do it.
    """

    def decide(value: Mapping[str, object]) -> Mapping[str, object] | None:
        after = _without(value, claim_id)
        return None if after == value else after

    change(records, pool_name(host_pool(host), uuid), decide)


def last_in(uuid: str, value: Mapping[str, object], live: Collection[str]) -> Receipt | None:
    """How the last holder of a card left it, by its record; None if it was never held. See :func:`last`."""
    written = unpacked(uuid, value.get(_KEY))
    ended = [one for one in _taken(value) if str(one.get("claim")) not in live]
    if not ended:
        return written
    newest = max(ended, key=_fence)
    fence = max(_fence(newest), 0 if written is None else written.fence)
    who, at = str(newest.get("by") or ""), moment(newest.get("at")) or 0.0
    return Receipt(uuid, "unknown", None, (), str(newest.get("claim") or ""), fence, who, at, (_ENDED,))


def _taken(value: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The claims that have left no receipt yet. What cannot be read is a claim of which nothing is known."""
    taken = value.get(_TAKEN)
    if taken is None:
        return []
    return [one if isinstance(one, Mapping) else {} for one in taken] if isinstance(taken, list) else [{}]


def _without(value: Mapping[str, object], claim_id: str) -> dict[str, object]:
    """The record without a claim among those that have left no receipt yet."""
    left = [one for one in _taken(value) if one.get("claim") != claim_id]
    rest = {key: one for key, one in value.items() if key != _TAKEN}
    return {**rest, _TAKEN: left} if left else rest


def packed(report: Receipt) -> dict[str, object]:
    """A receipt as JSON, without the UUID of its card. Long lists and texts are cut."""
    value: dict[str, object] = {
        "outcome": report.outcome,
        "leftover": report.leftover,
        "left_by": list(few(report.left_by)),
        "claim": report.claim_id,
        "fence": report.fence,
        "by": cut(report.by, _NAMES),
        "at": round(report.at),
        "errors": list(few(report.errors)),
    }
    return {key: one for key, one in value.items() if one not in (None, [], "")}


def unpacked(uuid: str, stored: object) -> Receipt | None:
    """A receipt from JSON; None if there is none. An unreadable one says that the state is unknown."""
    if stored is None:
        return None
    if not isinstance(stored, Mapping):
        return Receipt(uuid, "unknown")
    outcome = stored.get("outcome")
    return Receipt(
        uuid,
        cast("Outcome", outcome) if outcome in ("clean", "dirty") else "unknown",
        whole_number(stored.get("leftover")),
        _texts(stored.get("left_by")),
        str(stored.get("claim") or ""),
        _fence(stored),
        str(stored.get("by") or ""),
        moment(stored.get("at")) or 0.0,
        _texts(stored.get("errors")),
    )


def _bytes(value: Mapping[str, object]) -> int:
    """The size of a record."""
    return len(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


def _fence(stored: Mapping[str, object]) -> int:
    """The fence of a receipt, or of a claim without one; 0 if unknown."""
    return whole_number(stored.get("fence"), _HIGHEST) or 0


def _texts(value: object) -> tuple[str, ...]:
    return few(value) if isinstance(value, list | tuple) else ()
