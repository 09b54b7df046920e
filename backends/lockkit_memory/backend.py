"""The calls of the service-provider interface, on a store in memory.

Each call is one critical section under the store's mutex. Waiters are woken after the mutex is free. No call
waits or fails, so every outcome is definite.
"""
# ruff: noqa: ARG002 - nothing here waits, so budgets go unused

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from lockkit.config.settings import redact
from lockkit.errors import ConfigError
from lockkit.facts import Evicted, Finding, LockInfo, Record
from lockkit.store.base import BasicBackend
from lockkit.store.drains import refused
from lockkit.store.log import Log
from lockkit.store.notes import merged, note_text
from lockkit.store.queue import check_capacity
from lockkit.store.spi import (
    ABSENT,
    NOTE_LIMIT,
    Answer,
    Beat,
    Claim,
    Conflict,
    End,
    Extras,
    OpenOptions,
    ReleaseAnswer,
    Renewal,
    Watch,
)
from lockkit.values.names import check_namespace
from lockkit_memory.capabilities import CAPABILITIES
from lockkit_memory.store import SHARED, MemoryStore, Queue, Waker

__all__ = ["Mark", "MemoryBackend", "label", "open_store"]

_log = Log("lockkit.memory")
Changed = TypeVar("Changed")


def open_store(url: str, options: OpenOptions) -> MemoryBackend:
    """Open ``memory:`` or ``memory://label``: a store per label, namespace and clock, kept while it is open.

    Raises:
        ConfigError: The URL has more parts than a label, or the namespace is not allowed.
    """
    where, namespace = label(url), check_namespace(options.namespace)
    key = where, namespace, options.clock
    user = object()
    store = SHARED.enter(key, user)
    extras = Extras(
        namespaces=lambda _budget: SHARED.namespaces(key),
        drains=Mark(store, lambda other: SHARED.mark(key, other)),
        at_once=True,
    )
    return MemoryBackend(store, options, partial(SHARED.leave, key, user), extras)


