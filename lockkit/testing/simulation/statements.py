"""The embedded store as a model: a request is a sequence of atomic statements, with everybody's others in between.

Every statement compares with a ``now`` that was read before it ran, as it does where a statement may wait for the write
lock. After ``mc_sqlite.py``: append and look need not be one step, and only a compare makes a claim HELD. The claims of a
dead process are removed at once, but for what has min_hold or lock_delay still to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lockkit.facts import Capabilities, Evicted
from lockkit.names import claim_id
from lockkit.queue import blockers, prefix
from lockkit.spi import (
    ABSENT,
    RELEASED,
    Answer,
    Beat,
    Busy,
    Claim,
    Granted,
    Lapsed,
    Queued,
    Renewal,
    Terms,
    Watch,
)
from lockkit.testing.simulation.clock import VirtualClock
from lockkit.testing.simulation.network import Job, Request
from lockkit.testing.simulation.stores import StoredRow

__all__ = ["GRACE", "StatementRow", "Statements"]

GRACE = 6.0
"""A waiter's deadline, in seconds."""


@dataclass(slots=True, eq=False)
class StatementRow:
    """One row."""

    token: str
    client: str
    terms: Terms
    fence: int
    deadline: float
    capacity: int
    state: str = "WAITING"
    since: float = 0.0
    renewed: float = 0.0
    evicted: bool = False

    @property
    def weight(self) -> int:
        return self.terms.weight

    @property
    def ttl(self) -> float:
        return self.terms.ttl

    def hold(self, now: float) -> None:
        """HELD from now on."""
        self.state, self.since, self.deadline = "HELD", now, now
        self.extend(now)

    def extend(self, now: float) -> None:
        """Deadlines only grow."""
        terms = self.terms
        self.renewed = now
        end = now + terms.ttl
        if terms.max_hold is not None:
            end = min(end, self.since + terms.max_hold)
        self.deadline = max(self.deadline, end + terms.lock_delay, self.since + terms.min_hold)

    def lingers(self, now: float, *, graceful: bool) -> float:
        """Until when it goes on blocking if it ends now."""
        end = self.since + self.terms.min_hold
        if not graceful or self.evicted:
            end = max(end, now + self.terms.lock_delay)
        return min(end, self.deadline)


@dataclass(slots=True, eq=False)
class _Bell:
    """Rings when one of the blockers it watches is gone."""

    tokens: frozenset[str]
    wake: Callable[[], None]
    bells: dict[int, _Bell]

    def close(self) -> None:
        self.bells.pop(id(self), None)


