"""Mistakes inside a store: patches of the memory store, and of the model of the embedded store."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lockkit.store.queue import Queued as InQueue
from lockkit.store.rowqueue import RowQueue
from lockkit.store.rows import Row
from lockkit.store.spi import End
from support.mutants.mutant import patched
from support.simulation import statements
from support.simulation.network import Job, Request
from support.simulation.statements import Statements
from support.simulation.stores import Atomic, memory
from support.simulation.table import StatementRow

__all__ = [
    "DeathPurgesLingering",
    "LateRenewalShortens",
    "ReleaseLeavesLapsed",
    "SkipsLapsed",
    "extend_shortens",
    "fence_starts_again",
    "overtakes",
    "purges_heads_only",
    "replay_not_marked",
    "unused_lingers",
    "watches_the_predecessor",
]


@contextmanager
def purges_heads_only() -> Iterator[None]:
    """Only claims at the head are removed when they have lapsed."""

    def settle(self: Any, now: float) -> None:
        for row in list(self.rows.values()):
            if row.deadline > now:
                break
            self.remove(row, now)
        self.offer(now)

    with patched(RowQueue, settle=settle):
        yield


@contextmanager
def extend_shortens() -> Iterator[None]:
    """An extend by less than the one before it is taken for the last word."""
    backend = memory()[0]
    extend: Callable[..., Any] = vars(backend)["extend"]

    @functools.wraps(extend)
    def outright(self: Any, claim: Any, fence: int, ttl: float, budget: float) -> Any:
        answer = extend(self, claim, fence, ttl, budget)
        row = self._store.queues[claim.terms.name].rows.get(claim.token)
        if row is not None:
            row.ttl = ttl
        return answer

    with patched(backend, extend=outright):
        yield


@contextmanager
def fence_starts_again() -> Iterator[None]:
    """An empty queue forgets its fences."""
    acquire: Callable[..., Any] = vars(RowQueue)["acquire"]

    @functools.wraps(acquire)
    def forgetful(self: Any, *args: Any, **keywords: Any) -> Any:
        if not self.rows:
            self.context.next_fence = itertools.count(1).__next__
        return acquire(self, *args, **keywords)

    with patched(RowQueue, acquire=forgetful):
        yield


@contextmanager
def overtakes() -> Iterator[None]:
    """A claim that fits is granted, past a heavier claim that waits."""

    def offer(self: Any, now: float) -> None:
        used = sum(row.weight for row in self.rows.values() if row.state in ("HELD", "OFFERED", "LINGERING"))
        for row in self.rows.values():
            if row.state == "WAITING" and used + row.weight <= row.capacity:
                used += row.weight
                row.state = "OFFERED"
                row.wait(now)
                self.changed.append(row)
        self.unsettled = False

    with patched(RowQueue, offer=offer):
        yield


@contextmanager
def replay_not_marked() -> Iterator[None]:
    """The store does not take note that a create was sent twice."""
    with patched(Atomic, _mark=lambda self, request: None), patched(Row, replayed=_Never()):  # noqa: ARG005
        yield


class _Never:
    """An attribute that stays False."""

    def __get__(self, instance: object, owner: type) -> bool:
        return False

    def __set__(self, instance: object, value: object) -> None:
        return


class LateRenewalShortens(Atomic):
    """A renewal sets the deadline to its sending time + ttl, whatever it was."""

    def perform(self, request: Request) -> Any:
        answers = super().perform(request)
        if request.renews:
            for claim, answer in zip(request.claims, answers, strict=True):
                if answer.state == "HELD":
                    row = self.store.queues[claim.terms.name].rows[claim.token]
                    row.deadline = request.sent + row.ttl
        return answers


class SkipsLapsed(Statements):
    """A lapsed claim is passed over by the look at the queue, and stays in it."""

    def look(self, name: str, now: float) -> list[StatementRow]:
        return [row for row in self.queue(name) if row.deadline > now]


class DeathPurgesLingering(Statements):
    """The death of a process takes with it what min_hold or lock_delay should keep."""

    def bury(self, row: StatementRow, now: float) -> None:  # noqa: ARG002
        self.remove(row)

    def died(self, client: str) -> None:
        super().died(client)
        for queue in self.queues.values():
            for row in [row for row in queue if row.client == client]:
                self.remove(row)


class ReleaseLeavesLapsed(Statements):
    """A release that finds its claim lapsed says ABSENT and leaves it standing."""

    def release(self, claim: Any, *, how: End) -> Job:
        job = super().release(claim, how=how)
        while True:
            try:
                label = next(job)
            except StopIteration as stop:
                return stop.value
            if label.startswith("DELETE what"):
                return "ABSENT"
            yield label


@contextmanager
def unused_lingers() -> Iterator[None]:
    """A claim that nobody has used lingers as one that was released."""
    until = Row.lingers_until

    def used(self: Row, now: float, *, how: End) -> float:
        return until(self, now, how="released" if how == "unused" else how)

    with patched(Row, lingers_until=used):
        yield


@contextmanager
def watches_the_predecessor() -> Iterator[None]:
    """A waiter watches the claim before it and no other, whatever the weights."""

    def blockers(queue: Sequence[InQueue], place: int) -> list[int]:  # noqa: ARG001
        return [place - 1] if place else []

    with patched(statements, blockers=blockers):
        yield
