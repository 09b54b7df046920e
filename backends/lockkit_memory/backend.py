"""The calls of the service-provider interface, on a store in memory.

Each call is one critical section under the store's mutex: settle, look, change, settle again; whoever is to be woken
is woken after the mutex is free. Nothing here waits or fails, so every outcome is definite.
"""
# ruff: noqa: ARG002 - nothing here waits, so budgets go unused

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from lockkit.clock import Clock
from lockkit.errors import ConfigError
from lockkit.facts import Capabilities, Evicted, Finding, LockInfo, Record
from lockkit.names import check_namespace, claim_id
from lockkit.settings import redact
from lockkit.store.notes import merged, note_text
from lockkit.store.queue import blockers, prefix
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
    ReleaseAnswer,
    Renewal,
    Watch,
)
from lockkit_memory import CAPABILITIES
from lockkit_memory.store import GRACE, Queue, Row, Store, Waker
from lockkit_memory.view import claim_info, lock_info

__all__ = ["MemoryBackend", "label", "open_store"]

_log = logging.getLogger("lockkit.memory")
_shared: dict[tuple[str, str, Clock], Store] = {}


def open_store(url: str, options: OpenOptions) -> MemoryBackend:
    """Open ``memory:`` or ``memory://label``: one store for each label, namespace and clock of this process.

    Raises:
        ConfigError: The URL says more than a label, or the namespace is not allowed.
    """
    where, namespace = label(url), check_namespace(options.namespace)
    # Without a mutex, which a fork in another thread would leave taken: this is one operation.
    store = _shared.setdefault((where, namespace, options.clock), Store(options.clock))
    return MemoryBackend(store, options)


