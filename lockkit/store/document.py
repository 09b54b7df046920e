"""The JSON document in which a store keeps a name's queue (:class:`~lockkit.store.rowqueue.RowQueue`).

:mod:`lockkit.store.documents` has the calls of a store that keeps its queues in such documents.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from lockkit.errors import BackendUnavailable
from lockkit.facts import ClaimState, Kind
from lockkit.lib.clock import Clock
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.noted import number, whole_number
from lockkit.store.layouts import check_reader, record_in
from lockkit.store.owners import layout_in, packed_owner
from lockkit.store.rowqueue import RowQueue
from lockkit.store.rows import NEVER, Row
from lockkit.store.spi import Refused, Terms
from lockkit.store.tombstones import Tombstones
from lockkit.store.untrusted import owner_of

__all__ = ["LAYOUT", "Document", "Stored"]

LAYOUT = 1
"""The version of the document's layout."""
_ROW = tuple(name for name in Row.__slots__ if name != "terms")
_KNOWN = ("v", "min_reader", "name", "fence", "gone", "record", "rows")


class Stored(NamedTuple):
    """A document as the store has it.

    Attributes:
        text: The document; None if there is none yet.
        version: A value that is different after each write: a counter, an ETag.
            :meth:`lockkit.store.documents.DocumentBackend.write` gets it back.
        now: The time on the server's clock, in seconds since 1970, read together with the document. None
            if all clients are on one host: deadlines then use that host's clock.
    """

    text: str | None
    version: Hashable
    now: float | None = None


@dataclass(slots=True)
class _Server:
    """The clock of a server, as it was when the document was read."""

    at: float

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


@dataclass(slots=True)
class _Context:
    """A :class:`lockkit.store.rowqueue.QueueContext`: the last fence, and the abandoned tokens."""

    clock: Clock
    fence: int
    gone: Tombstones

    def next_fence(self) -> int:
        self.fence += 1
        return self.fence


class Document(RowQueue):
    """The document of one name. It stays when the last claim is gone, because the fence must never fall.

    Attributes:
        record: See :meth:`lockkit.store.spi.Backend.put_record`; None if there is none.
        kept: False if a step decides that its changes need not be written.

    Raises:
        Refused: The text is no such document, or needs a newer version of lockkit.
    """

    context: _Context

    def __init__(self, name: str, stored: Stored, clock: Clock) -> None:
        try:
            self._loaded: dict[str, Any] = json.loads(stored.text) if stored.text else {}
            check_reader(self._loaded, LAYOUT, f"the queue of {name!r}")
            gone = {token: (until, why) for token, (until, why) in self._loaded.get("gone", {}).items()}
            fence = self._loaded.get("fence", 0)
            if not _whole(fence) or not all(_seconds(until) for until, _ in gone.values()):
                raise ValueError("no fence, or no times")
            clock = clock if stored.now is None else _Server(stored.now)
            super().__init__(
                self._loaded.get("name", name),
                _Context(clock, fence, Tombstones(gone)),
            )
            record = self._loaded.get("record")
            self.record = None if record is None else record_in(self.name, _columns(record), LAYOUT)
            rows = [_row(stored, self.name) for stored in self._loaded.get("rows", ())]
            self.rows = {row.token: row for row in rows}
            if len(self.rows) < len(rows):
                raise ValueError("several rows have one token")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"the queue of {name!r} is no document of lockkit: {error!r}"
            raise Refused(BackendUnavailable(text, hint="see what else writes there"), retry=False) from None
        self.layout = layout_in(self._loaded)
        self.next_lapse = 0.0  # the next step checks all deadlines
        self.kept = True

    def text(self) -> str | None:
        """The document to write; None if it has not changed."""
        after = {
            **{key: value for key, value in self._loaded.items() if key not in _KNOWN},
            "v": LAYOUT,
            "min_reader": 1,
            "name": self.name,
            "fence": self.context.fence,
            "gone": {token: list(stone) for token, stone in self.context.gone.stones.items()},
            "record": self._record(),
            "rows": [_stored(row) for row in self.rows.values()],
        }
        return json.dumps(after, separators=(",", ":")) if self.kept and after != self._loaded else None

    def _record(self) -> object:
        """The record in its stored form; a damaged one as it was found."""
        if self.record is None or self.record.damaged:
            return self._loaded.get("record")
        return list(self.record[1:4])


