"""The state of one memory store and the one step that precedes every call: ``settle``.

The clearest reading of the queue rule; the other stores are held equal to it. Nothing here takes the mutex (the
backend does, around each call) and nothing waits.

Two things hold between any two calls. A claim past its deadline counts for nothing: ``settle`` removes it, wherever it
stands, before anything else is looked at. And a claim is OFFERED exactly while it fits and its owner has not asked.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lockkit.clock import Clock
from lockkit.facts import ClaimState, Record
from lockkit.forks import Forks
from lockkit.store.queue import grantable
from lockkit.store.spi import Claim, Terms

__all__ = ["GRACE", "Queue", "Row", "Store", "Waker"]

GRACE = 6.0
"""Seconds that a waiter may be silent, and that an offer stands unanswered: three poll caps."""
_TOMBSTONE = 60.0
"""Seconds for which a late copy of a given-up acquire is still recognised."""
_NEVER = float("inf")


class Waker:
    """One running watch: to be woken when the own claim is offered or gone, or when a blocker is gone."""

    __slots__ = ("_rows", "wake")

    def __init__(self, wake: Callable[[], None], rows: list[Row]) -> None:
        self.wake = wake
        self._rows = rows
        for row in rows:
            row.wakers[self] = None

    def close(self) -> None:
        """Stop. Dictionary operations are atomic, so this needs no mutex and may run anywhere."""
        for row in self._rows:
            row.wakers.pop(self, None)


@dataclass(slots=True, eq=False)
class Row:
    """One claim as stored. Times are CLOCK_BOOTTIME seconds."""

    token: str
    terms: Terms
    fence: int
    weight: int
    capacity: int
    ttl: float
    since: float
    renewed: float
    deadline: float
    state: ClaimState = "WAITING"
    evicted: bool = False
    replayed: bool = False
    """Its create was sent more than once: another copy may still be under way when it is gone."""
    note: Mapping[str, object] | None = None
    requests: Mapping[str, object] | None = None
    """The note, once others have annotated it."""
    wakers: dict[Waker, None] = field(default_factory=dict)

    @property
    def holding(self) -> bool:
        """Whether it takes room."""
        return self.state in ("HELD", "LINGERING")

    def grant(self, now: float) -> None:
        """Make it HELD. Only ``acquire`` may."""
        self.state = "HELD"
        self.since = now
        self.deadline = now  # a waiter's deadline says nothing about a holder's, which may be shorter
        self.extend(now)

    def extend(self, now: float) -> None:
        """Move a HELD claim's deadline, never backwards: to now + ttl within max_hold, + lock_delay, past min_hold."""
        terms = self.terms
        self.renewed = now
        end = _NEVER if terms.process_bound else now + self.ttl
        if terms.max_hold is not None:
            end = min(end, self.since + terms.max_hold)
        self.deadline = max(self.deadline, end + terms.lock_delay, self.since + terms.min_hold)

    def mark_evicted(self) -> None:
        """Renewals are LOST from here on; it blocks until its holder cannot believe in it any more."""
        self.evicted = True
        silent = self.renewed + self.ttl + self.terms.lock_delay
        self.deadline = min(self.deadline, max(silent, self.since + self.terms.min_hold))

    def lingers_until(self, now: float, *, graceful: bool) -> float:
        """Until when a HELD claim that ends now goes on blocking; not after ``now`` if it is simply gone."""
        end = self.since + self.terms.min_hold
        if not graceful or self.evicted:
            end = max(end, now + self.terms.lock_delay)
        return min(end, self.deadline)


class Queue:
    """The claims of one name, in order of arrival."""

    __slots__ = ("next_lapse", "rows", "unsettled")

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.next_lapse = _NEVER
        """No claim lapses before this."""
        self.unsettled = False
        """Claims came, went or changed since the prefix was last worked out."""

    def watch_deadline(self, row: Row) -> None:
        """Take note of a deadline that may be nearer than before."""
        self.next_lapse = min(self.next_lapse, row.deadline)


class Store:
    """One store: the queues and records of one label and namespace, by one clock.

    A forked child finds it empty, with a mutex of its own: its parent's claims are not the child's.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.mutex = threading.RLock()
        """Reentrant, for a signal handler that releases in the middle of a call of its own thread."""
        self.queues: dict[str, Queue] = {}
        self.records: dict[str, Record] = {}
        self.last_fence = 0
        """Highest fence ever given, over all names: fences rise per name without a leftover for each name."""
        self._gone: dict[str, float] = {}
        _stores.add(self)

    def settle(self, name: str, now: float, woken: dict[Waker, None]) -> Queue:
        """Remove what has lapsed, offer what newly fits, and collect whom to wake once the mutex is free."""
        queue = self.queues.get(name)
        if queue is None:
            return Queue()
        if now >= queue.next_lapse:
            for row in [row for row in queue.rows.values() if row.deadline <= now]:
                self.remove(queue, row, now, woken)
            queue.next_lapse = min((row.deadline for row in queue.rows.values()), default=_NEVER)
        if queue.unsettled:
            self.offer(name, queue, now, woken)
        return queue

    def offer(self, name: str, queue: Queue, now: float, woken: dict[Waker, None]) -> None:
        """Work out the prefix: WAITING claims in it become OFFERED, OFFERED ones outside are WAITING again."""
        if not queue.rows:
            self.queues.pop(name, None)
            return
        rows = list(queue.rows.values())
        fits = grantable(rows, [row.holding for row in rows])
        for place, row in enumerate(rows):
            if place < fits and row.state == "WAITING":
                row.state = "OFFERED"
                row.deadline = max(row.deadline, now + GRACE)
                woken.update(row.wakers)
            elif place >= fits and row.state == "OFFERED":
                row.state = "WAITING"
        queue.unsettled = False

    def append(self, name: str, queue: Queue, claim: Claim, now: float) -> Row:
        """Put a claim at the tail, with a fence above every other."""
        terms = claim.terms
        self.last_fence += 1
        row = Row(
            claim.token, terms, self.last_fence, terms.weight, terms.capacity, terms.ttl, now, now, now + GRACE,
            note=claim.note,
        )  # fmt: skip
        queue.unsettled = True
        queue.rows[claim.token] = row
        queue.watch_deadline(row)
        self.queues[name] = queue
        return row

    def remove(self, queue: Queue, row: Row, now: float, woken: dict[Waker, None]) -> None:
        """Take a claim out; the caller settles afterwards."""
        queue.unsettled = True
        if row.replayed:
            self.bury(row.token, now)
        queue.rows.pop(row.token, None)
        woken.update(row.wakers)

    def bury(self, token: str, now: float) -> None:
        """Leave a tombstone: a late copy of this token's create grants nothing."""
        self._gone[token] = now + _TOMBSTONE
        if len(self._gone) > 64 and next(iter(self._gone.values())) <= now:
            self._gone = {token: until for token, until in self._gone.items() if until > now}

    def buried(self, token: str, now: float) -> bool:
        """Whether this token was given up within the last minute."""
        return bool(self._gone) and self._gone.get(token, 0.0) > now

    def forget(self) -> None:
        """In a forked child: nothing here is this process's."""
        self.mutex = threading.RLock()
        self.queues = {}
        self.records = {}
        self._gone = {}


_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.forget()


Forks(in_child=_after_fork)
