"""The queue rule: the holders are the longest prefix whose weights add up to at most the capacity.

One copy for every store: memory, SQLite, etcd and ZooKeeper call these functions; the Redis script is held equal to
them by a property test. Pure functions over the claims of one name, in order of arrival, lapsed claims already removed.
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
    "grantable",
    "hopeless",
    "in_the_way",
    "prefix",
]

RW_CAPACITY = 1_000_000
"""Capacity of a reader/writer lock: a reader weighs 1, a writer all of it."""


class Queued(Protocol):
    """The two facts of a claim that the rule looks at."""

    @property
    def weight(self) -> int: ...

    @property
    def capacity(self) -> int: ...


def prefix(queue: Sequence[Queued]) -> int:
    """How many claims, from the front, hold.

    The capacity is the first claim's; the prefix also ends at the first claim that states another one.
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
    """How many claims, from the front, may be granted: the prefix, or none while a claim that holds stands outside (S2).

    A holder can stand outside the prefix after a shrinking resize: claims that fitted together before may have been granted in any
    order, and they stay held and count.
    """
    fits = prefix(queue)
    return 0 if True in holding[fits:] else fits


def blockers(queue: Sequence[Queued], place: int) -> list[int]:
    """The predecessors of ``queue[place]`` to watch: while they all stand that claim cannot hold; when one goes its owner asks again.

    A smallest such set: the nearest predecessor of another capacity alone, else the heaviest first (of equals the
    nearest) until their weights plus its own exceed the capacity. Empty if nothing is in the way.
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

    For a claim that fits, these are the holders outside the prefix (see :func:`grantable`); for any other, its :func:`blockers`.
    Only the next in line should ask again at their deadlines: for all others these make no room yet.
    """
    fits = prefix(queue)
    if place < fits:
        return [at for at in range(fits, len(queue)) if holding[at]], True
    return blockers(queue, place), place == fits


def check_capacity(capacity: object, name: str, most: int | None = None) -> None:
    """Refuse a capacity that no lock can be resized to.

    Raises:
        ConfigError: It is not a whole number of at least 1, or over ``most``.
    """
    if type(capacity) is int and capacity >= 1 and (most is None or capacity <= most):
        return
    allowed = "of at least 1" if most is None else f"from 1 to {most}"
    raise ConfigError(f"a capacity must be a whole number {allowed}, not {capacity!r}", name=name)


def agreed(stated: int, mine: int, head: int) -> int:
    """The capacity to tell a waiter: the one that it stated, unless its claim and the head of the queue differ.

    A waiter compares what it is told with what it stated; a resize may have rewritten both claims since.
    """
    return stated if mine == head else head


def hopeless(queue: Sequence[Queued], mine: Sequence[bool], waits: Sequence[bool], place: int) -> int | None:
    """The place of the first claim, up to ``place``, that can never hold before the owner of ``mine`` releases something; None if all can.

    The owner of ``mine`` waits at ``place`` and releases nothing meanwhile. A claim holds only together with everything ahead of it,
    so one that does not fit beside the owner's claims ahead of it stays where it is, and so does everybody behind it.

    Args:
        queue: As for :func:`prefix`.
        mine: Which claims the owner holds.
        waits: Which claims wait; all others leave in time without any help.
        place: Where the owner waits.
    """
    capacity, held = queue[0].capacity, 0
    for at, claim in enumerate(queue[: place + 1]):
        if mine[at]:
            held += claim.weight
        elif waits[at] and claim.capacity == capacity and held + claim.weight > capacity:
            return at
    return None
