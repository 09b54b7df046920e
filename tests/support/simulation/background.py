"""A client's background threads as actors: heartbeat, deadlines, orphan list. They mirror ``lockkit.drivers``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lockkit.hold import Hold
from lockkit.protocol.effects import Call, Orphan
from lockkit.protocol.renewing import batch, due, losing, renewing, waiter_interval
from lockkit.store.spi import REQUEST_TIMEOUT, Beat, Claim, Refused, Unknown
from support.simulation.actors import Actor

if TYPE_CHECKING:
    from support.simulation.client import Client

__all__ = ["Heartbeat", "Member", "Orphans"]

_RETRY, _COALESCE = 0.25, 0.25
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.8
_PATIENCE = 3


@dataclass(slots=True, eq=False)
class Member:
    """One claim in the heartbeat: a hold, or a claim that waits and the flag that its thread waits for."""

    claim: Claim
    hold: Hold | None
    next: float
    slack: float
    event: bool = False
    slept: bool = False
    """A wake of it was lost; only the poll cap helps."""
    unanswered: int = 0
    deaf: Callable[[], bool] = lambda: False

    @property
    def beat(self) -> Beat:
        """See :class:`lockkit.protocol.renewing.Member`."""
        return self.claim, None if self.hold is None else self.hold.fence

    def wake(self) -> None:
        if self.hold is None:
            if self.deaf():
                self.slept = True
            else:
                self.event = True

    def missed(self) -> None:
        self.unanswered += 1
        if self.hold is None and self.unanswered % _PATIENCE == 0:
            self.event = True


class Heartbeat(Actor):
    """Renews what is registered, one batch at a time; see :class:`lockkit.drivers.heartbeat.Heartbeat`."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, f"{client.name} heartbeat")
        self.members: dict[str, Member] = {}
        self.holds: dict[str, Hold] = {}
        self.withdrawn: set[int] = set()
        """Acquisitions that nothing may renew any more."""
        self._interval = waiter_interval(client.world.store.capabilities.waiter_deadline)
        self._failures = 0
        self._batch: list[Member] = []
        self._later: list[Member] = []

    def hold(self, hold: Hold) -> None:
        self.holds[hold.claim.token] = hold
        if hold.auto_renew:
            self.members[hold.claim.token] = self._holding(hold)
        else:
            self.members.pop(hold.claim.token, None)

    def _holding(self, hold: Hold) -> Member:
        slack = _COALESCE * hold.claim.terms.ttl / 3.0
        return Member(hold.claim, hold, self._due(hold), slack)

    def _due(self, hold: Hold) -> float:
        world = self.client.world
        return due(hold.basis, hold.claim.terms.ttl, world.jitter, world.clock.now())

    def waiter(self, claim: Claim) -> Member:
        now = self.client.world.clock.now()
        member = Member(claim, None, now + self._interval, _COALESCE * self._interval)
        member.deaf = self.client.world.wake_is_lost
        self.members[claim.token] = member
        return member

    def withdraw(self, claim: Claim) -> None:
        self.members.pop(claim.token, None)
        self.holds.pop(claim.token, None)
        self.withdrawn.add(self.client.world.acquisition(claim))

    def forget(self, member: Member) -> None:
        if self.members.get(member.claim.token) is member:
            del self.members[member.claim.token]

    def next(self) -> float:
        """When it wants to run."""
        if self.generator is not None:
            return math.inf
        return min((member.next for member in self.members.values()), default=math.inf)

    def beat(self) -> None:
        """Send what is due, and what is nearly due with it."""
        now = self.client.world.clock.now()
        for token in [token for token, member in self.members.items() if _idle(member)]:
            del self.members[token]
        members = [member for member in self._later if self.members.get(member.claim.token) is member]
        if not members:
            members = [member for member in self.members.values() if member.next <= now + member.slack]
        if not members:
            return
        self._batch, self._later, budget = batch(members, now, REQUEST_TIMEOUT)
        self.begin(renewing(self._batch, self.now, budget, lambda _: None))
        self.perform()

    def perform(self) -> None:
        """Perform effects up to the next request."""
        while self.effect is not None and self.request is None:
            if isinstance(self.effect, Call):
                self.send(self.effect)
            else:
                self.client.background(self.effect)
                super().answered(None)

    def answered(self, result: Any) -> None:
        super().answered(result)
        self.perform()

    def failed(self, error: BaseException) -> None:
        super().failed(error)
        self.perform()

    def finished(self, value: Any) -> None:
        now = self.client.world.clock.now()
        self._failures = 0 if value else self._failures + 1
        for member in self._batch:
            if not value:
                interval = member.slack / _COALESCE
                member.next = now + min(_RETRY * 2.0 ** min(self._failures - 1, 8), max(interval / 4, 0.02))
            elif member.hold is not None:
                member.next = max(self._due(member.hold), now + 0.01)
            else:
                member.next = now + self._interval

    def broke(self, error: BaseException) -> None:
        self.client.world.violated("CRASH", f"{self.label} raised {error!r}")

    def next_deadline(self) -> float:
        """When the deadline thread wants to run. The silence of a process-bound hold is no loss."""
        ends = [math.inf]
        for hold in self.holds.values():
            terms = hold.claim.terms
            if hold.ended or hold.lost_why:
                continue
            if not terms.process_bound or hold.collected:
                ends.append(hold.expires())
            elif terms.max_hold is not None:
                ends.append(hold.since + terms.max_hold)
        return min(ends)

    def overdue(self) -> list[Hold]:
        """Holds that the deadline thread has to say something about."""
        now = self.client.world.clock.now()
        return [hold for hold in self.holds.values() if _wants_attention(hold, now)]

    def deadlines(self) -> None:
        """The deadline thread: what has run out is lost, whatever the heartbeat is doing."""
        now = self.client.world.clock.now()
        for hold in self.overdue():
            if hold.ended or hold.lost_why:
                self.withdraw(hold.claim)
                continue
            why = "collected" if hold.collected else hold.overdue(now)
            self.client.world.tell(f"{self.client.name} deadlines: {hold.claim.token} is {why}")
            for effect in losing(hold, why):
                self.client.background(effect)
            if hold.collected:
                self.withdraw(hold.claim)
            else:
                self.members.pop(hold.claim.token, None)


