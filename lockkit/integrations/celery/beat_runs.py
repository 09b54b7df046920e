"""The last run of each entry of a schedule, recorded in the store, so that another beat can continue."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from lockkit.errors import BackendUnavailable, OutcomeUnknown
from lockkit.facts import Record
from lockkit.notes.safe_names import safe_name
from lockkit.store.spi import Conflict
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease

__all__ = ["Overtaken", "Runs"]

_AGAIN = 1.0
"""Seconds until a record is written again that could not be written."""


class Overtaken(Exception):
    """Raised when another beat has sent the run meanwhile, so that this one may not."""


class Runs:
    """The runs that one holder of a beat's lock starts, each recorded by compare and swap before it is sent.

    Due times follow from the last run. Of two beats with the same last run, only one gets the next one on
    record. So no due time is sent for twice; a beat that dies between record and message has not sent for it.

    Args:
        client: A client.
        lease: The hold under which the runs are sent.
    """

    def __init__(self, client: Client, lease: Lease) -> None:
        self._client = client
        self._lease = lease
        self._versions: dict[str, int] = {}

    def resume(self, entries: Iterable[Any]) -> None:
        """Let entries continue from the last recorded run, whichever beat sent it; record new entries.

        Raises:
            BackendError: The store cannot be asked.
            Overtaken: Another beat writes the records at this moment.
        """
        for entry in entries:
            record = self._client.record(self._name(entry))
            last = None if record is None else _run_of(record, entry)
            if last is None:  # from now on its first due time is the same for every beat
                if (
                    record is not None
                ):  # an illegible record may be of a run until now, which must not be sent again
                    entry.last_run_at = entry.default_now()
                self._write(entry, entry.last_run_at, 0 if record is None else record.version)
                continue
            assert record is not None
            self._versions[entry.name] = record.version
            if not entry.total_run_count or _moment(last) > _moment(entry.last_run_at):
                entry.last_run_at = last

    def begin(self, entry: Any, at: datetime) -> None:
        """Record a run before it is sent. While the store is away, retries until the hold is over.

        Args:
            entry: The entry as it was when it became due.
            at: The time of the run, from which the next due time follows.

        Raises:
            LeaseLost, NotHeld: The lock is not held; the run is not on record, and the next holder sends it.
            Overtaken: Another beat has put a later run on record.
        """
        while True:
            self._lease.ensure_held()
            try:
                version = self._versions.get(entry.name)
                self._write(entry, at, self._first_look(entry) if version is None else version)
                return
            except (BackendUnavailable, OutcomeUnknown):
                self._lease.lost.wait(_AGAIN)

    def _first_look(self, entry: Any) -> int:
        """The version of the record of an entry that was added to the schedule meanwhile."""
        record = self._client.record(self._name(entry))
        if record is None:
            return 0
        last = _run_of(record, entry)
        if last is None or _moment(last) > _moment(entry.last_run_at):
            raise Overtaken(f"{entry.name!r} ran at {last.isoformat() if last else 'an illegible time'}")
        return record.version

    def _write(self, entry: Any, at: datetime, version: int) -> None:
        value = {"last_run_at": at.isoformat(), "claim": self._lease.claim_id, "fence": self._lease.fence}
        try:
            self._versions[entry.name] = self._client.put_record(self._name(entry), value, version).version
        except Conflict as conflict:
            # An earlier copy of this very request may have been applied, although its answer was lost.
            if conflict.current is None or dict(conflict.current.value) != value:
                raise Overtaken(f"{entry.name!r} is on record as {_text(conflict.current)}") from None
            self._versions[entry.name] = conflict.current.version

    def _name(self, entry: Any) -> str:
        return safe_name(f"{self._lease.name}/{entry.name}")


def _run_of(record: Record, entry: Any) -> datetime | None:
    """The last recorded run, in the entry's time zone, by which its schedule compares; None if unreadable."""
    try:
        last = datetime.fromisoformat(str(record.value["last_run_at"]))
    except (KeyError, ValueError):
        return None
    zone = entry.last_run_at.tzinfo
    if zone is None:
        return last.astimezone().replace(tzinfo=None) if last.tzinfo else last
    return last.astimezone(zone)


def _moment(time: datetime) -> datetime:
    return time.astimezone(UTC)


def _text(record: Record | None) -> str:
    return "deleted" if record is None else json.dumps(dict(record.value))