def label(url: str) -> str:
    """The name that a URL gives its store.

    Raises:
        ConfigError: The URL has more parts than a label.
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


class MemoryBackend(BasicBackend):
    """One open memory store, whose :class:`~lockkit_memory.store.MemoryStore` others may have open as well.

    Args:
        leave: Called when the store is closed.
        extras: See :class:`lockkit.store.spi.Extras`; without them the mark of a drain alone.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        store: MemoryStore,
        options: OpenOptions,
        leave: Callable[[], None] = lambda: None,
        extras: Extras | None = None,
    ) -> None:
        self._store = store
        self._extras = Extras(drains=Mark(store, lambda _: None)) if extras is None else extras
        self._leave = leave
        self._clock = store.clock
        self._options = options

    @property
    def extras(self) -> Extras:
        """See :class:`lockkit.store.spi.Extras`."""
        return self._extras

    def _change(self, name: str, change: Callable[[Queue, float], Changed]) -> Changed:
        """Change a queue; see :func:`_change`."""
        return _change(self._store, name, change)

    # These two are written out, because their time is the cost of a lock.

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        store, name = self._store, claim.terms.name
        with store.mutex:
            now = self._clock.now()
            if store.mark is not None:
                _unless_drained(store, claim, store.mark, now, self._options.namespace)
            while True:
                queue = store.queues.get(name) or store.queues.setdefault(name, Queue(name, store))
                answer = queue.acquire(claim, now, now, create=create)
                kept = store.queues.setdefault(name, queue) if queue.rows else store.keep(queue)
                if kept is queue:
                    break
                queue.rows.pop(claim.token, None)  # a signal handler emptied this one, and started another
            woken = queue.woken() if queue.changed else ()
        if woken:
            _wake(woken)
        return answer

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        store = self._store
        with store.mutex:
            queue = store.queues.get(claim.terms.name)
            if queue is None:
                return ABSENT
            answer = queue.release(claim.token, self._clock.now(), how=how)
            woken = queue.woken() if queue.rows or queue.wakers else ()
            store.keep(queue)
        if woken:
            _wake(woken)
        return answer

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`."""
        return [self._renew(claim, fence) for claim, fence in beats]

    def _renew(self, claim: Claim, fence: int | None, ttl: float = 0.0) -> Renewal:
        return self._change(claim.terms.name, lambda queue, now: queue.renew(claim, fence, now, now, ttl=ttl))

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        return self._renew(claim, fence, ttl)

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""
        self._store.gone.bury(claim.token, self._clock.now())
        return self.release(claim, budget, how=how)

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`."""

        def listen(queue: Queue, now: float) -> tuple[Waker, bool]:
            queue.settle(now)
            watched = [
                token
                for token, row in list(queue.rows.items())
                if token == claim.token or str(row.fence) in blockers
            ]
            return Waker(wake, queue, watched), queue.moved(claim.token, blockers)

        watch, moved = self._change(name, listen)
        if moved:
            _wake((watch,))
        return watch

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`. Shows no claim past its deadline."""
        with self._store.mutex:
            queue = self._store.queues.get(name) or Queue(name, self._store)
            return queue.inspect(self._clock.now())

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
        """See :meth:`lockkit.store.spi.Backend.evict`. ``now=True`` removes before the holder knows."""
        return self._change(name, lambda queue, at: queue.evict(claim_id, at, at_once=now))

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        check_capacity(capacity, name)
        return self._change(name, lambda queue, now: queue.resize(capacity, now))

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`.

        Raises:
            ConfigError: The patch or the resulting note exceeds :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
        """
        note_text(patch, NOTE_LIMIT)
        return self._change(name, lambda queue, now: queue.annotate(claim_id, patch, now))

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

    def close(self) -> None:
        """Leave the store, which ends with its last user. Claims stay as they are."""
        self._leave()


class Mark:
    """The mark of a drained namespace; see :class:`lockkit.store.spi.Drains`.

    Args:
        store: The store of the namespace.
        of: Reads the mark of another namespace.
    """

    def __init__(self, store: MemoryStore, of: Callable[[str], str | None]) -> None:
        self._store = store
        self._of = of

    def get(self, budget: float, namespace: str | None = None) -> str | None:
        """See :meth:`lockkit.store.spi.Drains.get`."""
        return self._store.mark if namespace is None else self._of(namespace)

    def set(self, mark: str, budget: float) -> None:
        """See :meth:`lockkit.store.spi.Drains.set`."""
        with self._store.mutex:
            self._store.mark = mark

    def clear(self, mark: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.clear`."""
        with self._store.mutex:
            found = self._store.mark == mark
            if found:
                self._store.mark = None
            return found

    def turn_away(self, name: str, claim_id: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.turn_away`."""
        return _change(self._store, name, lambda queue, now: queue.turn_away(claim_id, now))


def _change(store: MemoryStore, name: str, change: Callable[[Queue, float], Changed]) -> Changed:
    """Change a queue, wake the watches of changed claims. No generator: a torn one may keep the mutex."""
    with store.mutex:
        queue = store.queue(name)
        changed = change(queue, store.clock.now())
        woken = queue.woken()
        store.keep(queue)
    _wake(woken)
    return changed


def _unless_drained(store: MemoryStore, claim: Claim, mark: str, now: float, namespace: str) -> None:
    """Refuse an acquire in a drained namespace, unless its claim holds.

    Raises:
        Refused: With Drained.
    """
    queue = store.queues.get(claim.terms.name)
    row = None if queue is None else queue.rows.get(claim.token)
    if row is None or row.state != "HELD" or row.deadline <= now:
        raise refused(mark, namespace)


def _wake(woken: Iterable[Waker]) -> None:
    for waker in woken:
        try:
            waker.wake()
        except Exception:
            # One waiter's callback must not fail the call that freed the lock, or stop other wakes.
            _log.exception("a wake-up callback failed")
