"""A store that keeps each queue as one JSON document, which it can compare and swap. All calls of lockkit, on two of the store.

For any service with "write this if nobody has written since I read": a row with a version, an object with an ETag, a register. Each
call reads the document of a name, decides by the rule of the queue (:mod:`lockkit.store.rowqueue`), and writes the document if its
version is still the same; otherwise it begins again. So no client ever holds anything that others wait for.
"""

from __future__ import annotations

import json
import logging
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from lockkit.clock import Clock
from lockkit.errors import BackendUnavailable
from lockkit.facts import Evicted, LockInfo, Record
from lockkit.namedtuples import NamedTuple
from lockkit.store.base import BasicBackend
from lockkit.store.budgets import left
from lockkit.store.comparing import swapped
from lockkit.store.inherited import inherited
from lockkit.store.layouts import check_reader
from lockkit.store.notes import merged, note_text
from lockkit.store.owners import owner_of, packed_owner
from lockkit.store.polling import Polling
from lockkit.store.queue import check_capacity
from lockkit.store.rowqueue import RowQueue
from lockkit.store.rows import Row
from lockkit.store.spi import (
    NOTE_LIMIT,
    Answer,
    Beat,
    Busy,
    Claim,
    Conflict,
    OpenOptions,
    Queued,
    Refused,
    ReleaseAnswer,
    Renewal,
    Terms,
    Unknown,
    Watch,
)
from lockkit.store.tombstones import Tombstones

__all__ = ["LAYOUT", "Document", "DocumentBackend", "Stored"]

T = TypeVar("T")
LAYOUT = 1
"""The version of the document's layout."""
_ROW = tuple(field.name for field in fields(Row) if field.name != "terms")
_KNOWN = ("v", "min_reader", "name", "fence", "gone", "record", "rows")
_log = logging.getLogger("lockkit.documents")