class Statements:
    """The model; one instance is the file."""

    name = "statements"
    late_copies = False
    sees_death = True
    wakes_waiters = False
    stale = True

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.queues: dict[str, list[StatementRow]] = {}
        self._top = 0
        self._dead: set[str] = set()
        self._bells: dict[int, _Bell] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(scope="host", process_bound=True, fence="clock", min_ttl=0.01)

    def rows(self, name: str) -> Sequence[StoredRow]:
        return cast("Sequence[StoredRow]", self.queue(name))

    def queue(self, name: str) -> list[StatementRow]:
        """The rows of a name, in order."""
        return self.queues.setdefault(name, [])

    def job(self, request: Request) -> Job:
        method, args = request.method, request.args
        if method == "acquire":
            claim, create = args
            return self.acquire(claim, request.client, create=create)
        if method == "renew":
            return self.renew(args[0])
        return self.release(args[0], graceful=request.keywords.get("graceful", True))

    def operate(self, method: str, args: tuple[Any, ...]) -> Job:
        return cast("Job", getattr(self, method)(*args))

    # -- requests

    def acquire(self, claim: Claim, client: str, *, create: bool) -> Job:
        """Append, look, become a holder by compare."""
        terms = claim.terms
        if create:
            now = self._clock.now()
            yield "INSERT HELD if it fits"
            row = self.insert_held(claim, client, now)
            if row is not None:
                return Granted(row.fence, now)
            if claim.wait:
                now = self._clock.now()
                yield "INSERT WAITING"
                if self.find(claim) is None:
                    self.append(claim, client, now + GRACE)
        while True:
            now = self._clock.now()
            yield "SELECT the queue"
            seen = self.look(terms.name, now)
            if self.lapsed(seen, now) or self.dead(seen):
                yield "DELETE what has lapsed or died"
                self.purge(terms.name, now)
                continue
            answer: Answer | None = yield from self._stand(claim, client, seen, create=create)
            if answer is not None:
                return answer

    def _stand(self, claim: Claim, client: str, seen: list[StatementRow], *, create: bool) -> Job:
        place = next((at for at, row in enumerate(seen) if row.token == claim.token), None)
        if place is None:
            if not create or claim.wait:
                head = seen[0].capacity if seen else math.inf
                return Lapsed("resized" if head < claim.terms.weight else "absent")
            if not self.fits(seen, claim):
                return Busy(seen[0].capacity)
            now = self._clock.now()
            yield "INSERT HELD if it fits"
            row = self.insert_held(claim, client, now)
            return Granted(row.fence, now) if row is not None else None
        row = seen[place]
        if row.evicted or row.state == "LINGERING":
            return Lapsed("evicted" if row.evicted else "lingering")
        if row.state == "HELD":
            now = self._clock.now()
            yield "UPDATE: renew my own"
            return Granted(row.fence, now) if self.renew_row(row, now) else None
        if place < prefix(seen):
            now, capacity = self._clock.now(), row.capacity
            yield "UPDATE to HELD"
            if self.grant(row, now, capacity):
                return Granted(row.fence, now)
            return None
        chosen = [seen[at] for at in blockers(seen, place)]
        now = self._clock.now()
        yield "UPDATE: a waiter lives on"
        self.prolong(row, now)
        ends = [each.deadline for each in chosen] if place == prefix(seen) else []
        head = seen[0].capacity
        return Queued(
            place,
            min(ends, default=None),
            tuple(each.token for each in chosen),
            claim.terms.capacity if row.capacity == head else head,
        )

    def renew(self, beats: Sequence[Beat]) -> Job:
        """Holders by compare; waiters only while the last look had them outside the prefix."""
        answers = []
        for claim, fence in beats:
            now = self._clock.now()
            if fence is not None:
                yield f"UPDATE: renew {claim.token}"
                row = self.find(claim)
                if row is not None and row.fence == fence and self.renew_row(row, now):
                    answers.append(Renewal("HELD", basis=now))
                else:
                    answers.append(
                        Renewal("LOST", why="evicted" if row is not None and row.evicted else "absent")
                    )
                continue
            yield f"SELECT the queue of {claim.token}"
            seen = self.look(claim.terms.name, now)
            if self.lapsed(seen, now) or self.dead(seen):
                yield "DELETE what has lapsed or died"
                self.purge(claim.terms.name, now)
                seen = self.look(claim.terms.name, now)
            fits = prefix(seen)
            place = next((at for at, row in enumerate(seen) if row.token == claim.token), None)
            if place is None or seen[place].evicted or seen[place].state == "LINGERING":
                answers.append(Renewal("LOST", why="absent"))
            elif seen[place].state == "HELD" or place < fits:
                answers.append(Renewal("OFFERED"))
            else:
                now = self._clock.now()
                yield "UPDATE: a waiter lives on"
                self.prolong(seen[place], now)
                answers.append(Renewal("WAITING"))
        return answers

    def release(self, claim: Claim, *, graceful: bool) -> Job:
        """LINGERING if something is left to run, else gone; by compare."""
        now = self._clock.now()
        yield "UPDATE to LINGERING"
        row = self.find(claim)
        if row is not None and row.state == "HELD" and row.deadline > now:
            until = row.lingers(now, graceful=graceful)
            if until > now:
                row.state, row.deadline = "LINGERING", until
                self.ring(row.token)
                return RELEASED
        while True:
            now = self._clock.now()
            yield "DELETE"
            row = self.find(claim)
            if row is None:
                return ABSENT
            if row.deadline > now:
                if row.state != "LINGERING":
                    self.remove(row)
                return RELEASED
            # Left standing, it could be extended by a renewal that read its clock before it lapsed: look again.
            now = self._clock.now()
            yield "DELETE what has lapsed or died"
            self.purge(claim.terms.name, now)

    # -- statements

    def look(self, name: str, now: float) -> list[StatementRow]:  # noqa: ARG002 - a mutant looks at it
        """The queue as it is. Never filtered by time: what is skipped is a place that two may stand on."""
        return list(self.queue(name))

    def find(self, claim: Claim) -> StatementRow | None:
        """The row of a token."""
        return next((row for row in self.queue(claim.terms.name) if row.token == claim.token), None)

    def fits(self, seen: Sequence[StatementRow], claim: Claim) -> bool:
        """Whether one more would hold."""
        terms = claim.terms
        mine = StatementRow(claim.token, "", terms, 0, 0.0, terms.capacity)
        return prefix([*seen, mine]) == len(seen) + 1

    def insert_held(self, claim: Claim, client: str, now: float) -> StatementRow | None:
        """Not if anything has lapsed: that is removed first. Not if it is there already."""
        seen = self.queue(claim.terms.name)
        if self.lapsed(seen, now) or self.find(claim) is not None or not self.fits(seen, claim):
            return None
        row = self.append(claim, client, now)
        row.hold(now)
        return row

    def append(self, claim: Claim, client: str, deadline: float) -> StatementRow:
        """A new row at the tail, with a fence above every other."""
        self._top += 1
        row = StatementRow(claim.token, client, claim.terms, self._top, deadline, claim.terms.capacity)
        self.queue(claim.terms.name).append(row)
        return row

    def grant(self, row: StatementRow, now: float, capacity: int) -> bool:
        """The only statement that makes a waiter a holder."""
        stands = row in self.queue(row.terms.name)
        if (
            not stands
            or row.state != "WAITING"
            or row.deadline <= now
            or row.evicted
            or row.capacity != capacity
        ):
            return False
        row.hold(now)
        return True

    def renew_row(self, row: StatementRow, now: float) -> bool:
        """Compare and extend in one step."""
        if row not in self.queue(row.terms.name) or row.state != "HELD" or row.deadline <= now or row.evicted:
            return False
        row.extend(now)
        return True

    def prolong(self, row: StatementRow, now: float) -> None:
        """A waiter's deadline, unless it has lapsed or is no waiter any more."""
        if row in self.queue(row.terms.name) and row.state == "WAITING" and row.deadline > now:
            row.deadline = max(row.deadline, now + GRACE)

    def lapsed(self, seen: Sequence[StatementRow], now: float) -> bool:
        """Whether something has to be removed first."""
        return any(row.deadline <= now for row in seen)

    def dead(self, seen: Sequence[StatementRow]) -> bool:
        """Whether the process of a claim is gone."""
        return any(row.client in self._dead and row.state != "LINGERING" for row in seen)

    def purge(self, name: str, now: float) -> None:
        """Remove what has lapsed, wherever it stands, and what is dead but for what goes on blocking."""
        for row in list(self.queue(name)):
            if row.deadline <= now:
                self.remove(row)
            elif row.client in self._dead and row.state != "LINGERING":
                self.bury(row, now)

    def bury(self, row: StatementRow, now: float) -> None:
        """A claim whose process has died."""
        until = row.lingers(now, graceful=False) if row.state == "HELD" else now
        if until > now:
            row.state, row.deadline = "LINGERING", until
            self.ring(row.token)
        else:
            self.remove(row)

    def remove(self, row: StatementRow) -> None:
        """Delete a row, if it is still there, and ring for those who watch it."""
        queue = self.queue(row.terms.name)
        if row in queue:
            queue.remove(row)
            self.ring(row.token)

    def ring(self, token: str) -> None:
        """Wake who watches a row that is gone or has changed its deadline."""
        for bell in [bell for bell in self._bells.values() if token in bell.tokens]:
            bell.wake()

    # -- beside the requests

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        bell = _Bell(frozenset(blockers), wake, self._bells)
        self._bells[id(bell)] = bell
        standing = {row.token for row in self.queue(name)}
        if not bell.tokens <= standing or claim.token not in standing:
            wake()
        return bell

    def died(self, client: str) -> None:
        self._dead.add(client)
        for queue in self.queues.values():
            for row in queue:
                if row.client == client:
                    self.ring(row.token)

    def evict(self, name: str, wanted: str, budget: float) -> Job:  # noqa: ARG002
        """Mark a holder, remove a waiter."""
        yield from ()
        row = next((row for row in self.queue(name) if claim_id(row.token) == wanted), None)
        if row is None:
            return Evicted("ABSENT")
        if row.state == "WAITING":
            self.remove(row)
            return Evicted("REMOVED")
        if row.state == "HELD":
            row.evicted = True
            silent = max(row.renewed + row.ttl + row.terms.lock_delay, row.since + row.terms.min_hold)
            row.deadline = min(row.deadline, silent)
            self.ring(row.token)
        return Evicted("MARKED")

    def resize(self, name: str, capacity: int, budget: float) -> Job:  # noqa: ARG002
        """Rewrite every capacity in one step; what is too heavy and not HELD goes."""
        yield from ()
        for row in list(self.queue(name)):
            row.capacity = capacity
            if row.state == "WAITING" and row.weight > capacity:
                self.remove(row)
        for bell in list(self._bells.values()):
            bell.wake()
        return len(self.queue(name))

    def settle(self, name: str) -> Job:
        """Somebody looks at the queue."""
        yield from ()
        self.purge(name, self._clock.now())
