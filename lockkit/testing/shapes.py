"""The kinds of lock for scenarios about queues. A mutex alone passes with several wrong rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lockkit.facts import Kind, Owner
from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import Terms
from lockkit.sync.client import Client
from lockkit.sync.locks import Lock

__all__ = ["MUTEX", "READERS", "SEMAPHORE", "SHAPES", "WRITER", "Part", "Shape"]


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of claim on a lock, with its weight and capacity."""

    kind: Kind
    weight: int
    capacity: int

    def lock(self, client: Client, name: str, **options: Any) -> Lock:
        """The public lock object that makes such claims."""
        if self.kind == "semaphore":
            return client.semaphore(name, self.capacity, permits=self.weight, **options)
        if self.kind == "mutex":
            return client.lock(name, **options)
        both = client.rwlock(name, **options)
        return both.read() if self.kind == "read" else both.write()

    def terms(self, name: str, owner: Owner, **terms: Any) -> Terms:
        """The terms of such claims."""
        return Terms(name, weight=self.weight, capacity=self.capacity, kind=self.kind, owner=owner, **terms)


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of lock. The lock is full if all ``holders`` hold it; then ``newcomer`` has to wait.

    ``leaves`` is the number of holders that have to leave before the newcomer fits.
    """

    name: str
    holders: tuple[Part, ...]
    newcomer: Part
    leaves: int = 1

    @property
    def exclusive(self) -> bool:
        """Whether there is at most one holder at a time."""
        return len(self.holders) == 1 and self.newcomer.weight == self.newcomer.capacity


_MUTEX = Part("mutex", 1, 1)
_PERMIT = Part("semaphore", 1, 2)
_READER = Part("read", 1, RW_CAPACITY)
_WRITER = Part("write", RW_CAPACITY, RW_CAPACITY)

MUTEX = Shape("mutex", (_MUTEX,), _MUTEX)
SEMAPHORE = Shape("semaphore", (_PERMIT, _PERMIT), _PERMIT)
READERS = Shape("readers", (_READER, _READER), _WRITER, leaves=2)
WRITER = Shape("writer", (_WRITER,), _READER)
SHAPES = (MUTEX, SEMAPHORE, READERS, WRITER)
"""Mutex; semaphore of 2; two readers before a writer; a writer before readers."""
