"""The document in which a store keeps the queue of one name: a :class:`~lockkit.store.rowqueue.RowQueue` as JSON, and back.

:mod:`lockkit.store.documents` has the calls of a store that keeps its queues in such documents.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from lockkit.clock import Clock
from lockkit.errors import BackendUnavailable
from lockkit.facts import Record
from lockkit.namedtuples import NamedTuple
from lockkit.store.layouts import check_reader
from lockkit.store.owners import layout_in, packed_owner
from lockkit.store.rowqueue import RowQueue
from lockkit.store.rows import Row
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
        version: A value that is different after each write: a counter, an ETag. Handed back to :meth:`lockkit.store.documents.DocumentBackend.write`.
        now: The time on the server's clock, in seconds since 1970, read together with the document. None if all clients are on one
            host; then deadlines use the clock of that host.
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
    """The state that outlives the claims of a name: the last fence, and the tokens that were given up. See :class:`lockkit.store.rowqueue.QueueContext`."""

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
            clock = clock if stored.now is None else _Server(stored.now)
            super().__init__(
                self._loaded.get("name", name),
                _Context(clock, self._loaded.get("fence", 0), Tombstones(gone)),
            )
            record = self._loaded.get("record")
            self.record = Record(self.name, *record) if record else None
            self.rows = {row["token"]: _row(row) for row in self._loaded.get("rows", ())}
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
            "record": list(self.record[1:]) if self.record else None,
            "rows": [_stored(row) for row in self.rows.values()],
        }
        return json.dumps(after, separators=(",", ":")) if self.kept and after != self._loaded else None


def _stored(row: Row) -> dict[str, Any]:
    terms = row.terms._asdict() | {"owner": packed_owner(row.terms.owner)}
    return {name: getattr(row, name) for name in _ROW} | {"terms": terms}


def _row(stored: Mapping[str, Any]) -> Row:
    terms = stored["terms"]
    known = {key: terms[key] for key in Terms._fields if key in terms} | {
        "owner": owner_of(terms.get("owner"))
    }
    return Row(**{name: stored[name] for name in _ROW if name in stored}, terms=Terms(**known))
