"""The heartbeat and the deadlines: two threads per client, so that silence becomes loss even while a renewal hangs."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol

from lockkit.bell import Bell
from lockkit.clock import Clock, jitter
from lockkit.drivers.ticker import Ticker
from lockkit.hold import Hold
from lockkit.protocol.effects import Effect
from lockkit.protocol.renewing import batch, due, losing, renewing, waiter_interval
from lockkit.store.spi import Beat, Claim

__all__ = ["Heartbeat", "Holding", "Waiter"]

_RETRY = 0.25
"""Seconds until a batch that got no answer is sent again; doubles up to a third of the shortest ttl."""
_MOMENT = 0.05
"""Seconds after which a release that has begun, and that no thread works at, counts as cut short."""
_COALESCE = 0.25
"""Claims that are due within this share of their interval go along with a batch that is sent anyway."""
_PATIENCE = 3
"""Unanswered renewals of a waiting claim after which its thread asks the store itself: only that thread can report an outage and give up."""


class Performer(Protocol):
    """Drives a protocol generator to its end."""

    def __call__(self, generator: Generator[Effect, Any, Any], /) -> Any: ...


class Holding:
    """A hold in the heartbeat.

    Attributes:
        next: When to renew it; infinity for a hold that is not to be renewed (any more).
        failures: Batches with it that got no answer, one after the other.
    """

    __slots__ = ("beat", "failures", "hold", "next", "slack", "ttl")

    def __init__(self, hold: Hold, now: float) -> None:
        self.hold: Hold | None = hold
        self.beat: Beat = (hold.claim, hold.fence)
        self.ttl = hold.claim.terms.ttl
        self.slack = _COALESCE * self.ttl / 3.0
        self.next = due(hold.basis, self.ttl, jitter(), now) if hold.auto_renew else math.inf
        self.failures = 0

    def wake(self) -> None:
        """Do nothing: nobody waits for a hold."""

    def missed(self) -> None:
        """Do nothing: a hold lasts until its ttl is over."""


class Waiter:
    """A waiting claim in the heartbeat, and the bell that its thread waits for."""

    __slots__ = ("_missed", "beat", "bell", "claim", "failures", "hold", "next", "slack", "ttl")

    def __init__(self, claim: Claim, interval: float, now: float) -> None:
        self.claim = claim
        self.beat: Beat = (claim, None)
        self.hold: Hold | None = None
        self.ttl = 0.0
        self.bell = Bell()
        self.slack = _COALESCE * interval
        self.next = now + interval
        self.failures = 0
        self._missed = 0

    def wake(self) -> None:
        """Have its thread ask again."""
        self.bell.ring()

    def missed(self) -> None:
        """Have its thread find out what is the matter, if this goes on."""
        self._missed += 1
        if self._missed % _PATIENCE == 0:
            self.bell.ring()


class Heartbeat:
    """Renews what is registered, each claim at a third of its own deadline, in batches; tells losses on time.

    Args:
        perform: Drives a protocol generator (in whatever thread calls it).
        waiter_deadline: Seconds after which the store drops a silent waiter.
        request_timeout: Seconds that one batch may take.
        renewed: Told how many holds a batch renewed.
        go_on: Told of a hold whose release was cut short; goes on with it, elsewhere.
        tidy: Looks after attempts that were cut short; true if it is to do so again in a moment.
        closing: Whether a close has begun: then it releases collected holds too, and they do not lapse before that.
        also: Called in the deadline thread after each of its turns, with the current time; returns when to call it again.

    Attributes:
        releasing: Holds whose release has begun and has no report yet, registered or not.
    """

    def __init__(
        self,
        clock: Clock,
        perform: Performer,
        waiter_deadline: float,
        request_timeout: float,
        renewed: Callable[[int], None],
        go_on: Callable[[Hold], None],
        tidy: Callable[[], bool],
        closing: Callable[[], bool],
        also: Callable[[float], float],
    ) -> None:
        self._clock = clock
        self._perform = perform
        self._request_timeout = request_timeout
        self._interval = waiter_interval(waiter_deadline)
        self._renewed = renewed
        self._go_on = go_on
        self._tidy = tidy
        self._closing = closing
        self._also = also
        self._given_up: set[Hold] = set()
        self.releasing: dict[Hold, None] = {}
        self._mutex = threading.RLock()
        self._members: dict[str, Holding | Waiter] = {}
        self._beats = Ticker("lockkit-heartbeat", self._beat, clock)
        self._deadlines = Ticker("lockkit-deadlines", self._look, clock)

    @property
    def running(self) -> bool:
        """Whether both threads run."""
        return self._beats.running and self._deadlines.running

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look after."""
        return not self._members

    def start(self) -> None:
        """Start both threads.

        Raises:
            RuntimeError: One of them cannot be started.
        """
        self._deadlines.start()
        self._beats.start()

    def lend(self, work: Callable[[], None]) -> bool:
        """Do something on the deadline thread; False if it does not run."""
        return self._deadlines.lend(work)

    def hold(self, hold: Hold) -> None:
        """Look after a granted claim; takes the place of its waiter."""
        member = Holding(hold, self._clock.now())
        with self._mutex:
            self._members[hold.claim.token] = member
        self._beats.poke(member.next)
        self._deadlines.poke(hold.expires())

    def waiter(self, claim: Claim) -> Waiter:
        """Look after a waiting claim."""
        waiter = Waiter(claim, self._interval, self._clock.now())
        with self._mutex:
            self._members[claim.token] = waiter
        self._beats.poke(waiter.next)
        self._deadlines.poke(waiter.next)
        return waiter

    def withdraw(self, token: str) -> None:
        """Stop renewing a claim: once this returns no new renewal names it, and an answer under way changes nothing."""
        with self._mutex:
            self._members.pop(token, None)

    def forget(self, waiter: Waiter) -> None:
        """Forget a wait that is over; if the claim is held by now its hold stays."""
        with self._mutex:
            if self._members.get(waiter.claim.token) is waiter:
                del self._members[waiter.claim.token]

    def holds(self) -> list[Hold]:
        """The holds of this client, including those that it has lost and not released yet."""
        with self._mutex:
            return [member.hold for member in self._members.values() if member.hold is not None]

    def again(self, hold: Hold) -> None:
        """Schedule a hold anew whose basis or ttl has changed outside the heartbeat."""
        with self._mutex:
            if hold.claim.token in self._members:
                member = self._members[hold.claim.token] = Holding(hold, self._clock.now())
                self._beats.poke(member.next)
        self._deadlines.poke(hold.expires())

    def suspect(self, token: str) -> None:
        """The store believes that a claim is gone: renew it now, and so find out. From any thread."""
        now = self._clock.now()
        with self._mutex:
            member = self._members.get(token)
            if member is None or member.hold is None:
                return
            member.next = min(member.next, now)
        self._beats.poke(now)

    def waiting(self) -> list[Waiter]:
        """The claims that wait."""
        with self._mutex:
            return [member for member in self._members.values() if isinstance(member, Waiter)]

    def look(self) -> None:
        """Look for what was collected or cut short. Takes no lock, so a finalizer may call it."""
        self._deadlines.nudge()

    def close(self) -> None:
        """Stop both threads; does not wait for them."""
        self._beats.close()
        self._deadlines.close()

    def join(self, timeout: float) -> None:
        """Wait for both threads to end, at most ``timeout`` seconds each."""
        self._beats.join(timeout)
        self._deadlines.join(timeout)

    # Of ten thousand holds hardly anything is in the processor's cache when they are due, so each object costs. The code here
    # reads only the member and a few fields of its hold.

    def _beat(self) -> float:
        """Renew what is due, and what is nearly due with it."""
        now = self._clock.now()
        with self._mutex:
            soon = [member for member in self._members.values() if member.next <= now + member.slack]
        members = []
        closing = self._closing()
        for member in soon:
            hold = member.hold
            if hold is not None and (hold.ended or hold.lost_why or (hold.dropped and not closing)):
                member.next = math.inf
            else:
                members.append(member)
        while members:
            together, members, budget = batch(members, self._clock.now(), self._request_timeout)
            before = [0.0 if member.hold is None else member.hold.basis for member in together]
            answered = self._perform(renewing(together, self._clock.now, budget, self._renewed))
            self._reschedule(together, before, answered=answered)
            members = self._still_there(members)
        with self._mutex:
            return min([member.next for member in self._members.values()], default=math.inf)

    def _still_there(self, members: list[Holding | Waiter]) -> list[Holding | Waiter]:
        """The members of a later batch that were not withdrawn while an earlier one was under way."""
        if not members:
            return members
        with self._mutex:
            return [member for member in members if self._members.get(member.beat[0].token) is member]

    def _reschedule(self, members: list[Holding | Waiter], before: list[float], *, answered: bool) -> None:
        now = self._clock.now()
        chance = jitter()  # one for all: what is near together is renewed together anyhow
        basis = ttl = after = 0.0
        for member, moved_from in zip(members, before, strict=True):
            hold = member.hold
            if not answered:
                member.failures += 1
                interval = member.slack / _COALESCE
                member.next = now + min(_RETRY * 2.0 ** min(member.failures - 1, 8), max(interval / 4, 0.02))
                continue
            member.failures = 0
            if hold is None:
                member.next = now + self._interval
            elif hold.basis == moved_from:
                member.next = now + min(_RETRY, member.slack)
            else:
                if hold.basis != basis or member.ttl != ttl:
                    basis, ttl = hold.basis, member.ttl
                    after = due(basis, ttl, chance, now)
                member.next = after

    def _look(self) -> float:
        again = self._overdue()
        return min(again, self._also(self._clock.now()))

    def _overdue(self) -> float:
        """Declare lost what has run out, whatever the heartbeat is doing."""
        now = self._clock.now()
        again = now + _MOMENT if self._tidy() else math.inf
        holds = self.holds()
        closing = self._closing()
        if self._look_at_releases(holds):
            again = min(again, now + _MOMENT)
        for hold in holds:
            if hold.in_hand and not (hold.closing or hold.ended or hold.lost_why or hold.process_bound):
                ends = hold.expires()
                if now < ends:
                    again = min(again, ends)
                    continue
            if hold.collected and not hold.closing:
                hold.dropped = True  # if its finalizer was cut short: it is not renewed any more
            if hold.ended or hold.lost_why:
                if hold.dropped:
                    self.withdraw(hold.claim.token)
                continue
            if hold.dropped and closing:
                continue  # the close releases it, with its hooks
            why = hold.overdue(now)
            if hold.dropped and now >= hold.expires():
                why = "collected"
            if why:
                self._perform(losing(hold, why))
                if hold.dropped:
                    self.withdraw(hold.claim.token)
            else:
                again = min(again, _next_deadline(hold, now))
        return again

    def _look_at_releases(self, holds: list[Hold]) -> bool:
        """Have releases resumed that were cut short; return whether to look again in a moment."""
        seen, self._given_up = self._given_up, set()
        given_up = [hold for hold in holds if (hold.closing or not hold.in_hand) and hold.given_up]
        for hold in {*given_up, *list(self.releasing)}:
            if hold.report is not None:
                self.releasing.pop(hold, None)
                continue
            self._given_up.add(hold)
            if hold in seen:  # not only just begun
                self._go_on(hold)
        return bool(self._given_up)


def _next_deadline(hold: Hold, now: float) -> float:
    """When to look at a hold again; a process-bound one that is silent is not lost, only not valid."""
    if hold.process_bound and not hold.dropped:
        terms = hold.claim.terms
        later = now + terms.ttl  # a release or a close of it may have been cut short
        return later if terms.max_hold is None else min(later, hold.since + terms.max_hold)
    return max(hold.expires(), now + 0.001)