@dataclass(slots=True, eq=False)
class _Entry:
    orphan: Orphan
    next: float
    wait: float = _FIRST_WAIT


class Orphans(Actor):
    """Removes claims nobody stands behind, one request at a time; see :class:`lockkit.drivers.orphans.Orphans`."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, f"{client.name} orphans")
        self.entries: dict[str, _Entry] = {}
        self._current: _Entry | None = None

    def add(self, orphan: Orphan) -> None:
        self.entries[orphan.claim.token] = _Entry(orphan, max(orphan.after, 0.0))

    def next(self) -> float:
        """When it wants to run."""
        if self.request is not None:
            return math.inf
        return min((entry.next for entry in self.entries.values()), default=math.inf)

    def remove(self) -> None:
        """Send for the first that is due."""
        entry = min(self.entries.values(), key=lambda each: each.next)
        self._current = entry
        orphan = entry.orphan
        method = "abandon" if orphan.abandon else "release"
        self.send(Call(method, (orphan.claim,), REQUEST_TIMEOUT, {"graceful": orphan.graceful}))

    def answered(self, result: Any) -> None:  # noqa: ARG002 - RELEASED or ABSENT: definite
        self.request, entry = None, self._current
        assert entry is not None
        if self.entries.get(entry.orphan.claim.token) is entry:
            del self.entries[entry.orphan.claim.token]

    def failed(self, error: BaseException) -> None:
        self.request, entry = None, self._current
        assert entry is not None
        assert isinstance(error, Refused | Unknown)
        entry.next = self.client.world.clock.now() + entry.wait
        entry.wait = min(entry.wait * 2, _LONGEST_WAIT)


def _wants_attention(hold: Hold, now: float) -> bool:
    """Whether the deadline thread has something to do about a hold."""
    if hold.ended or hold.lost_why:
        return hold.collected
    return bool(hold.overdue(now)) or (hold.collected and (hold.given_up or now >= hold.expires()))


def _idle(member: Member) -> bool:
    hold = member.hold
    return hold is not None and bool(hold.ended or hold.lost_why or hold.collected)
