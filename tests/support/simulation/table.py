"""The rows of the modelled embedded store, and its statements: each atomic, each complete in itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lockkit.store.queue import prefix
from lockkit.store.spi import Claim, End, Terms, Watch
from support.simulation.clock import VirtualClock
from support.simulation.stores import NothingInTheClient

__all__ = ["GRACE", "StatementRow", "Table"]

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

    @property
    def holding(self) -> bool:
        """Whether it takes room."""
        return self.state in ("HELD", "LINGERING")

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

    def lingers(self, now: float, *, how: End) -> float:
        """Until when it goes on blocking if it ends now."""
        if how == "unused":
            return now
        end = self.since + self.terms.min_hold
        if how == "ungraceful" or self.evicted:
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


class Table(NothingInTheClient):
    """The file: rows by name in the order of their fences, who is dead, and who watches which rows."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.queues: dict[str, list[StatementRow]] = {}
        self._top = 0
        self._dead: set[str] = set()
        self._bells: dict[int, _Bell] = {}

    def queue(self, name: str) -> list[StatementRow]:
        """The rows of a name, in order."""
        return self.queues.setdefault(name, [])

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
        rows = self.queue(row.terms.name)
        if (
            row not in rows
            or row.state != "WAITING"
            or row.deadline <= now
            or row.evicted
            or row.capacity != capacity
            or sum(each.weight for each in rows if each.holding) + row.weight > capacity
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
        until = row.lingers(now, how="ungraceful") if row.state == "HELD" else now
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

    def ring_all(self) -> None:
        """Wake whoever watches anything."""
        for bell in list(self._bells.values()):
            bell.wake()