class _DamagedRow(Row):
    """A stand-in for a malformed row: it blocks as a holder, and only an eviction at once removes it.

    Its token, fence and deadline match no claim, so no client renews or releases it: the holder must not
    believe in a renewal that is not stored.
    """

    __slots__ = ("stored",)
    damaged = True

    def __init__(self, stored: object, name: str) -> None:
        token = f"damaged {zlib.crc32(json.dumps(stored).encode()):08x}"
        owner = owner_of(terms.get("owner") if isinstance(terms := _part(stored, "terms"), Mapping) else None)
        super().__init__(
            token, Terms(name, owner=owner), -1, 1, 1, 0.0, 0.0, 0.0, NEVER, "HELD", note=_note(stored)
        )
        self.stored = stored

    def mark_evicted(self) -> None:
        """Leave the row as it is: nobody knows when its owner must have noticed."""


def _stored(row: Row) -> object:
    if isinstance(row, _DamagedRow):
        return row.stored
    terms = row.terms._asdict() | {"owner": packed_owner(row.terms.owner)}
    return {name: getattr(row, name) for name in _ROW} | {"terms": terms}


def _row(stored: object, name: str) -> Row:
    """A row from its stored form, or a stand-in for a malformed one. No other code judges rows."""
    terms = _part(stored, "terms")
    if not isinstance(stored, Mapping) or not isinstance(terms, Mapping):
        return _DamagedRow(stored, name)
    if not (_fits(stored, _ROW_CHECKS) and _fits(terms, _TERM_CHECKS) and "token" in stored):
        return _DamagedRow(stored, name)
    known = {key: terms[key] for key in Terms._fields if key in terms} | {
        "owner": owner_of(terms.get("owner"))
    }
    try:
        return Row(**{key: stored[key] for key in _ROW if key in stored}, terms=Terms(**known))
    except TypeError:  # a field is missing
        return _DamagedRow(stored, name)


def _part(stored: object, key: str) -> object:
    return stored.get(key) if isinstance(stored, Mapping) else None


def _note(stored: object) -> Mapping[str, object] | None:
    note = _part(stored, "note")
    return note if isinstance(note, Mapping) else None


def _fits(stored: Mapping[str, Any], checks: Mapping[str, Callable[[Any], bool]]) -> bool:
    return all(check(stored[key]) for key, check in checks.items() if key in stored)


def _seconds(value: object) -> bool:
    return number(value) is not None or value == NEVER


def _optional(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _whole(value: object) -> bool:
    return whole_number(value) is not None


_ROW_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "token": lambda value: isinstance(value, str),
    **dict.fromkeys(("fence", "weight", "capacity"), _whole),
    **dict.fromkeys(("ttl", "since", "renewed", "deadline"), _seconds),
    "state": lambda value: value in get_args(ClaimState),
    **dict.fromkeys(("evicted", "replayed", "asked"), lambda value: isinstance(value, bool)),
    "note": _optional(lambda value: isinstance(value, Mapping)),
}
_TERM_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    **dict.fromkeys(("weight", "capacity"), _whole),
    **dict.fromkeys(("ttl", "min_hold", "lock_delay"), _seconds),
    **dict.fromkeys(("max_hold", "asked"), _optional(_seconds)),
    **dict.fromkeys(("process_bound", "pulseless"), lambda value: isinstance(value, bool)),
    "kind": lambda value: value in get_args(Kind),
}
"""For each stored field of a row and of its terms: a check. Other fields are of newer versions."""


def _columns(record: object) -> Mapping[str, object]:
    return (
        dict(zip(("value", "version", "written"), record, strict=False)) if isinstance(record, list) else {}
    )
