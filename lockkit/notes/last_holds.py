"""The last holds of locks that a configuration names, left in the store by their holders.

A store keeps nothing of a lock without claims. So a holder writes the time into a record, if its
configuration has the lock in ``metrics.names`` or with a period: after the hold, on a plugin's thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.errors import BackendUnavailable
from lockkit.facts import Event, Record
from lockkit.lib.printable import printable
from lockkit.notes.records import change
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from lockkit.notes.records import Records
    from lockkit.store.spi import Backend

__all__ = ["LastHolds", "last_hold", "record_of"]

_log = logging.getLogger("lockkit")
_ENDS = ("released", "lost", "max_hold", "collected", "abandoned", "absent")
_EVERY = 10.0
"""Least seconds between a client's writes of a record: a busy lock must not double its requests."""
_AT, _HOW = "at", "how"


def record_of(name: str) -> str:
    """The name of the record that keeps the last hold of a lock. The lock's own record is its user's."""
    return f"@last/{name}"


class LastHolds:
    """The plugin that leaves the end of a hold in the store.

    Args:
        backend: The store.
        budget: Seconds that it may take.
    """

    def __init__(self, backend: Backend, budget: float) -> None:
        self._backend = backend
        self._budget = budget
        self._written: dict[str, float] = {}

    def lockkit_event(self, event: Event) -> None:
        """Write the time of an event that ends a hold. Without an answer the record stays as it is."""
        name = event.name
        if event.kind not in _ENDS:
            return
        if 0.0 <= event.boottime - self._written.get(name, -_EVERY) < _EVERY:
            return
        try:
            records = _Records(self._backend, time.monotonic() + self._budget)
            change(records, record_of(name), lambda known: _later(known, event), instead={})
            self._written[name] = event.boottime
        except Exception as error:
            _log.debug(
                "the last hold of %s could not be kept: %s", printable(repr(name)), printable(str(error))
            )


def _later(known: Mapping[str, object], event: Event) -> Mapping[str, object] | None:
    before = _seconds(known.get(_AT))
    return None if before is not None and before >= event.at else {**known, _AT: event.at, _HOW: event.kind}


def last_hold(records: Records, name: str) -> float | None:
    """When a lock was last released or lost, in seconds since 1970 by its holder's clock; None if unknown.

    Raises:
        BackendError: There was no answer.
    """
    record = records.record(record_of(name))
    return None if record is None else _seconds(record.value.get(_AT))


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


class _Records:
    """The records of a store that is open, until an end on ``time.monotonic()``."""

    def __init__(self, backend: Backend, end: float) -> None:
        self._backend = backend
        self._end = end

    def record(self, name: str) -> Record | None:
        """The record of a name."""
        try:
            return self._backend.record(name, self._left())
        except (Refused, Unknown) as trouble:
            raise trouble.error from None

    def put_record(self, name: str, value: Mapping[str, object], version: int) -> Record:
        """Write the record of a name if it still has this version."""
        try:
            return self._backend.put_record(name, value, version, self._left())
        except (Refused, Unknown) as trouble:
            raise trouble.error from None

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0.0:
            raise BackendUnavailable("there was no time left")
        return left
