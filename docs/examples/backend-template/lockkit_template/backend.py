"""The calls of lockkit: each changes one document, or reads it.

TODO: map each exception of your client library to one of two. ``Refused``: the store has definitely not done it (no connection, a
transaction rolled back, an error reply). ``Unknown``: the request was sent, and its outcome is not known. Keep one table for
this mapping; an exception that the table does not list is Unknown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lockkit.errors import BackendUnavailable, ConfigError
from lockkit.facts import Capabilities, Evicted, Finding, LockInfo, Record
from lockkit.names import check_namespace
from lockkit.store.notes import note_text
from lockkit.store.queue import check_capacity
from lockkit.store.spi import (
    NO_EXTRAS,
    NOTE_LIMIT,
    Answer,
    Beat,
    Claim,
    Conflict,
    Extras,
    OpenOptions,
    Refused,
    ReleaseAnswer,
    Renewal,
    Watch,
)
from lockkit_template import CAPABILITIES
from lockkit_template.document import Document, Folder
from lockkit_template.watching import Watching

__all__ = ["TemplateBackend"]


class TemplateBackend:
    """One open store. Thread-safe."""

    capabilities: Capabilities = CAPABILITIES
    extras: Extras = NO_EXTRAS

    def __init__(self, url: str, options: OpenOptions) -> None:
        """Open the store. TODO: connect here, so that a wrong address or password is reported now."""
        path = url.partition(":")[2]
        if not path.startswith("/"):
            raise ConfigError(f"not an absolute path: {path!r}", hint="write template:/some/folder")
        # TODO: use the clock of the server for deadlines if several hosts use the store.
        self._clock = options.clock
        self._folder = Folder(Path(path) / check_namespace(options.namespace), options.clock)
        self._watching = Watching()
        self._pid = os.getpid()

    @contextmanager
    def _document(self, name: str, budget: float) -> Iterator[tuple[Document, float]]:
        """A document to change, and the time. Refuses a forked child, because connections belong to the process that made them."""
        if os.getpid() != self._pid:
            raise Refused(
                BackendUnavailable(
                    "the store was opened by another process", hint="call lockkit.connect() in this one"
                ),
                retry=False,
            )
        with self._folder.change(name, time.monotonic() + budget) as document:
            yield document, self._clock.now()

    # -- claims

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        basis = self._clock.now()  # before the request is sent: validity counts from here
        with self._document(claim.terms.name, budget) as (document, now):
            return document.queue.acquire(claim, now, basis, create=create)

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`. TODO: renew many claims in one request."""
        end = time.monotonic() + budget
        return [self._renew(claim, fence, end - time.monotonic()) for claim, fence in beats]

    def _renew(self, claim: Claim, fence: int | None, budget: float, ttl: float = 0.0) -> Renewal:
        basis = self._clock.now()
        with self._document(claim.terms.name, budget) as (document, now):
            return document.queue.renew(claim, fence, now, basis, ttl=ttl)

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        return self._renew(claim, fence, budget, ttl)

    def release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        with self._document(claim.terms.name, budget) as (document, now):
            return document.queue.release(claim.token, now, graceful=graceful)

    def abandon(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""
        with self._document(claim.terms.name, budget) as (document, now):
            document.gone.bury(claim.token, now)
            return document.queue.release(claim.token, now, graceful=graceful)

    emergency_release = abandon  # TODO: use a fresh connection

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`."""

        def worthwhile() -> bool:
            return self._folder.read(name).queue.moved(claim.token, blockers)

        return self._watching.watch(worthwhile, wake)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.inspect`."""
        return self._folder.read(name).queue.inspect(self._clock.now())

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:
        """See :meth:`lockkit.store.spi.Backend.names`."""
        del budget, deep  # this store always reads all documents
        infos = [document.queue.inspect(self._clock.now()) for document in self._folder.all()]
        return sorted(info.name for info in infos if info.claims and info.name.startswith(prefix))

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`."""
        with self._document(name, budget) as (document, at):
            return document.queue.evict(claim_id, at, at_once=now)

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        check_capacity(capacity, name)
        with self._document(name, budget) as (document, now):
            return document.queue.resize(capacity, now)

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`."""
        note_text(patch, NOTE_LIMIT)
        with self._document(name, budget) as (document, now):
            return document.queue.annotate(claim_id, patch, now)

    def record(self, name: str, budget: float) -> Record | None:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.record`."""
        return self._folder.read(name).record

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`."""
        note_text(value, NOTE_LIMIT, "record")
        with self._document(name, budget) as (document, _):
            current = document.record
            if (current.version if current else 0) != version:
                raise Conflict(current)
            document.record = record = Record(name, dict(value), version + 1, self._clock.wall())
            return record

    def check(self, budget: float) -> Sequence[Finding]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.check`. TODO: check the role of the server, its durability, and the user's rights."""
        return [
            Finding("template", "warning", "this store is a template", "write a store of your own with it")
        ]

    def close(self) -> None:
        """End the watching thread. TODO: close your connections too, but not in a forked child, where they belong to the parent."""
        self._watching.close()
