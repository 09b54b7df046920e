"""The embedded store as a model: a request is a sequence of atomic statements, interleaved with others.

Every statement compares with a ``now`` that was read before it ran, as where a statement may wait for the
write lock. Append and look need not be one step, and only a compare makes a claim HELD. A dead process's
claims are removed at once, except while min_hold or lock_delay runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from lockkit.facts import Capabilities, Evicted
from lockkit.protocol.effects import Abandon, Acquire, EmergencyRelease, Release, Renew
from lockkit.store.queue import blockers, grantable, prefix
from lockkit.store.spi import (
    ABSENT,
    RELEASED,
    Answer,
    Beat,
    Busy,
    Claim,
    End,
    Granted,
    Lapsed,
    Queued,
    Renewal,
)
from lockkit.values.names import claim_id
from support.simulation.network import Job, Request
from support.simulation.stores import StoredRow
from support.simulation.table import GRACE, StatementRow, Table

__all__ = ["Statements"]


class Statements(Table):
    """The model; one instance is the file."""

    name = "statements"
    late_copies = False
    sees_death = True
    removes_together = 1
    stale = True

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(scope="user", process_bound=True, fence="clock", min_ttl=0.01)

    def rows(self, name: str) -> Sequence[StoredRow]:
        return cast("Sequence[StoredRow]", self.queue(name))

    def job(self, request: Request) -> Job:
        match request.what:
            case Acquire(claim, create):
                return self.acquire(claim, request.client, create=create)
            case Renew(beats):
                return self.renew(beats)
            case Release(claim, _, how) | Abandon(claim, _, how) | EmergencyRelease(claim, _, how):
                return self.release(claim, how=how)
            case other:
                raise NotImplementedError(other)

    def operate(self, method: str, args: tuple[Any, ...]) -> Job:
        return cast("Job", getattr(self, method)(*args))

    # -- requests

    def acquire(self, claim: Claim, client: str, *, create: bool) -> Job:
        """Append, look, become a holder by compare."""
        terms = claim.terms
        if create:
            now = self.clock.now()
            yield "INSERT HELD if it fits"
            row = self.insert_held(claim, client, now)
            if row is not None:
                return Granted(row.fence, now)
            if claim.wait:
                now = self.clock.now()
                yield "INSERT WAITING"
                if self.find(claim) is None:
                    self.append(claim, client, now + GRACE)
        while True:
            now = self.clock.now()
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
            now = self.clock.now()
            yield "INSERT HELD if it fits"
            row = self.insert_held(claim, client, now)
            return Granted(row.fence, now) if row is not None else None
        row = seen[place]
        if row.evicted or row.state == "LINGERING":
            return Lapsed("evicted" if row.evicted else "lingering")
        if row.state == "HELD":
            now = self.clock.now()
            yield "UPDATE: renew my own"
            return Granted(row.fence, now) if self.renew_row(row, now) else None
        fits = prefix(seen)
        if place < grantable(seen, [each.holding for each in seen]):
            now, capacity = self.clock.now(), row.capacity
            yield "UPDATE to HELD"
            if self.grant(row, now, capacity):
                return Granted(row.fence, now)
            return None
        if place < fits:
            chosen = [each for each in seen[fits:] if each.holding]
        else:
            chosen = [seen[at] for at in blockers(seen, place)]
        now = self.clock.now()
        yield "UPDATE: a waiter lives on"
        self.prolong(row, now)
        ends = [each.deadline for each in chosen] if place <= fits else []
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
            now = self.clock.now()
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
            fits = grantable(seen, [each.holding for each in seen])
            place = next((at for at, row in enumerate(seen) if row.token == claim.token), None)
            if place is None or seen[place].evicted or seen[place].state == "LINGERING":
                answers.append(Renewal("LOST", why="absent"))
            elif seen[place].state == "HELD" or place < fits:
                answers.append(Renewal("OFFERED"))
            else:
                now = self.clock.now()
                yield "UPDATE: a waiter lives on"
                self.prolong(seen[place], now)
                answers.append(Renewal("WAITING"))
        return answers

    def release(self, claim: Claim, *, how: End) -> Job:
        """LINGERING if something is left to run, else gone; by compare."""
        now = self.clock.now()
        yield "UPDATE to LINGERING"
        row = self.find(claim)
        if row is not None and row.state == "HELD" and row.deadline > now:
            until = row.lingers(now, how=how)
            if until > now:
                row.state, row.deadline = "LINGERING", until
                self.ring(row.token)
                return RELEASED
        while True:
            now = self.clock.now()
            yield "DELETE"
            row = self.find(claim)
            if row is None:
                return ABSENT
            if row.deadline > now:
                if row.state == "HELD" and row.lingers(now, how=how) > now:
                    # Marked by an evict since the first look: the statement removes what need not linger.
                    return (yield from self.release(claim, how=how))
                if row.state != "LINGERING":
                    self.remove(row)
                return RELEASED
            # If it stayed, a renewal that read its clock before the lapse could extend it: look again.
            now = self.clock.now()
            yield "DELETE what has lapsed or died"
            self.purge(claim.terms.name, now)

    # -- operators

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
        self.ring_all()
        return len(self.queue(name))

    def settle(self, name: str) -> Job:
        """Somebody looks at the queue."""
        yield from ()
        self.purge(name, self.clock.now())