def label(url: str) -> str:
    """What a URL calls its store.

    Raises:
        ConfigError: It says more than that.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote a password
        parts = None
    if parts is None or parts.query or parts.fragment or parts.path.strip("/"):
        raise ConfigError(
            f"not a memory store: {redact(url)!r}",
            hint="write memory: or memory://label; there are no options",
        )
    return parts.netloc


class MemoryBackend:
    """One open memory store; claims live in the :class:`~lockkit_memory.store.Store`, which outlives this object."""

    capabilities: Capabilities = CAPABILITIES

    def __init__(self, store: Store, options: OpenOptions) -> None:
        self._store = store
        self._clock = store.clock
        self._options = options

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        if claim.note:
            note_text(claim.note, NOTE_LIMIT)
        name, store = claim.terms.name, self._store
        woken: dict[Waker, None] = {}
        with store.mutex:
            now = self._clock.now()
            queue = store.settle(name, now, woken)
            answer = self._acquire(name, queue, claim, now, woken, create=create)
        if woken:
            _wake(woken)
        return answer

    def _acquire(
        self, name: str, queue: Queue, claim: Claim, now: float, woken: dict[Waker, None], *, create: bool
    ) -> Answer:
        store = self._store
        row = queue.rows.get(claim.token)
        if row is None:
            if not create:
                return _absent(queue, claim)
            if store.buried(claim.token, now):
                return Lapsed("late")
            row = store.append(name, queue, claim, now)
            store.offer(name, queue, now, woken)
        else:
            row.replayed = row.replayed or create
            if row.evicted:
                return Lapsed("evicted")
            if row.state == "LINGERING":
                return Lapsed("lingering")
            if row.state == "WAITING":
                store.offer(name, queue, now, woken)
        if row.state == "HELD":
            row.extend(now)
            return Granted(row.fence, now)
        if row.state == "OFFERED":
            row.grant(now)
            queue.watch_deadline(row)
            return Granted(row.fence, now)
        if claim.wait:
            row.deadline = max(row.deadline, now + GRACE)
            return self._queued(name, queue, row, now)
        store.remove(queue, row, now, woken)
        store.offer(name, queue, now, woken)
        head = next(iter(queue.rows.values()))
        return Busy(head.capacity, claim_info(name, head, 0, self._clock))

    def _queued(self, name: str, queue: Queue, row: Row, now: float) -> Queued:
        rows = list(queue.rows.values())
        place = rows.index(row)
        fits = prefix(rows)
        if place < fits:  # crowded out by those that hold beyond the prefix, until they go
            chosen = [each for each in rows[fits:] if each.holding]
        else:
            chosen = [rows[at] for at in blockers(rows, place)]
        next_in_line = place <= fits
        deadline = (
            min((each.deadline for each in chosen), default=float("inf")) if next_in_line else float("inf")
        )
        return Queued(
            position=place,
            ask_again_at=None if deadline == float("inf") else deadline,
            blockers=tuple(str(each.fence) for each in chosen),
            # The caller compares this with the capacity it stated, which a resize may have rewritten since.
            capacity=row.terms.capacity if row.capacity == rows[0].capacity else rows[0].capacity,
            holder=claim_info(name, rows[0], 0, self._clock),
        )

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`."""
        store, woken = self._store, dict[Waker, None]()
        with store.mutex:
            now = self._clock.now()
            answers = [self._renew(claim, fence, now, woken) for claim, fence in beats]
        _wake(woken)
        return answers

    def _renew(self, claim: Claim, fence: int | None, now: float, woken: dict[Waker, None]) -> Renewal:
        row = self._store.settle(claim.terms.name, now, woken).rows.get(claim.token)
        if row is None:
            return Renewal("LOST", why="absent")
        if row.evicted:
            return Renewal("LOST", why="evicted", requests=row.requests)
        if row.state == "LINGERING":
            return Renewal("LOST", why="lapsed")
        if fence is None:
            if row.state == "WAITING":
                row.deadline = max(row.deadline, now + GRACE)
                return Renewal("WAITING", requests=row.requests)
            return Renewal("OFFERED", requests=row.requests)
        if row.state != "HELD" or row.fence != fence:
            return Renewal("LOST", why="fence")
        row.extend(now)
        return Renewal("HELD", basis=now, requests=row.requests)

    def release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        name, store = claim.terms.name, self._store
        woken: dict[Waker, None] = {}
        with store.mutex:
            now = self._clock.now()
            queue = store.settle(name, now, woken)
            answer = self._end(name, queue, claim.token, now, woken, graceful=graceful)
        if woken:
            _wake(woken)
        return answer

    def abandon(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""
        with self._store.mutex:
            self._store.bury(claim.token, self._clock.now())
        return self.release(claim, budget, graceful=graceful)

    emergency_release = abandon

    def _end(
        self, name: str, queue: Queue, token: str, now: float, woken: dict[Waker, None], *, graceful: bool
    ) -> ReleaseAnswer:
        row = queue.rows.get(token)
        if row is None:
            return ABSENT
        if row.state == "LINGERING":
            return RELEASED
        until = row.lingers_until(now, graceful=graceful) if row.state == "HELD" else now
        if until > now:
            row.state, row.deadline = "LINGERING", until
            queue.watch_deadline(row)
            woken.update(row.wakers)  # the next in line sleeps until the old deadline
            return RELEASED
        self._store.remove(queue, row, now, woken)
        self._store.offer(name, queue, now, woken)
        return RELEASED

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`."""
        store, woken = self._store, dict[Waker, None]()
        with store.mutex:
            rows = store.settle(name, self._clock.now(), woken).rows
            fences = set(blockers)
            standing = [row for row in list(rows.values()) if str(row.fence) in fences]
            own = rows.get(claim.token)
            watch = Waker(wake, standing if own is None else [*standing, own])
            if own is None or own.state != "WAITING" or len(standing) < len(fences):
                woken[watch] = None
        _wake(woken)
        return watch

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`. Shows no claim past its deadline."""
        with self._store.mutex:
            queue = self._store.queues.get(name)
            # a copy, made in one step: a signal handler may lock the name meanwhile
            return lock_info(name, list(queue.rows.values()) if queue else (), self._clock)

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:
        """See :meth:`lockkit.store.spi.Backend.names`. Always exact."""
        with self._store.mutex:
            now = self._clock.now()
            return sorted(
                name
                for name, queue in list(self._store.queues.items())
                if name.startswith(prefix) and any(row.deadline > now for row in list(queue.rows.values()))
            )

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`. ``now=True`` removes at once: its holder may still believe in it."""
        store, at_once, woken = self._store, now, dict[Waker, None]()
        with store.mutex:
            at = self._clock.now()
            queue = store.settle(name, at, woken)
            row, place = _find(queue, claim_id)
            if row is None:
                answer = Evicted("ABSENT")
            elif at_once or row.state in {"WAITING", "OFFERED"}:
                answer = Evicted("REMOVED", claim=claim_info(name, row, place, self._clock))
                store.remove(queue, row, at, woken)
            else:
                if row.state == "HELD":
                    row.mark_evicted()
                    queue.watch_deadline(row)
                    woken.update(row.wakers)
                info = claim_info(name, row, place, self._clock)
                answer = Evicted("MARKED", blocks_until=info.deadline, claim=info)
            store.settle(name, at, woken)
        _wake(woken)
        return answer

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        if type(capacity) is not int or capacity < 1:
            raise ConfigError(f"a capacity must be a whole number of at least 1, not {capacity!r}", name=name)
        store, woken = self._store, dict[Waker, None]()
        with store.mutex:
            now = self._clock.now()
            queue = store.settle(name, now, woken)
            count = len(queue.rows)
            queue.unsettled = count > 0
            for row in list(queue.rows.values()):
                row.capacity = capacity
                if row.state in ("WAITING", "OFFERED") and row.weight > capacity:
                    store.remove(queue, row, now, woken)
            store.settle(name, now, woken)
        _wake(woken)
        return count

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        woken = dict[Waker, None]()
        with self._store.mutex:
            now = self._clock.now()
            row = self._store.settle(claim.terms.name, now, woken).rows.get(claim.token)
            if row is not None and row.state == "HELD" and row.fence == fence and not row.evicted:
                row.ttl = max(row.ttl, ttl)
            answer = self._renew(claim, fence, now, woken)
        _wake(woken)
        return answer

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`.

        Raises:
            ConfigError: The patch, or the note it would make, is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
        """
        note_text(patch, NOTE_LIMIT)
        woken = dict[Waker, None]()
        with self._store.mutex:
            row, _ = _find(self._store.settle(name, self._clock.now(), woken), claim_id)
            if row is not None:
                note = merged(row.note or {}, patch)
                note_text(note, NOTE_LIMIT)
                row.note = row.requests = note
        _wake(woken)
        return row is not None

    def record(self, name: str, budget: float) -> Record | None:
        """See :meth:`lockkit.store.spi.Backend.record`."""
        with self._store.mutex:
            return self._store.records.get(name)

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`.

        Raises:
            Conflict: The record has another version.
            ConfigError: The value is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
        """
        note_text(value, NOTE_LIMIT, "record")
        with self._store.mutex:
            current = self._store.records.get(name)
            if (current.version if current else 0) != version:
                raise Conflict(current)
            record = Record(name, merged({}, value), version + 1, self._clock.wall())
            self._store.records[name] = record
            return record

    def check(self, budget: float) -> Sequence[Finding]:
        """See :meth:`lockkit.store.spi.Backend.check`."""
        return [
            Finding(
                "scope",
                "warning",
                "a memory store keeps only the threads of this process apart",
                "use the embedded store, sqlite:, to exclude other processes",
            )
        ]

    def pulse(self) -> Sequence[int]:
        """Nothing to inherit: what is in memory ends with the process."""
        return ()

    def close(self) -> None:
        """Nothing to let go of. Claims stay as they are."""


def _absent(queue: Queue, claim: Claim) -> Lapsed:
    """Why a claim that asked again is not there: a resize that left it no room, or its own silence."""
    head = next(iter(queue.rows.values()), None)
    return Lapsed("resized" if head is not None and head.capacity < claim.terms.weight else "absent")


def _find(queue: Queue, wanted: str) -> tuple[Row | None, int]:
    for place, row in enumerate(queue.rows.values()):
        if claim_id(row.token) == wanted:
            return row, place
    return None, -1


def _wake(woken: dict[Waker, None]) -> None:
    for waker in woken:
        try:
            waker.wake()
        except Exception:
            # One waiter's trouble must not fail the call that freed it, nor keep the next from being woken.
            _log.exception("a wake-up callback failed")
