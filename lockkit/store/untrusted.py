"""The conversion of stored data, which may be anything, to facts about a claim.

Any user of a store may have written anything into it. So types and sizes are checked here, once, for all code
that uses the facts. A value that cannot be true is replaced by a harmless one, so that the claim still
blocks, and the claim is shown with :data:`DAMAGED`. No stored data makes these functions raise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, get_args

from lockkit.carried import owner_of
from lockkit.facts import NOTHING, ClaimInfo, ClaimState, Kind, Owner, Record
from lockkit.lib.noted import moment, number, whole_number

__all__ = ["DAMAGED", "NEWER", "claim_of", "number", "object_in", "owner_of", "record_of"]

DAMAGED = (
    "its entry in the store is damaged, or not lockkit's: "
    "it blocks as a claim does, until it is evicted or lapses"
)
"""The evidence that is shown for a claim with damaged data."""
NEWER = (
    "a newer lockkit wrote it, and this one does not understand it: "
    "it blocks until a newer one removes it; upgrade lockkit here"
)
"""The evidence for a claim that this version must not touch."""
_LONGEST = 64 * 1024
"""The longest JSON text that is read, in bytes or characters; a note has at most 4 KiB."""
_DEEPEST = 32
_MOST_NUMBER = 2**63 - 1
_MOST_VERSION = 2**53
"""The highest version of a record, up to which every program that may count it is exact."""
_STATES, _KINDS = frozenset(get_args(ClaimState)), frozenset(get_args(Kind))


def object_in(text: object) -> dict[str, Any] | None:
    """Parse a JSON object; None if the text is not one, or is too long or too deeply nested."""
    if not isinstance(text, str | bytes) or len(text) > _LONGEST:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _shallow(value) else None


def _shallow(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            below
            for each in level
            for below in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
        ]
        if not level:
            return True
    return False


def _is_in(words: frozenset[str]) -> Callable[[object], str | None]:
    return lambda value: value if isinstance(value, str) and value in words else None


_CLAIM: dict[str, tuple[Callable[[object], object], object]] = {
    "state": (_is_in(_STATES), "HELD"),
    "kind": (_is_in(_KINDS), "mutex"),
    "fence": (lambda value: whole_number(value, _MOST_NUMBER), 0),
    "weight": (lambda value: whole_number(value, _MOST_NUMBER), 1),
    "capacity": (lambda value: whole_number(value, _MOST_NUMBER), 1),
    "ttl": (number, 0.0),
    "since": (moment, 0.0),
    "renewed": (moment, 0.0),
}
"""For each field of a claim that may be damaged: a check, None for an impossible value, and a substitute."""


def claim_of(stored: object, *, damaged: bool = False, **fields: Any) -> ClaimInfo:
    """A claim as a fact.

    Args:
        stored: The note, as text or decoded; None for none.
        damaged: Whether the backend has already found damage.
        fields: The claim's other fields, as stored or computed from stored data; ``owner`` also decoded.
    """
    for name, (check, otherwise) in _CLAIM.items():
        if name in fields:
            value = check(fields[name])
            damaged, fields[name] = damaged or value is None, otherwise if value is None else value
    if fields.get("deadline") is not None:
        fields["deadline"] = moment(fields["deadline"])
    if not isinstance(fields["owner"], Owner):
        damaged = damaged or not isinstance(fields["owner"], Mapping | None)
        fields["owner"] = owner_of(fields["owner"])
    note = object_in(stored) if isinstance(stored, str | bytes) and stored else stored or {}
    if not isinstance(note, Mapping):
        damaged, note = True, {}
    if damaged:
        fields["evidence"] = "; ".join(filter(None, (DAMAGED, fields.get("evidence"))))
    return ClaimInfo(note=dict(note) or NOTHING, **fields)


def record_of(name: str, stored: Mapping[str, object]) -> Record:
    """A record as a fact, from its stored form. See :func:`lockkit.store.layouts.record_in`."""
    value = stored.get("value")
    value = dict(value) if isinstance(value, Mapping) else object_in(value)
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # not writable again
        value = None
    version = whole_number(stored.get("version"), _MOST_VERSION)
    if value is None or version is None:
        return Record(name, {}, version or 0, 0.0, damaged=True)
    return Record(name, value, version, moment(stored.get("written")) or 0.0)
