"""Changes of the records of names: read by all users of the store, changed by compare and swap."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol

from lockkit.errors import BackendUnavailable, OutcomeUnknown
from lockkit.facts import NOTHING, Record
from lockkit.lib.noted import whole_number
from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import Conflict

__all__ = ["CAPACITY", "Records", "change", "cut", "damaged", "fixed_capacity", "is_damaged", "resize"]

CAPACITY = "capacity"
"""The key in a record of the capacity of a pool's member, if it is fixed there."""
_TRIES = 20
"""How often a change is tried again because another client was faster."""


class Records(Protocol):
    """The part of a client that is needed here."""

    def record(self, name: str) -> Record | None:
        """The record of a name."""

    def put_record(self, name: str, value: Mapping[str, object], version: int) -> Record:
        """Write the record of a name if it still has this version."""


def is_damaged(record: Record | None) -> bool:
    """Whether a record is illegible, or fixes an impossible capacity. Its content is unknown, not empty."""
    return record is not None and (
        record.damaged or (CAPACITY in record.value and fixed_capacity(record.value) is None)
    )


def damaged(name: str) -> BackendUnavailable:
    """The error for a record that is damaged, and that only a person may replace."""
    return BackendUnavailable(
        f"the record of {name!r} in the store is damaged",
        name=name,
        hint="if it is that of a GPU, look at the card and run: lockkit gpu clear UUID;"
        " otherwise write it again with client.put_record",
    )


def change(
    records: Records,
    name: str,
    decide: Callable[[Mapping[str, object]], Mapping[str, object] | None],
    *,
    instead: Mapping[str, object] | None = None,
) -> bool:
    """Change a record, even if others change it at the same moment.

    Args:
        records: A client.
        name: The name of the record.
        decide: Returns the new value for the present one, unknown keys included; None to change nothing.
            Called again if another client was faster, or if the outcome is unknown.
        instead: The value to start from if the record is damaged; None if only a person may replace it.

    Returns:
        Whether this call has changed the record, or may have, by a request whose outcome is unknown.

    Raises:
        BackendUnavailable: Others changed the record each time, or it is damaged.
        OutcomeUnknown: The store never said whether the change was made.
    """
    unknown: OutcomeUnknown | None = None
    for _ in range(_TRIES):
        record = records.record(name)
        before = NOTHING if record is None else record.value
        if broken := is_damaged(record):
            if instead is None:
                raise damaged(name)
            before = instead
        value = decide(before)
        if broken and value is None:
            value = before
        if value is None:
            return unknown is not None
        try:
            records.put_record(name, value, 0 if record is None else record.version)
            return True
        except Conflict:
            continue
        except OutcomeUnknown as error:  # the next look says whether it was done
            unknown = error
    raise unknown or BackendUnavailable(
        f"the record of {name!r} is changed by others again and again", name=name, hint="try again"
    )


def cut(text: str, most: int) -> str:
    """The longest start of a text with at most so many bytes as JSON; invalid characters become a ``?``."""
    text = text.encode(errors="replace").decode()
    size = 0
    for at, character in enumerate(text):
        size += len(json.dumps(character, ensure_ascii=False).encode()) - 2  # without the quotes
        if size > most:
            return text[:at]
    return text


def fixed_capacity(value: Mapping[str, object]) -> int | None:
    """The capacity that a record fixes; None if it fixes none, or one that no lock can have."""
    return whole_number(value.get(CAPACITY), RW_CAPACITY) or None


def resize(records: Records, name: str, capacity: int, *, only: int | None = None) -> int | None:
    """Change the capacity in a record. Returns the previous one; None if there is none, and none is set.

    Args:
        records: A client.
        name: The name of the record.
        capacity: The new capacity.
        only: The capacity to replace; another one stays. None for whatever there is.

    Raises:
        BackendError: As for :func:`change`.
    """
    found: list[int | None] = []

    def decide(value: Mapping[str, object]) -> Mapping[str, object] | None:
        known = fixed_capacity(value)
        found.append(known)
        stays = known in (None, capacity) or only not in (None, known)
        return None if stays else {**value, CAPACITY: capacity}

    change(records, name, decide)
    # A request without an answer may have been applied; then a later look finds the new capacity.
    return found[0]
