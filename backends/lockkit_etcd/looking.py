"""Looks at a long queue that read no more of it than a claim needs.

A whole look reads each claim with its value, so a thousand waiters that join one by one, or ask again, would
read half a million claims. Three facts make less do:

- A claim waits as long as the claims ahead leave it no room, whatever else is in the queue. So a claim that
  joins reads the first claim, and the last few.
- A waiting claim, unchanged since it was created, does not depend on the claims behind it: one of them that
  holds was granted together with this one, and still fits unless a resize has changed both.
- Claims ahead only go away. A guard may take the place of one later, under a younger key; but a claim's value
  says from the start whether it can leave a guard. So one waiter of a client has to read that, for all.
"""

from __future__ import annotations

from collections.abc import Sequence

from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.queue import blockers
from lockkit_etcd.rows import Row, where_of
from lockkit_etcd.transport import Get, Kv

__all__ = ["LAST", "Ahead", "Ends", "ahead", "can_guard", "ends_of", "in_front", "oldest"]

LAST = 16
"""Claims at the end of a queue that a claim reads when it joins; a queue with more claims counts as long."""
_SHORT = LAST // 2
"""Claims up to which nothing is remembered of a queue."""
_STRETCHES = 64
"""Stretches of a queue that are remembered."""
_QUEUES = 1024
"""Long queues that are remembered; beyond that all are forgotten."""


class _Known(NamedTuple):
    """The part of a long queue that was read.

    Attributes:
        stretches: Stretches from one place to another, in order, whose claims were read by a look or had gone
            before. The first starts with 0 if that is true of all up to its end.
        guarded: Whether one of these claims can leave a guard.
    """

    stretches: tuple[tuple[int, int], ...]
    guarded: bool


class Ends:
    """The long queues in which a client waits, each by its prefix: how much of each was read."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def clear(self) -> None:
        """Forget everything: the servers count revisions anew."""
        self._known = {}

    def saw(self, queue: bytes, found: Sequence[Row]) -> None:
        """Remember a look at all of a queue."""
        known = self._known.get(queue)
        if len(found) <= _SHORT:
            late = bool(found) and known is not None and known.stretches[-1][1] > found[-1].fence
            if not late:
                self._known.pop(queue, None)
            return
        guarded = any(map(can_guard, found))
        before = () if known is None or known.guarded else known.stretches
        self._note(queue, before, (0, found[-1].fence), guarded=guarded)

    def joined(self, queue: bytes, found: Sequence[Row]) -> None:
        """Remember a look at the last claims of a queue."""
        known, guarded = self._known.get(queue), any(map(can_guard, found))
        if known is None:
            self._note(queue, (), (found[0].fence, found[-1].fence), guarded=guarded)
        else:
            stretch = found[0].fence, found[-1].fence
            self._note(queue, known.stretches, stretch, guarded=guarded or known.guarded)

    def unguarded(self, queue: bytes, place: int) -> bool:
        """Whether no claim up to a place can leave a guard, as far as is known."""
        known = self._known.get(queue)
        if known is None or known.guarded:
            return False
        begin, end = known.stretches[0]
        return begin == 0 and place <= end

    def _note(
        self, queue: bytes, before: Sequence[tuple[int, int]], one: tuple[int, int], *, guarded: bool
    ) -> None:
        merged: list[tuple[int, int]] = []
        for begin, end in sorted([*before, one]):
            if merged and begin <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], end)
            else:
                merged.append((begin, end))
        if len(self._known) >= _QUEUES:
            self._known.clear()
        self._known[queue] = _Known(tuple(merged[:_STRETCHES]), guarded)


class Ahead(NamedTuple):
    """The claims ahead of one that waits.

    Attributes:
        place: The number of claims ahead.
        blockers: The claims to watch, each as :attr:`Row.where`.
    """

    place: int
    blockers: tuple[str, ...]


def can_guard(row: Row) -> bool:
    """Whether a claim is a guard, or can leave one."""
    return row.guard or bool(row.value.get("min_hold"))


def oldest(queue: Get) -> Get:
    """Reads the first claim of a queue in which no claim can leave a guard."""
    return queue._replace(first="oldest", limit=1)


def ends_of(queue: Get) -> tuple[Get, Get]:
    """Read the first claim of a queue, and the last ones."""
    return oldest(queue), queue._replace(first="newest", limit=LAST)


def in_front(head: Row, last: Sequence[Row], count: int) -> Ahead | None:
    """The claims ahead of one that has joined a long queue; None if all of it has to be read.

    Args:
        head: The first claim of the queue.
        last: The last claims of the queue; the claim itself is the last.
        count: The claims in the whole queue.
    """
    found = [head, *last]
    chosen = blockers(found, len(found) - 1)
    if not chosen:
        return None
    return Ahead(count - 1, tuple([found[at].where for at in chosen]))


def ahead(
    kvs: Sequence[Kv], own: bytes, place: int, seen: tuple[str, ...], *, exclusive: bool
) -> Ahead | None:
    """The claims ahead of one that waited already, unchanged since its creation; None if it must look again.

    Args:
        kvs: The keys up to the claim's own, without values.
        own: The claim's key.
        place: The revision that created it.
        seen: The claims that blocked it at its last look.
        exclusive: Whether it needs the whole capacity, so that any other claim blocks it.
    """
    created = {kv.key: kv.created for kv in kvs if not (kv.key == own and kv.created == kv.modified == place)}
    if len(created) == len(kvs) or not created:
        return None
    if seen and {where_of(*each) for each in created.items()}.issuperset(seen):
        return Ahead(len(created), seen)
    if not exclusive:
        return None
    nearest = max(created, key=created.__getitem__)
    return Ahead(len(created), (where_of(nearest, created[nearest]),))
