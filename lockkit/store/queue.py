"""The queue rule: the holders are the longest prefix whose weights add up to at most the capacity.

The memory store, SQLite, etcd and ZooKeeper call these functions. Redis has the rule as a script, which a
property test compares with these functions. All are pure functions of the claims of one name, in order of
arrival, after lapsed claims were removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lockkit.errors import ConfigError

__all__ = [
    "RW_CAPACITY",
    "Queued",
    "agreed",
    "blockers",
    "check_capacity",
    "excludes_all",
    "grantable",
    "hopeless",
    "in_the_way",
    "prefix",
]

RW_CAPACITY = 1_000_000
"""The capacity of a reader/writer lock. A reader has weight 1, a writer this weight."""


def excludes_all(kind: object, weight: object, capacity: object) -> bool:
    """Whether a held claim leaves no room before a resize: a mutex, a writer, all permits of a semaphore."""
    return kind in ("mutex", "write") or (
        kind == "semaphore" and weight == capacity and isinstance(weight, int)
    )


class Queued(Protocol):
    """The two facts of a claim that the rule uses."""

    @property
    def weight(self) -> int: ...

    @property
    def capacity(self) -> int: ...


def prefix(queue: Sequence[Queued]) -> int:
    """The number of claims, from the front, that fit: the holders.

    The capacity is that of the first claim. The prefix also ends at the first claim with another capacity.
    """
    if not queue:
        return 0
    capacity, total = queue[0].capacity, 0
    for place, claim in enumerate(queue):
        total += claim.weight
        if claim.capacity != capacity or total > capacity:
            return place
    return len(queue)


def grantable(queue: Sequence[Queued], holding: Sequence[bool]) -> int:
    """The number of claims, from the front, to grant: the prefix; 0 while a claim outside it holds (S2).

    Such a holder is left by a shrinking resize: the claims that fitted before were granted in any order.
    """
    fits = prefix(queue)
    return 0 if True in holding[fits:] else fits


def blockers(queue: Sequence[Queued], place: int) -> list[int]:
    """The predecessors of ``queue[place]`` to watch: while all are there, it cannot hold.

    The set is as small as possible: the nearest predecessor with another capacity, if there is one. Otherwise
    the heaviest predecessors (of equal ones the nearest), as many as are needed for their weights plus the
    claim's own to exceed the capacity. The set is empty if nothing blocks the claim.
    """
    mine = queue[place]
    for ahead in range(place - 1, -1, -1):
        if queue[ahead].capacity != mine.capacity:
            return [ahead]
    chosen: list[int] = []
    total = mine.weight
    for ahead in sorted(range(place), key=lambda at: (-queue[at].weight, -at)):
        chosen.append(ahead)
        total += queue[ahead].weight
        if total > mine.capacity:
            return chosen
    return []


def in_the_way(queue: Sequence[Queued], holding: Sequence[bool], place: int) -> tuple[list[int], bool]:
    """The claims to watch for a waiter at ``queue[place]``, and whether the waiter is next in line.

    The claims to watch are the holders outside the prefix (see :func:`grantable`) for a claim that fits,
    otherwise its :func:`blockers`. Only the next in line should ask again at their deadlines.
    """
    fits = prefix(queue)
    if place < fits:
        return [at for at in range(fits, len(queue)) if holding[at]], True
    return blockers(queue, place), place == fits


def check_capacity(capacity: object, name: str, most: int | None = None) -> None:
    """Refuse a capacity that no lock can be resized to.

    Raises:
        ConfigError: The capacity is not a whole number of at least 1, or it exceeds ``most``.
    """
    if type(capacity) is int and capacity >= 1 and (most is None or capacity <= most):
        return
    allowed = "of at least 1" if most is None else f"from 1 to {most}"
    raise ConfigError(f"a capacity must be a whole number {allowed}, not {capacity!r}", name=name)


def agreed(asked: int, mine: int, head: int) -> int:
    """The capacity to report to a waiter, which compares it with its own.

    Args:
        asked: The capacity in the waiter's request.
        mine: The capacity of the waiter's stored claim, which a resize may have changed since.
        head: The capacity of the first claim in the queue.

    Returns:
        ``asked`` if the waiter's claim and the first claim agree, otherwise ``head``.
    """
    return asked if mine == head else head


def hopeless(queue: Sequence[Queued], mine: Sequence[bool], waits: Sequence[bool], place: int) -> int | None:
    """Find a self-deadlock: the place of the first claim up to ``place`` that waits for the caller, or None.

    The caller waits at ``place``, and releases nothing while it waits. A claim holds only together with all
    claims ahead of it. So a claim that does not fit together with the caller's claims ahead of it has to wait
    until the caller releases one, and so have all claims behind it.

    Args:
        queue: As for :func:`prefix`.
        mine: For each claim, whether the caller holds it.
        waits: For each claim, whether it waits; all others end without the caller's help.
        place: The place at which the caller waits.
    """
    capacity, held = queue[0].capacity, 0
    for at, claim in enumerate(queue[: place + 1]):
        if mine[at]:
            held += claim.weight
        elif waits[at] and claim.capacity == capacity and held + claim.weight > capacity:
            return at
    return None
