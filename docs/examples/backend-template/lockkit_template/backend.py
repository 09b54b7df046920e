"""lockkit's calls: each changes one document, or reads it.

TODO: where your client library raises, decide which of two things it means. ``Refused``: the store has definitely not done
it (no connection, a transaction rolled back, an error reply). ``Unknown``: the request went out and nobody can tell. Keep
one table for it, and let whatever it does not list be Unknown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from lockkit.errors import BackendUnavailable, ConfigError
from lockkit.facts import Capabilities, ClaimInfo, Evicted, Finding, Kind, LockInfo, Owner, Record
from lockkit.names import check_namespace
from lockkit.names import claim_id as id_of
from lockkit.store.notes import merged, note_text
from lockkit.store.spi import (
    ABSENT,
    NOTE_LIMIT,
    RELEASED,
    Answer,
    Beat,
    Busy,
    Claim,
    Conflict,
    Granted,
    Lapsed,
    OpenOptions,
    Queued,
    Refused,
    ReleaseAnswer,
    Renewal,
    Watch,
)
from lockkit_template import CAPABILITIES, rules
from lockkit_template.document import Document, Folder, Row
from lockkit_template.watching import Watching

__all__ = ["TemplateBackend"]


class TemplateBackend:
    """One open store. Thread-safe."""

    capabilities: Capabilities = CAPABILITIES

    def __init__(self, url: str, options: OpenOptions) -> None:
        """Open it. TODO: connect, so that a wrong address or password is told here."""
        path = url.partition(":")[2]
        if not path.startswith("/"):
            raise ConfigError(f"not a folder: {path!r}", hint="write template:/some/folder")
        # TODO: deadlines go by the store's own clock if others than this host use it.
        self._clock = options.clock
        self._folder = Folder(Path(path) / check_namespace(options.namespace))
        self._watching = Watching()
        self._pid = os.getpid()

    @contextmanager
    def _queue(self, name: str, budget: float) -> Iterator[tuple[Document, float]]:
        """A queue to change, settled, and the time. Belongs to the process that opened it, as connections do."""
        if os.getpid() != self._pid:
            raise Refused(
                BackendUnavailable("opened by another process", hint="open it in this one"), retry=False
            )
        with self._folder.change(name, time.monotonic() + budget) as document:
            now = self._clock.now()
            rules.settle(document, now)
            yield document, now

    # -- claims

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        if claim.note:
            note_text(claim.note, NOTE_LIMIT)
        basis = self._clock.now()  # before the request is sent: validity counts from here
        with self._queue(claim.terms.name, budget) as (document, now):
            row = rules.find(document, claim.token)
            if row is None:
                if not create:
                    head = document.rows[0] if document.rows else None
                    return Lapsed("resized" if head and head.capacity < claim.terms.weight else "absent")
                if claim.token in document.gone:
                    return Lapsed("late")
                row = rules.append(document, claim, now)
            else:
                row.replayed = row.replayed or create
                if row.evicted or row.state == "LINGERING":
                    return Lapsed("evicted" if row.evicted else "lingering")
            if row.state in ("HELD", "OFFERED"):
                rules.renew(row, now, grant=row.state == "OFFERED")
                return Granted(row.fence, basis)
            if claim.wait:
                row.deadline = max(row.deadline, now + rules.GRACE)
                return self._queued(document, row, claim)
            rules.remove(document, row, now)
            rules.offer(document, now)
            return Busy(document.rows[0].capacity, self._info(document, 0))

    def _queued(self, document: Document, row: Row, claim: Claim) -> Queued:
        blocking, next_in_line = rules.in_the_way(document, row)
        head = document.rows[0].capacity
        return Queued(
            position=document.rows.index(row),
            ask_again_at=min((each.deadline for each in blocking), default=None) if next_in_line else None,
            blockers=tuple(str(each.fence) for each in blocking),
            capacity=claim.terms.capacity if row.capacity == head else head,
            holder=self._info(document, 0),
        )

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`. TODO: many in one request."""
        end = time.monotonic() + budget
        return [self._renew(claim, fence, end - time.monotonic()) for claim, fence in beats]

    def _renew(self, claim: Claim, fence: int | None, budget: float, ttl: float = 0.0) -> Renewal:
        basis = self._clock.now()
        with self._queue(claim.terms.name, budget) as (document, now):
            row = rules.find(document, claim.token)
            if row is None:
                return Renewal("LOST", why="absent")
            requests = row.note if row.asked else None
            if row.evicted or row.state == "LINGERING":
                return Renewal("LOST", why="evicted" if row.evicted else "lapsed", requests=requests)
            if fence is None and row.state == "WAITING":
                row.deadline = max(row.deadline, now + rules.GRACE)
                return Renewal("WAITING", requests=requests)
            if fence is None:
                return Renewal("OFFERED", requests=requests)
            if row.state != "HELD" or row.fence != fence:
                return Renewal("LOST", why="fence")
            row.ttl = max(row.ttl, ttl)
            rules.renew(row, now)
            return Renewal("HELD", basis, requests)

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        return self._renew(claim, fence, budget, ttl)

    def release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        return self._end(claim, budget, graceful=graceful)

    def abandon(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""
        return self._end(claim, budget, graceful=graceful, doubt=True)

    emergency_release = abandon  # TODO: over a connection of its own

    def _end(self, claim: Claim, budget: float, *, graceful: bool, doubt: bool = False) -> ReleaseAnswer:
        with self._queue(claim.terms.name, budget) as (document, now):
            if doubt:
                rules.bury(document, claim.token, now)
            row = rules.find(document, claim.token)
            if row is None:
                return ABSENT
            rules.end(document, row, now, graceful=graceful)
            return RELEASED

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`."""

        def worthwhile() -> bool:
            document = self._folder.read(name)
            row = rules.find(document, claim.token)
            standing = {str(each.fence) for each in document.rows}
            return row is None or row.state != "WAITING" or not standing.issuperset(blockers)

        return self._watching.watch(worthwhile, wake)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.inspect`."""
        document, now = self._folder.read(name), self._clock.now()
        document.rows = [row for row in document.rows if row.deadline > now]
        claims = tuple(self._info(document, place) for place in range(len(document.rows)))
        return LockInfo(name, claims, self._clock.wall())

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:
        """See :meth:`lockkit.store.spi.Backend.names`."""
        del deep  # it always looks at all of them
        return sorted(
            name
            for name in self._folder.names()
            if name.startswith(prefix) and self.inspect(name, budget).claims
        )

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`."""
        with self._queue(name, budget) as (document, at):
            row = rules.find(document, wanted=claim_id)
            if row is None:
                return Evicted("ABSENT")
            if now or row.state in ("WAITING", "OFFERED"):
                info = self._info(document, document.rows.index(row))
                rules.remove(document, row, at)
                rules.offer(document, at)
                return Evicted("REMOVED", claim=info)
            if row.state == "HELD":
                rules.evict(row)
            info = self._info(document, document.rows.index(row))
            return Evicted("MARKED", info.deadline, info)

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        if type(capacity) is not int or capacity < 1:
            raise ConfigError(f"a capacity must be a whole number of at least 1, not {capacity!r}", name=name)
        with self._queue(name, budget) as (document, now):
            count = len(document.rows)
            for row in list(document.rows):
                row.capacity = capacity
                if not row.holding and row.weight > capacity:
                    rules.remove(document, row, now)
            rules.offer(document, now)
            return count

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`."""
        note_text(patch, NOTE_LIMIT)
        with self._queue(name, budget) as (document, _):
            row = rules.find(document, wanted=claim_id)
            if row is not None:
                note = merged(row.note, patch)
                note_text(note, NOTE_LIMIT)
                row.note, row.asked = note, True
            return row is not None

    def record(self, name: str, budget: float) -> Record | None:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.record`."""
        return _record(self._folder.read(name))

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`."""
        note_text(value, NOTE_LIMIT, "record")
        with self._queue(name, budget) as (document, _):
            if document.version != version:
                raise Conflict(_record(document))
            document.record, document.version = dict(value), version + 1
            document.written = self._clock.wall()
            return cast("Record", _record(document))

    def check(self, budget: float) -> Sequence[Finding]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.check`. TODO: is it a primary, does it keep what it confirmed, may this user write?"""
        return [Finding("template", "warning", "this is a template", "write your own store with it")]

    def pulse(self) -> Sequence[int]:
        """None: claims live by their ttl."""
        return ()

    def close(self) -> None:
        """Let go of the watching thread. TODO: and of your connections; in a forked child they are the parent's."""
        self._watching.close()

    def _info(self, document: Document, place: int) -> ClaimInfo:
        row, epoch = document.rows[place], self._clock.wall() - self._clock.now()
        return ClaimInfo(
            name=document.name,
            claim_id=id_of(row.token),
            state=row.state,
            owner=Owner(**cast("dict[str, Any]", row.owner)),
            fence=row.fence,
            position=place,
            kind=cast("Kind", row.kind),
            weight=row.weight,
            capacity=row.capacity,
            ttl=row.ttl,
            since=row.since + epoch,
            renewed=row.renewed + epoch,
            deadline=row.deadline + epoch,
            evicted=row.evicted,
            note=row.note,
        )


def _record(document: Document) -> Record | None:
    if not document.version:
        return None
    return Record(document.name, document.record, document.version, document.written)
