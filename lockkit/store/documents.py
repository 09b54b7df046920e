"""A store that keeps each queue as one JSON document: all calls of lockkit, on compare-and-swap.

For any service that can "write if nobody wrote since I read": a row with a version, an object with an ETag,
a register. Each call reads the document of a name, decides by the rule of the queue
(:mod:`lockkit.store.rowqueue`), and writes the document if its version is unchanged; otherwise it starts
again. So no client holds anything that others wait for.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from lockkit.facts import Evicted, LockInfo, Record
from lockkit.lib.origin import this_origin
from lockkit.store.base import BasicBackend
from lockkit.store.budgets import left
from lockkit.store.comparing import swapped
from lockkit.store.document import Document, Stored
from lockkit.store.inherited import inherited
from lockkit.store.notes import merged, note_text
from lockkit.store.polling import Polling
from lockkit.store.queue import check_capacity
from lockkit.store.spi import (
    NOTE_LIMIT,
    Answer,
    Beat,
    Busy,
    Claim,
    Conflict,
    End,
    OpenOptions,
    Queued,
    Refused,
    ReleaseAnswer,
    Renewal,
    Unknown,
    Watch,
)

__all__ = ["DocumentBackend"]

T = TypeVar("T")


class DocumentBackend(BasicBackend):
    """A store of documents. A subclass has ``capabilities``, ``close``, and the three abstract methods.

    Thread-safe if these are. All claims have deadlines, so the capability ``process_bound`` is False. A
    thread wakes waiters by reading their documents every :attr:`look_every` seconds; a store that can notify
    has a :meth:`watch` of its own.

    Args:
        options: The options of the store.
        where: The store, for errors; without a password.

    Attributes:
        clock: The clock of this client.
        where: The store, for errors.
    """

    look_every = 0.02
    """Seconds between two looks at the documents of waiters."""

    def __init__(self, options: OpenOptions, where: str) -> None:
        self.clock = options.clock
        self.where = where
        self._origin = this_origin()
        self._polling = Polling(self._look_again, self.look_every)

    @abstractmethod
    def read(self, name: str, end: float) -> Stored:
        """Read the document of a name, until an end on ``time.monotonic()``.

        A name may be any text of up to 512 bytes: pass it as a parameter, or encode it
        (:mod:`lockkit.values.names`).

        Returns:
            The document. If there is none yet: no text, and a version with which :meth:`write` creates it.

        Raises:
            Refused, Unknown: There is no answer.
        """

    @abstractmethod
    def write(self, name: str, text: str, version: Hashable, end: float) -> bool:
        """Write a document in one atomic step, if its version is still the one that was read.

        Returns:
            False if the document has another version by now, or exists though none was read.

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
            step: Gets the document and the time, changes the document, and returns a result. Called again
                with a fresh document if another client was faster.

        Returns:
            The result of the step whose document was written, or that changed nothing.
        """
        end = time.monotonic() + budget

        def attempt() -> tuple[T] | None:
            stored = self.read(name, end)
            document = Document(name, stored, self.clock)
            result = step(document, document.context.clock.now())
            text = document.text()
            return (result,) if text is None or self.write(name, text, stored.version, end) else None

        self._ours()
        return swapped(attempt, f"the queue of {name!r}", end)

    @property
    def inherited(self) -> bool:
        """True in a forked child: the connections belong to the process that opened the store."""
        return not self._origin.is_here()

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
        basis = self.clock.now()  # before the request: validity counts from here

        def step(document: Document, now: float) -> Answer:
            known = claim.token in document.rows
            answer = document.acquire(claim, now, basis, create=create)
            document.kept = known or not isinstance(answer, Busy)  # a crowd that tries in vain writes nothing
            if (
                isinstance(answer, Queued)
                and answer.ask_again_at is not None
                and document.context.clock is not self.clock
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

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        return self.change(
            claim.terms.name,
            budget,
            lambda document, now: document.release(claim.token, now, how=how),
        )

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""

        def step(document: Document, now: float) -> ReleaseAnswer:
            document.context.gone.bury(claim.token, now)
            return document.release(claim.token, now, how=how)

        return self.change(claim.terms.name, budget, step)

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`."""
        return self._polling.watch(name, lambda queue: queue.moved(claim.token, blockers), wake)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`."""
        document = self._look(name, budget)
        return document.inspect(document.context.clock.now())

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.names`. Always exact: reads all documents."""
        self._ours()
        found = [Document("", stored, self.clock) for stored in self.read_all(time.monotonic() + budget)]
        taken = [each.name for each in found if each.inspect(each.context.clock.now()).claims]
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
            document.record = Record(name, merged({}, value), version + 1, document.context.clock.wall())
            return document.record

        return self.change(name, budget, step)

    def close(self) -> None:
        """End the thread that wakes waiters. Subclasses also close connections, but not in a forked child."""
        self._polling.close()