class Stored(NamedTuple):
    """A document as the store has it.

    Attributes:
        text: The document; None if there is none yet.
        version: A value that is different after each write: a counter, an ETag. Handed back to :meth:`DocumentBackend.write`.
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
class _Home:
    """The state that outlives the claims of a name: the last fence, and the tokens that were given up. See :class:`lockkit.store.rowqueue.Home`."""

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

    home: _Home

    def __init__(self, name: str, stored: Stored, clock: Clock) -> None:
        try:
            self._loaded: dict[str, Any] = json.loads(stored.text) if stored.text else {}
            check_reader(self._loaded, LAYOUT, f"the queue of {name!r}")
            gone = {token: (until, why) for token, (until, why) in self._loaded.get("gone", {}).items()}
            clock = clock if stored.now is None else _Server(stored.now)
            super().__init__(
                self._loaded.get("name", name),
                _Home(clock, self._loaded.get("fence", 0), Tombstones(gone)),
            )
            record = self._loaded.get("record")
            self.record = Record(self.name, *record) if record else None
            self.rows = {row["token"]: _row(row) for row in self._loaded.get("rows", ())}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"the queue of {name!r} is no document of lockkit: {error!r}"
            raise Refused(BackendUnavailable(text, hint="see what else writes there"), retry=False) from None
        self.next_lapse = 0.0  # the next step checks all deadlines
        self.kept = True

    def text(self) -> str | None:
        """The document to write; None if it has not changed."""
        after = {
            **{key: value for key, value in self._loaded.items() if key not in _KNOWN},
            "v": LAYOUT,
            "min_reader": 1,
            "name": self.name,
            "fence": self.home.fence,
            "gone": {token: list(stone) for token, stone in self.home.gone.stones.items()},
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


class DocumentBackend(BasicBackend):
    """A store of documents. A subclass has ``capabilities``, :meth:`read`, :meth:`write`, :meth:`read_all` and ``close``.

    Thread-safe if these are. All claims have deadlines, so the capability ``process_bound`` is False. Waiters are woken by looking at their documents every :attr:`look_every` seconds; a store that can notify
    has a :meth:`watch` of its own.

    Args:
        options: The options of the store.
        where: The store, for errors; without a password.

    Attributes:
        clock: The clock of this client.
        where: The store, for errors.
    """

    look_every = 0.02
    """Seconds between two looks at the documents of those who wait."""

    def __init__(self, options: OpenOptions, where: str) -> None:
        self.clock = options.clock
        self.where = where
        self._pid = os.getpid()
        self._polling = Polling(self._look_again, self.look_every)

    @abstractmethod
    def read(self, name: str, end: float) -> Stored:
        """Read the document of a name, until an end on ``time.monotonic()``.

        A name may be any text of up to 512 bytes: pass it as a parameter, or encode it (:mod:`lockkit.names`).

        Returns:
            The document. If there is none yet, it has no text, and a version that :meth:`write` takes for "there is none".

        Raises:
            Refused, Unknown: There is no answer.
        """

    @abstractmethod
    def write(self, name: str, text: str, version: Hashable, end: float) -> bool:
        """Write a document if it still has the version that was read; if that was none, if there is still none. In one atomic step of the store.

        Returns:
            False if the document has another version by now.

        Raises:
            Refused: The document was definitely not written.
            Unknown: The document may have been written, or may be later.
        """

    @abstractmethod
    def read_all(self, end: float) -> Iterable[Stored]:
        """Read the documents of all names in the namespace.

        Raises:
            Refused, Unknown: There is no answer.
        """

    def change(self, name: str, budget: float, step: Callable[[Document, float], T]) -> T:
        """Change the document of a name.

        Args:
            name: The name.
            budget: Seconds.
            step: Gets the document and the time, changes the document, and returns a result. Called again with a fresh document if
                another client was faster.

        Returns:
            The result of the step whose document was written, or that changed nothing.
        """
        end = time.monotonic() + budget

        def attempt() -> tuple[T] | None:
            stored = self.read(name, end)
            document = Document(name, stored, self.clock)
            result = step(document, document.home.clock.now())
            text = document.text()
            return (result,) if text is None or self.write(name, text, stored.version, end) else None

        self._ours()
        return swapped(attempt, f"the queue of {name!r}", end)

    @property
    def inherited(self) -> bool:
        """True in a forked child: the connections belong to the process that opened the store."""
        return os.getpid() != self._pid

    def _ours(self) -> None:
        """Refuse a forked child."""
        if self.inherited:
            raise inherited(self.where)

    def _look(self, name: str, budget: float) -> Document:
        self._ours()
        return Document(name, self.read(name, time.monotonic() + budget), self.clock)

    def _look_again(self, name: str, budget: float, known: Hashable) -> tuple[Hashable, Document | None]:
        """The version of a document, and the document itself unless it has the known version."""
        self._ours()
        stored = self.read(name, time.monotonic() + budget)
        same = stored.version == known
        return stored.version, None if same else Document(name, stored, self.clock)

    # -- claims

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        basis = self.clock.now()  # before the request is sent: validity counts from here

        def step(document: Document, now: float) -> Answer:
            known = claim.token in document.rows
            answer = document.acquire(claim, now, basis, create=create)
            document.kept = known or not isinstance(answer, Busy)  # a crowd that tries in vain writes nothing
            if (
                isinstance(answer, Queued)
                and answer.ask_again_at is not None
                and document.home.clock is not self.clock
            ):
                return answer._replace(ask_again_at=self.clock.now() + answer.ask_again_at - now)
            return answer

        return self.change(claim.terms.name, budget, step)

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`. One change for each name."""
        end = time.monotonic() + budget
        answers: dict[str, Renewal] = {}
        troubles: list[Refused | Unknown] = []
        for name in dict.fromkeys(claim.terms.name for claim, _ in beats):
            some = [beat for beat in beats if beat[0].terms.name == name]
            try:
                told = self._renew(name, some, left(end))
            except (Refused, Unknown) as trouble:
                troubles.append(trouble)
                told = [Renewal("UNKNOWN", trouble=str(trouble))] * len(some)
            answers.update((claim.token, renewal) for (claim, _), renewal in zip(some, told, strict=True))
        if troubles and all(answer.state == "UNKNOWN" for answer in answers.values()):
            raise troubles[0]
        return [answers[claim.token] for claim, _ in beats]

    def _renew(self, name: str, beats: Sequence[Beat], budget: float, ttl: float = 0.0) -> list[Renewal]:
        basis = self.clock.now()
        return self.change(
            name,
            budget,
            lambda document, now: [
                document.renew(claim, fence, now, basis, ttl=ttl) for claim, fence in beats
            ],
        )

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        return self._renew(claim.terms.name, [(claim, fence)], budget, ttl)[0]

    def release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        return self.change(
            claim.terms.name,
            budget,
            lambda document, now: document.release(claim.token, now, graceful=graceful),
        )

    def abandon(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""

        def step(document: Document, now: float) -> ReleaseAnswer:
            document.home.gone.bury(claim.token, now)
            return document.release(claim.token, now, graceful=graceful)

        return self.change(claim.terms.name, budget, step)

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`."""
        return self._polling.watch(name, lambda queue: queue.moved(claim.token, blockers), wake)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`."""
        document = self._look(name, budget)
        return document.inspect(document.home.clock.now())

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.names`. Always exact: reads all documents."""
        self._ours()
        found = [Document("", stored, self.clock) for stored in self.read_all(time.monotonic() + budget)]
        taken = [each.name for each in found if each.inspect(each.home.clock.now()).claims]
        return sorted(name for name in taken if name.startswith(prefix))

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`."""
        return self.change(name, budget, lambda document, at: document.evict(claim_id, at, at_once=now))

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        check_capacity(capacity, name)
        return self.change(name, budget, lambda document, now: document.resize(capacity, now))

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`."""
        note_text(patch, NOTE_LIMIT)
        return self.change(name, budget, lambda document, now: document.annotate(claim_id, patch, now))

    def record(self, name: str, budget: float) -> Record | None:
        """See :meth:`lockkit.store.spi.Backend.record`."""
        return self._look(name, budget).record

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`."""
        note_text(value, NOTE_LIMIT, "record")

        def step(document: Document, _: float) -> Record:
            current = document.record
            if (current.version if current else 0) != version:
                raise Conflict(current)
            document.record = Record(name, merged({}, value), version + 1, document.home.clock.wall())
            return document.record

        return self.change(name, budget, step)

    def close(self) -> None:
        """End the thread that wakes waiters. A subclass closes its connections as well, but not in a forked child."""
        self._polling.close()
